"""kill -9 at random points, in short; CONTRIBUTING names the command of the long form."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.service.kill_harness import Harness

POINTS = 10


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_and_nothing_is_done_twice(tmp_path: Path) -> None:
    findings = Harness(tmp_path, random.Random(11), jobs_per_point=1).run(POINTS)
    told = "\n".join(findings.lines())
    assert not findings.wrong, told
    assert findings.jobs == POINTS
    assert set(findings.integrity) == {"ok"}, told
    assert findings.restarts
