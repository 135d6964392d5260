"""Samplers whose steps remember nothing of the steps before.

Each walks `sigmas` downward: it yields a `Query`, is sent the denoised picture, and returns the final state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from overpaint.samplers.query import NO_CHURN, Churn, Draw, Path, Query, Sampler, ancestral_split, to_d
from overpaint.schedules import karras


def _churned(x: Tensor, sigma: float, steps: int, noise: Draw, churn: Churn) -> tuple[Tensor, float]:
    """Karras et al. 2022, algorithm 2, lines 4-6. NOTE: an unused draw is taken too, or later ones would shift."""
    gamma = min(churn.amount / steps, math.sqrt(2) - 1) if churn.t_min <= sigma <= churn.t_max else 0.0
    drawn = noise()
    if gamma == 0:
        return x, sigma
    raised = sigma * (1 + gamma)
    return x + drawn * (churn.noise * math.sqrt(raised**2 - sigma**2)), raised


def euler(x: Tensor, sigmas: Sequence[float], *, noise: Draw, churn: Churn = NO_CHURN) -> Sampler:
    """Euler's method (Karras et al. 2022, algorithm 2 without the correction)."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = _churned(x, sigma, len(sigmas) - 1, noise, churn)
        denoised = yield Query(x, sigma_hat)
        x = x + to_d(x, sigma_hat, denoised) * (sigma_next - sigma_hat)
    return x


def from_all_noise(x: Tensor, sigmas: Sequence[float], going: Callable[[Tensor, Sequence[float]], Sampler]) -> Sampler:
    """The step down from noise alone, to where any sampler goes on from.

    There the first step of all of them is Euler's, from an infinite sigma: x - sigma n would lose every digit, so it is
    written as the picture with the same noise at the next level.
    """
    denoised = yield Query(x, sigmas[0])
    x = denoised + x * (sigmas[1] / sigmas[0])
    return x if len(sigmas) == 2 else (yield from going(x, sigmas[1:]))


def heun(x: Tensor, sigmas: Sequence[float], *, noise: Draw, churn: Churn = NO_CHURN) -> Sampler:
    """Heun's method (Karras et al. 2022, algorithm 2)."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = _churned(x, sigma, len(sigmas) - 1, noise, churn)
        x = yield from _heun_step(x, sigma_hat, sigma_next)
    return x


def _heun_step(x: Tensor, sigma: float, sigma_next: float) -> Sampler:
    denoised = yield Query(x, sigma)
    d, dt = to_d(x, sigma, denoised), sigma_next - sigma
    if sigma_next == 0:
        return x + d * dt
    x_2 = x + d * dt
    denoised_2 = yield Query(x_2, sigma_next)
    return x + (d + to_d(x_2, sigma_next, denoised_2)) / 2 * dt


def dpm2(x: Tensor, sigmas: Sequence[float], *, noise: Draw, churn: Churn = NO_CHURN) -> Sampler:
    """The midpoint method, the midpoint taken in log sigma (DPM-Solver-2, Lu et al. 2022, arXiv:2206.00927)."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = _churned(x, sigma, len(sigmas) - 1, noise, churn)
        x = yield from _midpoint_step(x, sigma_hat, sigma_next)
    return x


def _midpoint_step(x: Tensor, sigma: float, sigma_next: float) -> Sampler:
    denoised = yield Query(x, sigma)
    d = to_d(x, sigma, denoised)
    if sigma_next == 0:
        return x + d * (sigma_next - sigma)
    sigma_mid = math.sqrt(sigma * sigma_next)
    x_2 = x + d * (sigma_mid - sigma)
    denoised_2 = yield Query(x_2, sigma_mid)
    return x + to_d(x_2, sigma_mid, denoised_2) * (sigma_next - sigma)


def euler_a(x: Tensor, sigmas: Sequence[float], *, noise: Draw, eta: float = 1.0) -> Sampler:
    """Euler's method with ancestral noise."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Query(x, sigma)
        down, up = ancestral_split(sigma, sigma_next, eta)
        x = x + to_d(x, sigma, denoised) * (down - sigma)
        if sigma_next > 0:
            x = x + noise() * up
    return x


def dpm2_a(x: Tensor, sigmas: Sequence[float], *, noise: Draw, eta: float = 1.0, s_noise: float = 1.0) -> Sampler:
    """The midpoint method with ancestral noise."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = ancestral_split(sigma, sigma_next, eta)
        x = yield from _midpoint_step(x, sigma, down)
        if down != 0:
            x = x + noise() * (s_noise * up)
    return x


def dpmpp_2s_a(x: Tensor, sigmas: Sequence[float], *, noise: Draw, eta: float = 1.0, s_noise: float = 1.0) -> Sampler:
    """DPM-Solver++(2S) with ancestral noise (Lu et al. 2022, arXiv:2211.01095, algorithm 1)."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Query(x, sigma)
        down, up = ancestral_split(sigma, sigma_next, eta)
        if down == 0:
            x = x + to_d(x, sigma, denoised) * (down - sigma)
        else:
            h = math.log(sigma / down)
            sigma_mid = math.sqrt(sigma * down)
            x_2 = x * (sigma_mid / sigma) - denoised * math.expm1(-h / 2)
            denoised_2 = yield Query(x_2, sigma_mid)
            x = x * (down / sigma) - denoised_2 * math.expm1(-h)
        if sigma_next > 0:
            x = x + noise() * (s_noise * up)
    return x


def dpmpp_sde(x: Tensor, sigmas: Sequence[float], *, path: Path, eta: float = 1.0, s_noise: float = 1.0) -> Sampler:
    """DPM-Solver++ as a stochastic solver, with a midpoint at half the step in log sigma."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield Query(x, sigma)
        if sigma_next == 0:
            x = x + to_d(x, sigma, denoised) * (sigma_next - sigma)
            continue
        sigma, sigma_mid, sigma_next = _through_logs(sigma, sigma_next)
        x_2 = _sde_step(x, denoised, sigma, sigma_mid, path, eta, s_noise)
        denoised_2 = yield Query(x_2, sigma_mid)
        x = _sde_step(x, denoised_2, sigma, sigma_next, path, eta, s_noise)
    return x


def _through_logs(sigma: float, sigma_next: float) -> tuple[float, float, float]:
    """Both sigmas and the one between them, as they come back from float32 logarithms.

    NOTE: a Brownian path is rough. 1e-6 to the side it has moved by 1e-3, so even these roundings are the reference's.
    """
    t, t_next = (torch.tensor(each, dtype=torch.float32).log().neg() for each in (sigma, sigma_next))
    middle = t + (t_next - t) * 0.5
    return t.neg().exp().item(), middle.neg().exp().item(), t_next.neg().exp().item()


def _sde_step(
    x: Tensor, denoised: Tensor, sigma: float, sigma_next: float, path: Path, eta: float, s_noise: float
) -> Tensor:
    down, up = ancestral_split(sigma, sigma_next, eta)
    ratio = down / sigma
    return x * ratio + denoised * (1 - ratio) + path(sigma, sigma_next) * (s_noise * up)


def lcm(x: Tensor, sigmas: Sequence[float], *, noise: Draw) -> Sampler:
    """Multistep consistency sampling (Song et al. 2023, arXiv:2303.01469, algorithm 1)."""
    for sigma, sigma_next in pairwise(sigmas):
        x = yield Query(x, sigma)
        if sigma_next > 0:
            x = x + noise() * sigma_next
    return x


def denoise(x: Tensor, sigmas: Sequence[float]) -> Sampler:
    """Take each prediction as it is: what is left of any sampler when there is no room for a step."""
    for sigma, _ in pairwise(sigmas):
        x = yield Query(x, sigma)
    return x


def restart(x: Tensor, sigmas: Sequence[float], *, noise: Draw) -> Sampler:
    """Heun's method that climbs back in noise and comes down again (Xu et al. 2023, arXiv:2306.14878)."""
    last = None
    for sigma, sigma_next in restart_steps(sigmas):
        if last is not None and last < sigma:
            x = x + noise() * math.sqrt(sigma**2 - last**2)
        x = yield from _heun_step(x, sigma, sigma_next)
        last = sigma_next
    return x


def restart_steps(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """The steps of `restart` (UPD-16): from 20 on, some of them are spent between sigma 0.1 and about 2, again."""
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    inner, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    walk = [*_karras(steps - inner * times, sigmas[-2], sigmas[0]), 0.0]
    bottom, top = (_nearest(walk, level) for level in (0.1, 2.0))
    again = list(pairwise(_karras(inner + 1, walk[bottom], walk[top]))) if top < bottom else []
    return [*pairwise(walk[: bottom + 1]), *again * times, *pairwise(walk[bottom:])]


def _karras(n: int, low: float, high: float) -> list[float]:
    return [float(each) for each in karras(n, low, high)]


def _nearest(walk: Sequence[float], level: float) -> int:
    return int(np.abs(np.asarray(walk) - level).argmin())
