"""Kills the plain batch at any moment, and gives the same command again, until its pictures are there: into a folder,
or from one object store to another by moto's server.

    python -m tests.unit.store_kills s3 --kills 30
    python -m tests.unit.store_kills folder --kills 30

Each painting leaves a mark, so that paintings are counted. The exit code is 1 if a picture was lost, doubled or torn,
or if a finished row was painted again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from overpaint.files.batch import Batch
from tests.unit.files.test_batch import contents, paint_all
from tests.unit.s3_store import ROOT, local_s3

# What the process that is killed is told beforehand: paint so slowly, and leave a mark when a row is painted.
_BATCH = """
import secrets, sys, time
from pathlib import Path
from overpaint.cli import main, session
from tests.unit.fake_painter import STEPS, FakePainter
marks, seconds = Path(sys.argv[1]), float(sys.argv[2])
def step(number):
    time.sleep(seconds / STEPS)
    if number % STEPS == 0:
        (marks / secrets.token_hex(8)).touch()
painter = FakePainter(step)
session.open_engine = lambda *args: painter
sys.exit(main(sys.argv[3:]))
"""


@dataclass(frozen=True)
class KilledPlace:
    """Where a batch is killed, and what lies there."""

    source: str
    out: str
    environment: Mapping[str, str]
    results: Callable[[], dict[str, bytes]]


@dataclass(frozen=True)
class KillTally:
    """What came of it."""

    kills: Counter[str]  # by what the batch was at
    rows: int
    paintings: int
    is_same: bool  # as the batch that nobody killed
    again: int  # paintings of the same command, given once more

    @property
    def is_kept(self) -> bool:
        """A kill costs the row that was painted, and nothing else."""
        return self.is_same and self.again == 0 and self.rows <= self.paintings <= self.rows + self.kills.total()


def killed_batch(place: KilledPlace, folder: Path, rows: int, kills: int, seconds: float, seed: int = 1) -> KillTally:
    """Each kill comes some time after a row was told of, or painted."""
    rng, marks = random.Random(seed), folder / "marks"
    marks.mkdir()
    done: Counter[str] = Counter()
    while done.total() < kills:
        with _started(place, folder, seconds) as process:
            moment = rng.choice(["reading", "painting", "writing"])
            is_at_it = _wait_for(moment, process, folder, rng, seconds)
            process.kill()
        if not is_at_it:
            break
        done[moment] += 1
    _finish(place, folder, seconds)
    paintings = _count(marks)
    results = place.results()
    _finish(place, folder, seconds)
    return KillTally(done, rows, paintings, results == contents(folder / "whole"), _count(marks) - paintings)


def _wait_for(moment: str, process: subprocess.Popen[bytes], folder: Path, rng: random.Random, seconds: float) -> bool:
    """Until it is at it; False if it has ended. What is waited for is what it did, not a time."""
    marks, told = folder / "marks", folder / "told.jsonl"
    wanted = _count(marks) + rng.randint(1, 3)
    # When it has told of a first row, it reads the next one.
    while not told.stat().st_size if moment == "reading" else _count(marks) < wanted:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    # A mark is left when a row is painted, and before it is written.
    if moment != "reading":
        time.sleep(rng.uniform(0.0, 0.05) if moment == "writing" else rng.uniform(0.0, 2 * seconds))
    return True


def _count(marks: Path) -> int:
    return sum(1 for _ in marks.iterdir())


@contextmanager
def _started(place: KilledPlace, folder: Path, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", _BATCH, str(folder / "marks"), str(seconds), "batch", place.source, place.out]
    with (
        (folder / "told.jsonl").open("wb") as told,
        (folder / "said.txt").open("ab") as said,
        subprocess.Popen(
            [*command, "--seed", "3", "--json"], env=place.environment, cwd=ROOT, stdout=told, stderr=said
        ) as process,
    ):
        yield process


def _finish(place: KilledPlace, folder: Path, seconds: float) -> None:
    with _started(place, folder, seconds) as process:
        process.wait()
    told = (folder / "told.jsonl").read_text(encoding="utf-8").splitlines()
    assert told, (folder / "said.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
    last = json.loads(told[-1])
    assert last["state"] == "finished" and last["failed"] == 0, last


def prepared(folder: Path, rows: int) -> Path:
    """The sources, and beside them what the batch makes of them that nobody kills."""
    from overpaint.cli.options import GivenOptions

    source = folder / "in"
    source.mkdir()
    for number in range(rows):
        Image.new("RGB", (32, 24), (number % 256, number // 256, 50)).save(source / f"p{number:03}.png")
    paint_all(source, Batch(out=folder / "whole", fields={"seed": 3}, settings=GivenOptions({}).settings()))
    return source


def kill_in(what: str, folder: Path, rows: int, kills: int, seconds: float) -> KillTally:
    source = prepared(folder, rows)
    if what == "folder":
        out = folder / "out"
        place = KilledPlace(str(source), str(out), {**os.environ, "PYTHONPATH": str(ROOT)}, lambda: contents(out))
        return killed_batch(place, folder, rows, kills, seconds)
    with local_s3(folder) as store:
        store.fill("in", source)
        place = KilledPlace("s3://bucket/in", "s3://bucket/out", store.environment, lambda: store.contents("out"))
        return killed_batch(place, folder, rows, kills, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["s3", "folder"])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=0.1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sk-") as name:
        tally = kill_in(given.what, Path(name), given.rows, given.kills, given.seconds)
    print(tally, "kept" if tally.is_kept else "NOT kept", flush=True)  # noqa: T201
    return 0 if tally.is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
