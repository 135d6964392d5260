"""One queue before several workers: each has its jobs, its deaths and its stops, and none of another's."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overpaint.service.job_models import OWN_MODEL
from overpaint.service.jobs import Claim, JobState, Record
from overpaint.service.ports import Store
from overpaint.service.queue import attempts
from overpaint.service.queue import runner as runner_module
from overpaint.service.queue.desk import LocalDesk
from overpaint.service.queue.event_feed import ENDS
from overpaint.service.store.sqlite_store import JobStore
from overpaint.service.workers import worker_process
from overpaint.service.workers.pool import WorkerPool, local_workers, merged_memory
from overpaint.service.workers.port import WorkerGone
from overpaint.service.workers.worker_process import JobHeard
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

SHARED_WORKER = (sys.executable, "-m", "tests.service.workers.fake_shared_worker")


@asynccontextmanager
async def desk_on(
    data: Path, count: int, store: Store | None = None, slots: int = 0, **limits: Any
) -> AsyncIterator[LocalDesk]:
    """Workers without an engine; `slots`: of those that have several jobs at a time."""
    device = f"fake:{slots}" if slots else "cpu"
    config = replace(config_for(data, Path("own"), **limits), devices=(device,) * count)
    command = SHARED_WORKER if slots else FAKE_WORKER
    async with opened(store or FakeStore(data), config, command) as desk:
        while not all(each.is_prepared for each in desk._runner.pool.workers):
            await asyncio.sleep(0.02)
        yield desk


def names(desk: LocalDesk, job_id: str) -> list[str]:
    return [each.name for each in desk.store.events_after(job_id, 0)]


def jobs_by_worker(desk: LocalDesk) -> list[list[str]]:
    return [list(each.jobs) for each in desk.workers()]


def loads(data: Path) -> list[str]:
    file = data / "loads"
    return file.read_text().splitlines() if file.exists() else []


# -- side by side ------------------------------------------------------------------------------------------------------


def test_jobs_run_side_by_side_and_the_rest_waits(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 3) as desk:
            assert desk.state() == "READY"
            for name in "abcde":
                await desk.submit(wanted(name, "step=1 listen"))
            for name in "abc":
                await until_running(desk, name, step=1)
            assert [each.job for each in desk.all_running()] == ["a", "b", "c"]
            assert sorted(jobs_by_worker(desk)) == [["a"], ["b"], ["c"]]
            assert [desk.position(each) for each in "abcde"] == [0, 0, 0, 0, 1]
            assert desk.state() == "BUSY"
            assert (desk.running() or desk.running("x")) is desk.running("a")
            await desk.finish_early("b")  # whose worker is the next one's
            ended_well(await desk.wait("b"))
            await until_running(desk, "d", step=1)
            assert desk.running("e") is None and desk.running("a") is not None
            for name in "acd":
                assert (await desk.cancel(name)).state is JobState.CANCELLED
            await until_running(desk, "e", step=1)
            assert desk.state() == "READY"
            await desk.skip("e")
            await desk.finish_early()
            ended_well(await desk.wait("e"))

    run(story())


def test_what_is_foretold_counts_all_workers(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 2) as desk:
            await desk.submit(wanted("before", "step=1 sleep=0.6"))
            ended_well(await desk.wait("before"))
            for name in "abcd":
                await desk.submit(wanted(name, "step=1 sleep=0.6"))
            await until_running(desk, "b", step=1)
            etas = [desk.eta(each) for each in "cd"]
            assert [desk.position(each) for each in "cd"] == [0, 1]
            assert None not in etas and max(each or 0.0 for each in etas) < 1.9, "both are second, at two workers"
            for name in "abcd":
                ended_well(await desk.wait(name))

    run(story())


def test_a_death_is_a_matter_of_the_jobs_it_had(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 2) as desk:
            for name in "ab":
                await desk.submit(wanted(name, "batch=0 step=1 sleep=0.8 batch=1"))
            for name in "ab":
                await until_running(desk, name, step=1)
            (victim,) = [each for each in desk.workers() if "a" in each.jobs]
            pid = worker_of(desk, int(victim.id)).pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert ended_well(await desk.wait("b")).attempts == 1
            record = ended_well(await desk.wait("a"))
            assert record.attempts == 2
            assert [each.data["batch"] for each in await story_of(desk, "a") if each.name == "painted"] == [0, 1]
            assert Counter(each.deaths for each in desk.workers()) == {0: 1, 1: 1}

    run(story())


def test_a_worker_that_hangs_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 2, watchdog=3.0) as desk:
            await desk.submit(wanted("hangs", "step=1 sleep=600"))
            await until_running(desk, "hangs", step=1)
            for number in range(4):
                ended_well(await _done(desk, f"j{number}"))
            record = await desk.wait("hangs")
            assert record.error is not None and record.error.code == "hung"
            ended_well(await _done(desk, "last"))

    async def _done(desk: LocalDesk, name: str) -> Record:
        await desk.submit(wanted(name, "step=1 batch=0"))
        return await desk.wait(name)

    run(story())


def test_a_slow_load_blocks_no_other_worker(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 2) as desk:
            await desk.submit(wanted("slow", "listen", request={"checkpoint": "huge"}))
            await until_running(desk, "slow")
            for number in range(5):
                await desk.submit(wanted(f"j{number}", "batch=0"))
            for number in range(5):
                ended_well(await desk.wait(f"j{number}", 20))
            assert desk.running("slow") is not None
            await desk.cancel("slow")

    run(story())


@pytest.mark.parametrize("count", [2, 3])
def test_a_drain_lets_all_of_them_end(tmp_path: Path, count: int) -> None:
    store = FakeStore(tmp_path)

    async def story() -> None:
        async with desk_on(tmp_path, count, store) as desk:
            for number in range(count + 1):
                await desk.submit(wanted(f"j{number}", "batch=0 step=1 sleep=0.5"))
            for number in range(count):
                await until_running(desk, f"j{number}", step=1)
            await desk.submit(wanted("long", "listen"))
            await desk.drain(10)
            assert desk.running() is None

    run(story())
    assert [each.state for each in store.jobs.values()] == [JobState.FINISHED] * count + [JobState.QUEUED] * 2


def test_a_drain_that_is_over_puts_all_of_them_back(tmp_path: Path) -> None:
    store = FakeStore(tmp_path)

    async def story() -> None:
        async with desk_on(tmp_path, 3, store) as desk:
            for name in "abc":
                await desk.submit(wanted(name, "batch=0 step=1 listen"))
            for name in "abc":
                await until_running(desk, name, step=1)
            await desk.drain(0.1)

    run(story())
    assert {each.state for each in store.jobs.values()} == {JobState.QUEUED}
    assert all(len(store.batches(name)) == 1 for name in "abc")


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_forty_jobs_of_two_checkpoints_are_two_loads(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 2, slots=1) as desk:
            for number in range(40):
                job = wanted(f"j{number}", "step=1 sleep=0.01 batch=0", request={"checkpoint": "ab"[number % 2]})
                await desk.submit(job)
            for number in range(40):
                ended_well(await desk.wait(f"j{number}"))
            assert sorted(each.split()[1] for each in loads(tmp_path)) == ["a", "b"]
            told = desk.workers()
            assert sorted(str((each.model or {})["name"]) for each in told) == ["a", "b"]
            assert [each.switches for each in told] == [2, 2]  # the server's own, and one more

    run(story())


def test_a_worker_is_known_for_all_that_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker keeps several checkpoints while there is memory, and says at the end of each job which they are."""
    (worker,) = local_workers(config_for(tmp_path, Path("own")))
    assert isinstance(worker, worker_process.WorkerProcess)
    monkeypatch.setattr(worker, "open", lambda changed: setattr(worker, "_changed", changed))
    pool = WorkerPool([worker], "/models/own.safetensors")
    pool.open(lambda: None)

    def told(kind: str, *files: str, **values: Any) -> None:
        worker._take({"type": kind, "holds": [f"/models/{each}" for each in files], **values})

    def gets(model: str) -> bool:
        return pool.give(worker, wanted(model, "", request={"checkpoint": model}))

    def holds() -> set[str]:
        return set(pool.models(worker))

    told("ready", "own.safetensors", model={"name": "own"}, device="cpu")
    assert holds() == {OWN_MODEL, "own"}
    assert gets("a") and not gets("a") and not gets("own.safetensors")
    worker._jobs["a"] = JobHeard()
    told("ended", "own.safetensors", "a.ckpt", "x.vae.pt", job="a")
    assert holds() >= {OWN_MODEL, "own", "a"} and not gets("a")
    assert gets("b") and holds() >= {"a", "b"}
    told("ended", "b.safetensors", job="a")  # memory was short
    assert holds() == {"b"} and gets("a")
    told("ended", "b.safetensors", job="a")  # of a job before
    assert holds() == {"a", "b"}, "it is on its way to that one"
    worker._bury(9)
    assert holds() == {OWN_MODEL, "own"}, "the next process begins with the server's own"


def test_questions_go_to_whom_they_concern(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 3, slots=1) as desk:
            pool = desk._runner.pool
            for number, model in enumerate("ab"):
                await desk.submit(wanted(f"j{number}", "step=1 listen", request={"checkpoint": model}))
                await until_running(desk, f"j{number}", step=1)
            busy = {each.jobs[0]: each.id for each in desk.workers() if each.jobs}
            await desk.ask("load", {"checkpoint": "c"})
            with_c = [each.name for each in pool.workers if "c" in pool.models(each)]
            assert len(with_c) == 1 and with_c[0] not in busy.values(), "the idle one"
            await desk.ask("load", {"checkpoint": "a"})
            assert [each.name for each in pool.workers if "a" in pool.models(each)] == [busy["j0"]], "it has it"
            await desk.ask("unload")
            assert [pool.models(each) for each in pool.workers] == [frozenset()] * 3
            for name in ("j0", "j1"):
                await desk.cancel(name)

    run(story())


def test_memory_is_told_of_all_in_the_words_for_one() -> None:
    card = {"system": {"free": 1, "used": 2, "total": 3}, "events": {"oom": 1}}
    one = {"ram": {"free": 10, "used": 4, "total": 20}, "cuda": card}
    assert merged_memory([one]) == one
    cuda = {"system": {"free": 2, "used": 4, "total": 6}, "events": {"oom": 2}}
    assert merged_memory([one, one]) == {"ram": {"free": 10, "used": 8, "total": 20}, "cuda": cuda}
    without = {"ram": {"free": 10, "used": None, "total": 20}, "cuda": {"error": "unavailable"}}
    assert merged_memory([without, without]) == without
    assert merged_memory([without, one])["cuda"] == card


def test_cores_are_shared_between_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    config = replace(config_for(tmp_path), devices=("cpu",) * 4)
    found: list[Any] = [*local_workers(config)]
    assert [each._variables for each in found] == [{"OMP_NUM_THREADS": "2"}] * 4
    assert [each.name for each in found] == ["0", "1", "2", "3"]
    (alone,) = local_workers(replace(config, devices=("cpu",)))
    assert isinstance(alone, worker_process.WorkerProcess) and alone._variables == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    given: list[Any] = [*local_workers(config)]
    assert given[0]._variables == {}


# -- some of them fit --------------------------------------------------------------------------------------------------


def test_a_worker_that_can_paint_nothing_gets_no_jobs(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 2) as desk:
            worker = worker_of(desk, 0)
            worker._take({"type": "unfit", "error": {"code": "checkpoint", "message": "no device"}})
            assert desk.state() == "READY"
            for number in range(4):
                await desk.submit(wanted(f"j{number}", "batch=0"))
            for number in range(4):
                ended_well(await desk.wait(f"j{number}"))
            assert [each.state for each in desk.workers()] == ["UNHEALTHY", "READY"]
            error = await desk.unfit()
            assert error is not None and (error.code, error.message) == ("checkpoint", "device 'cpu': no device")

    run(story())


# -- several jobs in one -----------------------------------------------------------------------------------------------


def test_a_worker_with_slots_has_several_jobs_that_share_a_model(tmp_path: Path) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 1, slots=3) as desk:
            for name in "abcd":
                await desk.submit(wanted(name, "step=1 listen"))
            for name in "abc":
                await until_running(desk, name, step=1)
            assert jobs_by_worker(desk) == [["a", "b", "c"]]
            await desk.submit(wanted("other", "step=1 listen", request={"checkpoint": "b"}))
            assert (await desk.cancel("b")).state is JobState.CANCELLED
            await until_running(desk, "d", step=1)
            await desk.finish_early("a")
            ended_well(await desk.wait("a"))
            await asyncio.sleep(0.2)
            assert desk.running("other") is None, "nothing is swapped under those that run"
            for name in "cd":
                await desk.finish_early(name)
                ended_well(await desk.wait(name))
            await until_running(desk, "other", step=1)
            await desk.cancel("other")

    run(story())


def test_of_jobs_that_died_together_each_is_tried_again_alone(tmp_path: Path) -> None:
    """The bad one fails as it would have alone; the good ones end as they would have."""

    async def story() -> None:
        async with desk_on(tmp_path, 1, slots=3) as desk:
            await desk.submit(wanted("good", "batch=0 step=1 sleep=0.5 batch=1"))
            await desk.submit(wanted("bad", "step=1 sleep=0.2 die=9"))
            record = await desk.wait("bad", 60)
            assert record.error is not None and (record.error.code, record.attempts) == ("crashed", 2)
            good = ended_well(await desk.wait("good", 60))
            assert good.attempts == 2
            assert [each.data["batch"] for each in await story_of(desk, "good") if each.name == "painted"] == [0, 1]
            assert desk.workers()[0].deaths == 2

    run(story())


def test_a_deadline_of_one_is_no_fault_of_those_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "DEADLINE_PATIENCE", 0.2)

    async def story() -> None:
        async with desk_on(tmp_path, 1, slots=2) as desk:
            await desk.submit(wanted("beside", "step=1 sleep=1.2 die-once=9 batch=0"))
            await desk.submit(wanted("late", "step=1 sleep=600", run_seconds=0.3))
            record = await desk.wait("late")
            assert record.error is not None and record.error.code == "deadline"
            assert ended_well(await desk.wait("beside")).attempts == 3, "its own death is its first one"

    run(story())


# -- claims ------------------------------------------------------------------------------------------------------------


def test_a_job_that_another_runner_has_taken_over_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As over a store that runners on two machines share, one of which was away for too long."""
    monkeypatch.setattr(runner_module, "LEASE", 0.3)
    store = JobStore(tmp_path)
    renew = store.renew
    away = False
    monkeypatch.setattr(store, "renew", lambda *values: True if away else renew(*values))

    async def story() -> None:
        nonlocal away
        async with desk_on(tmp_path, 2, store) as desk:
            await desk.submit(wanted("a", "batch=0 step=1 sleep=1.5 batch=1 step=5"))
            await until_running(desk, "a", step=1)
            await asyncio.sleep(0.5)
            assert store.claim("a", "another", 60.0) is None, "its lease is renewed"
            away = True
            await asyncio.sleep(0.4)
            other = store.claim("a", "another", 60.0)
            assert isinstance(other, Claim)
            while desk.running("a") is not None:
                await asyncio.sleep(0.02)
            assert names(desk, "a") == ["queued", "started", "painted", "progress"]
            record = store.get("a")
            assert record is not None and record.state is JobState.RUNNING
            store.end("a", JobState.FINISHED, 1.0, fence=other.fence)
            await desk.submit(wanted("next", "batch=0"))
            ended_well(await desk.wait("next"))

    run(story())
    assert store.integrity_check() == []
    store.close()


def test_a_claim_that_is_lost_is_noticed_by_its_renewal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "LEASE", 0.3)
    store = FakeStore(tmp_path)

    async def story() -> None:
        async with desk_on(tmp_path, 1, store) as desk:
            await desk.submit(wanted("a", "step=1 listen"))
            await until_running(desk, "a", step=1)
            store.fences["a"] += 1
            while desk.running("a") is not None:
                await asyncio.sleep(0.02)
            assert store.jobs["a"].state is JobState.RUNNING
            await desk.submit(wanted("next", "batch=0"))
            ended_well(await desk.wait("next"))

    run(story())


# -- everything at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "slots"), [(0, 0), (1, 2), *(pytest.param(n, n % 3, marks=pytest.mark.long) for n in range(2, 8))]
)
def test_whatever_happens_each_job_ends_once(tmp_path: Path, seed: int, slots: int) -> None:
    """Three workers that die at any moment, under clients that cancel and hurry."""
    rng = random.Random(seed)
    store = FakeStore(tmp_path)

    async def client(desk: LocalDesk, number: int) -> None:
        for count in range(6):
            name = f"c{number}-{count}"
            prompt = rng.choice(("batch=0", "step=1 sleep=0.05 batch=0", "batch=0 die-once=9 batch=1", "sleep=0.1"))
            model = rng.choice((None, None, "a", "b"))
            await desk.submit(wanted(name, prompt, client=f"c{number}", request={"checkpoint": model}))
            await asyncio.sleep(rng.uniform(0, 0.2))
            act = rng.choice(("cancel", "finish early", "nothing", "nothing"))
            if act == "cancel":
                await desk.cancel(name)
            elif act == "finish early":
                await desk.finish_early(name)
            desk.position(name), desk.eta(name)

    async def murderer(desk: LocalDesk) -> None:
        for _ in range(6):
            await asyncio.sleep(rng.uniform(0.1, 0.5))
            worker_of(desk, rng.randrange(3)).kill()

    async def story() -> None:
        async with desk_on(tmp_path, 3, store, slots) as desk:
            await asyncio.gather(murderer(desk), *(client(desk, number) for number in range(5)))
            for name in list(store.jobs):
                assert (await desk.wait(name, 60)).state.is_end, name
            runner = desk._runner
            assert (desk.running(), len(runner.turns), len(desk._thread.feed)) == (None, 0, 0)
            assert not runner._before and not len(runner._unsaved)

    run(story())
    check_ends(store, store.jobs.values())


def check_ends(store: FakeStore, records: Sequence[Record] | Any) -> None:
    assert len(store.jobs) == 30
    for record in records:
        told = [each.name for each in store.told[record.id]]
        assert (told[0], told[-1], sum(each in ENDS for each in told)) == ("queued", record.state.value, 1), told
        is_crashed = record.error is not None and record.error.code == "crashed"
        assert is_crashed or record.state in (JobState.FINISHED, JobState.CANCELLED)


def test_a_question_where_no_worker_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with desk_on(tmp_path, 2) as desk:
            monkeypatch.setattr(worker_process, "STARTING_PATIENCE", 0.05)
            monkeypatch.setattr(worker_process, "_BACKOFF", (60.0,))
            worker_of(desk, 0).kill()
            assert await desk.ask("memory") == {"what": "memory"}, "the other one answers"
            worker_of(desk, 1).kill()
            with pytest.raises(WorkerGone):
                await desk.ask("memory")
            assert [each.memory for each in await desk.workers_in_full()] == [None, None]

    run(story())
