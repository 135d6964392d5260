from __future__ import annotations

import pytest
from PIL import Image

from overpaint.errors import RequestError
from overpaint.pixels.grid import grid_shape, image_grid


@pytest.mark.parametrize(
    ("count", "shape"),
    [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (4, (2, 2)), (6, (2, 3)), (7, (3, 3)), (12, (3, 4)), (16, (4, 4))],
)
def test_grids_are_nearly_square(count: int, shape: tuple[int, int]) -> None:  # GRID-2
    assert grid_shape(count, batch_size=1) == shape


@pytest.mark.parametrize(("count", "shape"), [(3, (1, 3)), (6, (2, 3)), (7, (1, 7)), (12, (3, 4))])
def test_no_empty_spots(count: int, shape: tuple[int, int]) -> None:  # GRID-2
    assert grid_shape(count, batch_size=1, prevent_empty_spots=True) == shape


def test_rows_by_number_and_by_batch() -> None:  # GRID-2
    assert grid_shape(5, batch_size=2, n_rows=3) == (3, 2)
    assert grid_shape(6, batch_size=2, n_rows=0) == (2, 3)
    assert grid_shape(2, batch_size=1, n_rows=9) == (2, 1)
    with pytest.raises(RequestError, match="at least one picture"):
        grid_shape(0, batch_size=1)


def test_pictures_are_in_reading_order_and_centred() -> None:  # GRID-2
    pictures = [Image.new("RGB", (4, 4), "red"), Image.new("RGB", (1, 3), "lime"), Image.new("RGB", (4, 2), "blue")]
    sheet = image_grid(pictures, 2, "#ffffff")
    assert sheet.size == (8, 8)
    assert sheet.getpixel((0, 0)) == (255, 0, 0)
    assert sheet.getpixel((5, 0)) == (0, 255, 0)  # (4 - 1) // 2 = 1, (4 - 3) // 2 = 0
    assert sheet.getpixel((4, 0)) == sheet.getpixel((5, 3)) == (255, 255, 255)
    assert sheet.getpixel((0, 5)) == (0, 0, 255)
    assert sheet.getpixel((7, 7)) == (255, 255, 255)
