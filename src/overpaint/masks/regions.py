"""Connected regions of a mask, found from its runs: what a wand reaches, holes to fill, specks to drop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from overpaint.errors import RequestError
from overpaint.pixels.mask import ground_of

Flags = npt.NDArray[np.bool_]  # (height, width)
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Regions:
    """The runs of a picture of flags in reading order, each with the number of the region that it is part of.

    Positions count along rows that are one longer than the picture's, so that no run goes on in the next row.
    """

    size: tuple[int, int]  # (height, width)
    starts: Indices
    ends: Indices
    region: Indices

    def pixels(self) -> Indices:
        """How many pixels each region has."""
        return np.bincount(self.region, weights=self.ends - self.starts).astype(np.int64)

    def at(self, x: int, y: int) -> int | None:
        """The region at a pixel, if there is one."""
        place = y * (self.size[1] + 1) + x
        run = int(np.searchsorted(self.ends, place, side="right"))
        found = run < len(self.starts) and self.starts[run] <= place
        return int(self.region[run]) if found else None

    def at_border(self) -> Flags:
        """Of each region whether it reaches the picture's edge."""
        height, width = self.size
        row, first = np.divmod(self.starts, width + 1)
        last = self.ends - row * (width + 1)
        outer = (row == 0) | (row == height - 1) | (first == 0) | (last == width)
        return np.bincount(self.region, weights=outer) > 0

    def drawn(self, chosen: Flags) -> Flags:
        """The pixels of the chosen regions."""
        height, width = self.size
        wanted = chosen[self.region]
        steps = np.zeros(height * (width + 1) + 1, np.int8)
        steps[self.starts[wanted]] = 1
        steps[self.ends[wanted]] -= 1  # NOTE: a run may begin where the one before ended only in the next row
        inside = np.cumsum(steps[:-1], dtype=np.int8, out=steps[:-1]).view(np.bool_)
        return inside.reshape(height, width + 1)[:, :width]


def regions_of(flags: Flags, *, diagonal: bool = False) -> Regions:
    """The regions of what is true; with `diagonal` pixels that only share a corner are connected, too."""
    height, width = flags.shape
    framed = np.zeros(height * (width + 1) + 1, np.bool_)  # one before all, and one after each row
    framed[1:].reshape(height, width + 1)[:, :width] = flags
    turns = np.flatnonzero(framed[1:] != framed[:-1])
    starts, ends = turns[0::2], turns[1::2]
    return Regions((height, width), starts, ends, _joined(starts, ends, width + 1, int(diagonal)))


def fill_holes(mask: Image.Image) -> Image.Image:
    """White wherever something darker is closed in by white; what reaches the picture's edge is no hole."""
    ground, box = ground_of(mask)
    if box is None or ground == 255:
        box = (0, 0, *mask.size)
    pixels = np.array(mask.crop(box))
    regions = regions_of(pixels < 255)
    if len(regions.starts) == 0:
        return mask.copy()
    pixels[regions.drawn(~regions.at_border())] = 255
    return _with(mask, pixels, box)


def drop_specks(mask: Image.Image, pixels: float) -> Image.Image:
    """Black wherever what is not black is a spot of fewer than this many pixels."""
    if not pixels > 0:
        raise RequestError("drop-specks", pixels, "give the number of pixels that are enough to stay, from 1")
    box = mask.getbbox()
    if box is None:
        return mask.copy()
    values = np.array(mask.crop(box))
    regions = regions_of(values > 0, diagonal=True)
    values[regions.drawn(regions.pixels() < pixels)] = 0
    return _with(mask, values, box)


def _with(mask: Image.Image, pixels: npt.NDArray[np.uint8], box: tuple[int, int, int, int]) -> Image.Image:
    changed = mask.copy()
    changed.paste(Image.fromarray(pixels), box[:2])
    return changed


def _joined(starts: Indices, ends: Indices, row: int, reach: int) -> Indices:
    """For each run the number of its region, from 0 in reading order."""
    first = np.searchsorted(ends, starts + row - reach, side="right")
    last = np.searchsorted(starts, ends + row + reach, side="left")
    counts = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(starts)), counts)
    offsets = np.arange(len(above)) - np.repeat(np.cumsum(counts) - counts, counts)
    below = np.repeat(first, counts) + offsets
    parent = np.arange(len(starts))
    while len(above):
        roots = parent[above], parent[below]
        high, low = np.maximum(*roots), np.minimum(*roots)
        apart = high != low
        if not apart.any():
            break
        above, below, high, low = above[apart], below[apart], high[apart], low[apart]
        np.minimum.at(parent, high, low)
        while not np.array_equal(shorter := parent[parent], parent):
            parent = shorter
    return np.unique(parent, return_inverse=True)[1].astype(np.int64)
