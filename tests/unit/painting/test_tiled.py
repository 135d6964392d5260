"""Networks that see a canvas in parts: the parts reach everywhere, and where they agree nothing shows of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from overpaint.backends.port import VaeFallback
from overpaint.painting.tiled import TiledCodec, TiledNetwork, parts_of
from overpaint.planning.plans import LatentTiles

CPU = torch.device("cpu")


@st.composite
def tilings(draw: st.DrawFn) -> LatentTiles:
    size = draw(st.integers(2, 24))
    return LatentTiles(size, draw(st.integers(0, size - 1)))


class Pixelwise:
    """A codec whose every cell answers for itself alone, and which notes how much it is shown."""

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.device = CPU
        self.largest = 0

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.largest = max(self.largest, *pixels.shape[-2:])
        cells = torch.nn.functional.avg_pool2d(pixels, self.factor)
        return 2 * cells, cells - 1

    def decode(self, z: Tensor, fallback: VaeFallback | None = None) -> Tensor:
        self.largest = max(self.largest, *z.shape[-2:])
        return torch.nn.functional.interpolate(3 * z, scale_factor=self.factor, mode="nearest")


@given(st.integers(1, 200), tilings())
def test_parts_reach_across_and_overlap(side: int, tiles: LatentTiles) -> None:
    parts = parts_of(side, tiles)
    assert (parts[0].start, parts[-1].stop) == (0, side)
    assert {part.stop - part.start for part in parts} == {min(tiles.size, side)}
    for before, after in pairwise(parts):
        assert before.start < after.start
        assert before.stop - after.start >= tiles.overlap


@given(st.integers(1, 200), tilings())
def test_there_is_no_part_too_many(side: int, tiles: LatentTiles) -> None:
    """One fewer would not reach across with this overlap."""
    fewer = len(parts_of(side, tiles)) - 1
    assert fewer == 0 or fewer * tiles.size - (fewer - 1) * tiles.overlap < side


@settings(max_examples=15)
@given(st.integers(1, 24), st.integers(1, 24), tilings())
def test_a_denoiser_that_knows_no_neighbours_answers_as_if_it_saw_all(
    height: int, width: int, tiles: LatentTiles
) -> None:
    shown: list[tuple[int, ...]] = []

    def network(x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None = None, **said: object) -> Tensor:
        shown.append(tuple(x.shape[-2:]))
        return x.sin() * timesteps[:, None, None, None] + context.mean()

    x = torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(0))
    given_beside = (torch.tensor([2.0, 3.0]), torch.ones(2, 7, 5))
    whole = network(x, *given_beside)
    shown.clear()
    torch.testing.assert_close(TiledNetwork(lambda part: network, tiles)(x, *given_beside), whole, atol=1e-5, rtol=1e-5)
    assert max(max(each) for each in shown) <= tiles.size
    assert len(shown) == len(parts_of(height, tiles)) * len(parts_of(width, tiles))


@pytest.mark.parametrize("tiles", [LatentTiles(4, 0), LatentTiles(5, 2), LatentTiles(64, 8)])
def test_a_codec_works_through_the_same_parts(tiles: LatentTiles) -> None:
    pixels = torch.rand(1, 3, 72, 56, generator=torch.Generator().manual_seed(0))
    inner = Pixelwise(8)
    tiled = TiledCodec(inner, tiles, 8, CPU)
    for found, wanted in zip(tiled.encode(pixels), Pixelwise(8).encode(pixels), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert inner.largest <= tiles.size * 8
    inner.largest = 0
    z = torch.rand(1, 4, 9, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(tiled.decode(z), Pixelwise(8).decode(z), atol=1e-5, rtol=1e-5)
    assert inner.largest <= tiles.size


def test_between_two_parts_the_picture_goes_over_from_one_to_the_other() -> None:
    """Two parts that disagree: no step between neighbours is larger than the fade allows."""
    answers = iter((0.0, 1.0))

    def network(x: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None = None, **said: object) -> Tensor:
        return torch.full_like(x, next(answers))

    tiles = LatentTiles(12, 8)
    line = TiledNetwork(lambda part: network, tiles)(torch.zeros(1, 1, 12, 16), torch.zeros(1), torch.zeros(1, 1, 1))[
        0, 0, 0
    ]
    steps = line.diff()
    assert line[0] == 0 and line[-1] == 1
    assert bool((steps >= 0).all()) and float(steps.max()) <= 2 / tiles.overlap
