"""Samples of 16 bits a channel, as they lie beside a PIL picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[int, int, int, int]
Samples = npt.NDArray[np.uint16]  # (height, width, channels)

MODES = ("", "L", "LA", "RGB", "RGBA")  # by the number of channels
STRIP = 1 << 22  # samples that are looked at together


@dataclass(frozen=True, eq=False)
class DeepPixels:
    """Samples of 16 bits, upright. A changed picture shares those of its source, and holds the part that is new."""

    samples: Samples
    part: tuple[Box, Samples] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.samples.shape[1], self.samples.shape[0]

    @property
    def channels(self) -> int:
        return int((self.samples if self.part is None else self.part[1]).shape[2])

    @property
    def mode(self) -> str:
        """The mode of the PIL picture that shows them."""
        return MODES[self.channels]

    def window(self, box: Box) -> Samples:
        """The samples in a box; not to be changed."""
        left, top, right, bottom = box
        shown = with_channels(self.samples[top:bottom, left:right], self.channels)
        if self.part is None:
            return shown
        (x1, y1, x2, y2), new = self.part
        x1, y1, x2, y2 = max(x1, left), max(y1, top), min(x2, right), min(y2, bottom)
        if x1 < x2 and y1 < y2:
            shown = shown.copy()
            at_x, at_y = self.part[0][:2]
            shown[y1 - top : y2 - top, x1 - left : x2 - left] = new[y1 - at_y : y2 - at_y, x1 - at_x : x2 - at_x]
        return shown

    def strips(self) -> Iterator[Samples]:
        """All rows from the top, some at a time."""
        width, height = self.size
        rows = max(1, STRIP // (width * self.channels))
        for top in range(0, height, rows):
            yield self.window((0, top, width, min(top + rows, height)))

    def with_part(self, box: Box, samples: Samples) -> DeepPixels:
        """The same but for what is in the box; gray samples become coloured ones where the new ones are."""
        if self.part is None:
            return DeepPixels(self.samples, (box, samples))
        return DeepPixels(self.window((0, 0, *self.size)), (box, samples))

    def shown(self) -> Image.Image:
        """8 bits a channel, as Pillow makes them: the upper byte of colours, gray rounded."""
        return self._made(lambda strip: to_8_bits(strip) if strip.shape[2] == 1 else (strip >> 8).astype(np.uint8))

    def rounded(self, box: Box | None = None) -> Image.Image:
        """8 bits a channel, each the nearest."""
        return self._made(to_8_bits) if box is None else _picture_of(to_8_bits(self.window(box)))

    def _made(self, smaller: Callable[[Samples], npt.NDArray[np.uint8]]) -> Image.Image:
        picture, top = Image.new(self.mode, self.size), 0
        for strip in self.strips():
            picture.paste(_picture_of(smaller(strip)), (0, top))
            top += len(strip)
        return picture


def with_channels(samples: Samples, channels: int) -> Samples:
    """Gray as colours, with its transparency if it has one."""
    if samples.shape[2] == channels:
        return samples
    colours = np.repeat(samples[..., :1], 3, axis=2)
    return colours if channels == 3 else np.concatenate([colours, samples[..., 1:]], axis=2)


def to_8_bits(samples: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Rounded."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _picture_of(values: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
