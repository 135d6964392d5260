"""What moves or softens the edge of a mask: grow, shrink and feather. Where it is of one gray, nothing is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from overpaint.errors import RequestError
from overpaint.masks.shapes import LARGEST_RADIUS
from overpaint.pixels.mask import Box, blur_mask, ground_of, widened
from overpaint.pixels.tiles import gray_pixels

Bytes = npt.NDArray[np.uint8]

_SIGMAS = 2.5  # how far a blur reaches, in units of its sigma
_CELL = 128  # pixels a side of what is looked at together, at least
_STRIP = 64  # rows that fit a processor's cache


def grow(mask: Image.Image, pixels: float) -> Image.Image:
    """White, or the lightest gray, as far round itself as `pixels` in every direction."""
    _check("grow", pixels)
    return _near(mask, pixels, lambda values: _grown(values, pixels))


def shrink(mask: Image.Image, pixels: float) -> Image.Image:
    """The black grows instead. The picture's edge is none of the mask's."""
    _check("shrink", pixels)
    return _near(mask, pixels, lambda values: ~_grown(~values, pixels))


def feather(mask: Image.Image, pixels: float) -> Image.Image:
    """An edge that falls off to both sides, `pixels` each."""
    _check("feather", pixels)
    return blur_mask(mask, pixels / _SIGMAS, pixels / _SIGMAS)


def feather_in(mask: Image.Image, pixels: float) -> Image.Image:
    """An edge that falls off inwards: nothing gets lighter."""
    _check("feather", pixels)
    return ImageChops.darker(mask, feather(shrink(mask, pixels / 2), pixels / 2))


def feather_out(mask: Image.Image, pixels: float) -> Image.Image:
    """An edge that falls off outwards: nothing gets darker."""
    _check("feather", pixels)
    return ImageChops.lighter(mask, feather(grow(mask, pixels / 2), pixels / 2))


def _check(name: str, pixels: float) -> None:
    if not 0 <= pixels <= LARGEST_RADIUS:
        raise RequestError(name, pixels, f"give a number of pixels from 0 to {LARGEST_RADIUS}")


def _near(mask: Image.Image, reach: float, change: Callable[[Bytes], Bytes]) -> Image.Image:
    """A change that reaches so many pixels far, made only where the mask is not of one gray within that reach."""
    ground, box = ground_of(mask)
    if box is None:
        return mask.copy()
    margin = int(reach) + 1
    area = widened(box, margin, margin, mask.size)
    values = gray_pixels(mask, area)
    result = values.copy()
    for part in _busy(values, margin):
        left, top, right, bottom = part
        outer = widened(part, margin, margin, (values.shape[1], values.shape[0]))
        made = change(values[outer[1] : outer[3], outer[0] : outer[2]])
        result[top:bottom, left:right] = made[top - outer[1] : bottom - outer[1], left - outer[0] : right - outer[0]]
    drawn = Image.fromarray(result)
    if drawn.size == mask.size:
        return drawn
    changed = Image.new("L", mask.size, ground)
    changed.paste(drawn, area[:2])
    return changed


def _busy(values: Bytes, margin: int) -> Iterator[Box]:
    """The cells of a coarse grid that are not of one gray together with their neighbours.

    They are joined along rows, and down where row follows row alike: each part costs its margin, too.
    """
    side = max(_CELL, 4 * margin)
    across = np.arange(0, values.shape[1], side)
    bands = [values[top : top + side] for top in range(0, len(values), side)]
    low = np.stack([np.minimum.reduceat(band.min(axis=0), across) for band in bands])
    high = np.stack([np.maximum.reduceat(band.max(axis=0), across) for band in bands])
    busy = _of_neighbours(low, np.minimum) != _of_neighbours(high, np.maximum)
    first = 0
    for _, alike in groupby(busy, key=np.ndarray.tobytes):
        rows = list(alike)
        turns = np.flatnonzero(np.diff(rows[0].astype(np.int8), prepend=0, append=0)).tolist()
        for left, right in zip(turns[0::2], turns[1::2], strict=True):
            corners = (left * side, first * side, right * side, (first + len(rows)) * side)
            yield widened(corners, 0, 0, values.shape[::-1])
        first += len(rows)


def _of_neighbours(cells: Bytes, which: np.ufunc) -> Bytes:
    """The least or greatest of each cell and the eight round it."""
    framed = np.pad(cells, 1, mode="edge")
    rows = which(which(framed[:-2], framed[1:-1]), framed[2:])
    found: Bytes = which(which(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return found


def _grown(values: Bytes, radius: float) -> Bytes:
    if radius < 1:
        return values
    low, high = int(values.min()), int(values.max())
    if ((values == low) | (values == high)).all():
        return np.where(_reached(values == high, radius), np.uint8(high), np.uint8(low))
    return _lightest(values, radius)


def _reached(white: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    """Pixels whose distance to a white one is at most the radius.

    A white pixel d rows away in its column reaches sqrt(r^2 - d^2) pixels to both sides: so the distances along columns
    are found first, and then the farthest reach along each row. That costs the same for every radius.
    """
    far = int(radius) + 1
    distance = np.where(white, np.uint16(0), np.uint16(far))
    for this, before in _downwards(distance):
        np.minimum(this, before + np.uint16(1), out=this)
    for this, before in _downwards(distance[::-1]):
        np.minimum(this, before + np.uint16(1), out=this)
    depths = np.minimum(np.arange(far + 1, dtype=np.float64), radius)
    kind = np.int16 if white.shape[1] + far < 1 << 15 else np.int32
    half = np.sqrt(radius**2 - depths**2).astype(kind)
    half[far] = -1  # it reaches nothing, not even itself
    column: npt.NDArray[Any] = np.arange(white.shape[1], dtype=kind)
    reached = np.empty_like(white)
    for start in range(0, len(white), _STRIP):
        reach = half.take(distance[start : start + _STRIP])
        right = np.maximum.accumulate(column + reach, axis=1)
        left = np.minimum.accumulate((column - reach)[:, ::-1], axis=1)[:, ::-1]
        reached[start : start + _STRIP] = (right >= column) | (left <= column)
    return reached


def _downwards(rows: npt.NDArray[np.uint16]) -> zip[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]]:
    return zip(rows[1:], rows[:-1], strict=True)


def _lightest(values: Bytes, radius: float) -> Bytes:
    """The lightest gray in a disc round each pixel: the disc's rows one after another, the shortest first."""
    height = len(values)
    lightest, row, reach = values.copy(), values, 0
    for down in range(min(int(radius), height - 1), -1, -1):
        half = int((radius**2 - down**2) ** 0.5)
        row, reach = _wider(row, half - reach), half
        np.maximum(lightest[down:], row[: height - down], out=lightest[down:])
        np.maximum(lightest[: height - down], row[down:], out=lightest[: height - down])
    return lightest


def _wider(row: Bytes, pixels: int) -> Bytes:
    """The lightest gray at most so many pixels to the left or right, by steps that double."""
    done, step = 0, 1
    while done < pixels:
        step = min(done + 1 if done else 1, pixels - done)
        wider = row.copy()
        np.maximum(wider[:, step:], row[:, :-step], out=wider[:, step:])
        np.maximum(wider[:, :-step], row[:, step:], out=wider[:, :-step])
        row, done = wider, done + step
    return row
