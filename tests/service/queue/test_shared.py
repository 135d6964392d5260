"""Several web processes and several hosts on one store: each job ends once, whoever comes, goes, dies or stalls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from overpaint.events import Stop
from overpaint.service.config import ServeConfig
from overpaint.service.jobs import JobState, Record
from overpaint.service.queue.shared_desk import SharedDesk
from overpaint.service.worker_host import WorkerHost
from overpaint.service.workers.port import WorkerGone, WorkerRefused
from tests.service.queue.desk_tools import FAKE_WORKER, config_for, run, wanted
from tests.service.store.store_tools import Clock
from tests.service.store.stores import ObjectStores, PostgresStores

if TYPE_CHECKING:
    from overpaint.service.store.postgres_store import PostgresStore


@pytest.fixture(params=["postgres_stores", "object_stores"])
def shared_stores(request: pytest.FixtureRequest) -> PostgresStores:
    """With pictures in a folder that all share, and in an object store."""
    made: PostgresStores = request.getfixturevalue(request.param)
    return made


@dataclass
class Offices:
    """Two desks and as many hosts as a test wants, each with a store of its own."""

    stores: PostgresStores
    config: ServeConfig
    clock: Clock | None
    stack: AsyncExitStack
    desks: list[SharedDesk] = field(default_factory=list)
    hosts: list[WorkerHost] = field(default_factory=list)

    def store(self) -> PostgresStore:
        return self.stores.open(self.config.limits, clock=self.clock)

    async def desk(self) -> SharedDesk:
        desk = SharedDesk(self.store(), self.config)
        await desk.start()
        self.stack.push_async_callback(desk.close)
        self.desks.append(desk)
        return desk

    async def host(self, command: Sequence[str] = FAKE_WORKER) -> WorkerHost:
        host = WorkerHost(self.store(), self.config, command=command)
        await host.start()
        self.stack.push_async_callback(host.close)
        self.hosts.append(host)
        return host


@asynccontextmanager
async def opened(stores: PostgresStores, clock: Clock | None = None, **limits: Any) -> AsyncIterator[Offices]:
    async with AsyncExitStack() as stack:
        offices = Offices(stores, config_for(stores.data, **limits), clock, stack)
        for _ in range(2):
            await offices.desk()
        yield offices


async def until(what: Callable[[], object]) -> None:
    """As long as the test's own time lasts."""
    while not what():
        await asyncio.sleep(0.01)


async def ended(desk: SharedDesk, job_id: str) -> Record:
    return await desk.wait(job_id)


def in_offices(
    stores: PostgresStores, test: Callable[[Offices], Awaitable[None]], clock: Clock | None = None, **limits: Any
) -> None:
    async def all_of_it() -> None:
        async with opened(stores, clock, **limits) as offices:
            await test(offices)

    run(all_of_it(), 240.0)


def test_what_one_accepts_the_other_tells(postgres_stores: PostgresStores) -> None:
    async def test(offices: Offices) -> None:
        one, other = offices.desks
        story = asyncio.create_task(_names(other, "a"))
        await one.submit(wanted("a", "step=10 batch=0 step=20"))
        await offices.host()
        record = await ended(other, "a")
        assert record.state is JobState.FINISHED and record.attempts == 1
        names = await story
        assert (names[0], names[-1]) == ("queued", "finished") and {"started", "painted"} <= set(names)
        assert [each.number for each in other.store.events_after("a", 0)] == list(range(1, len(names) + 1))
        await until(lambda: one.position("a") is None and one.state() == other.state() == "READY")
        [worker] = one.workers()
        assert worker.id.startswith(offices.hosts[0].name) and worker.device == "cpu"

    in_offices(postgres_stores, test)


async def _names(desk: SharedDesk, job_id: str) -> list[str]:
    while await desk.get(job_id) is None:
        await asyncio.sleep(0.01)
    return [each.name async for each in desk.events(job_id)]


def test_positions_are_over_all(postgres_stores: PostgresStores) -> None:
    async def test(offices: Offices) -> None:
        one, other = offices.desks
        for number, desk in enumerate((one, other, one)):
            await desk.submit(wanted(f"j{number}", "step=1"))
        for desk in (one, other):
            await until(lambda desk=desk: [desk.position(f"j{n}") for n in range(3)] == [0, 1, 2])  # type: ignore[misc]
            assert desk.state() == "STARTING", "nobody paints"
        await one.cancel("j0")
        await until(lambda: other.position("j1") == 0)
        assert (await other.get("j0")).state is JobState.CANCELLED  # type: ignore[union-attr]

    in_offices(postgres_stores, test)


def test_a_running_job_is_stopped_from_anywhere(postgres_stores: PostgresStores) -> None:
    async def test(offices: Offices) -> None:
        one, other = offices.desks
        await offices.host()
        for job_id in ("cancel", "early"):
            await one.submit(wanted(job_id, "step=10 listen"))
            await until(lambda job_id=job_id: (live := other.running(job_id)) and live.step == 10)  # type: ignore[misc]
            assert other.position(job_id) == 0
            if job_id == "cancel":
                await other.cancel(job_id)
            else:
                await other.finish_early()
            record = await ended(one, job_id)
            assert (record.state is JobState.CANCELLED) == (job_id == "cancel")
            await until(lambda: not other.all_running())

    in_offices(postgres_stores, test)


def test_a_host_that_leaves_hands_its_job_on(shared_stores: PostgresStores) -> None:
    async def test(offices: Offices) -> None:
        desk = offices.desks[0]
        first = await offices.host()
        await desk.submit(wanted("a", "batch=0 step=10 listen"))
        await until(lambda: (live := desk.running("a")) and live.step == 10)
        await first.drain(0)
        record = await desk.get("a")
        assert record is not None and record.state is JobState.QUEUED
        await first.close()
        assert [each.number for each in desk.store.batches("a")] == [0]
        await offices.host()
        await until(lambda: (live := desk.running("a")) and live.step == 10)
        await desk.finish_early("a")
        record = await ended(desk, "a")
        assert (record.state, record.attempts) == (JobState.FINISHED, 2)
        assert not any(each.id.startswith(first.name) for each in desk.workers())

    in_offices(shared_stores, test)


def test_a_host_that_stalls_loses_its_job_and_writes_nothing_more(shared_stores: PostgresStores) -> None:
    """Its heart stops for longer than the lease, and its worker goes on."""

    async def test(offices: Offices) -> None:
        assert offices.clock is not None
        desk = offices.desks[0]
        first = await offices.host()
        await desk.submit(wanted("a", "step=10 listen"))
        await until(lambda: (live := desk.running("a")) and live.step == 10)
        beats = first.runner._beats
        assert beats is not None
        await asyncio.to_thread(beats.stop)
        assert first.runner.state == "UNHEALTHY"
        running = first.runner._running["a"]
        offices.clock.now += 31.0
        second = await offices.host()
        await until(lambda: "a" in second.runner._running)
        fence = second.runner._running["a"].fence
        running.worker.stop("a", Stop.FINISH_EARLY)
        await until(lambda: "a" not in first.runner._running)
        record = await desk.get("a")
        assert record is not None and record.state is JobState.RUNNING, "what the first one says of it does not count"
        second.runner._running["a"].stop(Stop.FINISH_EARLY)
        record = await ended(desk, "a")
        assert (record.state, record.attempts, fence) == (JobState.FINISHED, 2, 2)

    in_offices(shared_stores, test, Clock(1000.0))


def test_deaths_are_counted_wherever_they_happen(postgres_stores: PostgresStores) -> None:
    async def test(offices: Offices) -> None:
        desk = offices.desks[0]
        for _ in range(2):
            await offices.host()
        await desk.submit(wanted("bad", "die=9"))
        await desk.submit(wanted("good", "step=1"))
        bad, good = await ended(desk, "bad"), await ended(desk, "good")
        assert bad.error is not None and bad.error.code == "crashed" and "died 2 times" in bad.error.message
        assert good.state is JobState.FINISHED

    in_offices(postgres_stores, test)


def test_many_jobs_by_two_hosts(shared_stores: PostgresStores) -> None:
    async def test(offices: Offices) -> None:
        for _ in range(2):
            await offices.host()
        jobs = [f"j{number}" for number in range(12)]
        for number, job_id in enumerate(jobs):
            await offices.desks[number % 2].submit(wanted(job_id, "picture=0", client=f"c{number % 3}"))
        records = [await ended(offices.desks[1], each) for each in jobs]
        assert {each.state for each in records} == {JobState.FINISHED}
        assert {each.attempts for each in records} == {1}
        for each in records:
            assert offices.desks[0].store.result_bytes(each.id, "0.png") == b"picture 0"

    in_offices(shared_stores, test)


def test_questions_are_answered_from_afar(postgres_stores: PostgresStores) -> None:
    async def test(offices: Offices) -> None:
        desk = offices.desks[0]
        with pytest.raises(WorkerGone):
            await desk.ask("load", {"checkpoint": "x"})
        await offices.host()
        await until(lambda: desk.state() == "READY")
        assert await desk.ask("hello", {"x": 1}) == {"what": "hello", "x": 1}
        with pytest.raises(WorkerRefused, match="no"):
            await desk.ask("never")

    in_offices(postgres_stores, test)


def test_who_waits_too_long_is_told(postgres_stores: PostgresStores) -> None:
    async def test(offices: Offices) -> None:
        one, other = offices.desks
        await one.submit(wanted("a", "step=1", queue_seconds=0.001))
        record = await ended(other, "a")
        assert record.error is not None and record.error.code == "deadline"

    in_offices(postgres_stores, test)


def test_a_killed_host_is_survived_by_its_jobs(postgres_stores: PostgresStores) -> None:
    """As by kill -9: it says nothing any more, and its lease runs out."""

    async def test(offices: Offices) -> None:
        assert offices.clock is not None
        desk = offices.desks[0]
        first = await offices.host()
        await desk.submit(wanted("a", "step=10 listen"))
        await until(lambda: (live := desk.running("a")) and live.step == 10)
        beats = first.runner._beats
        assert beats is not None
        await asyncio.to_thread(beats.stop)
        for each in (*first.runner._tasks, *first.runner._tasks_of_jobs):
            each.cancel()
        second = await offices.host()
        await until(lambda: second.runner.state == "READY")
        assert not second.runner._running, "it may be that the other one still lives"
        offices.clock.now += 31.0
        await until(lambda: "a" in second.runner._running)
        await desk.cancel("a")
        record = await ended(desk, "a")
        assert (record.state, record.attempts) == (JobState.CANCELLED, 2)

    in_offices(postgres_stores, test, Clock(1000.0))


def test_a_store_of_pictures_that_comes_back_has_lost_nothing(
    object_stores: ObjectStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is begun while it is away; what could not be kept is painted again."""

    async def test(offices: Offices) -> None:
        desk = offices.desks[0]
        host = await offices.host()
        await until(lambda: desk.state() == "READY")
        object_stores.is_away = True
        await desk.submit(wanted("a", "picture=0"))
        await until(lambda: object_stores.refused and not host.runner._running)
        assert not host.runner.can_write and host.runner.state == "UNHEALTHY"
        object_stores.is_away = False
        record = await ended(desk, "a")
        assert record.state is JobState.FINISHED and record.attempts >= 2
        assert desk.store.result_bytes("a", "0.png") == b"picture 0"

    monkeypatch.setattr("overpaint.service.store.objects._PAUSES", (0.0,))
    in_offices(object_stores, test)


def test_a_job_whose_pictures_are_never_taken_says_why(
    object_stores: ObjectStores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes what is tried, and nothing of this job."""

    async def test(offices: Offices) -> None:
        desk = offices.desks[0]
        await offices.host()
        object_stores.refuses = "results/"
        await desk.submit(wanted("a", "picture=0"))
        record = await ended(desk, "a")
        assert record.error is not None and record.error.code == "save"
        assert "the store of pictures does not answer as it should (OSError)" in record.error.message
        assert "memory://" not in record.error.message
        assert record.attempts == 3

    monkeypatch.setattr("overpaint.service.store.objects._PAUSES", (0.0,))
    monkeypatch.setattr("overpaint.service.queue.attempts.REFUSALS_TAKEN", 3)
    in_offices(object_stores, test)
