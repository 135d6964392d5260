"""Two pictures of one size, compared pixel by pixel: how many differ, by how much, where; and a picture of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from overpaint.pixels.mask import Box

Numbers = npt.NDArray[Any]

_ROWS = 256  # are compared at a time, so that memory does not grow with the picture
_PLAIN = frozenset({"L", "RGB", "RGBA", "I;16"})
_FULL_GLOW = 64.0  # levels of difference that are shown at their brightest
_LEAST_GLOW = 0.35  # of a difference of one level: one that is there is to be seen


@dataclass(frozen=True)
class Comparison:
    """What differs between two pictures; `inside` and `outside` count pixels of a mask, where there is one."""

    width: int
    height: int
    changed: int  # pixels
    share: float  # per cent of the picture
    largest: int  # difference of one channel, levels
    mean: float  # over all pixels and channels, levels
    box: Box | None  # that holds every change
    inside: int | None = None
    outside: int | None = None


def compared(before: Image.Image, after: Image.Image, mask: Image.Image | None = None) -> Comparison:
    """Pictures of one size; where one has alpha, alpha counts."""
    width, height = before.size
    changed, largest, total, channels = 0, 0, 0.0, 1
    rows: list[int] = []
    columns = np.zeros(width, bool)
    inside = 0
    for top, differences in _bands(before, after):
        channels = differences.shape[-1]
        total += float(differences.sum(dtype=np.int64))
        strongest = differences.max(axis=-1)
        largest = max(largest, int(strongest.max()))
        differs = strongest > 0
        changed += int(differs.sum())
        rows += [top + int(row) for row in np.flatnonzero(differs.any(axis=1))]
        columns |= differs.any(axis=0)
        if mask is not None:
            part = mask.convert("L").crop((0, top, width, top + len(differs)))
            inside += int((differs & (np.asarray(part) > 0)).sum())
    across = np.flatnonzero(columns)
    box = (int(across[0]), rows[0], int(across[-1]) + 1, rows[-1] + 1) if changed else None
    return Comparison(
        width=width,
        height=height,
        changed=changed,
        share=round(100 * changed / (width * height), 4),
        largest=largest,
        mean=round(total / (width * height * channels), 4),
        box=box,
        inside=None if mask is None else inside,
        outside=None if mask is None else changed - inside,
    )


def difference_picture(before: Image.Image, after: Image.Image, most: int) -> Image.Image:
    """The first picture in dim gray, and over it every pixel that differs: brighter, the more it does.

    It is at most `most` pixels a side. Of pixels that fall together the one that differs most is shown.
    """
    factor = max(1, -(-max(before.size) // most))
    wide, high = -(-before.width // factor), -(-before.height // factor)
    strongest = np.zeros((high, wide), np.float32)
    for top, differences in _bands(before, after):
        own = differences.max(axis=-1).astype(np.float32) / (257.0 if differences.dtype == np.int32 else 1.0)
        ys = (top + np.arange(own.shape[0])) // factor
        across = np.maximum.reduceat(own, np.arange(0, own.shape[1], factor), axis=1)
        np.maximum.at(strongest, ys, across)
    ground = np.asarray(_bytes(before).convert("L").resize((wide, high), Image.Resampling.BOX)).astype(np.float32)
    glow = _LEAST_GLOW + (1 - _LEAST_GLOW) * np.minimum(strongest / _FULL_GLOW, 1)
    heat = (
        np.stack([np.full_like(glow, 255), 190 * glow**2, 40 * (1 - glow)], axis=-1) * np.maximum(glow, 0.5)[..., None]
    )
    dim = np.repeat((30 + 0.3 * ground)[..., None], 3, axis=-1)
    shown = np.where((strongest > 0)[..., None], heat, dim)
    return Image.fromarray(shown.round().clip(0, 255).astype(np.uint8))


def _bands(before: Image.Image, after: Image.Image) -> Iterator[tuple[int, Numbers]]:
    """Differences without sign, (rows, width, channels), from the top down; int32 where there are 16 bits a channel."""
    mode = _common(before, after)
    wide, high = before.size
    for top in range(0, high, _ROWS):
        area = (0, top, wide, min(top + _ROWS, high))
        first, second = (_values(each.crop(area), mode) for each in (before, after))
        yield top, np.abs(first - second)


def _common(before: Image.Image, after: Image.Image) -> str:
    if before.mode == after.mode and before.mode in _PLAIN:
        return before.mode
    return "RGBA" if before.has_transparency_data or after.has_transparency_data else "RGB"


def _values(picture: Image.Image, mode: str) -> Numbers:
    shown = picture if picture.mode == mode else _bytes(picture).convert(mode)
    values = np.asarray(shown)
    values = values.astype(np.int32 if mode == "I;16" else np.int16)
    return values if values.ndim == 3 else values[..., None]


def _bytes(picture: Image.Image) -> Image.Image:
    """Eight bits a channel: Pillow cuts off what is above, and so 16 bits are scaled here."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
