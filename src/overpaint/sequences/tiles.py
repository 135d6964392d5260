"""A picture cut into overlapping tiles, and put together again (SCR-1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from overpaint.errors import RequestError
from overpaint.request import Picture

Place = tuple[int, int]  # the upper left corner of a tile


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of a picture lie: row by row, each row from left to right."""

    size: tuple[int, int]  # of the picture
    tile: tuple[int, int]
    overlap: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]

    @classmethod
    def of(cls, size: tuple[int, int], tile: tuple[int, int], overlap: int) -> TileGrid:
        """Evenly spaced tiles that overlap by at least so much."""
        if not 0 <= overlap < min(tile):
            raise RequestError("overlap", overlap, f"give 0 to {min(tile) - 1}, less than a side of a tile")
        return cls(size, tile, overlap, *(_starts(*each, overlap) for each in zip(size, tile, strict=True)))

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple((left, top) for top in self.tops for left in self.lefts)

    def cut(self, picture: Picture) -> list[Picture]:
        """The tiles, in order; what lies beyond the picture is black."""
        wide, high = self.tile
        return [picture.crop((left, top, left + wide, top + high)) for left, top in self.places]


def combined(grid: TileGrid, tiles: Sequence[Picture]) -> Picture:
    """The tiles as one picture: each fades into the one before it over `overlap`, along rows and then down.

    NOTE: the ramp is as long as the overlap that was asked for, also where tiles overlap by more.
    """
    whole = Image.new("RGB", grid.size)
    high, across = grid.tile[1], len(grid.lefts)
    for row, top in enumerate(grid.tops):
        strip = Image.new("RGB", (grid.size[0], high))
        for left, tile in zip(grid.lefts, tiles[row * across : (row + 1) * across], strict=True):
            _paste(strip, tile, (left, 0), (grid.overlap, high), left == 0)
        _paste(whole, strip, (0, top), (grid.size[0], grid.overlap), top == 0)
    return whole


def _starts(side: int, tile: int, overlap: int) -> tuple[int, ...]:
    count = max(1, math.ceil((side - overlap) / (tile - overlap)))
    distance = (side - tile) / (count - 1) if count > 1 else 0
    *starts, _ = (min(int(i * distance), side - tile) for i in range(count))
    return (*starts, side - tile if count > 1 else min(0, side - tile))  # 49 * (1 / 49) is less than 1


def _paste(canvas: Picture, piece: Picture, place: Place, fade: tuple[int, int], is_first: bool) -> None:
    """A piece, its first `fade` pixels as a ramp: along the axis on which the fade is shorter than the piece."""
    if is_first:
        canvas.paste(piece, (0, 0))
        return
    (x, y), (wide, high) = place, piece.size
    fades_across = fade[1] == high
    overlap = fade[0] if fades_across else fade[1]
    if overlap:
        ramp = _ramp(overlap, high if fades_across else wide, across=fades_across)
        canvas.paste(piece.crop((0, 0, *ramp.size)), (x, y), mask=ramp)
    dx, dy = (overlap, 0) if fades_across else (0, overlap)
    canvas.paste(piece.crop((dx, dy, wide, high)), (x + dx, y + dy))


def _ramp(overlap: int, length: int, *, across: bool) -> Picture:
    levels = (np.arange(overlap) * 255 // overlap).astype(np.uint8)
    values = np.tile(levels, (length, 1)) if across else np.tile(levels[:, None], (1, length))
    return Image.fromarray(np.ascontiguousarray(values))
