"""A change of a job and the event that tells of it are one transaction: nothing comes between, nothing is mended."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from overpaint.errors import SaveError
from overpaint.service.jobs import DoneBatch, JobError, JobState, Live
from overpaint.service.queue.store_thread import StoreThread
from overpaint.service.store.sqlite_store import JobStore
from tests.service.queue.desk_tools import FAKE_WORKER, config_for, ended_well, opened, run, story_of, wanted
from tests.service.store.store_tools import job, painted

LIVE = Live(job="a", step=2, steps=5, images=3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened_store = JobStore(tmp_path / "data")
    yield opened_store
    assert not opened_store.integrity_check()
    opened_store.close()


def transactions(store: JobStore, what: Callable[[], Any]) -> list[list[str]]:
    """The tables that each write transaction of a call writes to."""
    found: list[list[str]] = []

    def seen(statement: str) -> None:
        words = statement.replace("INSERT OR REPLACE", "INSERT").split()
        if words[0] == "BEGIN":
            found.append([])
        elif words[0] in ("INSERT", "UPDATE", "DELETE"):
            found[-1].append(words[1] if words[0] == "UPDATE" else words[2])

    store._database._writer.set_trace_callback(seen)
    try:
        what()
    finally:
        store._database._writer.set_trace_callback(None)
    return found


def test_each_change_is_one_transaction_of_row_and_event(store: JobStore) -> None:
    batch = DoneBatch(number=0, pictures=(painted(store, "a", 0),))
    changes: dict[str, Callable[[], Any]] = {
        "queued": lambda: store.accept(job()),
        "progress": lambda: (store.claim("a", "w", 60.0, at=1.0), store.progress(LIVE))[1],
        "painted": lambda: store.keep_batch("a", batch),
        "finished": lambda: store.end("a", JobState.FINISHED, 2.0, live=LIVE),
    }
    for name, change in changes.items():
        written = transactions(store, change)[-1]
        assert {"jobs", "events"} <= set(written), name
        assert len(transactions(store, lambda: store.add_event("a", "preview", {}, 0.0))) == 1
    assert len(transactions(store, lambda: store.accept(job("b")))) == 1
    assert len(transactions(store, lambda: store.claim("b", "w", 60.0, at=1.0))) == 1
    assert len(transactions(store, lambda: store.progress(Live(job="b", step=1, steps=5)))) == 1
    assert len(transactions(store, lambda: store.keep_batch("b", DoneBatch(number=0, pictures=())))) == 1
    assert len(transactions(store, lambda: store.end("b", JobState.FAILED, 2.0, live=Live(job="b", steps=5)))) == 1
    names = [each.name for each in store.events_after("a", 0) if each.name != "preview"]
    assert names == list(changes)


@pytest.mark.parametrize("what", ["accept", "progress", "keep_batch", "end", "end_waiting"])
def test_a_change_whose_event_is_refused_has_not_happened(store: JobStore, what: str) -> None:
    store.accept(job("waits"))
    store.accept(job("runs"))
    store.claim("runs", "w", 60.0, at=1.0)
    batch = DoneBatch(number=0, pictures=(painted(store, "runs", 0),))
    changes: dict[str, Callable[[], Any]] = {
        "accept": lambda: store.accept(job("new")),
        "progress": lambda: store.progress(Live(job="runs", step=1, steps=5)),
        "keep_batch": lambda: store.keep_batch("runs", batch),
        "end": lambda: store.end("runs", JobState.FINISHED, 2.0, live=Live(job="runs", step=4, steps=5)),
        "end_waiting": lambda: store.end("waits", JobState.CANCELLED, 2.0, unless=(JobState.RUNNING,)),
    }
    before = (store.records(), store.batches("runs"), [store.events_after(each, 0) for each in ("waits", "runs")])
    refuse = "CREATE TEMP TRIGGER no BEFORE INSERT ON main.events BEGIN SELECT RAISE(ABORT, 'no'); END"
    store._database._writer.execute(refuse)
    with pytest.raises((sqlite3.Error, SaveError)):
        changes[what]()
    store._database._writer.execute("DROP TRIGGER no")
    after = (store.records(), store.batches("runs"), [store.events_after(each, 0) for each in ("waits", "runs")])
    assert after == before
    changes[what]()
    assert (store.records(), store.batches("runs")) != before[:2]


def test_what_did_not_change_is_not_told(store: JobStore) -> None:
    accepted = store.accept(job())
    assert accepted.event is not None and accepted.event.name == "queued"
    assert store.accept(job()).event is None
    assert store.progress(LIVE) is None, "it is not running"
    store.claim("a", "w", 60.0, at=1.0)
    assert store.end("a", JobState.CANCELLED, 2.0, unless=(JobState.RUNNING,)).event is None
    ended = store.end("a", JobState.CANCELLED, 2.0)
    assert ended.event is not None and (ended.event.name, ended.event.at) == ("cancelled", 2.0)
    assert store.end("a", JobState.FAILED, 3.0).event is None
    assert [each.name for each in store.events_after("a", 0)] == ["queued", "cancelled"]


def test_a_job_whose_earlier_attempt_could_not_be_ended_is_begun_again(store: JobStore) -> None:
    store.accept(job())
    store.claim("a", "w", 60.0, at=1.0)
    assert store.claim("a", "another", 60.0, at=2.0) is None
    again = store.claim("a", "w", 60.0, at=2.0)
    assert again is not None
    record = again.record
    assert (record.state, record.started, record.attempts) == (JobState.RUNNING, 2.0, 2)
    store.end("a", JobState.FAILED, 3.0)
    assert store.claim("a", "w", 60.0, at=4.0) is None


def test_the_end_is_told_where_its_event_is_lost(tmp_path: Path) -> None:
    """Lost to damage, or to a crash of a version that wrote down a job's end and its event one after the other."""
    store, error = JobStore(tmp_path), JobError(code="memory", message="too large")
    store.accept(job())
    store.claim("a", "w", 60.0, at=1.0)
    store.end("a", JobState.FAILED, 2.0, error=error)
    (told,) = store.events_after("a", 1)
    store.close()
    for damage in ("UPDATE events SET data = '{' WHERE name = 'failed'", "DELETE FROM events WHERE name = 'failed'"):
        with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection, connection:
            connection.execute(damage)
        store = JobStore(tmp_path)
        _, end = store.events_after("a", 0)
        assert (end.name, end.data, end.at) == (told.name, told.data, told.at)
        assert end.number > told.number
        assert store.events_after("a", told.number) == [end]
        assert store.events_after("a", end.number) == []
        store.close()


def test_whoever_follows_a_job_whose_end_is_lost_is_let_go(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    store.accept(wanted("a", "sleep=0"))
    store.end("a", JobState.CANCELLED, 2.0)
    store._database._writer.execute("DELETE FROM events")

    async def asked() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            assert [each.name for each in await story_of(desk, "a")] == ["cancelled"]
            assert [each.name for each in await story_of(desk, "a", after=99)] == []

    run(asked())
    store.close()


def test_an_end_that_the_disk_took_although_it_said_no_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, refused = JobStore(tmp_path), list[Any]()
    end = store.end

    def end_and_complain(*values: Any, **named: Any) -> Any:
        change = end(*values, **named)
        if not refused:
            refused.append(change)
            raise SaveError("the disk says no")
        return change

    monkeypatch.setattr(store, "end", end_and_complain)

    async def asked() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await desk.submit(wanted("a", "sleep=0.2"))
            following = asyncio.create_task(story_of(desk, "a"))
            ended_well(await desk.wait("a", 60.0))
            assert [each.name for each in await following] == ["queued", "started", "finished"]
            await asyncio.sleep(0)

    run(asked())
    assert refused
    store.close()


def test_a_claim_that_the_disk_took_although_it_said_no_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, refused = JobStore(tmp_path), list[Any]()
    claim = store.claim

    def claim_and_complain(*values: Any, **named: Any) -> Any:
        found = claim(*values, **named)
        if not refused:
            refused.append(found)
            raise SaveError("the disk says no")
        return found

    monkeypatch.setattr(store, "claim", claim_and_complain)

    async def asked() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await desk.submit(wanted("a", "batch=0"))
            assert ended_well(await desk.wait("a", 60.0)).attempts == 2
            assert [each.name for each in await story_of(desk, "a")] == ["queued", "started", "painted", "finished"]

    run(asked())
    assert refused
    store.close()


def test_calls_of_the_store_are_made_in_order_and_publish_their_events(store: JobStore) -> None:
    async def asked() -> None:
        thread = StoreThread(store)
        await thread.call(store.accept, job())
        await thread.call(lambda: store.claim("a", "w", 60.0, at=1.0))
        with thread.feed.followed("a") as feed:
            steps = [thread.tell(store.progress, Live(job="a", step=each, steps=9)) for each in range(1, 6)]
            await asyncio.gather(*steps)
            fresh = feed.after(1)
            assert fresh is not None and [each.data["step"] for each in fresh] == [1, 2, 3, 4, 5]
        await thread.close()

    run(asked())
