"""How long loading a checkpoint takes beside merely reading its file.

    python -m benchmarks.loading FILE [--threads 2] [--repeats 5]

All ways take turns in one process, the file being in the page cache; medians count, and the ratio to reading the file
once into new memory. Most of the time goes into the first touch of new memory, of which float32 needs twice what a
float16 file holds, so that is shown as well, less what is left from earlier rounds. safetensors' own loader is there
for reference: it maps the file and has read nothing when it returns, so it is also shown with one copy of every tensor.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from overpaint.models.checkpoint import load_checkpoint

Way = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ways = ways_of(args.file)
    args.file.read_bytes()  # into the page cache
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, way in ways.items():
            found[name].append(cost_of(way))
    report(args.file, found)


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    seconds: float
    cpu_seconds: float
    touched: float  # GiB of new memory, by page faults


def cost_of(way: Way) -> Cost:
    before, started, worked = _faults(), time.perf_counter(), time.process_time()
    result = way()
    cost = Cost(time.perf_counter() - started, time.process_time() - worked, (_faults() - before) / 2**30)
    del result
    return cost


def _faults() -> int:
    """Bytes, if no fault brought a large page."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize()


def ways_of(file: Path) -> dict[str, Way]:
    return {
        "read": partial(Path.read_bytes, file),
        "load_file": partial(load_file, file),
        "load_file, copied": lambda: {name: tensor.clone() for name, tensor in load_file(file).items()},
        "bfloat16": partial(load_checkpoint, file, dtype="bfloat16", hashing=False),
        "float32": partial(load_checkpoint, file, dtype="float32", hashing=False),
    }


def report(file: Path, found: dict[str, list[Cost]]) -> None:
    """Medians, and the median of the ratios within a round, which neighbours on the machine disturb least."""
    print(f"{file.name}, {file.stat().st_size / 2**30:.2f} GiB")
    print(f"{'median of':>18} {'seconds':>8} {'CPU seconds':>12} {'GiB touched':>12} {'of reading':>11}")
    for name, costs in found.items():
        ratio = statistics.median(own.seconds / read.seconds for own, read in zip(costs, found["read"], strict=True))
        wall = statistics.median(each.seconds for each in costs)
        work = statistics.median(each.cpu_seconds for each in costs)
        touched = statistics.median(each.touched for each in costs)
        print(f"{name:>18} {wall:8.2f} {work:12.2f} {touched:12.1f} {ratio:10.2f}x")


if __name__ == "__main__":
    main()
