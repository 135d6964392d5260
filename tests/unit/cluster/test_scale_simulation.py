"""The simulation says what can be worked out by hand, and what was measured with two painters."""

from __future__ import annotations

import pytest

from benchmarks.scale_simulation import MOST_OFF, World, check, simulated


def test_a_painter_alone_waits_for_nobody() -> None:
    found = simulated(World(1, 400, 2.0, 0.0))
    assert found.rate(399) == pytest.approx(0.5, rel=0.02)
    assert found.idle == pytest.approx(0, abs=1e-9) and found.busy == 0


@pytest.mark.parametrize("writers", [1, 4])
def test_what_is_shared_bounds_all_painters_together(writers: int) -> None:
    """As many pictures a second as its writers can do operations, by operations a picture."""
    found = simulated(World(400, 8_000, 2.0, 0.005, operations=8, writers=writers))
    assert found.rate(8_000) == pytest.approx(writers / (8 * 0.005), rel=0.05)
    assert found.busy > 0.95 and found.idle > 0.5


def test_few_painters_do_not_notice_it() -> None:
    found = simulated(World(8, 800, 2.0, 0.005, operations=8))
    assert found.rate(800) == pytest.approx(8 / (2.0 + 8 * 0.005), rel=0.05)


def test_two_painters_as_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """The run that docs/concepts/scale.md tells of: 106.2 s with one, 54.4 s with two."""
    assert check(106.2, 54.4, 200, 0.0002)
    assert not check(106.2, 54.4 * (1 + 2 * MOST_OFF), 200, 0.0002)
    assert "simulated" in capsys.readouterr().out
