"""UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor and a corrector of any order that share their network calls."""

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
    options: UniPCOptions = UniPCOptions(),
    t_start: float | None = None,
    lower_order_when_short: bool = True,
) -> Sampler:
    """UniPC with as many calls as there are `timesteps`; of these only the number and the last one count.

    Timesteps in between are fractional. The reference fails where the order exceeds the number of steps.
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
        step_order = min(order, i, steps + 1 - i) if options.lower_order_final else min(order, i)
        step = _Step(x, known[-step_order:][::-1], level, options.variant)
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


class _Step:
    """One step from the newest of `known` (first in the list) to `target`; its order is the number of `known`."""

    def __init__(self, x: Tensor, known: Sequence[_Known], target: _Level, variant: str) -> None:
        here = known[0]
        h = target.half_log_snr - here.level.half_log_snr
        ratios = [(each.level.half_log_snr - here.level.half_log_snr) / h for each in known[1:]]
        self._newest = here.x_0
        self._slopes = [(each.x_0 - here.x_0) / r for each, r in zip(known[1:], ratios, strict=True)]
        self._target, self._h = target, -h
        self._nodes = np.array([*ratios, 1.0])
        self._vary = variant == "vary_coeff"
        self._b = math.expm1(-h) if variant == "bh2" else -h
        drift = x * (target.sigma / here.level.sigma)
        self._base = drift - here.x_0 * (target.alpha * math.expm1(-h))

    def predict(self) -> Tensor:
        """The state at the target, from what is known before it."""
        return self._moved(self._slopes, self._vary_weights if self._vary else self._weights)

    def correct(self, x_0: Tensor) -> Tensor:
        """The same, knowing the prediction at the target too."""
        slopes = [*self._slopes, x_0 - self._newest]
        return self._moved(slopes, self._vary_weights if self._vary else self._weights)

    def _moved(self, slopes: Sequence[Tensor], weights: Callable[[int], Sequence[float]]) -> Tensor:
        return self._base - sum(slope * (self._target.alpha * w) for slope, w in zip(slopes, weights(len(slopes)), strict=True))
