"""Pictures from outside: opened within limits, turned upright, and what must survive the trip through the networks."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

from overpaint.errors import PictureError, PictureTypeError
from overpaint.heic import HEAD, deep_heic, heic_header, is_heic
from overpaint.named_files import check_regular
from overpaint.settings import Quirks, Settings
from overpaint.taking import SOURCE_MODE, as_8_bits, as_picture, is_array, upright, with_16_bits
from overpaint.upright import NOTES

if TYPE_CHECKING:
    from overpaint.taking import PictureLike

DEFAULT_MAX_PIXELS = Settings.max_source_pixels

# Only these decoders run on what strangers send; Pillow knows others that start programs or read further files.
# HEIC is read, too, where pillow-heif is installed; that is no part of Pillow.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "ICO", "TGA")

_SEVERAL_FRAMES_ARE_ONE_PICTURE = ("MPO", "ICO")  # phones add depth or gain maps, icons other sizes
_UNUSABLE_MODES = ("F",)
_PLANAR, _BITS = 284, 258  # tags of a TIFF
LOSSLESS = "lossless"  # in a picture's info: its file was a WebP that kept every pixel
_WEBP_START = 1 << 20  # a colour profile stands before the pixels


@dataclass(frozen=True)
class SourceExtras:
    """What the networks do not see of a picture, to be given back with the result."""

    exif: bytes | None
    icc: bytes | None
    mode: str
    lossless: bool = False  # it came from a WebP that keeps every pixel
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None

    @property
    def beside(self) -> dict[str, Any]:
        """What stands beside the pixels, as `encode_picture` takes it."""
        return {"exif": self.exif, "icc": self.icc, "xmp": self.xmp, "dpi": self.dpi}


def open_picture(
    source: bytes | str | os.PathLike[str] | PictureLike, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Image.Image:
    """A picture, decoded and upright. Its header is judged before its pixels are decoded.

    `source` is a file's path or content, a PIL picture, a numpy array or a torch tensor (`overpaint.taking` has the
    rules). A picture of more than `max_pixels` is refused. It has 8 bits per channel; where the file has 16, they lie
    beside them (`overpaint.deep`). Of several frames the first is taken, and the picture says so (`NOTES`).
    """
    picture, opened = _unopened(source), None
    try:
        _check(picture, max_pixels)
        if (deep := _with_16_bits(picture, source)) is not None:
            opened = deep
            return deep
        _decode(picture)
        opened = upright(as_8_bits(picture))
        if opened is source:
            opened = opened.copy()
        elif opened is picture:
            opened = _without_file(opened)
        opened = _with_byte_alpha(opened)
        if picture.format == "TIFF" and len(found := picture.getexif()):
            opened.info.setdefault("exif", found.tobytes())  # a TIFF's is not apart from the rest of the file
        opened.info.setdefault(SOURCE_MODE, picture.mode)  # a picture may pass here twice
        return opened
    finally:
        if picture is not source and picture is not opened:
            picture.close()  # formats that may hold several frames keep their file open


def size_of(source: bytes | str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) by a file's header."""
    with _header(source) as picture:
        return picture.size


def _without_file(picture: Image.Image) -> Image.Image:
    """The same pixels, of which a camera's picture has many, as a plain picture."""
    if picture.readonly:  # they lie in the file still
        return picture.copy()
    plain = Image.Image()
    names = ("_im", "_mode", "_size", "palette", "info")
    vars(plain).update({name: each for name, each in vars(picture).items() if name in names})
    return plain


def _with_16_bits(picture: Image.Image, source: object) -> Image.Image | None:
    try:
        if not isinstance(source, bytes | str | os.PathLike):
            return with_16_bits(picture)
        if picture.format == "HEIF":
            return deep_heic(picture, _bytes(source))
        return with_16_bits(picture, lambda: _header(source))
    except Exception as error:  # decoders raise whatever a broken file makes them
        raise _undecodable(error) from error


def _decode(picture: Image.Image) -> None:
    try:
        picture.load()
    except Exception as error:  # decoders raise whatever a broken file makes them
        raise _undecodable(error) from error


def _undecodable(error: Exception) -> PictureError:
    return PictureError(f"the picture cannot be decoded ({error}): save it again as PNG or JPEG")


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
    exif = image.getexif().tobytes() if len(image.getexif()) else None
    profile = image.info.get("icc_profile")
    mode, lossless = str(image.info.get(SOURCE_MODE, image.mode)), image.info.get(LOSSLESS) is True
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")  # the second in a PNG
    xmp = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    kept = xmp if isinstance(xmp, bytes) and xmp else None
    return SourceExtras(exif, profile or None, mode, lossless, kept, _dpi(image.info.get("dpi")))


def _dpi(value: object) -> tuple[float, float] | None:
    try:
        across, down = map(float, value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None
    # Of a TIFF that says nothing of it, Pillow says 1.
    return (across, down) if 1 < across <= 65_535 and 1 < down <= 65_535 else None


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
        if is_heic(_start(source, HEAD)):
            return heic_header(_bytes(source), _name_of(source))
        with warnings.catch_warnings():
            # Pillow warns above a number of pixels of its own; ours is judged next, from the same header.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else Path(source), formats=known)
        if picture.format == "WEBP" and is_lossless_webp(source):
            picture.info[LOSSLESS] = True
        return picture
    except Image.DecompressionBombError as error:
        raise PictureError(f"the picture is too large ({error}): give a smaller one") from error
    except PictureError:
        raise
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


def is_lossless_webp(source: bytes | str | os.PathLike[str]) -> bool:
    """Whether the first picture in the file is a VP8L chunk."""
    start, position = _start(source, _WEBP_START), 12
    while position + 8 <= len(start):
        kind, size = start[position : position + 4], int.from_bytes(start[position + 4 : position + 8], "little")
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        position += 8 + size + size % 2
    return False


def _bytes(source: bytes | str | os.PathLike[str]) -> bytes:
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def _start(source: bytes | str | os.PathLike[str], count: int) -> bytes:
    if isinstance(source, bytes):
        return source[:count]
    with Path(source).open("rb") as file:
        return file.read(count)


def _name_of(source: bytes | str | os.PathLike[str]) -> str:
    return "the picture" if isinstance(source, bytes) else os.fspath(source)


def _check(picture: Image.Image, max_pixels: int) -> None:
    pixels = picture.width * picture.height
    if pixels == 0:
        raise PictureError("the picture has no pixels: give one of at least 1x1")
    if pixels > max_pixels:
        size = f"{picture.width}x{picture.height} = {pixels} pixels"
        remedy = "give a smaller one, or raise the option max_source_pixels"
        raise PictureError(f"the picture has {size}, more than max_source_pixels={max_pixels}: {remedy}")
    if picture.mode in _UNUSABLE_MODES:
        raise PictureError(f"the picture's pixels are of mode {picture.mode}: save it with 8 or 16 bits per channel")
    if _has_planes_of_16_bits(picture):
        raise PictureError("the picture's channels of 16 bits lie in planes apart: save it with them side by side")
    if picture.format not in _SEVERAL_FRAMES_ARE_ONE_PICTURE and getattr(picture, "is_animated", False):
        picture.info[NOTES] = (f"it has {getattr(picture, 'n_frames', 2)} frames, of which the first is taken",)


def _has_planes_of_16_bits(picture: Image.Image) -> bool:
    """Which Pillow would read as if they had 8."""
    tags: Any = getattr(picture, "tag_v2", {})
    return bool(tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) > 8)


def _with_byte_alpha(picture: Image.Image) -> Image.Image:
    """PNG can name transparent colours beside the pixels instead of giving alpha to each."""
    if picture.mode in ("RGB", "P") and isinstance(picture.info.get("transparency"), bytes):
        return picture.convert("RGBA")
    return picture
