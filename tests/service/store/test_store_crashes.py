"""Killed at any moment, and with no room on the disk: what the store has said is done, stays done.

`OVERPAINT_KILL_POINTS=1000 pytest tests/service/test_store_crashes.py` is the long form.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from overpaint.service.jobs import JobState
from overpaint.service.store.sqlite_store import JobStore
from tests.service.store.store_hammer import LIMITS, batch_of, job_of, picture_of, source_of

ROOT = Path(__file__).resolve().parents[3]
POINTS = int(os.environ.get("OVERPAINT_KILL_POINTS", "30"))
MOST_SAID = 160  # lines, before a life ends
LATEST = 0.01  # seconds after the last of them

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are made by fork here")


@dataclass
class Told:
    """What the store said of one job."""

    attempts: int = 0
    batches: set[int] = field(default_factory=set)
    events: dict[int, str] = field(default_factory=dict)
    end: tuple[str, int] | None = None  # the state, and how many pictures
    gone: bool = False


@dataclass
class Witness:
    """Everything that was said in all lives."""

    jobs: dict[str, Told] = field(default_factory=dict)
    lives: int = 0
    lines: int = 0

    def hear(self, what: str, *values: Any) -> None:
        self.lines += 1
        getattr(self, f"_hear_{what}")(*values)

    def _hear_recovered(self, names: list[str]) -> None:
        for name in names:
            assert name not in self.jobs or self.jobs[name].end is None, f"{name} runs again after its end"

    def _hear_accept(self, name: str) -> None:
        assert name not in self.jobs
        self.jobs[name] = Told()

    def _hear_start(self, name: str, attempts: int) -> None:
        told = self._of(name)
        assert attempts > told.attempts
        assert told.end is None, f"{name} runs again after its end"
        told.attempts = attempts

    def _hear_keep(self, name: str, number: int) -> None:
        told = self._of(name)
        assert number not in told.batches, f"batch {number} of {name} was painted twice"
        told.batches.add(number)

    def _hear_end(self, name: str, state: str, pictures: int) -> None:
        self._of(name).end = (state, pictures)

    def _hear_event(self, name: str, number: int, event: str) -> None:
        told = self._of(name)
        assert number > max(told.events, default=0), f"number {number} was given twice"
        told.events[number] = event

    def _hear_expire(self, names: list[str]) -> None:
        for name in names:
            self._of(name).gone = True

    def _hear_broken(self, traceback: str) -> None:
        raise AssertionError(traceback)

    def _of(self, name: str) -> Told:
        """A job whose acceptance a kill kept from being said may be heard of all the same."""
        return self.jobs.setdefault(name, Told())


def check(store: JobStore, witness: Witness) -> None:
    """Everything that was said is so, nothing is torn, and no file is left that nobody names."""
    assert not store.integrity_check()
    store.recover()
    assert not store.records(states=[JobState.RUNNING])
    for name, told in witness.jobs.items():
        _check_job(store, name, told)
    for path in store.data.glob("**/.*"):
        raise AssertionError(f"{path} was left over")
    records = {each.id: each for each in store.records(limit=100_000)}
    for folder in (store.data / "results").iterdir():
        assert not records[folder.name].gone
        for path in folder.iterdir():
            assert path.read_bytes() == picture_of(folder.name, int(path.stem)), f"{path} is torn"


def _check_job(store: JobStore, name: str, told: Told) -> None:
    record = store.get(name)
    assert record is not None, f"{name} is lost"
    wanted = job_of(name, str(record.job.request["images"][0]))
    assert record.job == replace(wanted, created=record.job.created)
    assert record.attempts >= told.attempts
    kept = store.events_after(name, 0)
    numbers = [each.number for each in kept]
    assert numbers == sorted(set(numbers)), "a number comes twice"
    have = {each.number: each.name for each in kept}
    assert all(have.get(number, name) == name for number, name in told.events.items())
    assert have.keys() >= {number for number, name in told.events.items() if name != "progress"}
    if told.end is not None:
        assert (record.state.value, len(record.result.pictures)) == told.end
    if told.gone:
        assert record.gone
    if not record.gone:
        batches = {each.number: each for each in store.batches(name)}
        assert all(batches.get(number) == batch_of(name, number) for number in told.batches), f"{name} lost a batch"
        for each in (one for batch in batches.values() for one in batch.pictures):
            assert store.result_file(name, each.file).read_bytes() == picture_of(name, each.number)
    if not record.state.is_end:
        assert store.picture(record.job.request["images"][0]) == source_of(name)


@contextmanager
def hammer() -> Iterator[Callable[[Path, str, int, float], list[list[Any]]]]:
    """Gives lives to the hammer: where, by which seed, for how many lines and how long after; and what it said.

    So lives are as full of work on a busy machine as on an idle one.
    """
    command = [sys.executable, "-m", "tests.service.store.store_hammer"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        given, said = process.stdin, process.stdout

        def live(folder: Path, seed: str, lines: int, seconds: float) -> list[list[Any]]:
            given.write(f"{folder} {seed}\n".encode())
            given.flush()
            born = json.loads(said.readline())
            while born[0] != "born":  # the child may be the first to speak
                early.append(born)
                born = json.loads(said.readline())
            heard, early[:] = [*early], []
            while len(heard) < lines:
                heard.append(json.loads(said.readline()))
                assert heard[-1] != ["dead"], heard
            time.sleep(seconds)
            os.kill(born[1], signal.SIGKILL)
            while (line := json.loads(said.readline())) != ["dead"]:
                heard.append(line)
            return heard

        early: list[list[Any]] = []
        yield live
        given.close()


def test_what_is_said_to_be_done_outlives_a_kill_at_any_moment(tmp_path: Path) -> None:
    witness, rng, slowest = Witness(), random.Random(20), 0.0
    with hammer() as live:
        for point in range(POINTS):
            folder = tmp_path / f"data{point % 2}"  # two stories of many lives each
            for what, *values in live(folder, f"{point}", rng.randint(0, MOST_SAID), rng.uniform(0.0, LATEST)):
                witness.hear(what, *values)
            witness.lives += 1
            started = time.monotonic()
            store = JobStore(folder, LIMITS)
            slowest = max(slowest, time.monotonic() - started)
            mine = {name: told for name, told in witness.jobs.items() if int(name.split("-")[0]) % 2 == point % 2}
            check(store, Witness(jobs=mine))
            store.close()
    assert witness.lives == POINTS
    told = witness.jobs.values()
    reached = [any(each.batches for each in told), any(each.end for each in told), any(each.gone for each in told)]
    assert all(reached), "the hammer did too little for this to prove anything"
    assert slowest < 3.0
    sys.stdout.write(f"{POINTS} kills, {witness.lines} acknowledgements, {len(witness.jobs)} jobs, ")
    sys.stdout.write(f"opened again in at most {slowest:.3f} s\n")


FULL_DISK = """
    import json, resource, sys
    from pathlib import Path
    from overpaint.errors import SaveError
    from overpaint.service.jobs import Job
    from overpaint.service.limits import Limits
    from overpaint.service.store.sqlite_store import JobStore

    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    store = JobStore(folder, Limits(waiting=10_000, waiting_per_client=10_000))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    done, errors = [], []

    def attempt(name, call):
        try:
            call()
        except SaveError as error:
            errors.append(str(error))
        else:
            done.append(name)

    def accept(name):
        attempt(name, lambda: store.accept(Job(id=name, kind="paint", request={"prompt": name * 5000}, settings={})))

    for i in range(200):
        accept(f"full{i}")
    attempt("option", lambda: store.set_option("x", "y" * limit))
    attempt("picture", lambda: store.put_picture(b"x" * (limit + 1)))
    seen = [each.id for each in store.waiting()]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    accept("afterwards")
    assert not store.integrity_check(), store.integrity_check()
    store.close()
    print(json.dumps([done, errors, seen]))
"""


@pytest.mark.parametrize("limit", [150_000, 400_000, 1_000_000])
def test_a_full_disk_is_an_error_and_no_damage(tmp_path: Path, limit: int) -> None:
    pytest.importorskip("resource")
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path), str(limit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    done, errors, seen = json.loads(result.stdout)
    assert "afterwards" in done
    assert {"option", "picture"}.isdisjoint(done)
    assert len(errors) >= 3
    assert all("\n" not in each and ": " in each for each in errors)
    assert seen == [each for each in done if each.startswith("full")], "what was not accepted is not there"
    store = JobStore(tmp_path)
    assert not store.integrity_check()
    store.recover()
    assert [each.id for each in store.waiting()] == done
    assert not [path for path in (tmp_path / "inputs").glob("*/*") if path.is_file()]
    store.close()
