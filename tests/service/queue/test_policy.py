"""Whose turn it is: priority, fairness between clients, age; and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint.service.job_models import HALF_LIFE, PATIENCE
from overpaint.service.jobs import Job, JobState, Record, Uptimes
from overpaint.service.queue.policy import PRIORITIES, RETRY_SECONDS, Place, rank, retry_after, served_seconds, turns


def job(name: str, client: str = "ann", *, priority: int = 0, accepted: float = 0.0) -> Record:
    """One that waits."""
    wish = Job(id=name, kind="paint", request={}, settings={}, client=client, priority=priority)
    return Record(job=wish, uptimes=Uptimes(accepted=accepted))


def record(client: str, started: float, ended: float | None) -> Record:
    state = JobState.RUNNING if ended is None else JobState.FINISHED
    return Record(job=job("x", client).job, state=state, uptimes=Uptimes(started=started, ended=ended))


def next_job(waiting: Sequence[Record], served: Mapping[str, float], now: float) -> Record | None:
    """The first come of those with the lowest rank."""
    return min(waiting, key=lambda each: rank(each, served, now), default=None)


def queue_order(
    waiting: Sequence[Record], served: Mapping[str, float], now: float, seconds: Callable[[Job], float]
) -> list[Record]:
    """The turns at one worker that has the model of all."""
    found = turns(waiting, served, now, lambda job: (seconds(job), True), [Place()])
    return [each.record for each in found]


JOBS = st.lists(
    st.builds(
        job,
        st.uuids().map(str),
        st.sampled_from("abc"),
        priority=st.integers(-(10**9), 10**9),
        accepted=st.floats(0, 10_000),
    ),
    max_size=12,
    unique_by=lambda each: each.id,
)
SERVED = st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e6))


def test_nothing_waits() -> None:
    assert next_job([], {}, 0.0) is None
    assert queue_order([], {}, 0.0, lambda job: 1.0) == []


def test_priority_goes_before_fairness_and_fairness_before_age() -> None:
    first, second, third = job("1", "ann"), job("2", "bob"), job("3", "ann", priority=1)
    assert next_job([first, second, third], {"ann": 100.0}, 10.0) is third
    assert next_job([first, second], {"ann": 100.0}, 10.0) is second
    assert next_job([first, second], {"ann": 5.0, "bob": 5.0}, 10.0) is first


def test_two_clients_take_turns_however_many_jobs_one_sends() -> None:
    waiting = [*(job(f"a{i}", "ann") for i in range(6)), *(job(f"b{i}", "bob") for i in range(2))]
    assert [each.id for each in queue_order(waiting, {}, 0.0, lambda job: 10.0)][:5] == ["a0", "b0", "a1", "b1", "a2"]


def test_patience_ends_at_its_limit_and_not_before() -> None:
    old, urgent = job("old", priority=PRIORITIES[0]), job("urgent", priority=PRIORITIES[1], accepted=PATIENCE)
    assert next_job([old, urgent], {"ann": 1e6}, PATIENCE) is urgent
    assert next_job([old, urgent], {"ann": 1e6}, PATIENCE + 0.001) is old


def test_a_priority_beyond_the_bounds_counts_as_the_bound() -> None:
    first, second = job("1", priority=PRIORITIES[1]), job("2", priority=10**9)
    assert next_job([first, second], {}, 0.0) is first


@given(JOBS, SERVED, st.floats(0, 10_000), st.lists(st.floats(0, 400), min_size=1))
@settings(deadline=None)
def test_the_order_is_what_turn_after_turn_gives(
    waiting: list[Record], served: dict[str, float], now: float, durations: list[float]
) -> None:
    def seconds(job: Job) -> float:
        return durations[int(job.id[:8], 16) % len(durations)]

    left, had, time, wanted = list(waiting), dict(served), now, []
    while (chosen := next_job(left, had, time)) is not None:
        left.remove(chosen)
        wanted.append(chosen)
        client = chosen.job.client
        had[client] = had.get(client, 0.0) + seconds(chosen.job)
        time += seconds(chosen.job)
    assert queue_order(waiting, served, now, seconds) == wanted


def test_the_order_of_many_is_found_without_comparing_each_with_each() -> None:
    ranked = 0

    class Counted(Job):
        def __getattribute__(self, name: str) -> Any:
            nonlocal ranked
            ranked += name in ("priority", "client")
            return super().__getattribute__(name)

    found = {}
    for count in (64, 640):
        jobs = [job(f"{n}", f"client{n % 40}", accepted=float(n)) for n in range(count)]
        waiting = [
            replace(one, job=Counted(**{each.name: getattr(one.job, each.name) for each in fields(one.job)}))
            for one in jobs
        ]
        ranked = 0
        assert len(queue_order(waiting, {}, 100.0, lambda job: 5.0)) == count
        found[count] = ranked
    assert found[640] < 15 * found[64]


@given(
    st.lists(st.lists(st.tuples(st.integers(-20, 20), st.booleans()), max_size=3), min_size=1, max_size=30),
    st.integers(0, 8),
    st.floats(1, 60),
)
@settings(deadline=None)
def test_no_job_starves(arrivals: list[list[tuple[int, bool]]], ahead: int, seconds: float) -> None:
    """The worst job, among ever new ones of others: it runs when its patience is over and those before it are done."""
    victim = job("victim", "victim", priority=-(10**9))
    waiting = [*(job(f"before{i}", f"c{i}") for i in range(ahead)), victim]
    served, now, turn = {"victim": 1e12}, 0.0, 0
    while now <= PATIENCE + (ahead + 2) * seconds:
        chosen = next_job(waiting, served, now)
        assert chosen is not None
        if chosen is victim:
            return
        waiting.remove(chosen)
        now += seconds
        new = arrivals[turn % len(arrivals)] or [(20, True)]
        for place, (priority, is_new_client) in enumerate(new):
            client = f"new{turn}.{place}" if is_new_client else "again"
            waiting.append(job(f"{turn}.{place}", client, priority=priority, accepted=now))
        turn += 1
    raise AssertionError(f"after {now} s the job still waits")


def test_what_clients_had_counts_less_with_time() -> None:
    had = served_seconds(
        [record("ann", 0.0, 100.0), record("bob", HALF_LIFE + 50.0, HALF_LIFE + 100.0)], HALF_LIFE + 100.0
    )
    assert had == {"ann": 50.0, "bob": 50.0}
    assert served_seconds([record("ann", 10.0, None)], 25.0) == {"ann": 15.0}
    waiting = replace(record("ann", 0.0, None), uptimes=Uptimes())
    assert served_seconds([waiting], 25.0) == {}


def test_a_clock_set_back_gives_no_credit() -> None:
    assert served_seconds([record("ann", 500.0, 400.0), record("bob", 500.0, None)], 100.0) == {"ann": 0.0, "bob": 0.0}


def test_retry_after_is_in_whole_seconds_within_bounds() -> None:
    assert retry_after(5.2) == 6.0
    assert (retry_after(0.01), retry_after(1e6)) == RETRY_SECONDS
