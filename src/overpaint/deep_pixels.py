"""Samples of 16 bits a channel, as they lie beside a PIL picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

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
    is_cmyk: bool = False  # what its four channels are

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
        return "CMYK" if self.is_cmyk else MODES[self.channels]

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
            return replace(self, part=(box, samples))
        return replace(self, samples=self.window((0, 0, *self.size)), part=(box, samples))

    def shown(self) -> Image.Image:
        """8 bits a channel, as Pillow makes them: the upper byte of colours, gray rounded."""
        return self._made(lambda strip: to_8_bits(strip) if strip.shape[2] == 1 else (strip >> 8).astype(np.uint8))

    def rounded(self, box: Box | None = None) -> Image.Image:
        """8 bits a channel, each the nearest."""
        return self._made(to_8_bits) if box is None else self._picture_of(to_8_bits(self.window(box)))

    def _made(self, smaller: Callable[[Samples], npt.NDArray[np.uint8]]) -> Image.Image:
        picture, top = Image.new(self.mode, self.size), 0
        for strip in self.strips():
            picture.paste(self._picture_of(smaller(strip)), (0, top))
            top += len(strip)
        return picture

    def _picture_of(self, values: npt.NDArray[np.uint8]) -> Image.Image:
        if self.is_cmyk:
            return Image.frombytes("CMYK", (values.shape[1], values.shape[0]), values.tobytes())
        return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def resized(deep: DeepPixels, size: tuple[int, int], filter_: Image.Resampling) -> DeepPixels:
    """Resampled as Pillow does it with 8 bits: what is transparent gives no colour to what is beside it."""
    whole = deep.window((0, 0, *deep.size))
    alpha = None if deep.channels not in (2, 4) or deep.is_cmyk else _channel(whole[..., -1], size, filter_)
    result = np.empty((size[1], size[0], deep.channels), np.uint16)
    values: npt.NDArray[Any]
    for number in range(deep.channels):
        if alpha is None:
            values = _channel(whole[..., number], size, filter_)
        elif number == deep.channels - 1:
            values = alpha
        else:
            values = _channel(whole[..., number] * (whole[..., -1] / np.float32(65_535)), size, filter_)
            values = values * (np.float32(65_535) / np.maximum(alpha, 1))
        result[..., number] = np.rint(np.clip(values, 0, 65_535))
    return replace(deep, samples=result, part=None)


def mixed(one: DeepPixels, other: DeepPixels, share: float) -> DeepPixels:
    """So much of the other in the one, of the same size."""
    box = (0, 0, *one.size)
    values = one.window(box) * (1 - share) + other.window(box) * share
    return replace(one, samples=np.rint(values).astype(np.uint16), part=None)


def _channel(values: npt.NDArray[Any], size: tuple[int, int], filter_: Image.Resampling) -> npt.NDArray[np.float32]:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, filter_))


def with_channels(samples: Samples, channels: int) -> Samples:
    """Gray as colours, with its transparency if it has one."""
    if samples.shape[2] == channels:
        return samples
    colours = np.repeat(samples[..., :1], 3, axis=2)
    return colours if channels == 3 else np.concatenate([colours, samples[..., 1:]], axis=2)


def to_8_bits(samples: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """Rounded."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
