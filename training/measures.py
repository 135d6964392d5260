"""Numbers about pictures: how alike two are, where their edges lie, whether a seam shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.masks import Box, Mask
from training.scenes.brush import LUMA

Picture = NDArray[np.uint8]  # (h, w, 3)
Values = NDArray[np.floating]

CELL = 4  # pixels: half of what a latent stands for
_REACH = 4  # pixels on either side of a border between which a step is looked for
RING = 8  # pixels around a mask in which a seam would show


def psnr(found: Picture, wanted: Picture) -> float:
    """In decibels."""
    error = float(np.mean((found.astype(np.float64) - wanted) ** 2))
    return 10 * math.log10(255**2 / max(error, 1e-9))


def lightness(picture: Picture) -> Values:
    return np.asarray(picture @ LUMA)


def edges(light: Values) -> Values:
    """How steep the lightness is at every pixel."""
    down, across = np.gradient(light)
    return np.asarray(np.hypot(down, across))


def in_cells(light: Values, cell: int = CELL) -> Values:
    """Means over squares: what is left of a picture when all that is finer than half a latent is forgotten."""
    high, wide = light.shape[0] // cell, light.shape[1] // cell
    return np.asarray(light[: high * cell, : wide * cell].reshape(high, cell, wide, cell).mean(axis=(1, 3)))


def alike(first: Values, second: Values) -> float:
    """Correlation; two flat pictures are alike, a flat one and another are not."""
    flat = [values.std() < 1e-3 for values in (first, second)]
    if any(flat):
        return float(all(flat))
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def ring(mask: Mask, width: int = RING) -> Mask:
    """The pixels outside a mask that are at most so far from it."""
    grown = mask.copy()
    for axis in (0, 1):
        steps = [shifted(grown, by, axis) for by in range(-width, width + 1)]
        grown = np.logical_or.reduce(steps)
    return np.asarray(grown & ~mask)


def shifted(mask: Mask, by: int, axis: int) -> Mask:
    """Moved, with nothing coming in from beyond the edge."""
    moved = np.roll(mask, by, axis)
    gone = [slice(None), slice(None)]
    gone[axis] = slice(0, by) if by >= 0 else slice(by, None)
    moved[tuple(gone)] = False
    return moved


def step_across(light: Values, box: Box) -> float:
    """The mean change of lightness from outside to inside across a box's sides, where both lie in the picture."""
    size = light.shape[0]
    left, top, right, bottom = (round(side * size) for side in box)
    rows, columns = slice(max(top, 0), min(bottom, size)), slice(max(left, 0), min(right, size))
    found: list[Values] = []
    for at, inwards in ((left, 1), (right - 1, -1)):
        if 0 <= at - inwards * _REACH < size and 0 <= at + inwards * _REACH < size:
            found.append(light[rows, at + inwards * _REACH] - light[rows, at - inwards * _REACH])
    for at, inwards in ((top, 1), (bottom - 1, -1)):
        if 0 <= at - inwards * _REACH < size and 0 <= at + inwards * _REACH < size:
            found.append(light[at + inwards * _REACH, columns] - light[at - inwards * _REACH, columns])
    return float(np.mean([np.abs(each).mean() for each in found])) if found else 0.0


def mean_of(values: Sequence[float]) -> float:
    return float(np.mean(values))
