"""The queue's memory: what is promised of every call."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from overpaint.errors import RequestError, SaveError
from overpaint.service.jobs import DoneBatch, JobChange, JobError, JobResult, JobState, Live, ResultPicture
from overpaint.service.limits import Limits
from overpaint.service.ports import Conflict, Full, Store
from overpaint.service.store import database
from overpaint.service.store.sqlite_store import JobStore
from overpaint.service.store.store_on_tables import StoreOnTables
from tests.service.store.store_tools import Stores, finished, job, painted


@pytest.fixture
def store(stores: Stores) -> StoreOnTables:
    """Of each kind."""
    return stores.open()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "data")
    yield opened
    assert not opened.integrity_check()
    opened.close()


def test_it_is_a_store(store: StoreOnTables) -> None:
    port: Store = store
    assert port.data.is_dir()


# -- jobs ------------------------------------------------------------------------------------------------------------


def test_a_job_comes_back_as_it_was_given(store: StoreOnTables) -> None:
    request = MappingProxyType({"prompt": "ä\0'", "deep": MappingProxyType({"x": [1, 2.5, None]})})
    given = job(request=request, client="ann", key="k", priority=3, created=5.5, queue_seconds=9.0, run_seconds=1.0)
    record = store.accept(given).record
    assert record == store.get("a")
    assert record.job == replace(given, request={"prompt": "ä\0'", "deep": {"x": [1, 2.5, None]}})
    assert record.job.fingerprint() == given.fingerprint()
    assert record.state is JobState.QUEUED


def test_fingerprints_see_what_lies_deep() -> None:
    one, other = (job(request={"deep": MappingProxyType({"x": x})}).fingerprint() for x in (1, 2))
    assert one != other


def test_the_same_again_is_the_record_that_is_there(store: StoreOnTables) -> None:
    store.accept(job("a", key="k", client="ann"))
    store.claim("a", "w", 60.0, at=1.0)
    assert store.accept(job("a", key="k", client="ann")).record.state is JobState.RUNNING
    assert store.accept(job("b", key="k", client="ann")).record.id == "a"
    assert store.accept(job("a")).record.id == "a"
    assert len(store.records()) == 1


def test_another_job_under_a_taken_name_is_a_conflict(store: StoreOnTables) -> None:
    store.accept(job("a", key="k", client="ann"))
    with pytest.raises(Conflict, match="id='a'"):
        store.accept(job("a", request={"seed": 2}))
    with pytest.raises(Conflict, match="key='k'"):
        store.accept(job("b", key="k", client="ann", request={"seed": 2}))
    with pytest.raises(Conflict, match="capitals"):
        store.accept(job("A"))
    assert store.accept(job("b", key="k", client="bob", request={"seed": 2})).record.id == "b", (
        "keys are each client's own"
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", ".a", "a.", "a\n", "x" * 129, "ä", "a\0"])
def test_a_name_that_is_no_folder_is_refused(store: StoreOnTables, name: str) -> None:
    with pytest.raises(RequestError):
        store.accept(job(name))


def test_the_queue_takes_its_limit_and_no_more(stores: Stores) -> None:
    store = stores.open(Limits(waiting=5, waiting_per_client=3))
    for i in range(3):
        store.accept(job(f"ann{i}", client="ann"))
    with pytest.raises(Full, match="3 of your jobs") as told:
        store.accept(job("ann3", client="ann"))
    assert told.value.retry_after >= 1
    store.accept(job("bob0", client="bob"))
    store.accept(job("bob1", client="bob"))
    with pytest.raises(Full, match="5 jobs"):
        store.accept(job("eve0", client="eve"))
    assert store.accept(job("ann0", client="ann")).record.id == "ann0", "what was accepted is known, full or not"
    store.claim("ann0", "w", 60.0, at=1.0)
    store.accept(job("eve0", client="eve"))
    store.close()


def test_one_client_may_have_the_whole_queue(stores: Stores) -> None:
    """All users of one Open WebUI share an address."""
    store = stores.open()
    for i in range(Limits().waiting):
        store.accept(job(f"a{i}", client="127.0.0.1"))
    with pytest.raises(Full, match="64 jobs"):
        store.accept(job("one-more", client="127.0.0.1"))
    store.close()


def test_racing_clients_do_not_exceed_the_limit(stores: Stores) -> None:
    store = stores.open(Limits(waiting=20))

    def hand_in(place: int) -> bool:
        try:
            store.accept(job(f"{place}", client="abcdef"[place % 6]))
        except Full:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        accepted = list(threads.map(hand_in, range(48)))
    assert (len(store.waiting()), sum(accepted)) == (20, 20)
    store.close()


def test_a_job_runs_once_and_its_first_end_counts(store: StoreOnTables) -> None:
    store.accept(job())
    claim = store.claim("a", "w", 60.0, at=10.0)
    assert claim is not None
    started = claim.record
    assert (started.state, started.started, started.attempts) == (JobState.RUNNING, 10.0, 1)
    assert store.claim("a", "another", 60.0, at=11.0) is None
    store.progress(Live(job="a", step=3, steps=20, images=2))
    result = JobResult(pictures=(painted(store, "a", 0),), infotexts=("t",), info="{}", extra={"html_info": "x"})
    ended = store.end("a", JobState.FINISHED, 12.0, result=result).record
    assert (ended.state, ended.ended, ended.step, ended.steps, ended.images_total) == (
        JobState.FINISHED,
        12.0,
        20,  # the last steps need not have been told
        20,
        2,
    )
    assert ended.result == result
    assert store.end("a", JobState.FAILED, 13.0, error=JobError(code="late", message="no")) == JobChange(record=ended)
    assert store.requeue("a") == ended
    assert store.progress(Live(job="a", step=4, steps=20, images=2)) is None
    assert store.get("a") == ended


def test_ends_without_a_run(store: StoreOnTables) -> None:
    store.accept(job())
    error = JobError(code="deadline", message="too late")
    assert store.end("a", JobState.FAILED, 2.0, error=error).record.error == error
    assert store.claim("a", "w", 60.0, at=3.0) is None
    with pytest.raises(RequestError, match="state"):
        store.end("a", JobState.QUEUED, 3.0)


def test_what_is_not_there(store: StoreOnTables) -> None:
    assert store.get("a") is None
    assert not store.batches("a")
    assert not store.events_after("a", 0)
    for call in (
        lambda: store.claim("a", "w", 60.0, at=1.0),
        lambda: store.end("a", JobState.FAILED, 1.0),
        lambda: store.requeue("a"),
        lambda: store.add_event("a", "queued", {}, 1.0),
        lambda: store.keep_batch("a", DoneBatch(number=0, pictures=())),
    ):
        with pytest.raises(KeyError):
            call()


def test_lists(store: StoreOnTables) -> None:
    for name, client in (("a", "ann"), ("b", "bob"), ("c", "ann")):
        store.accept(job(name, client=client))
    store.claim("b", "w", 60.0, at=1.0)
    assert [each.id for each in store.waiting()] == ["a", "c"]
    assert [each.id for each in store.records()] == ["c", "b", "a"], "the newest first"
    assert [each.id for each in store.records(limit=2)] == ["c", "b"]
    assert [each.id for each in store.records(client="ann")] == ["c", "a"]
    assert [each.id for each in store.records(states=[JobState.RUNNING])] == ["b"]


def test_jobs_are_counted_without_being_read(sqlite_store: JobStore) -> None:
    assert sqlite_store.counts() == {}
    for name in ("a", "b", "c", "d"):
        sqlite_store.accept(job(name, client=name))
    sqlite_store.claim("b", "w", 60.0, at=1.0)
    sqlite_store.claim("c", "w", 60.0, at=1.0)
    sqlite_store.end("c", JobState.FAILED, 2.0)
    sqlite_store.end("d", JobState.CANCELLED, 2.0)
    finished(sqlite_store, "e", 9.0)
    finished(sqlite_store, "f", 9.0)
    assert sqlite_store.counts() == {each: 2 if each is JobState.FINISHED else 1 for each in JobState}
    with sqlite_store._database.read() as connection:
        how = connection.execute("EXPLAIN QUERY PLAN SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
    assert [each["detail"] for each in how] == ["SCAN jobs USING COVERING INDEX jobs_by_state"]


def test_a_requeued_job_keeps_its_place_and_its_batches(store: StoreOnTables) -> None:
    store.accept(job("a"))
    store.accept(job("b"))
    store.claim("a", "w", 60.0, at=1.0)
    batch = DoneBatch(number=0, pictures=(painted(store, "a", 0),), notes={"n": [1]}, comments=("c",), warnings=("w",))
    store.keep_batch("a", batch)
    assert store.requeue("a").state is JobState.QUEUED
    assert [each.id for each in store.waiting()] == ["a", "b"]
    again = store.claim("a", "w", 60.0, at=5.0)
    assert again is not None
    assert (again.record.attempts, again.record.started) == (2, 5.0)
    assert store.batches("a") == [batch]


def test_a_picture_that_is_not_there_is_not_kept(store: StoreOnTables) -> None:
    store.accept(job())
    store.claim("a", "w", 60.0, at=1.0)
    missing = (ResultPicture(number=0, file="0.png"),)
    with pytest.raises(SaveError, match=r"0\.png"):
        store.keep_batch("a", DoneBatch(number=0, pictures=missing))
    with pytest.raises(SaveError):
        store.end("a", JobState.FINISHED, 2.0, result=JobResult(pictures=missing))
    record = store.get("a")
    assert record is not None
    assert record.state is JobState.RUNNING


# -- events ----------------------------------------------------------------------------------------------------------


def test_events_are_numbered_and_replayed(store: StoreOnTables) -> None:
    store.accept(job("a"))
    store.accept(job("b"))
    told = [store.add_event("a", name, {"i": i}, float(i)) for i, name in enumerate(("started", "preview", "preview"))]
    assert store.add_event("b", "started", {}, 0.0).number == 2
    assert [each.number for each in told] == [2, 3, 4]
    queued, *others = store.events_after("a", 0)
    assert (queued.name, queued.number, others) == ("queued", 1, told)
    assert store.events_after("a", 3) == told[2:]
    assert not store.events_after("a", 4)


def test_only_passing_events_are_thinned_and_no_number_comes_twice(stores: Stores) -> None:
    store = stores.open(Limits(events_per_job=10))
    first = store.accept(job()).event
    assert first is not None
    names = ["started", *["progress"] * 30, "painted", *["preview"] * 5, *["painted"] * 7, "progress"]
    told = [first]
    for i, name in enumerate(names, 2):
        told.append(store.add_event("a", name, {"i": i}, 0.0))
        kept = store.events_after("a", 0)
        lasting = [each for each in told if each.name not in ("progress", "preview")]
        assert [each for each in kept if each.name not in ("progress", "preview")] == lasting
        assert len(kept) <= max(10, len(lasting))
        assert [each.data["i"] for each in kept[1:]] == [each.number for each in kept[1:]]
        if len(lasting) < 9:
            assert kept[-1] == told[-1], "the newest is there"
    assert [each.number for each in told] == list(range(1, len(names) + 2))
    store.close()


# -- options, the folder, the file -----------------------------------------------------------------------------------


def test_options_stay(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    assert store.option("x") is None
    store.set_option("x", {"a": [1, None]})
    store.set_option("x", {"a": [2, None]})
    store.close()
    store = JobStore(tmp_path)
    assert store.option("x") == {"a": [2, None]}
    store.close()


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    with pytest.raises(RequestError, match=f"process {os.getpid()}") as told:
        JobStore(tmp_path)
    assert "\n" not in str(told.value)
    store.close()
    JobStore(tmp_path).close()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from overpaint.service.store.sqlite_store import JobStore
store = JobStore(Path({str(tmp_path)!r}))
sys.stdout.write("open\\n")
sys.stdout.flush()
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(RequestError, match=f"process {process.pid}"):
            JobStore(tmp_path)
        process.kill()
    JobStore(tmp_path).close()
    assert (tmp_path / "server.lock").read_text() == str(os.getpid())


def test_it_is_as_durable_as_it_says(sqlite_store: JobStore) -> None:
    with sqlite_store._database.write() as connection:
        found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
        found["foreign_keys"] = connection.execute("PRAGMA foreign_keys").fetchone()[0]
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_tables_are_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(tmp_path)
    store.accept(job())
    store.close()
    newer = (*database.MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN more TEXT",))
    monkeypatch.setattr(database, "MIGRATIONS", newer)
    store = JobStore(tmp_path)
    assert store.get("a") is not None
    store.close()
    monkeypatch.setattr(database, "MIGRATIONS", newer[:1])
    with pytest.raises(SaveError, match="newer overpaint"):
        JobStore(tmp_path)


def test_a_migration_that_fails_leaves_the_tables_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    JobStore(tmp_path).close()
    broken = (*database.MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN more TEXT", "no statement"))
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", broken)
        with pytest.raises(SaveError):
            JobStore(tmp_path)
    store = JobStore(tmp_path)
    store.accept(job())
    store.close()


def test_a_file_that_is_no_database_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"no database" * 1000)
    with pytest.raises(SaveError, match="damaged"):
        JobStore(tmp_path)


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RequestError, match="--data"):
        JobStore(tmp_path / "file" / "data")


def test_a_transaction_that_fails_leaves_nothing(sqlite_store: JobStore) -> None:
    sqlite_store.accept(job())
    with pytest.raises(sqlite3.IntegrityError), sqlite_store._database.write() as connection:
        connection.execute("UPDATE jobs SET attempts = 9")
        connection.execute("UPDATE jobs SET state = 'lost'")
    record = sqlite_store.get("a")
    assert record is not None
    assert record.attempts == 0


def test_everything_is_there_after_closing(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    finished(store, "a", 5.0)
    before = store.get("a")
    store.close()
    store = JobStore(tmp_path)
    assert store.get("a") == before
    assert not list(store.recover())
    assert store.result_file("a", "0.png").read_bytes() == b"png"
    store.close()
