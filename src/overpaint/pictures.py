"""Pictures from outside: opened within limits, turned upright, and what must survive the trip through the networks."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from overpaint.errors import PictureError, PictureTypeError
from overpaint.named_files import check_regular
from overpaint.settings import Quirks, Settings
from overpaint.taking import SOURCE_MODE, as_8_bits, as_picture, is_array, is_deep, upright

if TYPE_CHECKING:
    from overpaint.taking import PictureLike

DEFAULT_MAX_PIXELS = Settings.max_source_pixels

# Only these decoders run on what strangers send; Pillow knows others that start programs or read further files.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO", "TGA")

_SEVERAL_FRAMES_ARE_ONE_PICTURE = ("MPO", "ICO")  # phones add depth or gain maps, icons other sizes
_UNUSABLE_MODES = ("F",)
LOSSLESS = "lossless"  # in a picture's info: its file was a WebP that kept every pixel
_WEBP_START = 1 << 20  # a colour profile stands before the pixels


@dataclass(frozen=True)
class SourceExtras:
    """What the networks do not see of a picture, to be given back with the result."""

    alpha: Image.Image | None
    exif: bytes | None
    icc: bytes | None
    mode: str
    lossless: bool = False  # it came from a WebP that keeps every pixel


def open_picture(
    source: bytes | str | os.PathLike[str] | PictureLike, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Image.Image:
    """A picture, decoded, upright and with 8 bits per channel. Its header is judged before its pixels are decoded.

    `source` is a file's path or content, a PIL picture, a numpy array or a torch tensor (`overpaint.taking` has the
    rules). A picture of more than `max_pixels` is refused.
    """
    picture = _unopened(source)
    try:
        _check_size(picture, max_pixels)
        if is_deep(picture):
            picture.info.setdefault(SOURCE_MODE, f"{picture.mode};16")  # Pillow makes 8 bits of them by itself
        _decode(picture)
        opened = upright(as_8_bits(picture))
        opened = _with_byte_alpha(opened.copy() if opened is source or opened is picture else opened)
        if picture.format == "TIFF" and len(found := picture.getexif()):
            opened.info.setdefault("exif", found.tobytes())  # a TIFF's is not apart from the rest of the file
        opened.info.setdefault(SOURCE_MODE, picture.mode)  # a picture may pass here twice
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
    # Converting copies a large picture, which takes its time.
    return image if image.mode == "RGB" and "transparency" not in image.info else image.convert("RGB")


def source_extras(image: Image.Image) -> SourceExtras:
    """What of an opened picture a result should carry on."""
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    exif = image.getexif().tobytes() if len(image.getexif()) else None
    profile = image.info.get("icc_profile")
    mode, lossless = str(image.info.get(SOURCE_MODE, image.mode)), image.info.get(LOSSLESS) is True
    return SourceExtras(alpha, exif, profile or None, mode, lossless)


def _unopened(source: bytes | str | os.PathLike[str] | PictureLike) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if is_array(source):
        return as_picture("picture", source)
    if isinstance(source, bytes | str | os.PathLike):
        return _header(source)
    given = type(source).__name__
    raise PictureTypeError(f"{given} is no picture: give a path, bytes, a PIL picture, a numpy array or a torch tensor")


def _header(source: bytes | str | os.PathLike[str]) -> Image.Image:
    if not isinstance(source, bytes):
        check_regular(source)
    Image.init()
    known = [each for each in FORMATS if each in Image.OPEN]
    try:
        with warnings.catch_warnings():
            # Pillow warns above a number of pixels of its own; ours is judged next, from the same header.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else Path(source), formats=known)
        if picture.format == "WEBP" and _is_lossless_webp(source):
            picture.info[LOSSLESS] = True
        return picture
    except Image.DecompressionBombError as error:
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


def _is_lossless_webp(source: bytes | str | os.PathLike[str]) -> bool:
    """Whether the first picture in the file is a VP8L chunk."""
    if isinstance(source, bytes):
        start = source[:_WEBP_START]
    else:
        with Path(source).open("rb") as file:
            start = file.read(_WEBP_START)
    position = 12
    while position + 8 <= len(start):
        kind, size = start[position : position + 4], int.from_bytes(start[position + 4 : position + 8], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        position += 8 + size + size % 2
    return False


def _name_of(source: bytes | str | os.PathLike[str]) -> str:
    return "the picture" if isinstance(source, bytes) else os.fspath(source)


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    pixels = picture.width * picture.height
    if pixels == 0:
        raise PictureError("the picture has no pixels: give one of at least 1x1")
    if pixels > max_pixels:
        size = f"{picture.width}x{picture.height} = {pixels} pixels"
        remedy = "give a smaller one, or raise the option max_source_pixels"
        raise PictureError(f"the picture has {size}, more than max_source_pixels={max_pixels}: {remedy}")
    if picture.mode in _UNUSABLE_MODES:
        raise PictureError(f"the picture's pixels are of mode {picture.mode}: save it with 8 or 16 bits per channel")
    if picture.format not in _SEVERAL_FRAMES_ARE_ONE_PICTURE and getattr(picture, "is_animated", False):
        raise PictureError("the picture has several frames: give one frame of it")


def _with_byte_alpha(picture: Image.Image) -> Image.Image:
    """PNG can name transparent colours beside the pixels instead of giving alpha to each."""
    if picture.mode in ("RGB", "P") and isinstance(picture.info.get("transparency"), bytes):
        return picture.convert("RGBA")
    return picture
