"""Masks as OpenAI has them: transparent where the picture is to change. Ours are white there."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from overpaint.deep import DeepPicture, deep_of
from overpaint.deep_pixels import DeepPixels
from overpaint.errors import RequestError
from overpaint.files.metadata import encode_picture
from overpaint.pictures import SourceExtras, source_extras
from overpaint.service.guard.budgets import apart_of, opened_sent

_REPAINTED = 128  # masks count from here on
_STRIP = 128  # lines that are looked at together
_SAME_SHAPE = 0.02  # of which two shapes may differ; planning allows for as much


@dataclass(frozen=True)
class Sources:
    """Pictures and mask as fields of ours. What is in `values` holds where the client says nothing else."""

    pictures: tuple[bytes, ...]
    size: tuple[int, int]  # of the first
    values: Mapping[str, Any]


class GivenPicture:
    """A picture of a request. One that was read apart is decoded only if its pixels are to be changed."""

    def __init__(self, data: bytes) -> None:
        self.data, self._apart = data, apart_of(data)
        if self._apart is not None:
            self._apart.check()
        self.size = self.picture.size if self._apart is None else self._apart.size

    @cached_property
    def picture(self) -> Image.Image:
        return opened_sent(self.data)

    @property
    def has_alpha(self) -> bool:
        return self.picture.has_transparency_data if self._apart is None else self._apart.lowest_alpha is not None

    @property
    def is_cut_out(self) -> bool:
        """Whether any of it is not there at all."""
        if self._apart is not None:
            return self._apart.lowest_alpha == 0
        return self.has_alpha and _lowest(self.picture.convert("RGBA").getchannel("A")) == 0


def masked(pictures: Sequence[bytes], mask: bytes | None) -> Sources:
    """The pictures with the mask that was given, or that the first of them is by its transparency."""
    first = GivenPicture(pictures[0])
    if mask is not None:
        repainted, content = _repainted(opened_sent(mask)), {}
    elif first.is_cut_out:
        # Nothing is there where it is transparent, so it starts from what is around.
        repainted, content = _repainted(first.picture), {"masked_content": "fill"}
    else:
        return Sources(tuple(pictures), first.size, {})
    # A blurred edge reaches beyond the mask; unless it is asked for, nothing outside of it changes.
    values = {"mask": _png(repainted), "mask_blur_x": 0, "mask_blur_y": 0, **content}
    shown = tuple(_shown(i, GivenPicture(each), repainted) for i, each in enumerate(pictures))
    return Sources(shown, first.size, values)


def _repainted(mask: Image.Image) -> Image.Image:
    """White where the picture is to change. A mask that is opaque all over is one of ours."""
    if mask.has_transparency_data:
        alpha = mask.convert("RGBA").getchannel("A")
        if _lowest(alpha) < 255:
            return alpha.point(lambda value: 255 - value)
    return mask.convert("RGB").convert("L")


def _check_shape(index: int, size: tuple[int, int], mask: tuple[int, int]) -> None:
    """The mask is for all pictures; on one of another shape it would cover something else than was meant."""
    across, down = mask[0] * size[1], mask[1] * size[0]
    if abs(across - down) > _SAME_SHAPE * max(across, down):
        said = (
            f"image[{index}] is {size[0]}x{size[1]}; send pictures of other shapes one by one, each with its own mask"
        )
        raise RequestError("mask", f"{mask[0]}x{mask[1]}", said)


def _shown(index: int, source: GivenPicture, repainted: Image.Image) -> bytes:
    """The picture, opaque where it is repainted: nobody would see what is painted there otherwise."""
    _check_shape(index, source.size, repainted.size)
    if not source.has_alpha:
        return source.data
    picture = source.picture
    fitted = repainted.resize(picture.size, Image.Resampling.NEAREST)
    where = fitted.point(lambda value: 255 if value >= _REPAINTED else 0)
    deep = deep_of(picture)
    if deep is not None:
        return _deep_png(deep, where, source_extras(picture))
    picture = picture.convert("RGBA")
    alpha = picture.getchannel("A")
    alpha.paste(255, mask=where)
    picture.putalpha(alpha)
    return _png(picture)


def _deep_png(deep: DeepPixels, where: Image.Image, extras: SourceExtras) -> bytes:
    """With 16 bits a channel, opaque where the mask is white."""
    samples = deep.window((0, 0, *deep.size)).copy()
    samples[..., -1][np.asarray(where) > 0] = 65_535
    return encode_picture(DeepPicture.of_pixels(DeepPixels(samples)), "png", **extras.beside)


def _lowest(channel: Image.Image) -> float:
    """NOTE: strip by strip, for Pillow lets no other thread have its turn while it looks."""
    lowest = 255.0
    for top in range(0, channel.height, _STRIP):
        low, _ = channel.crop((0, top, channel.width, min(top + _STRIP, channel.height))).getextrema()
        assert isinstance(low, int | float)
        lowest = min(lowest, low)
        if not lowest:
            break
    return lowest


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    exif = picture.getexif()
    picture.save(data, "PNG", compress_level=1, **({"exif": exif} if len(exif) else {}))
    return data.getvalue()
