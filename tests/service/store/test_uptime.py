"""Ages and deadlines are counted while there is a server: neither outages nor a clock that is set make anything old."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overpaint.service.jobs import JobState
from overpaint.service.queue import desk as desk_module
from overpaint.service.queue import runner as runner_module
from overpaint.service.store.sqlite_store import JobStore
from overpaint.service.store.uptime import LONGEST_LOOK, Uptime
from tests.service.queue.desk_tools import FAKE_WORKER, config_for, ended_well, opened, run, until_running, wanted
from tests.service.store.store_tools import Clock, finished, job

HOUR = 3_600.0
OUTAGES = (1_000.0, 5_000.0, 30 * 24 * HOUR, -HOUR)

SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Sets the time of day, by so many seconds away from the true one."""
    true = time.time

    def set_by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: true() + seconds)

    return set_by


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_ends_no_job_and_no_result(tmp_path: Path, set_clock: SetClock, outage: float) -> None:
    config = config_for(tmp_path)

    async def before(store: JobStore) -> None:
        async with opened(store, config, FAKE_WORKER) as desk:
            await desk.submit(wanted("done", "batch=0"))
            ended_well(await desk.wait("done"))
            await desk.submit(wanted("long", "step=1 sleep=60"))
            await until_running(desk, "long", step=1)
            for number in range(3):
                await desk.submit(wanted(f"w{number}", "batch=0", queue_seconds=900.0))

    async def after(store: JobStore) -> None:
        async with opened(store, config, FAKE_WORKER) as desk:
            await desk.cancel("long")
            for number in range(3):
                ended_well(await desk.wait(f"w{number}", 20))
            await desk._expire()
            record = await desk.get("done")
            assert record is not None and not record.gone

    for life in (before, after):
        store = JobStore(tmp_path)
        run(life(store))
        store.close()
        set_clock(outage)


@pytest.mark.parametrize("jump", [5_000.0, -5_000.0, 1e9])
def test_a_clock_that_is_set_ends_no_job_and_no_result(
    tmp_path: Path, set_clock: SetClock, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_TENDING", 0.02)
    monkeypatch.setattr(desk_module, "_EXPIRING", 0.02)
    store = JobStore(tmp_path)

    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            source = store.put_picture(b"uploaded")
            await desk.submit(wanted("done", "batch=0"))
            ended_well(await desk.wait("done"))
            await desk.submit(wanted("long", "step=1 sleep=0.5 step=2"))
            await until_running(desk, "long", step=1)
            await desk.submit(wanted("waits", "batch=0", client="ann", queue_seconds=900.0))
            await desk.submit(wanted("urgent", "batch=0", client="ann", priority=5))
            set_clock(jump)
            await asyncio.sleep(0.2)
            assert [desk.position(each) for each in ("urgent", "waits")] == [0, 1]  # nobody has become old by that
            for name in ("long", "waits", "urgent"):
                ended_well(await desk.wait(name, 20))
            record = await desk.get("done")
            assert record is not None and not record.gone
            assert store.picture(source) == b"uploaded"

    run(story())
    store.close()


def test_waiting_counts_over_all_lives_of_a_server(tmp_path: Path) -> None:
    for seconds in (6.0, 12.0):
        clock = Clock(seconds)
        store = JobStore(tmp_path, uptime=clock)
        if seconds == 6.0:
            store.accept(job("a", queue_seconds=5.0))
        store.close()
    store = JobStore(tmp_path)
    assert store.uptime() >= 12.0

    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            record = await desk.wait("a", 100)
            assert record.error is not None and record.error.code == "deadline"

    run(story())
    store.close()


def test_results_that_were_kept_long_enough_go_whatever_the_clock_says(tmp_path: Path, set_clock: SetClock) -> None:
    set_clock(-1e9)
    clock = Clock(100.0)
    store = JobStore(tmp_path, uptime=clock)
    finished(store, "a", 100.0)
    clock.now += HOUR
    assert store.expire(keep_seconds=HOUR, keep_bytes=100) == []
    clock.now += 1.0
    assert store.expire(keep_seconds=HOUR, keep_bytes=100) == ["a"]
    store.close()


def test_a_crash_sets_the_uptime_back_by_a_moment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(50.0)
    store = JobStore(tmp_path, uptime=clock)
    store.expire(keep_seconds=1.0, keep_bytes=1)
    clock.now = 77.0
    store.accept(job("a"))
    store._database.close()  # nothing is written down any more
    store._lock.release()
    store = JobStore(tmp_path)
    assert 77.0 <= store.uptime() < 77.0 + 30.0
    store.close()


def test_a_machine_that_sleeps_serves_nobody() -> None:
    clock = Clock(1_000.0)
    uptime = Uptime(5.0, clock)
    clock.now += 0.5
    assert uptime.seconds() == 5.5
    clock.now += 8 * HOUR
    assert uptime.seconds() == 5.5 + LONGEST_LOOK
    clock.now -= 100.0
    assert uptime.seconds() == 5.5 + LONGEST_LOOK
    clock.now += 1.0
    assert uptime.seconds() == 6.5 + LONGEST_LOOK


def test_jobs_that_an_older_server_kept_wait_on(tmp_path: Path) -> None:
    """It wrote down the time of day until when a job may wait; its tables had no uptime."""
    store = JobStore(tmp_path)
    store.accept(job("a", created=1_000.0))
    store.accept(job("b", created=1_000.0))
    store.end("b", JobState.CANCELLED, 5.0)
    store.close()
    with sqlite3.connect(tmp_path / "jobs.db") as connection:
        kept: dict[str, Any] = json.loads(connection.execute("SELECT job FROM jobs WHERE id = 'a'").fetchone()[0])
        del kept["queue_seconds"]
        connection.execute("UPDATE jobs SET job = ? WHERE id = 'a'", (json.dumps({**kept, "queue_deadline": 1_900.0}),))
        for column in ("accepted_at", "started_at", "ended_at", "worker", "lease", "fence"):
            connection.execute("DROP INDEX IF EXISTS jobs_by_end")
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        connection.execute("CREATE INDEX jobs_by_end ON jobs (gone, ended)")
        connection.execute("DELETE FROM options")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    store = JobStore(tmp_path)
    (record,) = store.waiting()
    assert (record.job.queue_seconds, record.uptimes.accepted) == (900.0, 0.0)
    assert store.expire(keep_seconds=10.0, keep_bytes=100) == []
    store.close()
