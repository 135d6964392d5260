"""DPM-Solver of orders 1 to 3 (Lu et al. 2022, arXiv:2206.00927) in t = -log sigma: with a fixed number of network
calls, and with steps as long as an error estimate allows. Both end at the smallest sigma, not at 0."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.samplers.query import Draw, Query, Sampler, ancestral_split

_R_1, _R_2 = 1 / 3, 2 / 3


def dpm_fast(x: Tensor, sigmas: Sequence[float], *, noise: Draw, eta: float = 1.0, s_noise: float = 1.0) -> Sampler:
    """DPM-Solver-fast: as many calls as `sigmas` has steps, third-order steps first (UPD-14).

    Of `sigmas` only the first and the last but one count.
    """
    start, end = _span(sigmas, eta)
    orders = fast_orders(len(sigmas) - 1)
    times = [start + (end - start) * k / len(orders) for k in range(len(orders) + 1)]
    for k, order in enumerate(orders):
        t, (t_next, up) = times[k], _ancestral_time(times[k], times[k + 1], end, eta)
        eps = yield from _eps(x, t)
        if order == 1:
            x = _first_order(x, t, t_next, eps)
        elif order == 2:
            x, _ = yield from _second_order(x, t, t_next, eps, r_1=0.5)
        else:
            x = yield from _third_order(x, t, t_next, eps)
        x = x + noise() * (up * s_noise)
    return x


def fast_orders(calls: int) -> list[int]:
    """Orders of the steps whose calls add up to `calls`."""
    if calls % 3 == 0:
        return [3] * (calls // 3 - 1) + [2, 1]
    return [3] * (calls // 3) + [calls % 3]


def dpm_adaptive(
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Draw,
    eta: float = 1.0,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h: float = 0.05,
    accept_safety: float = 0.81,
) -> Sampler:
    """DPM-Solver-23: a second- and a third-order step from the same calls; their distance steers the step (UPD-15).

    NOTE: one norm is taken over all of `x`: pictures of a batch change one another's steps. Give each its own sampler.
    """
    t, end = _span(sigmas, eta)
    exponent = 1 / (1.5 if eta else 3)
    x_before = x
    while t < end - 1e-5:
        t_next, up = _ancestral_time(t, min(end, t + h), end, eta)
        eps = yield from _eps(x, t)
        low, eps_1 = yield from _second_order(x, t, t_next, eps, r_1=_R_1)
        high = yield from _third_order(x, t, t_next, eps, eps_1)
        scale = torch.maximum(low.abs(), x_before.abs()).mul(rtol).clamp(min=atol)
        error = float(torch.linalg.vector_norm((low - high) / scale)) / math.sqrt(x.numel())
        if not math.isfinite(error):
            raise SamplingError(f"DPM adaptive: the prediction at sigma {math.exp(-t):.4g} is not finite; try float32")
        factor = 1 + math.atan((1 / (error + 1e-8)) ** exponent - 1)
        if factor >= accept_safety:
            t, x_before = min(end, t + h), low
            x = high + noise() * up
        h *= factor
    return x


def _span(sigmas: Sequence[float], eta: float) -> tuple[float, float]:
    start, end = -math.log(sigmas[0]), -math.log(sigmas[-2])
    if end <= start and eta:
        raise SamplingError(f"eta={eta}: eta must be 0 for reverse sampling; raise the strength or the steps")
    return start, end


def _ancestral_time(t: float, t_next: float, end: float, eta: float) -> tuple[float, float]:
    """Where to step to instead of `t_next`, and how much noise to add there."""
    if not eta:
        return t_next, 0.0
    down, _ = ancestral_split(math.exp(-t), math.exp(-t_next), eta)
    t_down = min(end, -math.log(down)) if down > 0 else end
    return t_down, math.sqrt(max(math.exp(-2 * t_next) - math.exp(-2 * t_down), 0.0))


def _eps(x: Tensor, t: float) -> Sampler:
    sigma = math.exp(-t)
    denoised = yield Query(x, sigma)
    return (x - denoised) / sigma


def _first_order(x: Tensor, t: float, t_next: float, eps: Tensor) -> Tensor:
    return x - eps * (math.exp(-t_next) * math.expm1(t_next - t))


def _second_order(
    x: Tensor, t: float, t_next: float, eps: Tensor, r_1: float
) -> Generator[Query, Tensor, tuple[Tensor, Tensor]]:
    """The stepped state, and the eps at the place between."""
    h = t_next - t
    s_1 = t + r_1 * h
    eps_1 = yield from _eps(_first_order(x, t, s_1, eps), s_1)
    weight = math.exp(-t_next) * math.expm1(h)
    return x - eps * weight - (eps_1 - eps) * (weight / (2 * r_1)), eps_1


def _third_order(x: Tensor, t: float, t_next: float, eps: Tensor, eps_1: Tensor | None = None) -> Sampler:
    h = t_next - t
    s_1, s_2 = t + _R_1 * h, t + _R_2 * h
    if eps_1 is None:
        eps_1 = yield from _eps(_first_order(x, t, s_1, eps), s_1)
    x_2 = _first_order(x, t, s_2, eps) - (eps_1 - eps) * (math.exp(-s_2) * (_R_2 / _R_1) * _phi_2(_R_2 * h))
    eps_2 = yield from _eps(x_2, s_2)
    return _first_order(x, t, t_next, eps) - (eps_2 - eps) * (math.exp(-t_next) / _R_2 * _phi_2(h))


def _phi_2(h: float) -> float:
    """expm1(h)/h - 1, which is 0 at 0."""
    return math.expm1(h) / h - 1 if h else 0.0
