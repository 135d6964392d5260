"""How long jobs are said to take: nothing is invented, few examples are enough, and outliers do not count."""

from __future__ import annotations

from typing import Any

import pytest

from overpaint.service.jobs import Job, JobResult, JobState, Live, Record, Uptimes
from overpaint.service.limits import Limits
from overpaint.service.queue.estimates import FARTHEST, Experience, work_of
from overpaint.service.queue.waiting_jobs import WaitingJobs
from tests.service.store.store_tools import Clock

NOW = 1_000_000.0


def job(width: int = 512, height: int = 512, steps: int = 20, *, kind: Any = "paint", **fields: Any) -> Job:
    request = {"width": width, "height": height, "steps": steps, "cfg_scale": 7.0, **fields}
    return Job(id="a", kind=kind, request=request, settings={}, created=NOW)


def done(of: Job, seconds: float, **fields: Any) -> Record:
    return Record(job=of, state=JobState.FINISHED, uptimes=Uptimes(started=NOW, ended=NOW + seconds), **fields)


def taught(*records: Record) -> Experience:
    found = Experience()
    for each in records:
        found.learn(each)
    return found


def seconds(of: Job) -> float:
    """What a machine takes that has a cost for each job, each step and each pixel."""
    request = of.request
    pixels = request["width"] * request["height"]
    return float(0.05 + request["steps"] * (0.02 + pixels * 4e-6))


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert taught().seconds(job()) is None
    other = taught(done(job(checkpoint="another"), 3.0), done(job(kind="extras", images=["x"]), 1.0))
    assert other.seconds(job()) is None
    assert other.seconds(job(checkpoint="another")) == pytest.approx(3.0)
    assert other.seconds(job(kind="extras", images=["x", "y"])) == pytest.approx(2.0)
    assert taught(done(job(64, 64, 1), 0.1)).seconds(job(2048, 2048, 150)) is None


def test_the_third_job_ever_is_foretold_by_two_small_ones() -> None:
    """The first had to wait for the model; the third is of another shape and has more steps."""
    small = job(64, 64, 4)
    found = taught(done(small, 6.0), done(small, seconds(small)))
    third = job(65, 512, 20)
    foretold = found.seconds(third)
    assert foretold is not None
    assert 1 / 3 < foretold / seconds(third) < 3


def test_what_is_like_it_counts_and_outliers_do_not() -> None:
    small, large = job(64, 64, 4), job(768, 768, 30)
    records = [done(each, seconds(each)) for each in (small, large) * 5]
    found = taught(*records, done(large, 500.0), done(large, 0.0))
    for each in (small, large):
        assert found.seconds(each) == pytest.approx(seconds(each), rel=0.01)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": JobState.FAILED},
        {"state": JobState.CANCELLED},
        {"result": JobResult(stopped=True)},
        {"attempts": 2},
        {"uptimes": Uptimes()},
    ],
)
def test_what_was_broken_off_tells_nothing(fields: dict[str, Any]) -> None:
    record = Record(**{**vars(done(job(), 3.0)), **fields})
    assert taught(record).seconds(job()) is None


def test_work_is_steps_pictures_pixels_and_passes() -> None:
    plain = work_of(job())
    assert work_of(job(batch_size=2, iterations=3)) == pytest.approx(6 * plain)
    assert 1.8 * plain < work_of(job(sampler="Heun")) < 2 * plain
    assert 1.8 * plain < work_of(job(steps=40)) < 2 * plain
    assert plain / 2 < work_of(job(cfg_scale=1.0)) < 0.6 * plain
    assert plain / 2 < work_of(job(strength=0.5)) < 0.6 * plain
    assert work_of(job(1024, 1024)) == pytest.approx(4 * plain, rel=0.06)
    double = {"scale": 2.0, "strength": 1.0}
    assert work_of(job(hires=double)) == pytest.approx(plain + work_of(job(1024, 1024)))
    assert work_of(job(hires={**double, "steps": 10})) == pytest.approx(plain + work_of(job(1024, 1024, 10)))
    assert work_of(job(512, 256, hires={"width": 1024, "strength": 1.0})) == pytest.approx(
        work_of(job(512, 256)) + work_of(job(1024, 512))
    )
    assert work_of(job(1024, 1024)) / plain < FARTHEST


def test_pictures_that_are_looked_at_cost_as_much_as_the_canvas() -> None:
    """At every step of either pass; what is around the steps is no longer."""
    plain, seen = (work_of(job(references=["sha256:a"] * count)) for count in (0, 2))
    assert 2.7 * plain < seen < 3 * plain
    double = {"scale": 2.0, "steps": 20}
    assert work_of(job(references=["sha256:a"], hires=double)) > 1.8 * work_of(job(hires=double))


def test_a_running_job_is_foretold_by_its_own_steps() -> None:
    found, of = Experience(), job()
    waiting = Live(job="a", begun_at=NOW - 60.0)  # its model is being read
    assert found.seconds_left(of, waiting, NOW) is None
    first = Live(job="a", step=1, steps=20, begun_at=NOW - 60.0, first_step=1, first_at=NOW, step_at=NOW)
    assert found.seconds_left(of, first, NOW) is None  # one step does not tell how long one takes
    third = Live(job="a", step=3, steps=20, begun_at=NOW - 60.0, first_step=1, first_at=NOW, step_at=NOW + 1.0)
    assert found.seconds_left(of, third, NOW + 1.0) == pytest.approx(9.0)
    assert found.seconds_left(of, third, NOW + 1.4) == pytest.approx(8.6)
    assert found.seconds_left(of, third, NOW + 100.0) == 0.0
    found.learn(done(of, 10.5))
    assert found.seconds_left(of, waiting, NOW) == pytest.approx(10.5)  # all of it is still to come
    assert found.seconds_left(of, first, NOW) == pytest.approx(10.0)


def test_estimates_grow_with_the_position_and_end_where_knowledge_does() -> None:
    found = WaitingJobs(Limits(), Clock())
    found.learn(done(job(), 4.0))
    named = [Job(**{**vars(job()), "id": str(number), "client": "ann"}) for number in range(4)]
    unknown = Job(**{**vars(job(checkpoint="another")), "id": "unknown", "client": "ann"})
    for each in (*named[:2], unknown, *named[2:]):
        found.add(Record(job=each))
    order = ("0", "1", "unknown", "2", "3")
    assert [found.position(each) for each in order] == [0, 1, 2, 3, 4]
    told = [found.seconds_until_done(each) for each in order]
    assert told == [pytest.approx(4.0), pytest.approx(8.0), None, None, None]


def test_a_sequence_tells_of_the_same_sequence_alone() -> None:
    """It paints many pictures, where a job of its request paints one."""
    grid, other = ({"kind": "grid", "x": {"field": "steps", "values": values}} for values in ([1, 2, 3], [1, 2]))
    found = taught(done(job(kind="sequence", sequence=grid), 300.0))
    assert found.seconds(job()) is None
    assert found.seconds(job(kind="sequence", sequence=other)) is None
    assert found.seconds(job(kind="sequence", sequence=grid)) == pytest.approx(300.0)
