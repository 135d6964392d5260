"""Large masks in square tiles. Most tiles are of one gray, and what is done to pixels can leave them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Gray = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""

SIDE = 64  # pixels


@dataclass(frozen=True)
class Tiles:
    """The darkest and the lightest gray of each tile of a picture; the last row and column may be narrower."""

    low: Gray  # (tiles down, tiles across)
    high: Gray
    width: int  # of the picture
    height: int

    @classmethod
    def of(cls, pixels: Gray) -> Tiles:  # (height, width)
        return cls(_reduced(pixels, np.minimum), _reduced(pixels, np.maximum), pixels.shape[1], pixels.shape[0])

    def spread(self, across: int, down: int) -> Tiles:
        """The extremes of each tile together with everything that lies at most so many pixels beside it."""
        low, high = self.low, self.high
        for axis, reach in ((1, across), (0, down)):
            tiles = -(-reach // SIDE)
            low, high = _spread(low, tiles, axis, np.minimum), _spread(high, tiles, axis, np.maximum)
        return Tiles(low, high, self.width, self.height)

    @property
    def varied(self) -> npt.NDArray[np.bool_]:
        """The tiles that hold more than one gray."""
        varied: npt.NDArray[np.bool_] = self.low != self.high
        return varied

    def boxes(self, chosen: npt.NDArray[np.bool_]) -> Iterator[Box]:
        """The pixels of the chosen tiles, as boxes one tile high."""
        for row, line in enumerate(chosen):
            edges = np.flatnonzero(np.diff(line, prepend=False, append=False))
            for first, last in edges.reshape(-1, 2).tolist():
                top, bottom = row * SIDE, min((row + 1) * SIDE, self.height)
                yield first * SIDE, top, min(last * SIDE, self.width), bottom


def gray_counts(mask: Image.Image) -> list[int]:
    """How often each gray occurs, as Pillow's `histogram` has it."""
    box = mask.getbbox()
    if box is None:
        return [mask.width * mask.height] + [0] * 255
    pixels = gray_pixels(mask, box)
    tiles = Tiles.of(pixels)
    sides = (np.diff(np.arange(0, size, SIDE), append=size) for size in pixels.shape)
    areas = np.multiply.outer(*sides)
    plain = ~tiles.varied
    counts = np.bincount(tiles.low[plain], areas[plain], minlength=256).astype(int)
    for left, top, right, bottom in tiles.boxes(tiles.varied):
        counts += np.bincount(pixels[top:bottom, left:right].ravel(), minlength=256)
    counts[0] += mask.width * mask.height - pixels.size
    return [int(each) for each in counts]


def gray_pixels(mask: Image.Image, box: Box) -> Gray:  # (height, width) of the box
    """A part of a gray picture as an array.

    In strips, which takes a quarter of the time: what numpy asks Pillow for at once, Pillow copies three times.
    """
    left, top, right, bottom = box
    pixels: Gray = np.empty((bottom - top, right - left), np.uint8)
    for start in range(0, len(pixels), SIDE):
        strip = pixels[start : start + SIDE]
        strip[:] = np.asarray(mask.crop((left, top + start, right, top + start + len(strip))))
    return pixels


def _reduced(pixels: Gray, extreme: np.ufunc) -> Gray:
    rows = [extreme.reduce(pixels[top : top + SIDE], axis=0) for top in range(0, len(pixels), SIDE)]
    return np.asarray(extreme.reduceat(np.stack(rows), np.arange(0, pixels.shape[1], SIDE), axis=1))


def _spread(values: Gray, tiles: int, axis: int, extreme: np.ufunc) -> Gray:
    for _ in range(min(tiles, values.shape[axis] - 1)):
        near = np.concatenate([values.take([0], axis), values, values.take([-1], axis)], axis)
        size = values.shape[axis]
        parts = [near.take(range(start, start + size), axis) for start in range(3)]
        values = extreme(extreme(parts[0], parts[1]), parts[2])
    return values
