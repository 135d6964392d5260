"""Tiles: where they lie, and that cutting and combining gives the picture back (SCR-1)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint.errors import RequestError
from overpaint.sequences.tiles import TileGrid, combined
from tests.unit.toy_job import noisy_picture


@settings(deadline=None)
@given(wide=st.integers(8, 90), high=st.integers(8, 90), tile=st.integers(8, 40), overlap=st.integers(0, 7))
def test_tiles_cover_the_picture_and_give_it_back(wide: int, high: int, tile: int, overlap: int) -> None:
    picture = noisy_picture(wide, high)
    grid = TileGrid.of(picture.size, (tile, tile), overlap)
    covered = np.zeros((high, wide), dtype=bool)
    for left, top in grid.places:
        covered[max(top, 0) : top + tile, max(left, 0) : left + tile] = True
    assert covered.all()
    if wide >= tile and high >= tile:
        assert combined(grid, grid.cut(picture)).tobytes() == picture.tobytes()


def test_the_recorded_grid() -> None:
    """296 x 200 in tiles of 128 that overlap by 64: 4 across, 3 down."""
    grid = TileGrid.of((296, 200), (128, 128), 64)
    assert grid.lefts == (0, 56, 112, 168)
    assert grid.tops == (0, 36, 72)


def test_a_later_tile_fades_in_over_the_overlap() -> None:
    grid = TileGrid.of((12, 8), (8, 8), 4)
    tiles = [Image.new("RGB", (8, 8), "black"), Image.new("RGB", (8, 8), "white")]
    row = np.asarray(combined(grid, tiles))[0, :, 0]
    assert row.tolist() == [0] * 4 + [0, 63, 127, 191] + [255] * 4


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_an_overlap_that_leaves_no_step_is_refused(overlap: int) -> None:
    with pytest.raises(RequestError, match="give 0 to 7"):
        TileGrid.of((20, 20), (8, 8), overlap)
