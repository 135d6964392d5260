"""kill -9 at chosen and at random points, in short; CONTRIBUTING names the command of the long form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from overpaint.models.built_in import built_in_path
from tests.service.kill_harness import Findings, Harness, Moment

EACH_KIND: tuple[Moment, ...] = (
    ("commit", "before", 4, "server"),  # of a job's acceptance or its first events
    ("step", "after", 3, "worker"),
    ("decode", "before", 1, "server"),
    ("write", "middle", 1, "worker"),
    ("rename", "after", 1, "server"),
    ("end", "after", 1, "server"),
)


def check(findings: Findings, points: int) -> None:
    told = "\n".join(findings.lines())
    assert not findings.wrong, told
    assert findings.jobs == points
    assert set(findings.integrity) == {"ok"}, told
    assert findings.restarts


@pytest.mark.long
@pytest.mark.timeout(600)
def test_each_kind_of_moment(tmp_path: Path) -> None:
    findings = Harness(tmp_path, random.Random(3), jobs_per_point=1, moments=EACH_KIND).run(len(EACH_KIND))
    check(findings, len(EACH_KIND))
    assert len(findings.points) == len(EACH_KIND), findings.points


@pytest.mark.long
@pytest.mark.timeout(600)
def test_jobs_of_a_flow_model(tmp_path: Path) -> None:
    """Its worker is killed in a step, and the server as a picture is written."""
    moments: tuple[Moment, ...] = (("step", "after", 3, "worker"), ("write", "middle", 1, "server"))
    model = built_in_path("overpaint-mini-flow")
    findings = Harness(tmp_path, random.Random(5), jobs_per_point=1, moments=moments, checkpoint=model).run(2)
    check(findings, 2)
    assert len(findings.points) == 2, findings.points


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_is_lost_and_nothing_is_done_twice(tmp_path: Path, workers: int) -> None:
    check(Harness(tmp_path, random.Random(11), jobs_per_point=workers, workers=workers).run(10), 10 * workers)
