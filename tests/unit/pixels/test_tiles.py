"""Tiles of a mask: their extremes against every pixel, and what is left out because of them changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint.pixels.composite import make_overlay, premultiplied_outside
from overpaint.pixels.tiles import SIDE, Gray, Tiles, gray_counts, gray_pixels
from overpaint.settings import Quirks

SIZES = st.tuples(st.integers(1, 3 * SIDE + 5), st.integers(1, 3 * SIDE + 5))


@st.composite
def masks(draw: st.DrawFn) -> Image.Image:
    """Mostly plain: a ground, boxes of some gray, perhaps with grain in them."""
    width, height = draw(SIZES)
    pixels = np.full((height, width), draw(st.sampled_from([0, 0, 255, 9])), np.uint8)
    for _ in range(draw(st.integers(0, 3))):
        x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        part = pixels[y : y + draw(st.integers(1, 150)), x : x + draw(st.integers(1, 150))]
        part[:] = draw(st.sampled_from([0, 1, 128, 254, 255]))
        if draw(st.booleans()):
            part[:] = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, part.shape)
    return Image.fromarray(pixels)


def near(pixels: Gray, row: int, column: int, across: int, down: int) -> Gray:
    top, left = max(row * SIDE - down, 0), max(column * SIDE - across, 0)
    return pixels[top : (row + 1) * SIDE + down, left : (column + 1) * SIDE + across]


@given(masks(), st.sampled_from([0, 1, SIDE, SIDE + 1, 500]), st.sampled_from([0, 3, 2 * SIDE]))
@settings(deadline=None, max_examples=60)
def test_a_plain_tile_is_plain_as_far_as_it_was_spread(mask: Image.Image, across: int, down: int) -> None:
    pixels = np.asarray(mask)
    tiles = Tiles.of(pixels)
    spread = tiles.spread(across, down)
    for row, column in np.ndindex(tiles.low.shape):
        own = near(pixels, row, column, 0, 0)
        assert (tiles.low[row, column], tiles.high[row, column]) == (own.min(), own.max())
        around = near(pixels, row, column, across, down)
        assert spread.low[row, column] <= around.min() and spread.high[row, column] >= around.max()


@given(masks(), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_boxes_cover_the_chosen_tiles_and_nothing_else(mask: Image.Image, seed: int) -> None:
    pixels = np.asarray(mask)
    tiles = Tiles.of(pixels)
    chosen = np.random.default_rng(seed).random(tiles.low.shape) < 0.5
    covered = np.zeros(pixels.shape, int)
    for left, top, right, bottom in tiles.boxes(chosen):
        assert right <= mask.width and bottom <= mask.height
        covered[top:bottom, left:right] += 1
    wanted = np.kron(chosen, np.ones((SIDE, SIDE), int))[: mask.height, : mask.width]
    assert np.array_equal(covered, wanted)


@given(masks())
@settings(deadline=None)
def test_counts_are_the_histogram(mask: Image.Image) -> None:
    assert gray_counts(mask) == mask.histogram()


@given(masks(), st.sampled_from([Quirks.none(), Quirks.reference()]))
@settings(deadline=None)
def test_an_overlay_in_tiles_is_the_one_of_the_whole_picture(mask: Image.Image, quirks: Quirks) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (mask.height, mask.width, 3), np.uint8))
    whole = premultiplied_outside(image, mask).convert("RGBA")
    made = make_overlay(image, mask, 0, quirks)
    assert made.mode == "RGBA" and made.tobytes() == whole.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (SIDE, SIDE), (SIDE + 1, 2 * SIDE - 1)])
def test_a_mask_of_one_gray_has_no_varied_tile(size: tuple[int, int]) -> None:
    assert not Tiles.of(np.asarray(Image.new("L", size, 7))).spread(999, 999).varied.any()


@given(masks(), st.data())
@settings(deadline=None, max_examples=40)
def test_a_part_of_a_mask_is_taken_as_numpy_takes_the_whole(mask: Image.Image, data: st.DataObject) -> None:
    left, top = (data.draw(st.integers(0, side - 1)) for side in mask.size)
    right, bottom = data.draw(st.integers(left + 1, mask.width)), data.draw(st.integers(top + 1, mask.height))
    assert np.array_equal(gray_pixels(mask, (left, top, right, bottom)), np.asarray(mask)[top:bottom, left:right])
