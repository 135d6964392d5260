"""DPM-Solver: how calls are spent, and how steps are chosen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.samplers import Query
from overpaint.samplers.adaptive import dpm_adaptive, dpm_fast, fast_orders
from tests.unit.samplers.toy import START, ToyNoise, drive, toy_sigmas


@given(st.integers(1, 150))
def test_fast_spends_all_its_calls(calls: int) -> None:  # UPD-14
    orders = fast_orders(calls)
    assert sum(orders) == calls
    assert len(orders) == calls // 3 + 1
    run = drive(dpm_fast(START, toy_sigmas(max(calls, 2)), noise=ToyNoise(), eta=0.0))
    assert len(run.asked) == max(calls, 2)


def test_adaptive_steps_depend_on_the_whole_of_x() -> None:  # UPD-15
    def levels(*pictures: float) -> list[float]:
        x = torch.tensor(pictures).view(-1, 1, 1, 1).expand(-1, 4, 2, 2)

        def answer(query: Query) -> Tensor:
            return 0.1 * torch.sin(9 * query.x)

        return drive(dpm_adaptive(x, toy_sigmas(), noise=lambda: torch.zeros_like(x), eta=0.0), answer).asked

    assert levels(0.5) == pytest.approx(levels(0.5, 0.5), rel=1e-3)
    assert levels(0.5, 4.0) not in (pytest.approx(levels(0.5), rel=1e-2), pytest.approx(levels(4.0), rel=1e-2))


def test_a_smaller_tolerance_costs_calls_and_comes_closer() -> None:
    def gaussian(query: Query) -> Tensor:
        return query.x / (1 + query.sigma**2)

    sigmas = [5.0, 0.03, 0.0]
    exact = START * ((1 + sigmas[-2] ** 2) / (1 + sigmas[0] ** 2)) ** 0.5
    runs = [
        drive(
            dpm_adaptive(START, sigmas, noise=lambda: torch.zeros_like(START), eta=0.0, rtol=r, atol=r / 10), gaussian
        )
        for r in (0.05, 0.001)
    ]
    errors = [float((run.result - exact).abs().max()) for run in runs]
    assert len(runs[1].asked) > len(runs[0].asked)
    assert errors[1] < errors[0] / 5


def test_a_prediction_that_is_not_a_number_ends_the_run() -> None:
    with pytest.raises(SamplingError, match="not finite"):
        drive(dpm_adaptive(START, toy_sigmas(), noise=ToyNoise()), lambda query: query.x * float("nan"))
