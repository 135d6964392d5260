"""A batch on Ray with engines that only sleep, as a process of its own that may be killed.

    python -m tests.unit.cluster.ray_run SOURCE OUT ADDRESS [--painters 2] [--seconds 0.5] [--seen FOLDER]

Prints one object of JSON: what became of the rows, when, and the most memory that this process had. Each picture that
is painted leaves a file in SEEN.
"""

from __future__ import annotations

import argparse
import json
import resource
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from overpaint.cluster.handing_out import Patience
from overpaint.cluster.ray_batch import RayBatch
from overpaint.cluster.ray_head import connected
from overpaint.cluster.room import RoomAsked
from overpaint.errors import OverpaintError
from overpaint.files.batch import Batch, RowFailed, RowPainted, RowSkipped
from overpaint.files.listed_rows import rows_of
from overpaint.stores import StoreFile, file_named
from tests.unit.fake_painter import STEPS, FakePainter


@contextmanager
def sleeper(seconds: float, seen: Path | None) -> Iterator[FakePainter]:
    """The picture's time is that of a graphics card: no core is kept busy."""

    def step(number: int) -> None:
        time.sleep(seconds / STEPS)
        if seen is not None and number % STEPS == 0:
            (seen / secrets.token_hex(8)).touch()

    yield FakePainter(step)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=file_named)
    parser.add_argument("out", type=file_named)
    parser.add_argument("address")
    parser.add_argument("--painters", default="1")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--seen", type=Path)
    given = parser.parse_args(arguments)
    batch = RayBatch(
        batch=Batch(out=given.out, fields={"seed": 3}),
        opener=partial(sleeper, given.seconds, given.seen),
        room=RoomAsked.parse(given.painters, 0, 1),
        is_in_stores=all(isinstance(each, StoreFile) for each in (given.source, given.out)),
        patience=Patience(to_start=240.0, silence=240.0),
    )
    started = time.monotonic()
    told: Counter[str] = Counter()
    marks: dict[str, Any] = {}
    problems: list[str] = []
    try:
        rows = rows_of(given.source, given.out)
        marks["read"] = time.monotonic() - started
        with connected(given.address) as ray:
            marks["connected"] = time.monotonic() - started
            for event in batch.run(ray, rows):
                if isinstance(event, RowPainted | RowSkipped | RowFailed):
                    told[type(event).__name__] += 1
                    marks.setdefault("first", time.monotonic() - started)
                    marks["last"] = time.monotonic() - started
                if isinstance(event, RowFailed):
                    problems.append(str(event.error))
            marks["told"] = time.monotonic() - started
    except OverpaintError as error:
        problems.append(f"{type(error).__name__}: {error}")
    marks["ended"] = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"told": told, "marks": marks, "problems": problems[:20], "peak_mib": peak}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
