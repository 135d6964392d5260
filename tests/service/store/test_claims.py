"""Who runs a job: a claim is for one worker and for a time, and what is written under a claim that is void is not."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint.service.jobs import Claim, DoneBatch, JobState, Live
from overpaint.service.ports import ClaimLost
from overpaint.service.store import database
from overpaint.service.store.sqlite_store import JobStore
from overpaint.service.store.store_on_tables import StoreOnTables
from tests.service.fake_store import FakeStore
from tests.service.store.store_tools import Clock, Stores, finished, job, painted


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def store(stores: Stores, clock: Clock) -> StoreOnTables:
    """Of each kind."""
    return stores.open(clock=clock)


def claimed(store: StoreOnTables, worker: str, seconds: float = 30.0, name: str = "a") -> Claim:
    claim = store.claim(name, worker, seconds)
    assert claim is not None
    return claim


def test_one_worker_has_a_job_until_its_lease_runs_out(store: StoreOnTables, clock: Clock) -> None:
    store.accept(job())
    first = claimed(store, "one")
    assert (first.record.state, first.record.attempts, first.worker) == (JobState.RUNNING, 1, "one")
    assert store.claim("a", "two", 30.0) is None
    clock.now += 29.9
    assert store.claim("a", "two", 30.0) is None
    assert store.renew(first, 30.0)
    clock.now += 29.9
    assert store.claim("a", "two", 30.0) is None
    clock.now += 0.1
    second = claimed(store, "two")
    assert (second.fence, second.record.attempts) == (first.fence + 1, 2)
    assert not store.renew(first, 30.0)
    assert store.renew(second, 30.0)


def test_a_worker_may_claim_again_what_it_has(store: StoreOnTables) -> None:
    """The disk may have said no to a claim that it took all the same."""
    store.accept(job())
    first, second = claimed(store, "one"), claimed(store, "one")
    assert second.fence > first.fence and not store.renew(first, 30.0)


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("what", ["progress", "keep_batch", "end", "requeue", "add_event"])
def test_what_is_written_under_a_void_claim_is_not(tmp_path: Path, store: StoreOnTables, what: str, fake: bool) -> None:
    kept: Any = FakeStore(tmp_path) if fake else store
    kept.accept(job())
    old, batch = claimed(kept, "one"), DoneBatch(number=0, pictures=(painted(kept, "a", 0),))
    new = claimed(kept, "one")
    writes: dict[str, Callable[[int], Any]] = {
        "progress": lambda fence: kept.progress(Live(job="a", step=1, steps=5), fence=fence),
        "keep_batch": lambda fence: kept.keep_batch("a", batch, fence=fence),
        "end": lambda fence: kept.end("a", JobState.FINISHED, 2.0, fence=fence),
        "requeue": lambda fence: kept.requeue("a", fence=fence),
        "add_event": lambda fence: kept.add_event("a", "preview", {}, 2.0, fence=fence),
    }
    before = (kept.get("a"), kept.batches("a"), kept.events_after("a", 0))
    with pytest.raises(ClaimLost, match="another worker"):
        writes[what](old.fence)
    assert (kept.get("a"), kept.batches("a"), kept.events_after("a", 0)) == before
    writes[what](new.fence)
    assert (kept.get("a"), kept.batches("a"), kept.events_after("a", 0)) != before


def test_the_first_end_counts_whoever_comes_late(store: StoreOnTables) -> None:
    """An end that was written down although the disk said no is no loss of the claim."""
    store.accept(job())
    claim = claimed(store, "one")
    ended = store.end("a", JobState.FINISHED, 2.0, fence=claim.fence)
    again = store.end("a", JobState.FINISHED, 2.0, fence=claim.fence)
    assert (again.record, again.event) == (ended.record, None)
    with pytest.raises(ClaimLost):
        store.progress(Live(job="a", step=1, steps=5), fence=claim.fence)


def test_what_waits_again_is_nobodys(store: StoreOnTables) -> None:
    store.accept(job())
    claim = claimed(store, "one")
    store.requeue("a", fence=claim.fence)
    assert not store.renew(claim, 30.0)
    with pytest.raises(ClaimLost):
        store.end("a", JobState.FAILED, 2.0, fence=claim.fence)
    assert claimed(store, "two").fence == claim.fence + 1


def test_a_start_takes_back_whatever_was_claimed(tmp_path: Path, clock: Clock) -> None:
    """One server has a data folder at a time: who ran something there is gone, however long its lease."""
    store = JobStore(tmp_path / "data", uptime=clock)
    store.accept(job())
    old = claimed(store, "one", 1e9)
    store.close()
    store = JobStore(tmp_path / "data", uptime=clock)
    assert [each.id for each in store.recover()] == ["a"]
    assert claimed(store, "two").fence == old.fence + 1
    store.close()


def test_of_many_that_claim_at_once_one_has_it(store: StoreOnTables) -> None:
    for number in range(8):
        store.accept(job(f"j{number}"))
    taken: list[tuple[str, str]] = []

    def claims(worker: str) -> None:
        names = [f"j{number}" for number in range(8)]
        taken.extend((name, worker) for name in names if store.claim(name, worker, 30.0) is not None)

    threads = [threading.Thread(target=claims, args=(f"w{n}",)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(name for name, _ in taken) == [f"j{number}" for number in range(8)]


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["claim", "renew", "end"]), st.floats(0, 20)))


@given(STEPS)
@settings(deadline=None)
def test_never_two_at_a_time(steps: list[tuple[str, str, float]]) -> None:
    """Whatever three workers do and however time passes: only the last claim may write, and only its lease bars."""
    now, fake = [0.0], FakeStore(Path())
    fake.uptime = lambda: now[0]  # type: ignore[method-assign]
    fake.accept(job())
    had: dict[str, Claim] = {}
    until, holder = 0.0, ""
    for worker, what, seconds in steps:
        now[0] += seconds
        is_over = fake.jobs["a"].state.is_end
        if what == "claim":
            claim = fake.claim("a", worker, 30.0)
            assert (claim is not None) == (not is_over and (holder in ("", worker) or until <= now[0]))
            if claim is not None:
                had[worker], holder, until = claim, worker, now[0] + 30.0
        elif worker in had and what == "renew":
            assert fake.renew(had[worker], 30.0) == (worker == holder and not is_over)
            until = now[0] + 30.0 if worker == holder else until
        elif worker in had and not is_over:
            if worker == holder:
                fake.end("a", JobState.FINISHED, 1.0, fence=had[worker].fence)
            else:
                with pytest.raises(ClaimLost):
                    fake.end("a", JobState.FINISHED, 1.0, fence=had[worker].fence)


@pytest.mark.parametrize("version", range(1, len(database.MIGRATIONS)))
def test_a_store_of_an_older_version_is_brought_to_this_one(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made by the older statements themselves, with a job that ran when its server ended."""
    columns = {1: "", 2: ", accepted_at", 3: ", accepted_at"}[version]
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as connection:
        for migration in database.MIGRATIONS[:version]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        sample = JobStore(tmp_path / "sample")
        finished(sample, "done", 5.0)
        sample.accept(job("ran"))
        sample.close()
        connection.execute(f"ATTACH '{tmp_path / 'sample' / 'jobs.db'}' AS sample")
        names = f"number, id, client, fingerprint, job, state, started, ended, attempts{columns}"
        connection.execute(f"INSERT INTO jobs ({names}) SELECT {names} FROM sample.jobs")
        connection.execute("UPDATE jobs SET state = 'running', started = 3.0, attempts = 1 WHERE id = 'ran'")
    store = JobStore(tmp_path)
    record = store.get("done")
    assert record is not None and record.state is JobState.FINISHED
    assert store.claim("ran", "one", 30.0) is not None, "whose it was nobody knows, so nobody has it"
    assert [each.id for each in store.recover()] == ["ran"]
    assert claimed(store, "one", name="ran").record.attempts == 3
    assert store.integrity_check() == []
    store.close()
