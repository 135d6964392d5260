"""UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor and a corrector of any order, one network call a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.samplers.query import Query, Sampler

Doubles = NDArray[np.float64]

_T_END = 0.001  # the time of timestep 0


@dataclass(frozen=True)
class UniPCOptions:
    """What a site may choose about UniPC."""

    variant: Literal["bh1", "bh2", "vary_coeff"] = "bh1"
    skip_type: Literal["time_uniform", "time_quadratic", "logSNR"] = "time_uniform"
    order: int = 3
    lower_order_final: bool = True


DEFAULT_OPTIONS = UniPCOptions()


class VPTimes:
    """The model's noise levels in continuous time t = (timestep + 1) / 1000 (TUP-5)."""

    def __init__(self, alphas_cumprod: NDArray[np.float32]) -> None:
        self._logs = 0.5 * np.log(alphas_cumprod.astype(np.float64))
        self._times = np.arange(1, len(self._logs) + 1) / len(self._logs)

    def log_alpha(self, t: float) -> float:
        """log alpha(t), piecewise linear; the end segments go on beyond their ends."""
        return _interpolated(t, self._times, self._logs)

    def level(self, t: float) -> _Level:
        """Everything about the noise at a time."""
        log_alpha = self.log_alpha(t)
        variance = -math.expm1(2 * log_alpha)
        return _Level(t, math.exp(log_alpha), math.sqrt(variance), log_alpha - 0.5 * math.log(variance))

    def at_log_snr(self, half_log_snr: float) -> float:
        """The time of a lambda = log(alpha / sigma)."""
        log_alpha = -0.5 * float(np.logaddexp(0.0, -2 * half_log_snr))
        return _interpolated(log_alpha, self._logs[::-1], self._times[::-1])


def _interpolated(x: float, xs: Doubles, ys: Doubles) -> float:
    i = min(max(int(np.searchsorted(xs, x)) - 1, 0), len(xs) - 2)
    return float(ys[i] + (x - xs[i]) * (ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i]))


@dataclass(frozen=True)
class _Level:
    t: float
    alpha: float
    sigma: float
    half_log_snr: float  # lambda


@dataclass(frozen=True, eq=False)
class _Known:
    """A level that was passed, and the denoised picture predicted there."""

    level: _Level
    x_0: Tensor


def unipc(
    x: Tensor,
    timesteps: Sequence[int],
    alphas_cumprod: NDArray[np.float32],
    *,
    options: UniPCOptions = DEFAULT_OPTIONS,
    t_start: float | None = None,
    lower_order_when_short: bool = True,
    stray_weight: bool = False,
) -> Sampler:
    """UniPC with as many calls as there are `timesteps`; of these only the number and the last one count.

    Timesteps in between are fractional. The reference fails where the order exceeds the number of steps, and in its
    variant `vary_coeff` a stray weight makes it a first-order method.
    """
    steps, order = len(timesteps), options.order
    if steps < order and not lower_order_when_short:
        raise SamplingError(f"UniPC order must be < sampling steps: {order} > {steps}; raise the strength or the steps")
    if steps == 0:
        return x
    order = min(order, steps)
    times = VPTimes(alphas_cumprod)
    levels = [times.level(t) for t in time_grid(times, t_start or timesteps[-1] / 1000 + _T_END, steps, options)]
    known = [_Known(levels[0], (yield from _predicted(x, levels[0])))]
    for i, level in enumerate(levels[1:], start=1):
        remaining = steps + 1 - i if options.lower_order_final else order
        step_order = i if i < order else min(order, remaining)
        step = _step(x, known[-step_order:][::-1], level, options.variant, stray_weight)
        x = step.predict()
        if i < steps:
            x_0 = yield from _predicted(x, level)
            x = step.correct(x_0)
            known = [*known[-order:], _Known(level, x_0)]
    return x


def time_grid(times: VPTimes, t_start: float, steps: int, options: UniPCOptions) -> list[float]:
    """`steps + 1` times from `t_start` down to that of timestep 0."""
    if options.skip_type == "time_uniform":
        return [float(t) for t in np.linspace(t_start, _T_END, steps + 1)]
    if options.skip_type == "time_quadratic":
        return [float(t) for t in np.linspace(math.sqrt(t_start), math.sqrt(_T_END), steps + 1) ** 2]
    first, last = (times.level(t).half_log_snr for t in (t_start, _T_END))
    return [times.at_log_snr(float(each)) for each in np.linspace(first, last, steps + 1)]


def _predicted(x: Tensor, level: _Level) -> Sampler:
    eps = yield Query(x, (level.t - _T_END) * 1000)
    return (x - eps * level.sigma) / level.alpha


@dataclass(frozen=True, eq=False)
class _Step:
    """One step towards `target`; its order is the number of nodes."""

    newest: Tensor  # the denoised picture predicted where the step starts
    slopes: list[Tensor]  # divided differences towards the older ones
    nodes: Doubles  # where the older ones lie, in steps, and 1: the target
    base: Tensor  # the first-order step
    alpha: float
    h: float  # in lambda, negative as in the paper's H
    variant: str
    stray_weight: bool

    def predict(self) -> Tensor:
        """The state at the target, from what is known before it."""
        return self._moved(self.slopes)

    def correct(self, x_0: Tensor) -> Tensor:
        """The same, with the prediction at the target too."""
        return self._moved([*self.slopes, x_0 - self.newest])

    def _moved(self, slopes: list[Tensor]) -> Tensor:
        x = self.base
        weights = _weights(self.nodes, len(slopes), self.h, self.variant, self.stray_weight)
        for slope, weight in zip(slopes, weights, strict=True):
            x = x - slope * (self.alpha * weight)
        return x


def _step(x: Tensor, known: Sequence[_Known], target: _Level, variant: str, stray_weight: bool) -> _Step:
    """A step from the first of `known`, the newest, using all of them."""
    here = known[0]
    h = target.half_log_snr - here.level.half_log_snr
    ratios = [(each.level.half_log_snr - here.level.half_log_snr) / h for each in known[1:]]
    return _Step(
        newest=here.x_0,
        slopes=[(each.x_0 - here.x_0) / r for each, r in zip(known[1:], ratios, strict=True)],
        nodes=np.array([*ratios, 1.0]),
        base=x * (target.sigma / here.level.sigma) - here.x_0 * (target.alpha * math.expm1(-h)),
        alpha=target.alpha,
        h=-h,
        variant=variant,
        stray_weight=stray_weight,
    )


def _weights(nodes: Doubles, count: int, h: float, variant: str, stray_weight: bool) -> Doubles:
    """Weights of `count` slopes: those that make polynomials exact, whatever B(h).

    A single slope gets half of B(h), which is h or exp(h) - 1, unless the variant says otherwise.
    """
    if variant != "vary_coeff" and count < 2:
        return np.full(count, 0.5 * (math.expm1(h) if variant == "bh2" else h))
    factorials = np.array([math.factorial(k + 1) for k in range(count)])
    powers = np.vander(nodes[:count], increasing=True)
    phis = np.array(_phis(h, count))
    weights: Doubles = np.linalg.solve(powers.T, phis * factorials)
    if variant == "vary_coeff" and stray_weight and count == len(nodes):
        # NOTE: the authors' code leaves its loop over rows one early and takes one entry for the newest slope's sum.
        rows = np.linalg.inv(powers / factorials)
        weights = phis[:-1] @ rows[:-1]
        weights[-1] = phis[-1] * rows[max(count - 2, 0), -1]
    return weights


def _phis(h: float, count: int) -> list[float]:
    """phi_{k+1}(h) h for k = 1 ... count: phi_1 h = exp(h) - 1, then phi_{k+1} h = phi_k - 1/k!."""
    value, found = math.expm1(h), []
    for k in range(1, count + 1):
        value = value / h - 1 / math.factorial(k)
        found.append(value)
    return found
