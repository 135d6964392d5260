"""Several walks over one picture: cells of little strength join when the noise has come down to where they start.

Each level of a strength map has a sampler of its own, with its own history and its own noise, as a plain job of that
strength has. The network is shown one picture, put together from all of them, and all are told what it says. So a cell
sees its neighbours as they are, and else fares as in that plain job. What is not there yet is the source, noised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from overpaint.parameterization import Parameterization
from overpaint.samplers import Query, Sampler

_SAME = 1e-6  # of a level; walks over one schedule meet exactly


@dataclass(eq=False)
class RegionWalk:
    """One level's sampler, and where it stands."""

    sampler: Sampler
    cells: Tensor  # (h, w), true where it paints
    query: Query | None = None
    latent: Tensor | None = None  # in the end
    clean: Tensor | None = None  # what the network last said of the picture; None before this walk has begun
    noise: Tensor | None = None  # and of the noise

    def __post_init__(self) -> None:
        self._advance(None)

    def hear(self, reply: Tensor, x: Tensor, level: float, meaning: Parameterization) -> None:
        """Take an answer, given about x."""
        assert self.query is not None
        guided = reply[0] if self.query.parts else reply
        self.clean = meaning.clean(guided, x, level)
        scale, spread = _factors(meaning, level)
        self.noise = (x - scale * self.clean) / spread if spread > 0 else torch.zeros_like(x)
        self._advance(reply)

    def at(self, level: float, held: Tensor, meaning: Parameterization) -> Tensor:
        """Its state at a level of noise; another one than it stands at is reached along the last prediction."""
        if self.query is not None and abs(self.query.sigma - level) <= _SAME * max(1.0, abs(level)):
            return self.query.x
        if self.clean is None or self.noise is None:
            return held
        scale, spread = _factors(meaning, level)
        return scale * (self.clean if self.latent is None else self.latent) + spread * self.noise

    def _advance(self, reply: Tensor | None) -> None:
        try:
            self.query = next(self.sampler) if reply is None else self.sampler.send(reply)
        except StopIteration as end:
            self.query, self.latent = None, end.value


def by_regions(
    walks: Sequence[RegionWalk], source: Tensor, held_at: Callable[[float], Tensor], meaning: Parameterization
) -> Sampler:
    """One sampler of several: it asks for those that have the most noise left, of one picture of all."""
    try:
        while waiting := [each for each in walks if each.query is not None]:
            level = max(each.query.sigma for each in waiting if each.query is not None)
            asking = [each for each in waiting if each.query is not None and _is_at(each.query, level)]
            x = held_at(level)
            for each in walks:
                x = torch.where(each.cells, each.at(level, x, meaning), x)
            parts = any(each.query is not None and each.query.parts for each in asking)
            reply = yield Query(x, level, parts)
            for each in asking:
                each.hear(reply, x, level, meaning)
    finally:
        for each in walks:
            each.sampler.close()
    result = source
    for each in walks:
        assert each.latent is not None
        result = torch.where(each.cells, each.latent, result)
    return result


def _is_at(query: Query, level: float) -> bool:
    return abs(query.sigma - level) <= _SAME * max(1.0, abs(level))


def _factors(meaning: Parameterization, level: float) -> tuple[float, float]:
    """What a picture and unit noise are multiplied by at a level."""
    one, none = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    return float(meaning.noised(one, none, level)), float(meaning.noised(none, one, level))
