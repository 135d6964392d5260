"""Who is next, how many come before, and how long it takes: all from one policy, and cheap to ask."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overpaint.service.job_models import PATIENCE, USUAL_SECONDS
from overpaint.service.jobs import Job, JobState, Live, Record, Uptimes
from overpaint.service.limits import Limits
from overpaint.service.queue import policy, waiting_jobs
from overpaint.service.queue.estimates import work_of
from overpaint.service.queue.waiting_jobs import WaitingJobs, WorkerNow
from overpaint.service.store.sqlite_store import JobStore
from tests.service.fake_store import FakeStore
from tests.service.queue.desk_tools import FAKE_WORKER, config_for, ended_well, opened, run, until_running, wanted
from tests.service.store.store_tools import Clock

NOW = 1_000_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


def job(name: str, client: str = "ann", *, priority: int = 0, accepted: float = NOW, steps: int = 20) -> Record:
    wish = Job(id=name, kind="paint", request={"steps": steps}, settings={}, client=client, priority=priority)
    return Record(job=wish, uptimes=Uptimes(accepted=accepted))


def done(client: str, seconds: float, *, ended: float = NOW, steps: int = 20) -> Record:
    of = job(f"done by {client}", client, steps=steps).job
    return Record(job=of, state=JobState.FINISHED, uptimes=Uptimes(started=ended - seconds, ended=ended))


def heard(step: int, steps: int, seconds: float) -> dict[str, Any]:
    """Of a running job that makes a step a second, since so many seconds."""
    own = {"first_step": 0, "first_at": NOW - step, "step_at": NOW}
    return {"step": step, "steps": steps, "begun_at": NOW - seconds, **own}


def taken_in_turn(found: WaitingJobs, clock: Clock, seconds: Callable[[Job], float]) -> list[str]:
    """Every job has its turn, and takes as long as was foretold."""
    order = []
    while (turn := found.take()) is not None:
        job = turn.record.job
        order.append(job.id)
        started = clock.now
        clock.now += seconds(job)
        uptimes = Uptimes(started=started, ended=clock.now)
        found.learn(Record(job=job, state=JobState.FINISHED, uptimes=uptimes))
    return order


def test_clients_priorities_and_age_in_one_queue(clock: Clock) -> None:
    found = WaitingJobs(Limits(), clock)
    found.learn(done("ann", 100.0), done("bob", 10.0))
    for each in (
        job("ann 1"),
        job("bob 1", "bob"),
        job("ann urgent", priority=1),
        job("cat 1", "cat"),
        job("ann old", priority=-10, accepted=NOW - PATIENCE - 1),
    ):
        found.add(each)
    order = ["ann old", "ann urgent", "cat 1", "bob 1", "ann 1"]
    assert sorted(order, key=lambda each: found.position(each) or 0) == order
    assert [found.position(each) for each in order] == [0, 1, 2, 3, 4]
    assert [each.record.id for each in iter(found.take, None)] == order


@pytest.mark.parametrize("seed", range(20))
def test_what_is_foretold_is_what_comes(clock: Clock, seed: int) -> None:
    """Positions and estimates are those of the turns that are taken, if nothing new comes and jobs take their time."""
    rng = random.Random(seed)
    found = WaitingJobs(Limits(), clock)
    found.learn(*(done(rng.choice("abc"), 20.0) for _ in range(5)))  # a second for each step
    for number in range(40):
        accepted = NOW - rng.choice((0, 250, 290, 400))
        client, priority = rng.choice("abcdef"), rng.choice((0, 0, 0, 3))
        found.add(job(f"{number}", client, priority=priority, accepted=accepted, steps=rng.choice((5, 20, 60))))
    names = [str(number) for number in range(40)]
    foretold = {each: (found.position(each), found.seconds_until_done(each)) for each in names}
    pace = 20.0 / work_of(job("any").job)
    seconds = {each.id: pace * work_of(each.job) for each in found._waiting.values()}
    order = taken_in_turn(found, clock, lambda each: seconds[each.id])
    assert [foretold[each][0] for each in order] == list(range(40))
    passed = 0.0
    for each in order:
        passed += seconds[each]
        assert foretold[each][1] == pytest.approx(passed, rel=1e-6)


def test_what_runs_counts_for_its_client_before_it_is_over(clock: Clock) -> None:
    running = (job("long", "ann", steps=100).job, Live(job="long", **heard(50, 100, 51.0)))
    found = WaitingJobs(Limits(), clock, lambda: [WorkerNow(running=(running,))])
    found.learn(done("cat", 20.0))
    for each in (job("a", "ann"), job("b", "bob")):
        found.add(each)
    assert [found.position(each) for each in "ba"] == [0, 1]
    assert found.seconds_left(*running) == pytest.approx(51.0)  # 50 steps, and what comes after them
    assert [found.seconds_until_done(each) for each in "ba"] == [pytest.approx(71.0), pytest.approx(91.0)]


def test_nothing_is_foretold_before_a_job_was_done(clock: Clock) -> None:
    running: list[tuple[Job, Live]] = []
    found = WaitingJobs(Limits(), clock, lambda: [WorkerNow(running=tuple(running))])
    found.add(job("a"))
    assert (found.position("a"), found.seconds_until_done("a"), found.position("b")) == (0, None, None)
    running.append((job("r").job, Live(job="r", begun_at=NOW)))
    assert (found.seconds_until_done("a"), found.seconds_left(*running[0])) == (None, None)
    assert found._seconds(job("x").job) == (USUAL_SECONDS, False)


def test_a_job_that_is_put_back_comes_before_its_equals_and_never_too_late(clock: Clock) -> None:
    found = WaitingJobs(Limits(queue_deadline=10.0), clock)
    for each in ("a", "b"):
        found.add(job(each, each))
    taken = found.take()
    assert taken is not None and taken.record.id == "a"
    found.put_back(taken.record)
    assert [found.position(each) for each in "ab"] == [0, 1]
    clock.now += 11.0
    assert found.late() == ["b"]


def test_asking_is_cheap(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counted(*values: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        return policy.turns(*values, **named)

    monkeypatch.setattr(waiting_jobs, "turns", counted)
    found = WaitingJobs(Limits(), clock)
    found.learn(done("ann", 20.0))
    for number in range(64):
        found.add(job(f"{number}", f"client{number % 8}"))
    for _ in range(10):
        assert sorted(found.position(str(n)) or 0 for n in range(64)) == list(range(64))
        assert all(found.seconds_until_done(str(n)) for n in range(64))
    assert asked == 1
    found.drop("3")
    assert found.position("3") is None
    assert asked == 2
    clock.now += 10.0  # who has waited too long, and what clients had, changes by itself
    found.position("4")
    assert asked == 3


# -- at the desk -------------------------------------------------------------------------------------------------------


async def ends_of(desk: Any, *names: str) -> list[str]:
    """The jobs, in the order in which they came to their ends."""
    records = [ended_well(await desk.wait(each)) for each in names]
    return [each.id for each in sorted(records, key=lambda each: each.ended or 0.0)]


def test_the_desk_serves_clients_in_turn(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(FakeStore(tmp_path), config_for(tmp_path), FAKE_WORKER) as desk:
            await desk.submit(wanted("first", "step=1 sleep=0.4", client="ann"))
            await until_running(desk, "first", step=1)
            for number in range(3):
                await desk.submit(wanted(f"ann{number}", "sleep=0.15", client="ann"))
            for client in ("bob", "cat"):
                await desk.submit(wanted(client, "sleep=0.15", client=client))
            await desk.submit(wanted("urgent", "sleep=0.01", client="ann", priority=1))
            names = ("ann0", "ann1", "ann2", "bob", "cat", "urgent")
            foretold = sorted(names, key=lambda each: desk.position(each) or 0)
            assert foretold == ["urgent", "bob", "cat", "ann0", "ann1", "ann2"]
            assert await ends_of(desk, *names) == foretold

    run(story())


def test_what_clients_had_outlives_a_restart(tmp_path: Path) -> None:
    config = config_for(tmp_path)

    async def before() -> None:
        store = JobStore(tmp_path)
        async with opened(store, config, FAKE_WORKER) as desk:
            await desk.submit(wanted("long", "sleep=0.5", client="ann"))
            ended_well(await desk.wait("long"))
        for name, client in (("a", "ann"), ("b", "bob"), ("c", "ann")):  # while no desk is there
            store.accept(wanted(name, "sleep=0.1", client=client, created=time.time()))
        store.close()

    async def after() -> None:
        store = JobStore(tmp_path)
        async with opened(store, config, FAKE_WORKER) as desk:
            assert [desk.position(each) for each in "bac"] == [0, 1, 2]
            assert await ends_of(desk, "a", "b", "c") == ["b", "a", "c"]
        store.close()

    asyncio.run(before())
    asyncio.run(after())


@pytest.mark.parametrize("fake", [True, False])
def test_what_is_finished_has_made_all_its_steps_and_what_was_stopped_those_it_made(tmp_path: Path, fake: bool) -> None:
    store: Any = FakeStore(tmp_path) if fake else JobStore(tmp_path)

    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await desk.submit(wanted("whole", "step=1 step=60 batch=0"))
            await desk.submit(wanted("early", "step=1 step=60 listen"))
            record = ended_well(await desk.wait("whole"))
            assert (record.step, record.steps) == (100, 100)
            await until_running(desk, "early", step=60)
            await desk.finish_early("early")
            record = ended_well(await desk.wait("early"))
            assert (record.step, record.steps, record.result.stopped) == (60, 100, True)

    run(story())
    store.close()
