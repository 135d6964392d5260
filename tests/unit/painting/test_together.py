"""Jobs side by side: each goes on to its next question, tells its own events, and ends for itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.errors import RequestError, SamplingError
from overpaint.events import Control, Event, Failed, Progress
from overpaint.outcome import FinishedBatch
from overpaint.painting.pass_networks import Pending
from overpaint.painting.together import Story, Together, _packed
from tests.unit.toy_job import asked


def progress(step: int) -> Progress:
    return Progress(step, 9, 1.0, 0)


class Jobs:
    """Begins jobs that count to a number, with a question before each step; what became of them."""

    def __init__(self) -> None:
        self.closed: list[int] = []
        self.given: list[tuple[Any, ...]] = []

    def begin(self, job: Any, settings: Any, control: Control, done: Sequence[FinishedBatch]) -> Story:
        self.given.append((job, settings, control, done))
        return self._story(job, control)

    def _story(self, steps: int, control: Control) -> Story:
        try:
            for step in range(1, steps + 1):
                yield Pending((), control)
                if step == 3:
                    raise SamplingError("three is too many")
                yield progress(step)
        finally:
            self.closed.append(steps)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def told(together: Together[str]) -> list[tuple[str, int | str]]:
    """A tick, in short."""
    return [(name, event.step if isinstance(event, Progress) else type(event).__name__) for name, event in of(together)]


def of(together: Together[str]) -> list[tuple[str, Event]]:
    return list(together.tick())


def test_a_tick_is_one_question_of_each(jobs: Jobs) -> None:
    with Together[str](jobs.begin) as together:
        together.begin("a", 2)  # type: ignore[arg-type]
        together.begin("b", 1)  # type: ignore[arg-type]
        assert told(together) == []  # both ask
        assert told(together) == [("a", 1), ("b", 1)]
        assert together.names == ("a",)
        together.begin("c", 1)  # type: ignore[arg-type]
        assert told(together) == [("a", 2)]
        assert told(together) == [("c", 1)]
        assert not together.names


def test_one_that_fails_ends_alone(jobs: Jobs) -> None:
    together = Together[str](jobs.begin)
    together.begin("bad", 5)  # type: ignore[arg-type]
    together.begin("good", 2)  # type: ignore[arg-type]
    seen = [each for _ in range(6) for each in of(together)]
    (failed,) = [event for _, event in seen if isinstance(event, Failed)]
    assert "three is too many" in str(failed.error)
    assert [name for name, _ in seen] == ["bad", "good", "bad", "good", "bad"]
    assert together.names == () and sorted(jobs.closed) == [2, 5]


def test_a_job_that_is_dropped_tells_nothing_more(jobs: Jobs) -> None:
    together = Together[str](jobs.begin)
    for name in "abc":
        together.begin(name, 2)  # type: ignore[arg-type]
    of(together)
    together.drop("b")
    together.drop("nobody")
    assert jobs.closed == [2]
    assert [name for name, _ in of(together)] == ["a", "c"]
    together.close()
    assert together.names == () and jobs.closed == [2, 2, 2]


def test_whoever_is_told_of_one_may_drop_another(jobs: Jobs) -> None:
    together = Together[str](jobs.begin)
    together.begin("a", 2)  # type: ignore[arg-type]
    together.begin("b", 2)  # type: ignore[arg-type]
    of(together)
    seen = []
    for name, _ in together.tick():
        seen.append(name)
        together.drop("b")
    assert seen == ["a"] and together.names == ("a",)


def test_names_are_given_once(jobs: Jobs) -> None:
    together = Together[str](jobs.begin)
    control = Control()
    together.begin("a", asked(), control=control)
    with pytest.raises(RequestError, match=r"name='a': a job of this name is running"):
        together.begin("a", asked())
    assert len(jobs.given) == 1 and jobs.given[0][2] is control


@given(st.lists(st.integers(1, 12), max_size=20), st.integers(1, 16))
def test_calls_are_filled_as_jobs_come(rows: list[int], most: int) -> None:
    """Nobody is lost or overtaken, a job's rows stay together, and a call is too large only for one job alone."""
    members: list[Any] = [SimpleNamespace(rows=each) for each in rows]
    parts = _packed(members, most)
    assert [each for part in parts for each in part] == members
    for part in parts:
        assert part and (len(part) == 1 or sum(each.rows for each in part) <= most)
    for part, following in pairwise(parts):
        assert sum(each.rows for each in part) + following[0].rows > most
