"""What the launcher of an installation of the reference was told: its file is read, never run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ON_WINDOWS = os.name == "nt"
_LAUNCHER = "webui-user.bat" if _ON_WINDOWS else "webui-user.sh"
_ARGUMENTS = re.compile(r"^[ \t]*(?:export|set)[ \t]+(\"?)COMMANDLINE_ARGS=(.*?)\1[ \t]*$", re.MULTILINE)
_MOST_BYTES = 2**20


@dataclass(frozen=True)
class LaunchFlags:
    """Flags of folders and files with their values, in the order given; `source` is the file that has them."""

    source: Path | None = None
    values: tuple[tuple[str, Path], ...] = ()

    def all(self, flag: str) -> tuple[Path, ...]:
        return tuple(path for name, path in self.values if name == flag)

    def last(self, flag: str) -> Path | None:
        return next(reversed(self.all(flag)), None)


PLACES = frozenset(
    {"--data-dir", "--models-dir", "--ckpt-dir", "--ckpt", "--vae-dir", "--vae-path", "--lora-dir", "--embeddings-dir"}
    | {"--hypernetwork-dir", "--controlnet-dir", "--styles-file", "--ui-settings-file", "--ui-config-file"}
    | {f"--{kind}-models-path" for kind in ("esrgan", "realesrgan", "swinir", "scunet", "dat")}
)


def read_flags(root: Path, *, launcher: str = _LAUNCHER) -> LaunchFlags:
    """The flags of places in COMMANDLINE_ARGS; a relative one is meant from the installation's folder."""
    path = root / launcher
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return LaunchFlags()
    found = [match[2] for match in _ARGUMENTS.finditer(text.replace("\r\n", "\n"))]
    if not found:
        return LaunchFlags()
    words = _words(found[-1], launcher.endswith(".bat"))
    return LaunchFlags(path, tuple((flag, root / Path(value).expanduser()) for flag, value in _places(words)))


def _words(line: str, is_batch_file: bool) -> list[str]:
    """As the shell would split it; a line with an odd quotation mark is split at its spaces."""
    try:
        if is_batch_file:
            return [each.strip('"') for each in shlex.split(line, posix=False)]
        (inside,) = shlex.split(line)[:1] or [""]
        return shlex.split(os.path.expandvars(inside))
    except ValueError:
        return line.split()


def _places(words: list[str]) -> Iterator[tuple[str, str]]:
    following = iter(words)
    for word in following:
        flag, equals, value = word.partition("=")
        if flag in PLACES:
            given = value.strip('"') if equals else next(following, "")
            if given:
                yield flag, given
