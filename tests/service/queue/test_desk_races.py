"""Two things at once: whoever comes second, or in between, is heard all the same, and no job is lost over it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from overpaint.service.jobs import JobState, Record
from overpaint.service.queue import attempts
from overpaint.service.queue import runner as runner_module
from overpaint.service.queue.desk import LocalDesk
from overpaint.service.queue.event_feed import ENDS
from overpaint.service.workers import worker_process
from overpaint.service.workers.port import WorkerGone
from tests.service.fake_store import FakeStore
from tests.service.queue.desk_tools import (
    FAKE_WORKER,
    config_for,
    ended_well,
    opened,
    run,
    story_of,
    until_ready,
    until_running,
    wanted,
    worker_of,
)


@asynccontextmanager
async def desk_on(tmp_path: Path, **limits: Any) -> AsyncIterator[LocalDesk]:
    async with opened(FakeStore(tmp_path), config_for(tmp_path, **limits), FAKE_WORKER) as desk:
        yield desk


def code_of(record: Record) -> str | None:
    return None if record.error is None else record.error.code


def lose_worker_at_start(desk: LocalDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the next job is set running, the worker dies, and no other one comes."""
    store, pid = desk.store, worker_of(desk).pid
    begin = store.claim
    assert pid is not None

    def claim(*values: Any, **named: Any) -> Any:
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)  # until that was noticed
        return begin(*values, **named)

    monkeypatch.setattr(worker_process, "_BACKOFF", (60.0,))
    monkeypatch.setattr(store, "claim", claim)


# -- between acceptance and the worker's first word --------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_a_worker_that_dies_before_it_has_begun_costs_the_job_nothing(tmp_path: Path, times: int) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("a", "batch=0 die-once=9", request={"untaken": times}))
            record = ended_well(await desk.wait("a"))  # it may die of the job once more, as any worker may
            assert record.attempts == times + 2
            assert [each.name for each in await story_of(desk, "a")].count("painted") == 1

    run(story())


def test_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MOST_ATTEMPTS", 3)

    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("bad", "batch=0", request={"untaken": 100}))
            await desk.submit(wanted("good", "batch=0"))
            record = await desk.wait("bad")
            assert (record.state, code_of(record)) == (JobState.FAILED, "crashed")
            ended_well(await desk.wait("good"))

    run(story())


def test_cancel_where_there_is_no_worker_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await until_ready(desk)
            lose_worker_at_start(desk, monkeypatch)
            await desk.submit(wanted("a", "sleep=0"))
            await until_running(desk, "a")
            await asyncio.sleep(0.5)
            assert (await desk.get("a")) is not None and desk.running() is not None
            assert (await desk.cancel("a")).state is JobState.CANCELLED

    run(story())


def test_a_deadline_where_there_is_no_worker_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await until_ready(desk)
            lose_worker_at_start(desk, monkeypatch)
            await desk.submit(wanted("a", "sleep=0", run_seconds=0.6))
            assert code_of(await desk.wait("a", 100)) == "deadline"

    run(story())


def test_an_end_where_there_is_no_worker_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await until_ready(desk)
            lose_worker_at_start(desk, monkeypatch)
            await desk.submit(wanted("a", "sleep=0"))
            await until_running(desk, "a")
            await asyncio.sleep(0.5)
            now = time.monotonic()
            await desk.drain(0.1)
            assert time.monotonic() - now < runner_module.REQUEUE_PATIENCE / 2
            record = desk.store.get("a")
            assert record is not None and record.state is JobState.QUEUED

    run(story())


# -- stops -------------------------------------------------------------------------------------------------------------


def test_two_cancels_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("running", "step=1 listen"))
            await desk.submit(wanted("waiting", "die=3"))
            await until_running(desk, "running", step=1)
            for name in ("waiting", "running"):
                found = await asyncio.gather(*(desk.cancel(name) for _ in range(3)))
                assert {each.state for each in found} == {JobState.CANCELLED}
                assert [each.name for each in await story_of(desk, name)].count("cancelled") == 1
            assert desk.running() is None

    run(story())


def test_cancel_of_a_job_that_is_put_back_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked up says that it runs; by then its worker has died, and it waits again."""

    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("first", "step=1 sleep=0.3"))
            await until_running(desk, "first", step=1)
            await desk.submit(wanted("a", "sleep=0.3"))
            end_waiting, stale = desk._runner.end_waiting, [replace(await desk._known("a"), state=JobState.RUNNING)]

            async def late(*values: Any) -> Record:
                return stale.pop() if stale else await end_waiting(*values)

            monkeypatch.setattr(desk._runner, "end_waiting", late)
            assert (await desk.cancel("a")).state is JobState.CANCELLED
            assert not stale

    run(story())


def test_finish_early_is_not_forgotten_when_the_worker_dies(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("a", "step=1 sleep=0.3 die-once=9 listen"))
            await until_running(desk, "a", step=1)
            await desk.finish_early("a")
            await desk.skip()
            record = ended_well(await desk.wait("a", 100))
            assert record.result.stopped
            assert record.attempts == 2

    run(story())


def test_a_stop_of_what_is_over_does_not_hit_the_next_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await desk.submit(wanted("a", "sleep=0"))
            ended_well(await desk.wait("a"))
            await desk.submit(wanted("b", "step=1 listen"))
            await until_running(desk, "b", step=1)
            await desk.finish_early("a")
            assert (await desk.cancel("a")).state is JobState.FINISHED
            assert (await desk.wait("b", 0.3)).state is JobState.RUNNING
            await desk.finish_early()
            assert ended_well(await desk.wait("b")).result.stopped

    run(story())


def test_cancel_counts_more_than_finish_early_whichever_comes_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            for number in range(4):
                name = f"job{number}"
                await desk.submit(wanted(name, "sleep=0.1 die-once=4 listen"))
                await until_running(desk, name)
                first, second = (desk.cancel(name), desk.finish_early(name))[:: 1 if number % 2 else -1]
                await asyncio.gather(first, second)
                record = await desk.wait(name, 20)
                assert record.state is JobState.CANCELLED

    run(story())


# -- what hangs, and what does not -------------------------------------------------------------------------------------


def test_a_question_that_hangs_is_not_the_next_jobs_fault(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, watchdog=2.0) as desk:
            asked = asyncio.create_task(desk.ask("hang"))
            await until_ready(desk)
            await asyncio.sleep(0.05)
            await desk.submit(wanted("a", "batch=0"))
            with pytest.raises(WorkerGone):
                await asked
            assert ended_well(await desk.wait("a", 100)).attempts == 2

    run(story())


def test_an_end_that_the_disk_refused_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*values: Any, **named: Any) -> Any:
        if named.get("unless"):  # a look at what is there, so far
            return FakeStore.end(*values, **named)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner_module, "_PAUSES", (0.05,))

    async def story() -> None:
        async with desk_on(tmp_path) as desk:
            await until_ready(desk)
            monkeypatch.setattr(desk.store, "end", partial(full, desk.store))
            await desk.submit(wanted("bad", "batch=0"))
            await desk.submit(wanted("good", "step=1 listen"))
            await until_running(desk, "good", step=1)
            record = await desk.cancel("bad")  # nothing can be said of it yet
            assert record.state is JobState.RUNNING and desk.running() is not None
            monkeypatch.undo()
            ended_well(await desk.wait("bad", 100))  # as it was: what was painted is there
            assert desk.running() is not None  # the other one goes on
            await desk.finish_early()
            ended_well(await desk.wait("good"))

    run(story())


# -- ends of the server ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.3, 0.6, 0.9])
def test_a_server_that_ends_while_it_starts(tmp_path: Path, seconds: float) -> None:
    store = FakeStore(tmp_path)

    async def story() -> int | None:
        desk = LocalDesk(store, config_for(tmp_path), command=FAKE_WORKER)
        await desk.start()
        for name in ("a", "b"):
            await desk.submit(wanted(name, "batch=0 sleep=0.05 batch=1"))
        await asyncio.sleep(seconds)
        pid = worker_of(desk).pid
        await desk.drain(0.02)
        state = desk.running()
        await desk.close()
        assert state is None
        return pid

    pid = run(story())
    assert {each.state for each in store.jobs.values()} <= {JobState.QUEUED, JobState.FINISHED}
    if pid is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    async def again() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            for name in ("a", "b"):
                ended_well(await desk.wait(name))
                told = Counter(each.name for each in await story_of(desk, name))
                assert (told["queued"], told["painted"], told["finished"]) == (1, 2, 1)

    run(again())


# -- everything at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_whatever_happens_each_job_ends_once(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that submit, cancel, hurry and ask; workers that die at any moment; a store that takes its time."""
    rng = random.Random(seed)
    store = FakeStore(tmp_path)
    untouched: set[str] = set()

    async def client(desk: LocalDesk, number: int) -> None:
        for count in range(6):
            name = f"c{number}-{count}"
            prompt = rng.choice(("batch=0", "step=1 sleep=0.05 batch=0", "batch=0 die-once=9 batch=1", "sleep=0.1"))
            untaken = rng.choice((0, 0, 0, 0, 1))
            job = wanted(
                name, prompt, client=f"c{number}", priority=rng.choice((0, 0, 2)), request={"untaken": untaken}
            )
            await asyncio.gather(*(desk.submit(job) for _ in range(rng.choice((1, 1, 2)))))
            await asyncio.sleep(rng.uniform(0, 0.2))
            act = rng.choice(("cancel", "cancel twice", "finish early", "nothing", "nothing"))
            if act.startswith("cancel"):
                await asyncio.gather(*(desk.cancel(name) for _ in act.split()))
            elif act == "finish early":
                await desk.finish_early(name)
            else:
                untouched.add(name)
            desk.position(name), desk.eta(name)

    async def murderer(desk: LocalDesk) -> None:
        for _ in range(4):
            await asyncio.sleep(rng.uniform(0.2, 0.8))
            worker_of(desk).kill()

    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            write = desk._thread.call

            async def slowly(*values: Any) -> Any:
                found = await write(*values)
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.uniform(0, 0.01))
                return found

            monkeypatch.setattr(desk._thread, "call", slowly)
            killing = asyncio.create_task(murderer(desk))
            await asyncio.gather(*(client(desk, number) for number in range(5)))
            for name in list(store.jobs):
                record = await desk.wait(name, 60)
                assert record.state.is_end, record
            killing.cancel()
            with suppress(asyncio.CancelledError):
                await killing
            assert (desk.running(), len(desk._runner.turns), len(desk._thread.feed)) == (None, 0, 0)
            assert not desk._runner._before and not len(desk._runner._unsaved)

    run(story())
    assert len(store.jobs) == 30
    for name, record in store.jobs.items():
        told = [each.name for each in store.told[name]]
        assert (told[0], sum(each in ENDS for each in told)) == ("queued", 1), told
        assert told[-1] == record.state.value
        if name in untouched and record.state is not JobState.FINISHED:
            assert code_of(record) == "crashed"  # killed for a second time, by chance
        else:
            assert record.state in (JobState.FINISHED, JobState.CANCELLED) or code_of(record) == "crashed"
