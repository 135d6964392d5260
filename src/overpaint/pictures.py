"""Pictures from outside: opened within limits, turned upright, and what must survive the trip through the networks."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from overpaint.errors import PictureError
from overpaint.settings import Quirks

DEFAULT_MAX_PIXELS = 50_000_000

# Only these decoders run on what strangers send; Pillow knows others that start programs or read further files.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO", "TGA")

_SEVERAL_FRAMES_ARE_ONE_PICTURE = ("MPO", "ICO")  # phones add depth or gain maps, icons other sizes
_MODES_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_UNUSABLE_MODES = ("F",)
_SOURCE_MODE = "source_mode"


@dataclass(frozen=True)
class SourceExtras:
    """What the networks do not see of a picture, to be given back with the result."""

    alpha: Image.Image | None
    exif: bytes | None
    icc: bytes | None
    mode: str


def open_picture(
    source: bytes | str | os.PathLike[str] | Image.Image, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Image.Image:
    """A picture, decoded, upright and with 8 bits per channel. Its header is judged before its pixels are decoded."""
    picture = source if isinstance(source, Image.Image) else _header(source)
    try:
        _check_size(picture, max_pixels)
        _decode(picture)
        opened = _with_byte_alpha(_upright(_as_8_bits(picture)))
        opened.info.setdefault(_SOURCE_MODE, picture.mode)  # a picture may pass here twice
        return opened
    finally:
        if picture is not source:
            picture.close()  # formats that may hold several frames keep their file open


def _decode(picture: Image.Image) -> None:
    try:
        picture.load()
    except Exception as error:  # decoders raise whatever a broken file makes them
        raise PictureError(f"the picture cannot be decoded ({error}): save it again as PNG or JPEG") from error


def flatten(image: Image.Image, background: str, quirks: Quirks | None = None) -> Image.Image:
    """RGB, with what shows through a transparent picture painted in `background`."""
    only_rgba = quirks is not None and quirks.drop_source_extras
    if image.mode == "RGBA" or (not only_rgba and image.has_transparency_data):
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, background)
        canvas.paste(image, mask=image)
        return canvas.convert("RGB")
    return image.convert("RGB")


def source_extras(image: Image.Image) -> SourceExtras:
    """What of an opened picture a result should carry on."""
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    exif = image.getexif().tobytes() if len(image.getexif()) else None
    profile = image.info.get("icc_profile")
    return SourceExtras(alpha, exif, profile or None, str(image.info.get(_SOURCE_MODE, image.mode)))


def _header(source: bytes | str | os.PathLike[str]) -> Image.Image:
    Image.init()
    known = [each for each in FORMATS if each in Image.OPEN]
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else Path(source), formats=known)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"the picture is too large ({error}): give a smaller one") from error
    except FileNotFoundError:
        raise PictureError(f"{_name_of(source)}: there is no such file") from None
    except IsADirectoryError:
        raise PictureError(f"{_name_of(source)}: it is a folder; give one picture") from None
    except UnidentifiedImageError:
        raise PictureError(f"the picture cannot be opened: it is none of {', '.join(FORMATS)}") from None
    except OSError as error:
        remedy = "save it again as PNG or JPEG" if error.errno is None else "give a file that can be read"
        raise PictureError(f"the picture cannot be opened ({error.strerror or error}): {remedy}") from error
    except Exception as error:  # parsers of headers raise whatever a broken file makes them
        raise PictureError(f"the picture cannot be opened ({error}): save it again as PNG or JPEG") from error


def _name_of(source: bytes | str | os.PathLike[str]) -> str:
    return "the picture" if isinstance(source, bytes) else os.fspath(source)


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    pixels = picture.width * picture.height
    if pixels == 0:
        raise PictureError("the picture has no pixels: give one of at least 1x1")
    if pixels > max_pixels:
        size = f"{picture.width}x{picture.height} = {pixels} pixels"
        raise PictureError(f"the picture has {size}, more than max_source_pixels={max_pixels}: give a smaller one")
    if picture.mode in _UNUSABLE_MODES:
        raise PictureError(f"the picture's pixels are of mode {picture.mode}: save it with 8 or 16 bits per channel")
    if picture.format not in _SEVERAL_FRAMES_ARE_ONE_PICTURE and getattr(picture, "is_animated", False):
        raise PictureError("the picture has several frames: give one frame of it")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # REQ-5: broken EXIF must not spoil a picture that is otherwise good
        return picture.copy()


def _with_byte_alpha(picture: Image.Image) -> Image.Image:
    """PNG can name transparent colours beside the pixels instead of giving alpha to each."""
    if picture.mode in ("RGB", "P") and isinstance(picture.info.get("transparency"), bytes):
        return picture.convert("RGBA")
    return picture


def _as_8_bits(picture: Image.Image) -> Image.Image:
    """Pillow would cut 16-bit gray off at 255 instead of scaling it."""
    if picture.mode not in _MODES_OF_16_BITS:
        return picture
    values = np.clip(np.asarray(picture, dtype=np.int64), 0, 65535)
    small = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    small.info = dict(picture.info)
    return small
