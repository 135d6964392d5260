"""Samplers whose steps remember nothing: the pieces they are made of."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.samplers.query import Churn, ancestral_split
from overpaint.samplers.single import euler, restart_steps
from tests.unit.samplers.toy import START, ToyNoise, drive, toy_sigmas


@given(st.floats(0.05, 20), st.floats(0.01, 0.999), st.floats(0, 3))
def test_the_ancestral_split_keeps_the_variance(sigma: float, ratio: float, eta: float) -> None:  # section 6
    down, up = ancestral_split(sigma, sigma * ratio, eta)
    assert math.hypot(down, up) == pytest.approx(sigma * ratio, rel=1e-6)
    assert 0 <= up <= sigma * ratio


def test_ends_of_the_ancestral_split() -> None:
    assert ancestral_split(2.0, 1.0, 0) == (1.0, 0.0)
    assert ancestral_split(2.0, 0.0, 1) == (0.0, 0.0)
    assert ancestral_split(2.0, 1.0, 1)[1] == pytest.approx(math.sqrt(0.75))


def test_churn_stays_within_its_bounds() -> None:  # UPD-1
    sigmas = toy_sigmas()
    raised = drive(euler(START, sigmas, noise=ToyNoise(), churn=Churn(4.0, 0.05, 2.0))).asked
    factors = [asked / sigma for asked, sigma in zip(raised, sigmas, strict=False)]
    inside = [0.05 <= sigma <= 2.0 for sigma in sigmas[:-1]]
    expected = [1 + min(4 / 8, math.sqrt(2) - 1) if within else 1 for within in inside]
    assert factors == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "jumps", "inner"), [(19, 0, 0), (20, 1, 9), (35, 1, 9), (36, 2, 9), (60, 2, 15)])
def test_where_restart_climbs(steps: int, jumps: int, inner: int) -> None:  # UPD-16
    walk = restart_steps(toy_sigmas(steps))
    assert len(walk) == steps
    climbs = [i for i in range(1, len(walk)) if walk[i][0] > walk[i - 1][1]]
    assert len(climbs) == jumps
    if jumps:
        level = walk[climbs[0] - 1][1]
        assert level == pytest.approx(0.1, rel=0.6)
        assert all(walk[i + inner - 1][1] == pytest.approx(level, rel=1e-5) for i in climbs)
        assert walk[climbs[0]][0] == pytest.approx(2.0, rel=0.4)
    assert walk[-1][1] == 0


def test_restart_within_low_noise_only_descends() -> None:  # UPD-16: img2img may start below sigma 0.1
    sigmas = [each * 0.01 for each in toy_sigmas(24)]
    walk = restart_steps(sigmas)
    assert all(step[1] < step[0] for step in walk)
    assert all(walk[i][0] == walk[i - 1][1] for i in range(1, len(walk)))
