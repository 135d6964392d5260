"""SCR-6: from a picture up to the noise it could have come from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from overpaint.painting.inversion import adjusted_walk, plain_walk
from overpaint.samplers import Query, Sampler

X = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
SIGMAS = [0.0, 0.3, 1.0, 4.0]


def walked(walk: Sampler, answer: Callable[[Query], Tensor]) -> tuple[list[float], Tensor]:
    """The noise levels it asks about, and what comes out."""
    asked: list[float] = []
    query = next(walk)
    while True:
        asked.append(float(query.sigma))
        try:
            query = walk.send(answer(query))
        except StopIteration as end:
            return asked, end.value


def test_the_plain_walk_asks_at_each_step_s_end() -> None:
    asked, noise = walked(plain_walk(X, SIGMAS), lambda query: torch.zeros_like(query.x))
    assert asked == SIGMAS[1:]
    assert noise.std().item() == pytest.approx(1)


def test_the_adjusted_walk_asks_at_each_step_s_start() -> None:
    asked, _ = walked(adjusted_walk(X, SIGMAS), lambda query: torch.zeros_like(query.x))
    assert asked == SIGMAS[1:-1]


def test_where_everything_is_noise_already_it_only_grows() -> None:
    """With nothing clean in it (denoised = 0) the slope is x / sigma: x grows as sigma does."""
    _, noise = walked(adjusted_walk(X, SIGMAS), lambda query: torch.zeros_like(query.x))
    assert torch.allclose(noise, X * (SIGMAS[-1] / SIGMAS[1]) / SIGMAS[-1], atol=1e-5)


def test_a_picture_without_noise_stays_what_it_is() -> None:
    _, noise = walked(plain_walk(X, SIGMAS), lambda query: query.x)
    assert torch.allclose(noise, X / X.std(), atol=1e-6)
