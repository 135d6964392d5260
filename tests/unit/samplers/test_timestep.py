"""Samplers over timesteps: DDIM against another implementation, the order of PLMS and UniPC."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.samplers import Query, UniPCOptions
from overpaint.samplers.timestep import ddim, plms, visits
from overpaint.samplers.unipc import VPTimes, time_grid, unipc
from overpaint.schedules import NoiseTable, timesteps_for
from tests.unit.samplers.toy import START, ToyNoise, drive

ALPHAS = NoiseTable.default().alphas_cumprod
TIMES = VPTimes(ALPHAS)


def test_visits() -> None:  # STEP-5
    steps = visits((1, 101, 201), ALPHAS)
    assert [(step.t, step.t_next) for step in steps] == [(201, 101), (101, 1), (1, 1)]
    assert steps[-1].a_next == 1.0
    assert visits((1, 101, 201), ALPHAS, skip_last=True) == steps[:-1]
    assert visits((), ALPHAS) == visits((1,), ALPHAS, skip_last=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_against_diffusers(eta: float) -> None:  # TUP-1
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=True,
    )
    theirs.set_timesteps(20)
    noise = torch.randn(START.shape, generator=torch.Generator().manual_seed(1))
    x = START
    for t in theirs.timesteps:
        x = theirs.step(0.5 * torch.tanh(x), t, x, eta=eta, variance_noise=noise).prev_sample
    steps = visits(timesteps_for(20), ALPHAS)
    ours = drive(ddim(START, steps, noise=lambda: noise, eta=eta), lambda query: 0.5 * torch.tanh(query.x))
    assert ours.asked == theirs.timesteps.tolist()
    assert torch.allclose(ours.result, x, rtol=1e-4, atol=1e-4)


def gaussian_eps(query: Query) -> Tensor:
    """The exact eps for pictures of variance 1/4."""
    level = TIMES.level((query.sigma + 1) / 1000)
    return query.x * level.sigma / (level.alpha**2 / 4 + level.sigma**2)


def spread(alpha_squared: float) -> float:
    return math.sqrt(alpha_squared / 4 + 1 - alpha_squared)


USED = timesteps_for(50)[:40]


def error(result: Tensor, end: int) -> float:
    """The largest relative distance from the exact solution, which scales as the pictures' spread does."""
    exact = START * (spread(float(ALPHAS[end])) / spread(float(ALPHAS[USED[-1]])))
    return float(((result - exact) / exact).abs().max())


def test_plms_beats_ddim() -> None:  # TUP-3
    steps = visits(USED, ALPHAS, skip_last=True)
    by_ddim = error(drive(ddim(START, steps, noise=ToyNoise()), gaussian_eps).result, 1)
    assert by_ddim < 0.06
    assert error(drive(plms(START, steps), gaussian_eps).result, 1) < by_ddim / 5


VARIANTS: list[Literal["bh1", "bh2", "vary_coeff"]] = ["bh1", "bh2", "vary_coeff"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("order", "limit"), [(1, 0.005), (2, 5e-4), (3, 2e-4), (4, 2e-4)])
@pytest.mark.parametrize("lower", [True, False])
def test_unipc_is_as_exact_as_its_order(
    variant: Literal["bh1", "bh2", "vary_coeff"], order: int, limit: float, lower: bool
) -> None:  # TUP-5
    run = drive(unipc(START, USED, ALPHAS, options=UniPCOptions(variant, "logSNR", order, lower)), gaussian_eps)
    assert len(run.asked) == 40
    assert error(run.result, 0) < limit


def test_the_stray_weight_costs_an_order() -> None:  # TUP-5
    options = UniPCOptions("vary_coeff", "logSNR")
    stray, sane = (unipc(START, USED, ALPHAS, options=options, stray_weight=each) for each in (True, False))
    assert error(drive(stray, gaussian_eps).result, 0) > 50 * error(drive(sane, gaussian_eps).result, 0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_short_runs_of_a_high_order(variant: Literal["bh1", "bh2", "vary_coeff"], steps: int) -> None:  # TUP-5
    run = drive(unipc(START, USED[:steps], ALPHAS, options=UniPCOptions(variant, order=4)), gaussian_eps)
    assert len(run.asked) == steps
    assert run.result.isfinite().all()


SKIP_TYPES: list[Literal["time_uniform", "time_quadratic", "logSNR"]] = ["time_uniform", "time_quadratic", "logSNR"]


@pytest.mark.parametrize("skip_type", SKIP_TYPES)
def test_time_grids_descend_to_the_first_level(
    skip_type: Literal["time_uniform", "time_quadratic", "logSNR"],
) -> None:  # TUP-5
    grid = time_grid(TIMES, 0.7, 12, UniPCOptions(skip_type=skip_type))
    assert len(grid) == 13
    assert grid[0] == pytest.approx(0.7)
    assert grid[-1] == pytest.approx(0.001)
    assert all(a > b for a, b in pairwise(grid))
    snr = [TIMES.level(t).half_log_snr for t in grid]
    if skip_type == "logSNR":
        assert np.diff(snr) == pytest.approx(np.full(12, (snr[-1] - snr[0]) / 12))


def test_continuous_levels_pass_through_the_table() -> None:  # TUP-5
    for t in (0, 1, 500, 999):
        level = TIMES.level((t + 1) / 1000)
        assert level.alpha**2 == pytest.approx(float(ALPHAS[t]), rel=1e-6)
        assert TIMES.at_log_snr(level.half_log_snr) == pytest.approx((t + 1) / 1000, abs=1e-6)
