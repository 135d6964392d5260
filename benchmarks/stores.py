"""What a store of jobs carries: jobs accepted, claimed and ended, events told, result bytes kept, each a second.

    python -m benchmarks.stores [--jobs 400] [--at-once 1 4]

SQLite is used by one process, so its threads share one store, as the desk's do. PostgreSQL is started as for the tests,
but it syncs to disk; each thread has a store of its own, as each worker has. One line of JSON a measurement.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overpaint.files.saving import save_bytes
from overpaint.service.jobs import DoneBatch, Job, JobState, Live, ResultPicture
from overpaint.service.limits import Limits
from overpaint.service.shared_ports import WantedJob
from overpaint.service.store.sqlite_store import JobStore
from tests.service.store import postgres_cluster

LIMITS = Limits(waiting=1_000_000, waiting_per_client=1_000_000)
PICTURE_BYTES = 400_000  # a PNG of 512x512
EVENTS_A_JOB = 5
LEASE = 60.0


def job(name: str) -> Job:
    return Job(id=name, kind="paint", request={"prompt": "a winter evening"}, settings={}, client=name[:8], key=name)


class Measured:
    """Several stores, or one several times, worked on at once; each thread has its own jobs."""

    def __init__(self, stores: Sequence[Any], jobs: int) -> None:
        self._stores = stores
        self._names = [[secrets.token_hex(8) for _ in range(jobs // len(stores))] for _ in stores]
        self._fences: dict[str, int] = {}
        self._waits: list[float] = []

    def figures(self) -> dict[str, float]:
        jobs = sum(map(len, self._names))
        found = {"accepted": jobs / self._all(self._accept)}
        found["accept p50 ms"], found["accept p99 ms"] = (quantile(self._waits, each) * 1e3 for each in (0.5, 0.99))
        found["claimed"] = jobs / self._all(self._claim)
        found["events"] = jobs * EVENTS_A_JOB / self._all(self._tell)
        found["result MB"] = jobs * PICTURE_BYTES / 1e6 / self._all(self._keep)
        found["ended"] = jobs / self._all(self._end)
        return {name: round(each, 1) for name, each in found.items()}

    def _accept(self, store: Any, name: str) -> None:
        started = time.perf_counter()
        store.accept(job(name))
        self._waits.append(time.perf_counter() - started)

    def _claim(self, store: Any, name: str) -> None:
        """By its name where one process knows all that wait; in the shared store the one whose turn it is."""
        if hasattr(store, "claim_next"):
            claim = store.claim_next(WantedJob(host="w", lease_seconds=LEASE, models=[""]))
        else:
            claim = store.claim(name, "w", LEASE)
        assert claim is not None
        self._fences[claim.record.id] = claim.fence

    def _tell(self, store: Any, name: str) -> None:
        for step in range(EVENTS_A_JOB):
            store.progress(Live(job=name, step=step + 1, steps=20), fence=self._fences[name])

    def _keep(self, store: Any, name: str) -> None:
        save_bytes(store.result_file(name, "0.png"), secrets.token_bytes(PICTURE_BYTES), replace=True)
        pictures = (ResultPicture(number=0, file="0.png"),)
        store.keep_batch(name, DoneBatch(number=0, pictures=pictures, notes={}), fence=self._fences[name])

    def _end(self, store: Any, name: str) -> None:
        store.end(name, JobState.CANCELLED, time.time(), fence=self._fences[name])

    def _all(self, deed: Callable[[Any, str], object]) -> float:
        def part(number: int) -> None:
            for name in self._names[number]:
                deed(self._stores[number], name)

        started = time.perf_counter()
        with ThreadPoolExecutor(len(self._stores)) as threads:
            list(threads.map(part, range(len(self._stores))))
        return time.perf_counter() - started


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


@contextmanager
def sqlite(folder: Path, at_once: int) -> Iterator[list[Any]]:
    store = JobStore(folder, LIMITS)
    try:
        yield [store] * at_once
    finally:
        store.close()


@contextmanager
def postgres(folder: Path, at_once: int) -> Iterator[list[Any]]:
    from overpaint.service.store.postgres_store import PostgresStore

    stores: list[Any] = []
    with _durable_cluster() as cluster:
        address = cluster.database()
        try:
            stores.extend(PostgresStore(address, folder, LIMITS) for _ in range(at_once))
            yield stores
        finally:
            for each in stores:
                each.close()


@contextmanager
def _durable_cluster() -> Iterator[postgres_cluster.Cluster]:
    """The tests' own does not sync; this one does."""
    programs = postgres_cluster.programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    cluster = postgres_cluster.Cluster(programs)
    try:
        cluster.start(durable=True)
        yield cluster
    finally:
        cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4])
    given = parser.parse_args()
    for opened, at_once in itertools.product((sqlite, postgres), given.at_once):
        with tempfile.TemporaryDirectory() as folder, opened(Path(folder), at_once) as stores:
            figures = Measured(stores, given.jobs).figures()
        print(json.dumps({"store": opened.__name__, "at once": at_once, **figures}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
