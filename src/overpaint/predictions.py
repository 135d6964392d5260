"""What models predict, in the words of samplers: one row for each kind of prediction. Torch-free.

F is the network's output for the input c_in x, and D the denoised picture; `parameterization` has the papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from overpaint.flow_levels import ALL_NOISE, FlowTable, share_of_noise
from overpaint.models.families import ModelSpec, Prediction
from overpaint.models.shifts import ConstantShift
from overpaint.schedules import NoiseTable
from overpaint.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

LCM_SIGMA_DATA_SQUARED = 0.25
LCM_TIMESTEP_SCALING = 10.0


@dataclass(frozen=True)
class Predicted:
    """One row: what a network answers with, and the levels it was trained on."""

    table: Callable[[ModelSpec, Settings], NoiseTable]
    time: Callable[[NoiseTable, float], float]  # of a sigma
    c_in: Callable[[float], float]  # of a sigma
    denoised: Callable[[Tensor, Tensor, float, float], Tensor]  # F, x, sigma, time -> D
    eps: Callable[[Tensor, Tensor, float], Tensor] | None  # F, x, a -> eps; None: no sampler over timesteps uses it
    all_noise: float = math.inf  # the sigma that stands for noise alone


def trained_table(model: ModelSpec, settings: Settings) -> NoiseTable:
    """The 1000 levels of Stable Diffusion 1, 2 and XL, as the options change them (SIG-1 to SIG-10)."""
    table = NoiseTable.default()
    if settings.sd_noise_schedule == "Zero Terminal SNR":
        table = NoiseTable.zero_terminal_snr()
    if settings.use_downcasted_alpha_bar:
        table = table.downcasted()
    return replace(table, quantized=True) if settings.enable_quantization else table


def _timestep(table: NoiseTable, sigma: float) -> float:
    return float(table.sigma_to_t(sigma))


def _unit_variance(sigma: float) -> float:
    """c_in of Karras et al. 2022, table 1, for data of unit variance."""
    return 1 / math.sqrt(sigma**2 + 1)


def _denoised_from_eps(F: Tensor, x: Tensor, sigma: float, time: float) -> Tensor:
    """SIG-5."""
    return x - sigma * F


def _denoised_from_v(F: Tensor, x: Tensor, sigma: float, time: float) -> Tensor:
    """SIG-6."""
    return F * (-sigma / math.sqrt(sigma**2 + 1)) + x / (sigma**2 + 1)


def _denoised_by_lcm(F: Tensor, x: Tensor, sigma: float, time: float) -> Tensor:
    """LCM-1; equation 9 of the paper, with F as eps."""
    q = LCM_TIMESTEP_SCALING * time
    c_skip = LCM_SIGMA_DATA_SQUARED / (q**2 + LCM_SIGMA_DATA_SQUARED)
    c_out = q / math.sqrt(q**2 + LCM_SIGMA_DATA_SQUARED)
    return c_out * (x - sigma * F) + c_skip * x


def _flow_table(model: ModelSpec, settings: Settings) -> NoiseTable:
    """Options about the tables of Stable Diffusion do not count here."""
    return FlowTable.of(ConstantShift(settings.flow_shift) if settings.flow_shift else model.shift)


def _share(table: NoiseTable, sigma: float) -> float:
    return share_of_noise(sigma)


def _picture_share(sigma: float) -> float:
    """1 - s of x = (1 - s) (x0 + sigma n); of noise alone what makes it of unit width."""
    return 1 / sigma if sigma >= ALL_NOISE else 1 / (1 + sigma)


def _denoised_from_flow(F: Tensor, x: Tensor, sigma: float, time: float) -> Tensor:
    """F = n - x0, so that x0 is what is left of (1 - s) x0 + s n without s F."""
    return x * _picture_share(sigma) - F * time


def _eps_from_eps(F: Tensor, x: Tensor, a: float) -> Tensor:
    return F


def _eps_from_v(F: Tensor, x: Tensor, a: float) -> Tensor:
    """SIG-7."""
    return math.sqrt(a) * F + math.sqrt(1 - a) * x


PREDICTIONS: Mapping[Prediction, Predicted] = {
    "eps": Predicted(trained_table, _timestep, _unit_variance, _denoised_from_eps, _eps_from_eps),
    "v": Predicted(trained_table, _timestep, _unit_variance, _denoised_from_v, _eps_from_v),
    "flow": Predicted(_flow_table, _share, _picture_share, _denoised_from_flow, None, ALL_NOISE),
}
LCM = Predicted(
    lambda model, settings: trained_table(model, settings).lcm(), _timestep, _unit_variance, _denoised_by_lcm, None
)
