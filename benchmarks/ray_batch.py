"""What a batch on Ray costs and survives, on nodes that are processes of this machine, the GPU played by a sleep.

    python -m benchmarks.ray_batch speed [--rows 200] [--seconds 0.5]
    python -m benchmarks.ray_batch empty [--rows 100000]
    python -m benchmarks.ray_batch kills [--kills 30] [--rows 200]

The exit code is 1 if a figure is beyond what is promised. Linux only: processes are found in /proc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from overpaint.files.batch import Batch, RowPainted, run_batch
from overpaint.files.journal import JOURNAL_NAME, Journal
from overpaint.files.rows import read_rows
from tests.unit.cluster.ray_nodes import ROOT, LocalNodes, kill_process, local_nodes, processes_below
from tests.unit.cluster.ray_run import sleeper

LEAST_SPEED_UP, MOST_OVERHEAD = 1.8, 0.10
MOST_SECONDS_EMPTY, MOST_MIB = 60.0, 400.0
PATIENCE = 600.0


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        color = (number % 256, number // 256 % 256, 50)
        Image.new("RGB", (64, 64), color).save(folder / f"p{number:05}.png")
    return folder


def plain(source: Path, out: Path, seconds: float) -> float:
    """Seconds of the batch without Ray, in this process, from its first row on."""
    batch = Batch(out=out, fields={"seed": 3})
    rows = read_rows(source, out)
    with sleeper(seconds, None) as painter:
        started = time.monotonic()
        painted = sum(isinstance(each, RowPainted) for each in run_batch(rows, batch, lambda: painter))
    assert painted == len(rows)
    return time.monotonic() - started


def contents(folder: Path) -> dict[str, str]:
    found = (each for each in folder.rglob("*") if each.is_file() and each.name != JOURNAL_NAME)
    return {str(each.relative_to(folder)): hashlib.sha256(each.read_bytes()).hexdigest() for each in found}


class Driver:
    """The command, as a process."""

    def __init__(self, nodes: LocalNodes, source: Path, out: Path, *options: str) -> None:
        command = [sys.executable, "-m", "tests.unit.cluster.ray_run", str(source), str(out), nodes.address, *options]
        self.process = subprocess.Popen(
            command, env=nodes.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def told(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=PATIENCE)
        if self.process.returncode != 0:
            raise RuntimeError(err[-2000:])
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
        return told

    def kill(self) -> None:
        """Nothing is tidied up there; its pipes are, here."""
        kill_process(self.process.pid)
        self.process.communicate(timeout=PATIENCE)


def span(told: Mapping[str, Any]) -> float:
    """Seconds from the first row that was told of to the last one."""
    return float(told["marks"]["last"] - told["marks"]["first"])


def speed(folder: Path, rows: int, seconds: float) -> bool:
    source = pictures(folder / "in", rows)
    alone = plain(source, folder / "plain", seconds)
    spans = {}
    with local_nodes(2) as nodes:
        for painters in (1, 2):
            out = folder / f"out{painters}"
            told = Driver(nodes, source, out, "--painters", str(painters), "--seconds", str(seconds)).told()
            assert told["told"] == {"RowPainted": rows}, told
            assert contents(out) == contents(folder / "plain"), "other files than the plain batch's"
            # The first rows are what the span does not hold: as many as there are painters.
            spans[painters] = span(told) * rows / (rows - painters)
            print(f"{painters} painters: {told['marks']}, {told['peak_mib']:.0f} MiB", flush=True)
    overhead, faster = spans[1] / alone - 1, spans[1] / spans[2]
    print(f"plain {alone:.1f} s, one painter {spans[1]:.1f} s ({overhead:+.1%}), two {spans[2]:.1f} s ({faster:.2f}x)")
    return faster >= LEAST_SPEED_UP and overhead <= MOST_OVERHEAD


def empty(folder: Path, rows: int) -> bool:
    """Rows that are refused at once: all that is left is what handing out costs."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "rows.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(json.dumps({"picture": f"gone/p{number}.png", "prompt": "a winter evening"}) + "\n")
    with local_nodes(2) as nodes:
        told = Driver(nodes, source, folder / "out", "--painters", "2").told()
    assert told["told"] == {"RowFailed": rows}, told["told"]
    marks = told["marks"]
    beyond = marks["ended"] - marks["first"] + marks["read"]
    print(f"{rows} empty rows: {beyond:.1f} s beyond start-up, {told['peak_mib']:.0f} MiB; {marks}")
    return bool(beyond < MOST_SECONDS_EMPTY and told["peak_mib"] < MOST_MIB)


def kills(folder: Path, rows: int, count: int, seed: int = 1) -> bool:
    """A painter, a machine or who hands out is killed, at any moment; then the same command goes on to the end."""
    rng = random.Random(seed)
    source, seen = pictures(folder / "in", rows), folder / "seen"
    seen.mkdir()
    plain(source, folder / "plain", 0.0)
    options = ("--painters", "2", "--seconds", "0.3", "--seen", str(seen))
    done: dict[str, int] = {}
    with local_nodes(2) as nodes:
        driver = Driver(nodes, source, folder / "out", *options)
        while sum(done.values()) < count and driver.process.poll() is None:
            _until_painted(seen, rng.randint(1, 9), driver)
            time.sleep(rng.uniform(0.0, 0.5))
            kind = rng.choice(["painter", "painter", "machine", "driver"])
            painters = [pid for node in nodes.nodes for pid, name in processes_below(node.pid) if "RayPainter" in name]
            if not painters:
                continue
            if kind == "painter":
                kill_process(rng.choice(painters))
            elif kind == "machine":
                nodes.kill(len(nodes.nodes) - 1)
                nodes.add()
            else:
                driver.kill()
                driver = Driver(nodes, source, folder / "out", *options)
            done[kind] = done.get(kind, 0) + 1
            print(f"killed {done}, {len(list(seen.iterdir()))} painted", flush=True)
        last = driver.told()
        print("the last one", last)
        painted = len(list(seen.iterdir()))
        again = Driver(nodes, source, folder / "out", *options).told()
    is_same = contents(folder / "out") == contents(folder / "plain")
    repainted = len(list(seen.iterdir())) - painted
    print(f"{done} killed; {painted} paintings of {rows} rows; {'the same' if is_same else 'OTHER'} files as the plain")
    print(f"batch; the same command again: {again['told']}, {repainted} painted")
    with Journal(folder / "out"):
        pass  # nobody writes any more
    return is_same and repainted == 0 and again["told"] == {"RowSkipped": rows}


def _until_painted(seen: Path, more: int, driver: Driver) -> None:
    """Nothing would ever be painted if the next kill came while what was killed starts again."""
    wanted = len(list(seen.iterdir())) + more
    end = time.monotonic() + PATIENCE
    while len(list(seen.iterdir())) < wanted and driver.process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "empty", "kills"])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--kills", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rb-") as name:
        folder = Path(name)
        if given.what == "speed":
            is_kept = speed(folder, given.rows or 200, given.seconds)
        elif given.what == "empty":
            is_kept = empty(folder, given.rows or 100_000)
        else:
            is_kept = kills(folder, given.rows or 200, given.kills)
    print("kept" if is_kept else "NOT kept")
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
