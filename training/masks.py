"""What is hidden from an inpainting network: things, rectangles, blobs, strips at an edge, or everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.scenes.brush import Rng, noise, pick

Box = tuple[float, float, float, float]  # left, top, right, bottom, in sides
Mask = NDArray[np.bool_]  # (size, size), true where the picture is hidden

_MARGIN = 0.12
_LEAST_BLOB = 0.04


def draw_mask(rng: Rng, size: int, boxes: Sequence[Box]) -> Mask:
    """A thing of the picture in two of five cases, if there is one."""
    if boxes and rng.random() < 0.4:
        return around(boxes[int(rng.integers(len(boxes)))], size, rng.uniform(0, _MARGIN, 4))
    kind = pick(rng, tuple(_KINDS), tuple(weight for weight, _ in _KINDS.values()))
    return _KINDS[kind][1](rng, size)


def around(box: Box, size: int, margins: Sequence[float] | NDArray[np.floating] = (0, 0, 0, 0)) -> Mask:
    """A box with margins (in sides) on its left, top, right and bottom."""
    line = (np.arange(size) + 0.5) / size
    columns = (line >= box[0] - margins[0]) & (line <= box[2] + margins[2])
    rows = (line >= box[1] - margins[1]) & (line <= box[3] + margins[3])
    return np.asarray(rows[:, None] & columns[None])


def _rectangle(rng: Rng, size: int) -> Mask:
    wide, high = rng.uniform(0.2, 0.8, 2)
    left, top = rng.uniform(-0.1, 1.1 - wide), rng.uniform(-0.1, 1.1 - high)
    return around((left, top, left + wide, top + high), size)


def _blob(rng: Rng, size: int) -> Mask:
    field = noise(rng, size, 0.35)
    mask = field > np.quantile(field, 1 - rng.uniform(_LEAST_BLOB, 0.5))
    return np.asarray(mask)


def _strip(rng: Rng, size: int) -> Mask:
    """One side is missing, as where a picture is to grow."""
    mask = np.zeros((size, size), dtype=np.bool_)
    mask[: round(size * rng.uniform(0.15, 0.6))] = True
    return np.ascontiguousarray(np.rot90(mask, int(rng.integers(4))))


def _everything(rng: Rng, size: int) -> Mask:
    return np.ones((size, size), dtype=np.bool_)


_KINDS: dict[str, tuple[float, Callable[[Rng, int], Mask]]] = {
    "rectangle": (0.40, _rectangle),
    "blob": (0.25, _blob),
    "strip": (0.20, _strip),
    "everything": (0.15, _everything),
}
