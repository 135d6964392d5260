"""The desk with a worker that does what it is told, good or bad: nobody but the job that was hit notices."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overpaint.service.jobs import JobState, Record
from overpaint.service.ports import Conflict, Full, Stopping
from overpaint.service.queue import attempts
from overpaint.service.queue.desk import LocalDesk
from overpaint.service.queue.event_feed import PICTURES, RECENT, EventFeed
from overpaint.service.workers import worker_process
from overpaint.service.workers.port import WorkerGone, WorkerRefused
from tests.service.fake_store import FakeStore
from tests.service.queue.desk_tools import (
    FAKE_WORKER,
    config_for,
    ended_well,
    opened,
    run,
    story_of,
    until_running,
    wanted,
    worker_of,
)


@asynccontextmanager
async def desk_on(tmp_path: Path, start: str | None = None, **limits: Any) -> AsyncIterator[LocalDesk]:
    config = config_for(tmp_path, None if start is None else Path(start), **limits)
    async with opened(FakeStore(tmp_path), config, FAKE_WORKER) as desk:
        yield desk


def queued_messages(desk: LocalDesk) -> int:
    return max((each.messages.qsize() for each in worker_of(desk)._jobs.values()), default=0)


def code_of(record: Record) -> str | None:
    return None if record.error is None else record.error.code


# -- the story of a job ------------------------------------------------------------------------------------------------


def test_a_job_from_its_submission_to_its_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            record = await desk.submit(wanted("a", "step=1 sleep=0.6 step=50 batch=0"))
            assert record.state is JobState.QUEUED
            assert [each.name for each in desk.store.events_after("a", 0)][:1] == ["queued"]
            record = ended_well(await desk.wait("a"))
            events = await story_of(desk, "a")
            assert [each.name for each in events] == [
                *("queued", "started", "progress", "progress", "painted", "finished")
            ]
            assert [each.number for each in events] == [1, 2, 3, 4, 5, 6]
            assert events[2].data == {"step": 1, "steps": 100, "batch": 0, "batches": 1, "images": 1}
            assert (await story_of(desk, "a", after=4)) == events[4:]
            assert await story_of(desk, "a", after=6) == []
            assert await story_of(desk, "a", after=99) == []
            assert await story_of(desk, "nobody") == []
            assert desk.position("a") is None
            assert desk.running() is None
            assert len(desk._thread.feed) == 0

    run(story())


def test_followers_see_each_event_once_whenever_they_come(tmp_path: Path) -> None:
    async def follower(desk: LocalDesk, wait: float, lag: float) -> list[int]:
        await asyncio.sleep(wait)
        numbers = []
        async for event in desk.events("a"):
            numbers.append(event.number)
            await asyncio.sleep(lag)
        return numbers

    async def story() -> None:
        rng = random.Random(5)
        async with desk_on(tmp_path) as desk:
            batches = " ".join(f"batch={n} sleep=0.005" for n in range(100))
            await desk.submit(wanted("a", f"sleep=0.2 {batches}"))
            followers = [follower(desk, rng.random(), rng.choice((0, 0, 0.002, 0.01))) for _ in range(12)]
            found = await asyncio.gather(*followers)
            total = len(desk.store.events_after("a", 0))
            assert total == 103
            assert all(each == list(range(1, total + 1)) for each in found)

    run(story())


def test_a_slow_follower_is_no_burden(tmp_path: Path) -> None:
    feed = EventFeed()
    with feed.followed("a") as story:
        store = FakeStore(tmp_path)
        for number in range(10 * RECENT):
            feed.publish(store.add_event("a", "progress", {"step": number}, 0.0))
        assert story.after(0) is None  # the store has to say it
        last = story.after(10 * RECENT - 3)
        assert last is not None and [each.number for each in last] == [638, 639, 640]
        assert len(story._recent) == RECENT
    assert len(feed) == 0


def test_followers_get_previews_with_their_events_and_few_are_held(tmp_path: Path) -> None:
    """Whoever reads slowly gets the picture of each event, not the latest for all."""
    feed, store = EventFeed(), FakeStore(tmp_path)
    with feed.followed("a") as story:
        for number in range(30):
            event = store.add_event("a", "preview", {"step": number}, 0.0)
            feed.publish(replace(event, picture=bytes([number])))
        held = story.after(0)
        assert held is not None and len(held) == 30
        pictures = [None] * (30 - PICTURES) + [bytes([each]) for each in range(30 - PICTURES, 30)]
        assert [each.picture for each in held] == pictures
        # What the store has of it are the events alone.
        assert {each.picture for each in store.events_after("a", 0)} == {None}
        assert [each.picture for each in story.as_told(store.events_after("a", 0))] == pictures


def test_floods_of_steps_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            write = desk._thread.call

            async def slowly(*values: Any) -> Any:
                await asyncio.sleep(0.02)
                return await write(*values)

            monkeypatch.setattr(desk._thread, "call", slowly)
            monkeypatch.setattr(attempts, "SECONDS_BETWEEN_STEPS", 0.0)
            await desk.submit(wanted("a", "flood=20000 batch=0"))
            most = 0
            while (record := await desk.get("a")) is not None and not record.state.is_end:
                most = max(most, queued_messages(desk))
                await asyncio.sleep(0)
            assert most <= worker_process._UNREAD + 5
            assert [each.name for each in desk.store.events_after("a", 0)][-2:] == ["painted", "finished"]

    run(story())


# -- taking in and calling off -----------------------------------------------------------------------------------------


def test_the_same_job_twice_is_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            job = wanted("a", "sleep=0.1", key="k")
            records = await asyncio.gather(*(desk.submit(job) for _ in range(5)))
            assert {each.id for each in records} == {"a"}
            with pytest.raises(Conflict):
                await desk.submit(wanted("a", "something else"))
            ended_well(await desk.wait("a"))
            assert (await desk.submit(job)).state is JobState.FINISHED
            assert [each.name for each in await story_of(desk, "a")] == ["queued", "started", "finished"]

    run(story())


def test_a_client_that_goes_away_while_it_submits(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            task = asyncio.create_task(desk.submit(wanted("a", "sleep=0.05")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            while await desk.get("a") is None:
                await asyncio.sleep(0.01)
            ended_well(await desk.wait("a"))

    run(story())


def test_priorities_positions_and_estimates(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("first", "step=1 sleep=0.1 step=10 sleep=1.0"))
            await until_running(desk, "first", step=10)
            for name, priority in (("low", -1), ("usual", 0), ("high", 5)):
                await desk.submit(wanted(name, "sleep=0.01", priority=priority))
            assert [desk.position(each) for each in ("first", "high", "usual", "low")] == [0, 0, 1, 2]
            assert desk.state() == "BUSY"
            left = desk.eta("first")
            assert left is not None and left >= 0
            assert desk.eta("high") is None  # no earlier job tells
            for each in ("low", "usual", "high"):
                ended_well(await desk.wait(each))
            ends = [desk.store.get(each) for each in ("first", "high", "usual", "low")]
            times = [each.ended for each in ends if each is not None and each.ended is not None]
            assert times == sorted(times)
            await desk.submit(wanted("again", "step=1 sleep=0.3"))
            assert desk.eta("again") is not None
            assert desk.eta("nobody") is None

    run(story())


def test_a_waiting_job_is_cancelled_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("a", "step=1 sleep=0.5"))
            await desk.submit(wanted("b", "die=3"))
            await until_running(desk, "a", step=1)
            record = await desk.cancel("b")
            assert record.state is JobState.CANCELLED
            assert (await desk.cancel("b")).state is JobState.CANCELLED
            assert [each.name for each in await story_of(desk, "b")] == ["queued", "cancelled"]
            ended_well(await desk.wait("a"))
            assert (await desk.cancel("a")).state is JobState.FINISHED
            with pytest.raises(KeyError):
                await desk.cancel("nobody")

    run(story())


def test_cancel_at_any_moment_of_the_start(tmp_path: Path) -> None:
    """Whoever cancels is heard, be the job waiting, on its way to the worker or with it."""

    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            for number in range(20):
                job_id = f"job{number}"
                await desk.submit(wanted(job_id, "die=5"))
                for _ in range(number):
                    await asyncio.sleep(0)
                await desk.cancel(job_id)
                record = await desk.wait(job_id, 20)
                assert record.state is JobState.CANCELLED, number
                assert [each.name for each in await story_of(desk, job_id)][-1] == "cancelled"

    run(story())


def test_a_job_that_waits_too_long(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("a", "sleep=1.5"))
            await until_running(desk, "a")
            await desk.submit(wanted("b", "sleep=0", queue_seconds=0.2))
            await desk.submit(wanted("c", "sleep=0", queue_seconds=60))
            record = await desk.wait("b")
            assert code_of(record) == "deadline"
            assert record.started is None
            ended_well(await desk.wait("c"))

    run(story())


# -- what may happen to a worker ---------------------------------------------------------------------------------------


def test_a_job_whose_worker_died_is_taken_up_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("a", "batch=0 die-once=9 batch=1"))
            record = ended_well(await desk.wait("a"))
            assert record.attempts == 2
            events = await story_of(desk, "a")
            assert [each.data["batch"] for each in events if each.name == "painted"] == [0, 1]
            assert [each.data["attempt"] for each in events if each.name == "started"] == [1, 2]

    run(story())


@pytest.mark.parametrize("how", ["die=9", "tear", "babble"])
def test_two_deaths_are_enough(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_FAREWELL", 0.2)

    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("bad", f"batch=0 {how}"))
            await desk.submit(wanted("good", "batch=0"))
            record = await desk.wait("bad")
            assert (record.state, code_of(record), record.attempts) == (JobState.FAILED, "crashed", 2)
            assert record.result.stopped
            assert ended_well(await desk.wait("good")).attempts == 1

    run(story())


def test_a_step_that_hangs(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, watchdog=2.0) as desk:
            started = time.monotonic()
            await desk.submit(wanted("bad", "step=1 sleep=600"))
            await desk.submit(wanted("good", "step=1 sleep=0.8 step=2 sleep=0.8 step=3 sleep=0.8"))
            record = await desk.wait("bad")
            assert (code_of(record), record.attempts) == ("hung", 1)
            assert time.monotonic() - started < 60
            ended_well(await desk.wait("good"))

    run(story())


def test_loading_may_take_longer_than_a_step(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, watchdog=1.0) as desk:
            await desk.submit(wanted("a", "sleep=2.0 step=1"))
            ended_well(await desk.wait("a"))
            await desk.submit(wanted("b", "sleep=600"))
            assert code_of(await desk.wait("b")) == "hung"

    run(story())


def test_a_job_that_runs_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "DEADLINE_PATIENCE", 0.2)

    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("bad", "step=1 sleep=600", run_seconds=0.3))
            await desk.submit(wanted("good", "step=1"))
            record = await desk.wait("bad")
            assert (code_of(record), record.attempts) == ("deadline", 1)
            ended_well(await desk.wait("good"))

    run(story())


def test_the_time_of_a_job_begins_anew_when_its_worker_begins_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of several slots may have to wait for a job's neighbours to end, and any may have to load a model."""
    begun: list[bool] = []
    expect_end = attempts.Attempt.expect_end

    def seen(attempt: attempts.Attempt) -> None:
        begun.append(attempt._told)
        expect_end(attempt)
        assert sum(not each.cancelled() for each in attempt._timers) == 2

    monkeypatch.setattr(attempts.Attempt, "expect_end", seen)

    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("a", "step=1", run_seconds=500))
            ended_well(await desk.wait("a"))
            assert begun == [False, True]

    run(story())


def test_a_worker_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "_BACKOFF", (0.0, 0.05))

    async def story() -> None:
        async with desk_on(tmp_path, "dies at once") as desk:
            assert desk.state() == "STARTING"
            while desk.state() != "UNHEALTHY":
                await asyncio.sleep(0.02)
            await desk.submit(wanted("a", "sleep=0", queue_seconds=0.3))
            assert code_of(await desk.wait("a")) == "deadline"
            with pytest.raises(WorkerGone, match="no worker"):
                await desk.ask("memory")

    run(story())


def test_a_worker_that_hangs_while_it_starts(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, "hangs at once", watchdog=0.1) as desk:
            pid = worker_of(desk).pid
            while pid is None or worker_of(desk).pid == pid:
                pid = pid or worker_of(desk).pid
                await asyncio.sleep(0.02)

    run(story())


def test_a_worker_without_a_model_says_why(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, "is unfit") as desk:
            while desk.state() != "UNHEALTHY":
                await asyncio.sleep(0.02)
            unfit = worker_of(desk).unfit
            assert unfit is not None and unfit.code == "checkpoint"
            await desk.submit(wanted("a", "sleep=0"))  # it may have become possible
            ended_well(await desk.wait("a"))

    run(story())


def test_the_store_fails_in_the_middle_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            monkeypatch.setattr(desk.store, "keep_batch", full)
            await desk.submit(wanted("bad", "step=1 batch=0 sleep=600"))
            assert code_of(await desk.wait("bad")) == "save"
            monkeypatch.undo()
            await desk.submit(wanted("good", "batch=0"))
            ended_well(await desk.wait("good"))

    run(story())


# -- questions ---------------------------------------------------------------------------------------------------------


def test_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            assert await desk.ask("model") == {"what": "model"}
            with pytest.raises(WorkerRefused) as refused:
                await desk.ask("never")
            assert refused.value.error.code == "invalid"
            with pytest.raises(WorkerGone):
                await desk.ask("die")
            answers = await asyncio.gather(*(desk.ask("x", {"n": n}) for n in range(20)))
            assert [each["n"] for each in answers] == list(range(20))
            await desk.submit(wanted("a", "step=1 sleep=0.5"))
            await until_running(desk, "a", step=1)
            waiting = [asyncio.create_task(desk.ask("x", {"n": n})) for n in range(worker_process.QUESTIONS)]
            await asyncio.sleep(0.05)
            with pytest.raises(Full):
                await desk.ask("one more")
            await asyncio.gather(*waiting)

    run(story())


# -- the end -----------------------------------------------------------------------------------------------------------


def test_a_drain_lets_the_running_job_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("a", "step=1 sleep=0.5"))
            await desk.submit(wanted("b", "sleep=0"))
            await until_running(desk, "a", step=1)
            await desk.drain(10)
            assert desk.state() == "UNHEALTHY"
            with pytest.raises(Stopping, match="stopping"):
                await desk.submit(wanted("c", "sleep=0"))
            states = [(await desk.get(each)) for each in "ab"]
            assert [each.state for each in states if each] == [JobState.FINISHED, JobState.QUEUED]

    run(story())


def test_a_drain_that_is_over_leaves_the_job_for_the_next_start(tmp_path: Path) -> None:
    store, config = FakeStore(tmp_path), config_for(tmp_path)

    async def first() -> None:
        async with opened(store, config, FAKE_WORKER) as desk:
            await desk.submit(wanted("a", "batch=0 step=1 die-once=4 batch=1 sleep=1 batch=2"))
            follower = asyncio.create_task(story_of(desk, "a"))
            while len(store.batches("a")) < 2:
                await asyncio.sleep(0.01)
            await desk.drain(0.1)
            assert store.jobs["a"].state is JobState.QUEUED
        assert [each.name for each in await follower][-1] == "painted"

    async def second() -> None:
        async with opened(store, config, FAKE_WORKER) as desk:
            record = ended_well(await desk.wait("a"))
            assert record.attempts == 3
            painted = [each.data["batch"] for each in await story_of(desk, "a") if each.name == "painted"]
            assert painted == [0, 1, 2]

    run(first())
    run(second())
