"""What each format of a file can hold, in one table; what a picture loses in one, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from PIL import Image

from overpaint.deep import deep_of
from overpaint.heic import HEAD, is_heic
from overpaint.pictures import flatten, is_lossless_webp
from overpaint.pixels.profiles import PROFILE_SPACES, Profile, ProfileError, family_of

Beside = Literal["icc", "exif", "xmp", "dpi", "text"]
_Keeps = Literal["every pixel", "if asked", "nearly"]


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """A format that pictures are written in."""

    kind: str  # as Pillow calls it
    modes: frozenset[str]
    keeps: _Keeps
    holds: frozenset[Beside] = frozenset()
    is_deep: bool = False  # it may have 16 bits a channel
    longest: int | None = None  # side, pixels

    def holds_deep(self, mode: str) -> bool:
        """Whether it keeps all of a picture of this mode that has 16 bits a channel."""
        return self.is_deep and mode in self.modes


def _row(kind: str, modes: str, holds: str, keeps: _Keeps = "every pixel", longest: int | None = None) -> FileFormat:
    beside: frozenset[Any] = frozenset(holds.split())
    deep = kind in ("PNG", "TIFF")
    return FileFormat(
        kind=kind, modes=frozenset(modes.split()), keeps=keeps, holds=beside, is_deep=deep, longest=longest
    )


_ALL = (
    _row("PNG", "1 L LA RGB RGBA I;16", "icc exif xmp dpi text"),
    _row("TIFF", "1 L LA RGB RGBA CMYK I;16", "icc exif xmp dpi"),
    _row("BMP", "1 L RGB", "dpi"),
    _row("WEBP", "RGB RGBA", "icc exif xmp", "if asked", 16_383),
    _row("HEIF", "RGB RGBA", "icc exif xmp", "nearly", 65_535),
    _row("AVIF", "RGB RGBA", "icc exif xmp", "nearly", 65_535),
    _row("JPEG", "L RGB CMYK", "icc exif xmp dpi", "nearly", 65_500),  # NOTE: libjpeg stops before 65535
    _row("GIF", "1 L RGB RGBA", "text", "nearly", 65_535),
)
FILE_FORMATS: Mapping[str, FileFormat] = MappingProxyType({each.kind: each for each in _ALL})

KINDS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF", "gif": "GIF"}
KINDS |= {"tif": "TIFF", "tiff": "TIFF", "bmp": "BMP", "heic": "HEIF", "heif": "HEIF"}
OF_PILLOW = tuple(sorted({*KINDS.values()} - {"HEIF"}))  # those that Pillow opens by itself
MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {kind: f"image/{kind.lower()}" for kind in FILE_FORMATS} | {"HEIF": "image/heic"}
)

_SIXTEEN_TO_EIGHT = 0.0038910505836576  # STORE-3: 255 / 65535


def format_of(name: str) -> FileFormat:
    """By the ending of a file's name."""
    return FILE_FORMATS[KINDS[name.lower().rpartition(".")[2]]]


def media_type_of(data: bytes) -> str | None:
    """By the file's first bytes; None if it is of no format that pictures are written in."""
    if is_heic(data[:HEAD]):
        return MEDIA_TYPES["HEIF"]
    kind = next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)
    if data[8:12] == b"WEBP":
        kind = "WEBP"
    elif data[4:8] == b"ftyp":
        kind = "AVIF"
    return None if kind is None else MEDIA_TYPES[kind]


_TIFF = (b"II*\0", b"MM\0*", b"II+\0")  # with a plus it is a BigTIFF
_STARTS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"GIF8": "GIF"} | dict.fromkeys(_TIFF, "TIFF")


def own_ending(source: Path) -> str:
    """The ending of a source's own format, if every pixel is kept in it as it was; else that of PNG."""
    if not source.is_file():  # a pipe can be read only once, and may never end
        return "png"
    try:
        with source.open("rb") as file:
            start = file.read(16)
        is_exact_webp = start[8:12] == b"WEBP" and is_lossless_webp(source)
    except OSError:  # which is told when the picture is opened
        return "png"
    if is_exact_webp:
        return "webp"
    return next((ending for magic, ending in _EXACT.items() if start.startswith(magic)), "png")


_EXACT = {b"BM": "bmp"} | dict.fromkeys(_TIFF, "tif")


def storable(image: Image.Image, kind: str, background: str | None = None) -> Image.Image:
    """STORE-3: the pixels in a mode the format knows, without the notes Pillow would write on its own account."""
    modes = FILE_FORMATS[kind].modes
    if background is not None and "RGBA" not in modes and image.has_transparency_data:
        image = flatten(image, background)
    if image.mode not in modes or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        if image.mode.startswith("I"):
            image = image.point(lambda level: level * _SIXTEEN_TO_EIGHT).convert("L")
        has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
        mode = "L" if image.mode in ("1", "L") and "L" in modes else "RGB"
        image = image.convert("RGBA" if has_alpha and "RGBA" in modes else mode)
    image.load()
    picture = Image.Image()  # the same pixels: a copy of a camera's picture takes its room
    names = ("_im", "_mode", "_size", "palette", "readonly")
    vars(picture).update({name: each for name, each in vars(image).items() if name in names})
    return picture


def in_srgb(image: Image.Image, kind: str, icc: bytes | None) -> tuple[Image.Image, bytes | None]:
    """The picture with its profile; in sRGB and without one, where the format holds no profile or not its colours."""
    if icc is None:
        return image, None
    fits = image.mode != "CMYK" or "CMYK" in FILE_FORMATS[kind].modes
    if fits and "icc" in FILE_FORMATS[kind].holds:
        return image, icc
    try:
        profile = Profile.read(icc, family_of(image.mode))
    except ProfileError:
        return image, None
    if image.mode == "CMYK":
        return profile.seen(image), None
    clear = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    shown = profile.seen(image.convert("RGB"))
    if clear is not None:
        shown.putalpha(clear)
    return shown, None


def fitting_profile(icc: bytes | None, mode: str) -> bytes | None:
    """A profile, unless it is one for pictures of another kind; what cannot be read stays what it was."""
    if not icc:
        return None
    family = family_of(mode)
    return icc if PROFILE_SPACES.get(bytes(icc[16:20]), family) == family else None


def alpha_lost(image: Image.Image, extension: str) -> str | None:
    """The format that cannot hold what is transparent in this picture; None where nothing is lost."""
    kind = KINDS[extension.lower().removeprefix(".")]
    if "RGBA" in FILE_FORMATS[kind].modes or not image.has_transparency_data:
        return None
    deep = deep_of(image)
    if deep is not None:
        return kind if any(int(each[..., -1].min()) < 65_535 for each in deep.strips()) else None
    clear = image.getchannel("A") if "A" in image.getbands() else image.convert("RGBA").getchannel("A")
    return kind if clear.getextrema()[0] != 255 else None


def losses(
    image: Image.Image, file: str, *, is_masked: bool = False, lossless: bool = False, name: str | None = None
) -> Iterator[str]:
    """What to know about a picture that is written to this file; `name` is what the file is called there."""
    fmt, name = format_of(file), name or file
    if alpha_lost(image, file.rpartition(".")[2]) is not None:
        yield f"{name}: {fmt.kind} holds no transparency, so a background is put behind it; use PNG"
    if deep_of(image) is not None and not fmt.holds_deep(image.mode):
        bits = 10 if fmt.kind == "HEIF" else 8
        yield f"{name}: {fmt.kind} holds {bits} bits per channel, so the picture's 16 are rounded; use PNG or TIFF"
    if image.mode not in fmt.modes and image.mode == "CMYK":
        yield f"{name}: {fmt.kind} holds no CMYK, so the colours become sRGB; use TIFF"
    elif image.info.get("icc_profile") and "icc" not in fmt.holds:
        yield f"{name}: {fmt.kind} holds no colour profile, so the colours become sRGB; use PNG or TIFF"
    is_exact = fmt.keeps == "every pixel" or (fmt.keeps == "if asked" and lossless)
    if is_masked and not is_exact:
        yield f"{name}: {fmt.kind} packs every pixel anew, so those outside the mask change a little; use PNG or TIFF"
