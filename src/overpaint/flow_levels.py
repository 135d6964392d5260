"""The levels of noise of flow models, in the words that samplers use. Torch-free.

A flow model (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003) writes x = (1 - s) x0 + s n, and
t, of which s is a function, falls from 1 to 0. With k = s / (1 - s) this is (1 - s) (x0 + k n): the samplers' own
x0 + sigma n with sigma = k. Schedules are made over s, as the families' authors make them, and then become k.
NOTE: s = 1 would be an infinite k. `ALL_NOISE` stands for it: a walk that starts there starts from noise alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overpaint.models.shifts import NO_SHIFT, Shift
from overpaint.schedules import TIMESTEPS, Floats, NoiseTable

ALL_NOISE = 10_000.0  # float32 still tells latents of unit width beside it, and s there is 0.9999
_SAME = 1e-6  # of a step


def share_of_noise(k: float) -> float:
    """s of a k."""
    return 1.0 if k >= ALL_NOISE else k / (1 + k)


def noise_beside(s: ArrayLike) -> NDArray[np.float64]:
    """k of an s."""
    share = np.minimum(np.asarray(s, np.float64), ALL_NOISE / (1 + ALL_NOISE))
    return np.where(np.asarray(s) >= ALL_NOISE / (1 + ALL_NOISE), ALL_NOISE, share / (1 - share))


@dataclass(frozen=True, eq=False)
class ShareTable(NoiseTable):
    """The 1000 levels as shares of noise s, of t = 0.001 to 1; index i has t = (i + 1) / 1000."""

    factor: float = 1.0
    terminal: float = 0.0

    @classmethod
    def of(cls, factor: float, terminal: float = 0.0) -> ShareTable:
        s = _shifted(np.arange(1, TIMESTEPS + 1) / TIMESTEPS, factor).astype(np.float32)
        k = noise_beside(s)
        alphas = (1 / (1 + k**2)).astype(np.float32)
        return cls(alphas, s, np.log(s.astype(np.float64)).astype(np.float32), factor=factor, terminal=terminal)

    @property
    def has_own_schedule(self) -> bool:
        return True

    def t_to_sigma(self, t: ArrayLike) -> Floats:
        at = np.clip((np.asarray(t, np.float64) + 1) / TIMESTEPS, 0, 1)
        return _shifted(at, self.factor).astype(np.float32)

    def sigma_to_t(self, sigma: ArrayLike) -> Floats:
        s = np.asarray(sigma, np.float64)
        return np.asarray(s / (self.factor - (self.factor - 1) * s) * TIMESTEPS - 1, np.float32)

    def own_schedule(self, steps: int) -> Floats:
        """Even steps of t from 1, shifted, and stretched to the end that the family was trained with."""
        s = _shifted(1 - np.arange(steps) / steps, self.factor)
        if self.terminal and steps > 1:
            s = 1 - (1 - s) * ((1 - self.terminal) / (1 - s[-1]))
        return np.append(s, 0.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FlowTable(NoiseTable):
    """The same levels as k. Before a pass is known, they are those of no shift."""

    shift: Shift = NO_SHIFT
    shares: ShareTable = field(default_factory=lambda: ShareTable.of(1.0))

    @classmethod
    def of(cls, shift: Shift) -> FlowTable:
        return cls._made(shift, ShareTable.of(1.0))

    @classmethod
    def _made(cls, shift: Shift, shares: ShareTable) -> FlowTable:
        k = noise_beside(shares.sigmas)
        return cls(
            shares.alphas_cumprod, k.astype(np.float32), np.log(k).astype(np.float32), shift=shift, shares=shares
        )

    def for_pass(self, tokens: int, steps: int) -> FlowTable:
        return self._made(self.shift, ShareTable.of(self.shift.of(tokens, steps), self.shift.terminal))

    @property
    def has_own_schedule(self) -> bool:
        return True

    @property
    def measure(self) -> NoiseTable:
        return self.shares

    def in_sigmas(self, schedule: Floats) -> Floats:
        return noise_beside(schedule).astype(np.float32)

    def start_between(self, schedule: Sequence[float], strength: float) -> tuple[float, ...]:
        """What a strength leaves of a schedule of k: its last part, and before that a first step of any length.

        The walk starts after the part (1 - strength) of the steps, be it in the middle of one. So the smallest change
        of the strength changes the picture a little, and none changes it much.
        """
        steps = len(schedule) - 1
        left = min(max(strength, 0.0), 1.0) * steps
        whole = min(max(math.ceil(left - _SAME), 1), steps)
        part = left - (whole - 1)  # of the first step
        rest = tuple(float(each) for each in schedule[steps - whole :])
        if part >= 1 - _SAME:
            return rest
        below, above = (self._time(each) for each in (rest[1], rest[0]))
        s = self.shares.t_to_sigma(below + (above - below) * part)
        return float(noise_beside(s)), *rest[1:]

    def _time(self, k: float) -> float:
        return float(self.shares.sigma_to_t(share_of_noise(k)))


def _shifted(t: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    return factor * t / (1 + (factor - 1) * t)
