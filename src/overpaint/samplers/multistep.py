"""Samplers whose steps use the predictions of the steps before: one network call a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor

from overpaint.samplers.query import Path, Query, Sampler, to_d

_GAUSS = 1 / math.sqrt(3)  # two points integrate the cubics of `lms` exactly


def lms(x: Tensor, sigmas: Sequence[float], *, order: int = 4) -> Sampler:
    """The linear multistep (Adams-Bashforth) method on uneven steps."""
    slopes: list[Tensor] = []  # the newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield Query(x, sigma)
        slopes = [to_d(x, sigma, denoised), *slopes[: order - 1]]
        nodes = [sigmas[i - k] for k in range(len(slopes))]
        for j, slope in enumerate(slopes):
            x = x + slope * lms_coefficient(nodes, j, sigma, sigma_next)
    return x


def lms_coefficient(nodes: Sequence[float], j: int, start: float, end: float) -> float:
    """The integral from `start` to `end` of the polynomial that is 1 at node `j` and 0 at the others (UPD-7)."""
    middle, half = (start + end) / 2, (end - start) / 2
    others = [node for k, node in enumerate(nodes) if k != j]
    points = (middle - half * _GAUSS, middle + half * _GAUSS)
    return half * sum(math.prod((tau - node) / (nodes[j] - node) for node in others) for tau in points)


def dpmpp_2m(x: Tensor, sigmas: Sequence[float]) -> Sampler:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2)."""
    before: Tensor | None = None
    h_before = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Query(x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        h = math.log(sigma / sigma_next)
        guess = denoised
        if before is not None:
            r = h_before / h
            guess = denoised * (1 + 1 / (2 * r)) - before * (1 / (2 * r))
        x = x * (sigma_next / sigma) - guess * math.expm1(-h)
        before, h_before = denoised, h
    return x


def dpmpp_2m_sde(
    x: Tensor,
    sigmas: Sequence[float],
    *,
    path: Path,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver: Literal["midpoint", "heun"] = "midpoint",
) -> Sampler:
    """DPM-Solver++(2M) for the stochastic equation (arXiv:2211.01095, appendix)."""
    before: Tensor | None = None
    h_before = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Query(x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        h = math.log(sigma / sigma_next)
        h_eta = h * (1 + eta)
        gain = -math.expm1(-h_eta)
        x = x * (sigma_next / sigma * math.exp(-eta * h)) + denoised * gain
        if before is not None:
            factor = gain / 2 if solver == "midpoint" else 1 - gain / h_eta
            x = x + (denoised - before) * (factor * h / h_before)
        if eta:
            x = x + _brownian_step(path, sigma, sigma_next, eta * h, s_noise)
        before, h_before = denoised, h
    return x


def dpmpp_3m_sde(x: Tensor, sigmas: Sequence[float], *, path: Path, eta: float = 1.0, s_noise: float = 1.0) -> Sampler:
    """DPM-Solver++(3M) for the stochastic equation."""
    past: list[tuple[Tensor, float]] = []  # (denoised, h) of the last two steps, the newest first
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Query(x, sigma)
        if sigma_next == 0:
            x = denoised
            continue
        h = math.log(sigma / sigma_next)
        h_eta = h * (1 + eta)
        x = x * math.exp(-h_eta) - denoised * math.expm1(-h_eta)
        x = x + _third_order_terms(denoised, past, h, h_eta)
        if eta:
            x = x + _brownian_step(path, sigma, sigma_next, eta * h, s_noise)
        past = [(denoised, h), *past[:1]]
    return x


def _third_order_terms(
    denoised: Tensor, past: Sequence[tuple[Tensor, float]], h: float, h_eta: float
) -> Tensor | float:
    """What finite differences of the last predictions add to a step (UPD-12)."""
    if not past:
        return 0.0
    phi_2 = math.expm1(-h_eta) / h_eta + 1
    (denoised_1, h_1), *older = past
    slope = (denoised - denoised_1) * (h / h_1)
    if not older:
        return slope * phi_2
    denoised_2, h_2 = older[0]
    r_0, r_1 = h_1 / h, h_2 / h
    bend = slope - (denoised_1 - denoised_2) / r_1
    phi_3 = phi_2 / h_eta - 0.5
    return (slope + bend * (r_0 / (r_0 + r_1))) * phi_2 - bend / (r_0 + r_1) * phi_3


def _brownian_step(path: Path, sigma: float, sigma_next: float, eta_h: float, s_noise: float) -> Tensor:
    return path(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * eta_h)) * s_noise)
