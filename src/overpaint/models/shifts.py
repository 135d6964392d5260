"""How flow families move their levels of noise: s = a t / (1 + (a - 1) t), with a factor a of one kind or another.

t falls from 1 to 0 in even steps, and s is the share of noise in x = (1 - s) x0 + s n. Large pictures need more noise
before anything of them is hidden, so most families let the factor follow the number of tokens, which stand for 16x16
pixels each (Esser et al. 2024, arXiv:2403.03206, section 5.3.2). Torch-free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True)
class ConstantShift:
    """One factor for all sizes."""

    factor: float = 1.0
    terminal: ClassVar[float] = 0.0

    def of(self, tokens: int, steps: int) -> float:
        return self.factor


@dataclass(frozen=True)
class TokenShift:
    """The factor's logarithm grows in a straight line with the tokens; `terminal` is where the last step starts."""

    fewest: tuple[int, float] = (256, 0.5)  # (tokens, logarithm)
    most: tuple[int, float] = (4096, 1.15)
    terminal: float = 0.0  # 0: wherever the even steps lead

    def of(self, tokens: int, steps: int) -> float:
        (x0, y0), (x1, y1) = self.fewest, self.most
        return math.exp(y0 + (y1 - y0) * (tokens - x0) / (x1 - x0))


_FEW_STEPS = (8.73809524e-05, 1.89833333)  # slope and start of the logarithm at 10 steps, as Flux.2's authors fitted it
_MANY_STEPS = (0.00016927, 0.45666666)  # at 200 steps
_LARGE = 4300  # tokens above which the steps do not matter


@dataclass(frozen=True)
class StepShift:
    """The factor's logarithm follows tokens and steps: between two straight lines, by the number of steps."""

    terminal: ClassVar[float] = 0.0

    def of(self, tokens: int, steps: int) -> float:
        many = _MANY_STEPS[0] * tokens + _MANY_STEPS[1]
        if tokens > _LARGE:
            return math.exp(many)
        few = _FEW_STEPS[0] * tokens + _FEW_STEPS[1]
        slope = (many - few) / 190
        return math.exp(slope * steps + many - 200 * slope)


Shift: TypeAlias = ConstantShift | TokenShift | StepShift
NO_SHIFT = ConstantShift()
