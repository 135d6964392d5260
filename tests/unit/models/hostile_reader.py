"""Reads hostile files, each in a process of its own that may take little memory and time.

python -m tests.unit.models.hostile_reader FOLDER      prints {file: what became of it} as JSON
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from overpaint.adapters.embedding_files import read_embedding
from overpaint.errors import CheckpointError
from overpaint.models.files import read_checkpoint
from overpaint.models.header import Said, read_sidecar, safetensors_header, safetensors_shapes
from overpaint.models.opened import open_model
from overpaint.models.unpickle import load_pickle

MEMORY = 512 * 2**20  # bytes that a reader may add to what the process has
SECONDS = 20  # of the processor; an honest reader takes a few at most, an endless one more than there are
LONGEST = 600  # characters of an error


def checkpoint(path: Path) -> None:
    weights = open_model(path)
    Said(weights.metadata, {})
    for _ in weights.read(weights.shapes):
        pass


def plain_checkpoint(path: Path) -> None:
    weights = read_checkpoint(path)
    for _ in weights.read(weights.shapes):
        pass


def sidecar(path: Path) -> None:
    Said({}, read_sidecar(path) or {})


READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    ".pt": (checkpoint, load_pickle, read_embedding),
    ".safetensors": (checkpoint, safetensors_header, safetensors_shapes, read_embedding),
    ".gguf": (checkpoint,),
    ".yaml": (sidecar,),
    ".ckpt": (plain_checkpoint,),
}


def outcome(path: Path) -> str:
    """ "read", "refused", or what went wrong; of the first reader with which something did."""
    is_read = False
    for reader in READERS[path.suffix]:
        said = _outcome(reader, path)
        if said not in ("read", "refused"):
            return f"{reader.__name__} {said}"
        is_read |= said == "read"
    return "read" if is_read else "refused"


def _outcome(reader: Callable[[Path], object], path: Path) -> str:
    try:
        reader(path)
    except CheckpointError as error:
        if len(str(error)) > LONGEST or "\n" in str(error):
            return f"gave an error of {len(str(error))} characters"
        return "refused"
    except BaseException as error:
        return f"raised {type(error).__name__}: {error!s:.200}"
    return "read"


def in_own_process(path: Path) -> str:
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        held = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        os.write(mouth, outcome(path).encode()[:4000])
        os._exit(0)
    os.close(mouth)
    with os.fdopen(ear, "rb") as answers:
        told = answers.read().decode()
    _, status = os.waitpid(child, 0)
    return told if status == 0 else f"ended with status {status}"


def main(paths: Iterable[Path]) -> None:
    json.dump({path.name: in_own_process(path) for path in paths}, sys.stdout)


if __name__ == "__main__":
    main(sorted(Path(sys.argv[1]).iterdir()))
