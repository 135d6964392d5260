"""CHK: every sampler against the table of check vectors, made with a one-line network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.sampler_table import SAMPLERS
from overpaint.samplers import Churn, Query, UniPCOptions, make
from overpaint.samplers.unipc import unipc
from overpaint.schedules import NoiseTable
from overpaint.settings import Quirks
from tests.unit.samplers.toy import START, ToyNoise, drive, toy_sigmas

ALPHAS = NoiseTable.default().alphas_cumprod
SPEC = {each.name: each for each in SAMPLERS}

CHECKED: list[tuple[str, dict[str, Any], int, int, str]] = [  # name, arguments, calls, draws, result
    ("Euler", {}, 8, 8, "0.78192 -0.84780 1.53808 0.82161"),
    ("Euler", {"churn": Churn(4.0)}, 8, 8, "0.91390 -0.06826 1.50427 1.14441"),
    ("Euler a", {}, 8, 7, "0.89139 -0.14999 1.46372 1.11962"),
    ("Euler a", {"eta": 0.5}, 8, 7, "0.96444 -0.48543 1.87713 1.04773"),
    ("Heun", {}, 15, 8, "0.90359 -0.92619 1.64254 0.86416"),
    ("DPM2", {}, 15, 8, "0.88966 -0.91371 1.65098 0.85403"),
    ("DPM2 a", {}, 15, 7, "1.11785 0.27419 1.72017 1.18537"),
    ("LMS", {}, 8, 0, "0.84590 -0.88848 1.58674 0.84189"),
    ("DPM++ 2S a", {}, 15, 7, "1.02088 -0.00879 1.55774 1.16213"),
    ("DPM++ SDE", {}, 15, 14, "0.35340 -0.89688 1.01846 0.78785"),
    ("DPM++ 2M", {}, 8, 0, "0.88869 -0.91388 1.67799 0.84219"),
    ("DPM++ 2M SDE", {}, 8, 7, "1.04864 0.17955 1.59060 1.20734"),
    ("DPM++ 2M SDE Heun", {}, 8, 7, "1.11034 0.33373 1.65981 1.24697"),
    ("DPM++ 3M SDE", {}, 8, 7, "1.05647 0.32163 1.53008 1.19217"),
    ("DPM fast", {}, 8, 3, "1.13314 -0.45621 2.45069 1.11574"),
    ("DPM fast", {"eta": 0.0}, 8, 3, "0.87247 -0.91198 1.77795 0.83111"),
    ("DPM adaptive", {}, 33, 9, "0.99541 -0.05270 1.62906 1.15142"),
    ("DPM adaptive", {"eta": 0.0}, 21, 7, "0.84545 -0.88078 1.66960 0.82160"),
    ("LCM", {}, 8, 7, "0.72553 -0.25603 1.21589 1.03811"),
    ("Restart", {}, 15, 0, "0.90359 -0.92619 1.64254 0.86416"),
    ("Restart", {"steps": 24}, 47, 1, "1.22316 0.48415 2.37455 1.45595"),
    ("Restart", {"steps": 40}, 79, 2, "0.52185 -0.75710 1.12393 0.84536"),
]


def expected(text: str) -> Any:
    return pytest.approx([float(each) for each in text.split()], abs=1e-4)


@pytest.mark.parametrize(("name", "arguments", "calls", "draws", "result"), CHECKED)
def test_sigma_samplers(name: str, arguments: dict[str, Any], calls: int, draws: int, result: str) -> None:
    more = dict(arguments)
    sigmas, noise = toy_sigmas(more.pop("steps", 8)), ToyNoise()
    run = drive(make(SPEC[name], START, sigmas, alphas_cumprod=ALPHAS, noise=noise, path=noise, **more))
    assert (len(run.asked), noise.draws) == (calls, draws)
    assert run.values == expected(result)


USED = [1, 101, 201, 301, 401, 501, 601]
DDIM_CALLS = "601 501 401 301 201 101"
UNIPC_CALLS = "601 515.143 429.286 343.429 257.571 171.714 85.857"


def toy_eps(query: Query) -> Tensor:
    """The spec's toy of a network over timesteps."""
    eps = 0.5 * torch.tanh(query.x) + query.sigma / 2000
    return torch.stack([eps, 0.4 * torch.tanh(query.x)]) if query.parts else eps


@pytest.mark.parametrize(
    ("name", "eta", "calls", "draws", "result"),
    [
        ("DDIM", 0.0, DDIM_CALLS, 6, "5.91600 -4.34868 10.91260 0.31939"),
        ("DDIM", 0.5, DDIM_CALLS, 6, "6.38072 -3.58755 11.37717 0.68569"),
        ("DDIM CFG++", 0.0, DDIM_CALLS, 6, "4.38898 -4.96633 9.38364 -0.38586"),
        ("PLMS", 0.0, "601 501 501 401 301 201 101", 0, "5.97123 -4.28569 10.96882 0.36862"),
        ("UniPC", 0.0, UNIPC_CALLS, 0, "5.96086 -4.29086 10.96025 0.35957"),
    ],
)
def test_timestep_samplers(name: str, eta: float, calls: str, draws: int, result: str) -> None:
    noise = ToyNoise()
    quirks = Quirks(skip_last_timestep=True)
    sampler = make(SPEC[name], START, USED, alphas_cumprod=ALPHAS, noise=noise, eta=eta, quirks=quirks)
    run = drive(sampler, toy_eps)
    assert run.asked == pytest.approx([float(each) for each in calls.split()], abs=1e-3)
    assert noise.draws == draws
    assert run.values == expected(result)


@pytest.mark.parametrize(
    ("options", "t_start", "calls", "result"),
    [
        (UniPCOptions("bh2"), None, UNIPC_CALLS, "5.95783 -4.29436 10.95715 0.35679"),
        (UniPCOptions("vary_coeff"), None, UNIPC_CALLS, "5.94889 -4.30339 10.94822 0.34939"),
        (
            UniPCOptions("bh1", "logSNR"),
            1.0,
            "999 834.738 621.96 359.214 133.406 30.649 4.817",
            "30.76500 -27.99925 60.03469 -0.35207",
        ),
        (
            UniPCOptions("bh1", "time_quadratic"),
            1.0,
            "999 741.459 522.193 341.203 198.489 94.05 27.887",
            "30.57409 -28.23774 59.83812 -0.32979",
        ),
    ],
)
def test_variants_of_unipc(options: UniPCOptions, t_start: float | None, calls: str, result: str) -> None:
    run = drive(unipc(START, USED, ALPHAS, options=options, t_start=t_start, stray_weight=True), toy_eps)
    assert run.asked == pytest.approx([float(each) for each in calls.split()], abs=2e-3)
    assert run.values == expected(result)
