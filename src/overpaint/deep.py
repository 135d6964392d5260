"""Pictures with 16 bits a channel. Pillow holds none in colours, so their samples lie in an array beside its picture.

A `DeepPicture` is a PIL picture of 8 bits for whoever knows no more, and these are made when they are first asked for.
Pillow decodes the files: it can leave out the lower byte of each sample or the upper one, so two passes find both.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from overpaint.deep_files import deep_pieces
from overpaint.deep_pixels import STRIP, DeepPixels, Samples
from overpaint.upright import SOURCE_MODE, upright

# The raw modes of Pillow that leave out the lower byte, and for each the one that leaves out the upper byte.
_OTHER_BYTE: Mapping[str, str] = MappingProxyType(
    {
        f"{name};16{order}": f"{name};16{'L' if order == 'B' else 'B'}"
        for name in ("RGB", "RGBA", "RGBX", "CMYK")
        for order in "BL"
    }
    | {
        f"{name};16N": f"{name};16{'B' if sys.byteorder == 'little' else 'L'}"
        for name in ("RGB", "RGBA", "RGBX", "CMYK")
    }
)
_GRAY_WITH_ALPHA = "LA;16B"


class DeepPicture(Image.Image):
    """A PIL picture of 8 bits a channel that has 16 beside them.

    What PIL makes of it, such as a resized one, is a plain picture of 8 bits; a copy or a crop keeps them all. A change
    in place is one of the 8 bits, and the 16 are given up.
    """

    _deep: DeepPixels | None = None
    _shown: Any = None  # what Pillow made of the 8 bits

    @classmethod
    def of_pixels(cls, pixels: DeepPixels, info: Mapping[Any, Any] | None = None) -> DeepPicture:
        picture = DeepPicture()
        picture._deep = pixels
        picture._mode, picture._size = pixels.mode, pixels.size  # type: ignore[attr-defined,unused-ignore]
        picture.info = dict(info or {})
        picture.readonly = 1  # so that Pillow puts another picture here before it changes anything
        return picture

    @property
    def deep(self) -> DeepPixels | None:
        """The samples of 16 bits, unless the 8 bits were changed since."""
        return self._deep if self._im is None or self._im is self._shown else None

    @property
    def im(self) -> Any:
        if self._im is None and self._deep is not None:
            self._im = self._shown = self._deep.shown().im
        return super().im

    @im.setter
    def im(self, value: Any) -> None:
        self._im = value

    def load(self) -> Any:
        if self._deep is not None:
            self.im  # noqa: B018 (it is made now)
        return super().load()

    def copy(self) -> Image.Image:
        return super().copy() if self.deep is None else DeepPicture.of_pixels(self.deep, self.info)

    def crop(self, box: Any = None) -> Image.Image:
        deep, whole = self.deep, (0, 0, *self.size)
        inside = box is None or (0 <= box[0] < box[2] <= self.width and 0 <= box[1] < box[3] <= self.height)
        if deep is None or not inside:
            return super().crop(box)
        area = whole if box is None else tuple(map(round, box))
        return DeepPicture.of_pixels(replace(deep, samples=deep.window(area), part=None), self.info)

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """As PIL saves; PNG and TIFF hold the 16 bits."""
        kind = (format or (_kind_of(fp) if isinstance(fp, str | os.PathLike) else "")).upper()
        if self.deep is None or kind not in ("PNG", "TIFF") or (self.deep.is_cmyk and kind == "PNG"):
            super().save(fp, format, **params)
            return
        profile = self.info.get("icc_profile")
        pieces = deep_pieces(self.deep, kind, {**({"icc_profile": profile} if profile else {}), **params})
        with nullcontext(fp) if hasattr(fp, "write") else Path(fp).open("wb") as file:
            file.writelines(pieces)

    def __getstate__(self) -> list[Any]:
        if self.deep is None:
            return [None, super().__getstate__()]
        return [self.info, self.deep]

    def __setstate__(self, state: list[Any]) -> None:
        info, kept = state
        if not isinstance(kept, DeepPixels):
            super().__setstate__(kept)
            return
        Image.Image.__init__(self)
        vars(self).update(vars(DeepPicture.of_pixels(kept, info)))


def _kind_of(path: str | os.PathLike[str]) -> str:
    Image.init()
    return Image.EXTENSION.get(Path(path).suffix.lower(), "")


def deep_of(picture: Image.Image) -> DeepPixels | None:
    """The samples of 16 bits that a picture has; None for any other."""
    return picture.deep if isinstance(picture, DeepPicture) else None


def shallow(picture: Image.Image) -> Image.Image:
    """The picture with its 8 bits alone."""
    deep = deep_of(picture)
    if deep is None:
        return picture
    plain = deep.shown()
    plain.info = dict(picture.info)
    return plain


def deep_array(values: npt.NDArray[np.uint16], info: Mapping[Any, Any] | None = None) -> DeepPicture:
    """A picture of an array (height, width) or (height, width, channels), of which it keeps a copy."""
    samples = values.astype(np.uint16)
    return _picture(samples if samples.ndim == 3 else samples[..., None], info or {})


def _picture(samples: Samples, info: Mapping[Any, Any], *, is_cmyk: bool = False) -> DeepPicture:
    pixels = DeepPixels(samples, is_cmyk=is_cmyk)
    mode = "I;16" if pixels.channels == 1 else f"{pixels.mode};16"
    return DeepPicture.of_pixels(pixels, {**info, SOURCE_MODE: mode})


# -- files -------------------------------------------------------------------------------------------------------------


def is_deep(picture: Image.Image) -> bool:
    """Whether a file that is not decoded yet has 16 bits a channel that can be kept."""
    if picture.mode in ("I;16", "I;16B", "I;16L", "I;16N"):
        return True
    modes = _raw_modes(picture)
    return bool(modes) and all(each in _OTHER_BYTE or each == _GRAY_WITH_ALPHA for each in modes)


def decoded_deep(picture: Image.Image, again: Callable[[], Image.Image], *, is_ours: bool = False) -> DeepPicture:
    """An undecoded file's picture, upright; `again` opens the same file once more. Decoders raise what they like.

    Nobody else looks at one that is ours, so it is closed: that of a camera takes as much memory as the samples.
    """
    modes = _raw_modes(picture)
    if modes == {_GRAY_WITH_ALPHA}:
        _retile(picture, {_GRAY_WITH_ALPHA: "RGBA"})  # two samples of two bytes are read as one pixel of four
    turned = _loaded(picture)
    if turned.mode.startswith("I;16"):
        return deep_array(np.asarray(turned), turned.info)
    if modes == {_GRAY_WITH_ALPHA}:
        pairs = np.asarray(turned).astype(np.uint16)
        return _picture((pairs[..., 0::2] << 8 | pairs[..., 1::2]).astype(np.uint16), turned.info)
    info, is_cmyk = turned.info, turned.mode == "CMYK"
    samples = np.empty((turned.height, turned.width, len(turned.getbands())), np.uint16)
    for rows, upper in _strips(turned):
        samples[rows] = upper
        samples[rows] <<= 8
    del turned
    if is_ours:
        picture.close()
    low = again()
    _retile(low, _OTHER_BYTE)
    for rows, lower in _strips(_loaded(low)):
        samples[rows] |= lower
    return _picture(samples, info, is_cmyk=is_cmyk)


def opened_again(picture: Image.Image) -> Callable[[], Image.Image]:
    """How to open a program's undecoded picture a second time; its own place in the file stays what it is."""
    file: Any = getattr(picture, "fp", None)
    if file is None:  # it is decoded; only gray is then still of 16 bits, and needs no second pass
        return picture.copy
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    kinds = [picture.format or "PNG"]
    return lambda: Image.open(io.BytesIO(data), formats=kinds)


def _raw_modes(picture: Image.Image) -> set[str]:
    """How the parts of an undecoded file are packed, in Pillow's words."""
    tiles: Any = getattr(picture, "tile", ())
    return {_raw_mode(each[3]) for each in tiles}


def _raw_mode(arguments: Any) -> str:
    return str(arguments if isinstance(arguments, str) else arguments[0] if arguments else "")


def _retile(picture: Image.Image, other: Mapping[str, str]) -> None:
    """Have an undecoded file read in other raw modes."""
    tiled: Any = picture
    tiled.tile = [each._replace(args=_exchanged(each.args, other)) for each in tiled.tile]


def _exchanged(arguments: Any, other: Mapping[str, str]) -> Any:
    new = other[_raw_mode(arguments)]
    return new if isinstance(arguments, str) else (new, *arguments[1:])


def _loaded(picture: Image.Image) -> Image.Image:
    picture.load()
    if picture.format == "TIFF" and len(found := picture.getexif()):
        picture.info.setdefault("exif", found.tobytes())  # a TIFF's is not apart from the rest of the file
    return upright(picture)


def _strips(picture: Image.Image) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
    rows = max(1, STRIP // (picture.width * len(picture.getbands())))
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        yield slice(top, bottom), np.asarray(picture.crop((0, top, picture.width, bottom)))
