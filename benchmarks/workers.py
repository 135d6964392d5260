"""One worker against several on the same queue: 40 small jobs of two checkpoints.

    python -m benchmarks.workers [--workers 2] [--jobs 40] [--rounds 3]

Each round serves the jobs with one worker and with several, in turn, one thread for each worker. Told are the ratio of
the times and how often workers came to another checkpoint for these jobs, which is no less than how often one was
read. The exit code is 1 if the median ratio is above 0.6 (for two workers on two idle cores), or if the several did so
more often than there are checkpoints.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.service.conftest import Server, start
from tests.tiny import make_tiny_checkpoint

NAMES = ("first", "second")
MOST_TIME = 0.6  # of one worker's


@dataclass(frozen=True)
class Served:
    """What came of a queue of jobs."""

    seconds: float
    switches: int  # for these jobs; what the workers start with is not among them
    by_worker: tuple[str, ...]  # the checkpoint that each used last


def served(models: Path, data: Path, workers: int, jobs: int) -> Served:
    """The jobs are handed in at once, the checkpoints by turns; the time is that until the last is done."""
    own = models.parent / "own.safetensors"
    options = ("--model", str(own), "--models", str(models), "--device", "cpu", "--workers", str(workers))
    server = start(data, *options, environment={"OMP_NUM_THREADS": "1"})
    try:
        _wait_for_all(server)
        with server.client(timeout=600.0, limits=httpx.Limits(max_connections=jobs)) as client:
            before = _switches(client)
            started = time.perf_counter()
            ids = [_submit(client, number) for number in range(jobs)]
            with ThreadPoolExecutor(jobs) as threads:
                list(threads.map(lambda each: _wait(client, each), ids))
            seconds = time.perf_counter() - started
            told = _workers(client)
        names = tuple(str((each["model"] or {}).get("name")) for each in told)
        return Served(seconds, sum(each["switches"] for each in told) - before, names)
    finally:
        server.close()


def make_models(folder: Path) -> Path:
    """Two small checkpoints, and a third beside them that the server starts with."""
    make_tiny_checkpoint(folder / "own.safetensors", seed=9)
    for seed, name in enumerate(NAMES, 1):
        make_tiny_checkpoint(folder / "models" / "Stable-diffusion" / f"{name}.safetensors", seed)
    return folder / "models"


def _submit(client: httpx.Client, number: int) -> str:
    small = {"prompt": "a lake", "width": 64, "height": 64, "steps": 20, "seed": number}
    answer = client.post("/v1/jobs", json={**small, "checkpoint": NAMES[number % len(NAMES)]})
    answer.raise_for_status()
    return str(answer.json()["id"])


def _wait(client: httpx.Client, job: str) -> None:
    """Its events end with it, so that nothing is asked again and again. One client for all: a new one costs as much of
    the processor as a quarter of a job."""
    client.get(f"/v1/jobs/{job}/events").raise_for_status()
    state = client.get(f"/v1/jobs/{job}").json()["state"]
    assert state == "finished", (job, state)


def _workers(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/workers").json()["workers"]
    return found


def _switches(client: httpx.Client) -> int:
    return sum(each["switches"] for each in _workers(client))


def _wait_for_all(server: Server) -> None:
    server.wait_ready()
    with server.client() as client:
        while any(each["state"] != "READY" for each in _workers(client)):
            time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ratios, is_kept = list[float](), True
    with tempfile.TemporaryDirectory() as folder:
        models = make_models(Path(folder))
        for number in range(args.rounds):
            one, several = (
                served(models, Path(folder) / f"data{number}-{count}", count, args.jobs) for count in (1, args.workers)
            )
            ratios.append(several.seconds / one.seconds)
            is_kept = is_kept and several.switches <= len(NAMES)
            for count, each in ((1, one), (args.workers, several)):
                names = ", ".join(each.by_worker)
                print(f"{count} worker(s): {each.seconds:.1f} s, {each.switches} switches, last {names}", end="; ")
            print(f"ratio {ratios[-1]:.2f}")
    print(f"median {statistics.median(ratios):.2f} of one worker's time")
    return 0 if is_kept and statistics.median(ratios) <= MOST_TIME else 1


if __name__ == "__main__":
    sys.exit(main())
