"""A network of one line, and the loop that drives a sampler with it (samplers.md, section 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from overpaint.samplers import Query, Sampler
from overpaint.schedules import karras

COLOUR = torch.tensor([0.2, -0.5, 1.0, 0.7]).view(1, 4, 1, 1)
START = torch.tensor([3.0, -2.0, 5.0, 0.5]).view(1, 4, 1, 1)


def denoise(query: Query) -> Tensor:
    """The spec's toy: the posterior mean of a Gaussian, bent a little."""
    s2 = query.sigma**2
    return (query.x + COLOUR * s2) / (1 + s2) + 0.05 * torch.sin(3 * query.x)


@dataclass
class ToyNoise:
    """Tensors of +1, -0.5, +1, -0.5, ...: counts what is drawn."""

    draws: int = 0

    def __call__(self, *_: float) -> Tensor:
        self.draws += 1
        return torch.full_like(START, 1.0 if self.draws % 2 else -0.5)


@dataclass
class Driven:
    """What came of a run."""

    result: Tensor
    asked: list[float] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        return [float(each) for each in self.result.flatten()]


def drive(sampler: Sampler, answer: Callable[[Query], Tensor] = denoise) -> Driven:
    """Run a sampler to its end."""
    asked: list[float] = []
    try:
        query = next(sampler)
        while True:
            asked.append(query.sigma)
            query = sampler.send(answer(query))
    except StopIteration as end:
        return Driven(end.value, asked)


def toy_sigmas(steps: int = 8) -> list[float]:
    """Karras(steps, 0.0291675, 5), then 0."""
    return [*(float(each) for each in karras(steps, 0.0291675, 5.0)), 0.0]
