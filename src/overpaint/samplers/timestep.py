"""Samplers over the model's own timesteps: x has unit variance, and they are sent the guided noise prediction eps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from overpaint.samplers.query import Draw, Query, Sampler


class TimestepPair(NamedTuple):
    """One step: from timestep `t`, with cumulative alpha `a`, to `t_next` and `a_next`."""

    t: int
    t_next: int
    a: float
    a_next: float


def visits(
    timesteps: Sequence[int], alphas_cumprod: NDArray[np.float32], *, skip_last: bool = False
) -> list[TimestepPair]:
    """The steps through ascending `timesteps`, from the last down to the clean picture.

    The reference (`skip_last`, STEP-5) never leaves the lowest timestep, so its noise stays in the picture.
    """
    alphas = [float(alphas_cumprod[t]) for t in timesteps]
    steps = [
        TimestepPair(timesteps[i], timesteps[i - 1], alphas[i], alphas[i - 1]) for i in range(len(timesteps) - 1, 0, -1)
    ]
    if not skip_last and timesteps:
        steps.append(TimestepPair(timesteps[0], timesteps[0], alphas[0], 1.0))
    return steps


def ddim(x: Tensor, steps: Sequence[TimestepPair], *, noise: Draw, eta: float = 0.0) -> Sampler:
    """DDIM (Song et al. 2020, arXiv:2010.02502, equation 12)."""
    for step in steps:
        eps = yield Query(x, step.t)
        x = _ddim_step(x, step, eps, eps, noise(), eta)
    return x


def ddim_cfgpp(x: Tensor, steps: Sequence[TimestepPair], *, noise: Draw, eta: float = 0.0) -> Sampler:
    """DDIM with CFG++ (Chung et al. 2024, arXiv:2406.08070): noise is put back in the unconditional direction."""
    for step in steps:
        eps, unconditional = yield Query(x, step.t, parts=True)
        x = _ddim_step(x, step, eps, unconditional, noise(), eta)
    return x


def _ddim_step(x: Tensor, step: TimestepPair, eps: Tensor, direction: Tensor, drawn: Tensor, eta: float) -> Tensor:
    a, a_next = step.a, step.a_next
    sigma = eta * math.sqrt((1 - a_next) / (1 - a) * (1 - a / a_next))
    x_0 = (x - eps * math.sqrt(1 - a)) / math.sqrt(a)
    return x_0 * math.sqrt(a_next) + direction * math.sqrt(max(1 - a_next - sigma**2, 0.0)) + drawn * sigma


def plms(x: Tensor, steps: Sequence[TimestepPair]) -> Sampler:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778, equation 12); the first step calls twice."""
    past: list[Tensor] = []  # the newest first
    for step in steps:
        eps = yield Query(x, step.t)
        if past:
            weights, total = _PLMS[len(past)]
            blended = sum((old * w for old, w in zip(past, weights[1:], strict=True)), eps * weights[0]) / total
        else:
            ahead = yield Query(_plms_step(x, step, eps), step.t_next)
            blended = (eps + ahead) / 2
        x = _plms_step(x, step, blended)
        past = [eps, *past[:2]]
    return x


_PLMS = {1: ((3, -1), 2), 2: ((23, -16, 5), 12), 3: ((55, -59, 37, -9), 24)}  # Adams-Bashforth, by eps remembered


def _plms_step(x: Tensor, step: TimestepPair, eps: Tensor) -> Tensor:
    x_0 = (x - eps * math.sqrt(1 - step.a)) / math.sqrt(step.a)
    return x_0 * math.sqrt(step.a_next) + eps * math.sqrt(1 - step.a_next)
