"""The talk between a sampler and the loop that drives it, and what samplers of several files share."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Query:
    """What a sampler wants to know: the prediction for state `x` at noise level `sigma`.

    Samplers over sigmas are sent the denoised picture. Samplers over timesteps put the timestep into `sigma` and are
    sent the guided noise; with `parts` they are sent (2, batch, ...): the guided noise and the unconditional one.
    """

    x: Tensor
    sigma: float
    parts: bool = False


Sampler: TypeAlias = Generator[Query, Tensor, Tensor]
Draw: TypeAlias = Callable[[], Tensor]
Path: TypeAlias = Callable[[float, float], Tensor]


class Churn(NamedTuple):
    """Noise added back before a step: S_churn, S_tmin, S_tmax and S_noise of Karras et al. 2022, algorithm 2."""

    amount: float = 0.0
    t_min: float = 0.0
    t_max: float = math.inf
    noise: float = 1.0


NO_CHURN = Churn()


def to_d(x: Tensor, sigma: float, denoised: Tensor) -> Tensor:
    """dx/dsigma of the probability flow (Karras et al. 2022, equation 3)."""
    return (x - denoised) / sigma


def ancestral_split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """(down, up): step deterministically to `down`, then add `up` of noise, and be at `sigma_next`."""
    if eta == 0 or sigma_next == 0:
        return sigma_next, 0.0
    up = min(sigma_next, eta * math.sqrt(max(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2, 0.0)))
    return math.sqrt(sigma_next**2 - up**2), up
