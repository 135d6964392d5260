"""Several pictures on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from overpaint.errors import RequestError


def grid_shape(count: int, batch_size: int, n_rows: int = -1, prevent_empty_spots: bool = False) -> tuple[int, int]:
    """(rows, columns) for `count` pictures; `n_rows` 0: as many rows as a batch has items, below 0: nearly square."""
    if count < 1:
        raise RequestError("images", count, "a grid needs at least one picture")
    if n_rows > 0:
        rows = n_rows
    elif n_rows == 0:
        rows = batch_size
    elif prevent_empty_spots:
        rows = next(each for each in range(math.isqrt(count), 0, -1) if count % each == 0)
    else:
        rows = round(math.sqrt(count))  # NOTE: halves go to the even side, as everywhere in Python
    rows = min(rows, count)
    return rows, math.ceil(count / rows)


def image_grid(images: Sequence[Image.Image], rows: int, background: str) -> Image.Image:
    """The pictures in reading order, each in the middle of a cell that holds the largest."""
    rows, columns = grid_shape(len(images), batch_size=rows, n_rows=rows)
    wide, high = max(each.width for each in images), max(each.height for each in images)
    sheet = Image.new("RGB", (columns * wide, rows * high), background)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet.paste(image, (column * wide + (wide - image.width) // 2, row * high + (high - image.height) // 2))
    return sheet
