"""Colour profiles (ICC.1:2022): from a file's own colours to sRGB, which is painted in, and back.

LittleCMS does it, which Pillow brings along, with 8 bits a channel. Coming back to 16 bits would leave gaps, so what a
profile of primaries and curves says is computed here for that.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Space = Literal["RGB", "CMYK"]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

PROFILE_SPACES = {b"RGB ": "RGB", b"GRAY": "gray", b"CMYK": "CMYK"}
_OF_PICTURES = (b"scnr", b"mntr", b"prtr", b"spac")  # what a profile may be made for
_RGB_TO_XYZ = np.array(  # sRGB's primaries under D50
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
_CURVE_STEPS = 4096
_MOST_BYTES = 1 << 26


class ProfileError(ValueError):
    """Why a profile cannot be used: the rest of a sentence that begins with "its colour profile"."""


@dataclass(frozen=True)
class Profile:
    """A profile that can be used for pictures of its space; one of gray is made into one of colours."""

    data: bytes
    space: Space

    @classmethod
    def read(cls, data: bytes, family: str) -> Profile:
        """The profile of a picture that is "gray", "RGB" or "CMYK"."""
        kind = _kind_of(data)
        if kind != family and (family, kind) != ("gray", "RGB"):
            raise ProfileError(f"is one for {kind} pictures, and this is {family}")
        if kind == "gray":
            data = _with_colours(data)
        profile = cls(data, "CMYK" if kind == "CMYK" else "RGB")
        try:
            profile.seen(Image.new(profile.space, (1, 1)))
            profile.brought_back(Image.new("RGB", (1, 1)))
        except Exception as error:  # LittleCMS says no more than that it cannot
            raise ProfileError("cannot be read") from error
        return profile

    @cached_property
    def is_srgb(self) -> bool:
        """Whether painting may leave the colours alone: they are the same within one level."""
        if self.space != "RGB":
            return False
        levels = np.linspace(0, 255, 6).astype(np.uint8)
        colours = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))
        apart = np.asarray(self.seen(colours)).astype(int) - np.asarray(colours)
        return int(np.abs(apart).max()) <= 1

    def seen(self, picture: Image.Image) -> Image.Image:
        """A picture of the profile's space in sRGB."""
        return _applied(_transforms(self.data, self.space)[0], picture, "RGB")

    def brought_back(self, picture: Image.Image) -> Image.Image:
        """A picture of sRGB in the profile's space."""
        return _applied(_transforms(self.data, self.space)[1], picture, self.space)

    def brought_back_deep(self, picture: Image.Image) -> npt.NDArray[np.uint16]:  # (height, width, 3)
        """The same with 16 bits a channel; a profile of tables gives no more than 8."""
        if self.is_srgb:
            return np.asarray(picture).astype(np.uint16) * 257
        curves = self._curves
        if curves is None:
            return np.asarray(self.brought_back(picture)).astype(np.uint16) * 257
        matrix, tables = curves
        linear = _srgb_light()[np.asarray(picture)] @ matrix.T
        steps = np.linspace(0, 65535, _CURVE_STEPS)
        result = np.empty(linear.shape, np.uint16)
        for channel, table in enumerate(tables):
            result[..., channel] = np.rint(np.interp(linear[..., channel], table, steps))
        return result

    @cached_property
    def _curves(self) -> tuple[Floats, tuple[Floats, ...]] | None:
        """From linear sRGB to the profile's light, and each channel's curve to light; None: it has tables instead."""
        tags = _tags(self.data)
        names = [f"{each}{kind}".encode() for kind in ("XYZ", "TRC") for each in "rgb"]
        if self.space != "RGB" or b"A2B0" in tags or b"A2B1" in tags or not all(each in tags for each in names):
            return None
        try:
            primaries = np.stack([_xyz(tags[each]) for each in names[:3]], axis=1)
            curves = tuple(_curve(tags[each]) for each in names[3:])
            matrix: Floats = np.linalg.inv(primaries) @ _RGB_TO_XYZ
        except (ProfileError, struct.error, np.linalg.LinAlgError):
            return None
        rising = all(bool((np.diff(each) >= 0).all()) and each[-1] > each[0] for each in curves)
        return (matrix, curves) if rising else None


def family_of(mode: str) -> str:
    """What a profile of a picture of this mode has to be for."""
    if mode in ("1", "L", "LA", "La") or mode.startswith("I"):
        return "gray"
    return "CMYK" if mode == "CMYK" else "RGB"


# -- LittleCMS ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _transforms(data: bytes, space: Space) -> tuple[Any, Any]:
    """To sRGB, and from it."""
    from PIL import ImageCms

    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(data)), ImageCms.createProfile("sRGB")
    how = ImageCms.Intent.RELATIVE_COLORIMETRIC
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    there = ImageCms.buildTransform(own, srgb, space, "RGB", how, flags=flags)
    return there, ImageCms.buildTransform(srgb, own, "RGB", space, how, flags=flags)


def _applied(transform: Any, picture: Image.Image, mode: str) -> Image.Image:
    result = Image.new(mode, picture.size)
    transform.apply(picture, result)
    return result


# -- what stands in a profile ------------------------------------------------------------------------------------------


def _kind_of(data: bytes) -> str:
    if not 132 <= len(data) <= _MOST_BYTES or data[36:40] != b"acsp":
        raise ProfileError("cannot be read")
    if data[12:16] not in _OF_PICTURES or data[16:20] not in PROFILE_SPACES:
        raise ProfileError("is not one for pictures that can be painted on")
    return PROFILE_SPACES[data[16:20]]


def _tags(data: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", data, 128)
    found: dict[bytes, bytes] = {}
    for index in range(min(count, 1000)):
        if len(data) < 132 + 12 * (index + 1):
            break
        name, start, size = struct.unpack_from(">4sII", data, 132 + 12 * index)
        found[name] = data[start : start + size]
    return found


def _xyz(tag: bytes) -> Floats:
    if tag[:4] != b"XYZ ":
        raise ProfileError("has primaries of an unknown kind")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> Floats:
    """Light by level, at even steps from none to all."""
    x = np.linspace(0, 1, _CURVE_STEPS)
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        values = np.frombuffer(tag, ">u2", count, 12).astype(np.float64) if count else np.array([])
        if count < 2:
            power: Floats = x if count == 0 else x ** (values[0] / 256)
            return power
        interpolated: Floats = np.interp(x, np.linspace(0, 1, count), values / 65535)
        return interpolated
    if tag[:4] != b"para":
        raise ProfileError("has a curve of an unknown kind")
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind > 4:
        raise ProfileError("has a curve of an unknown kind")
    count = (1, 3, 4, 5, 7)[kind]
    given = [each / 65536 for each in struct.unpack_from(f">{count}i", tag, 12)]
    return _parametric(x, kind, [*given, *[0.0] * (7 - count)])


def _parametric(x: Floats, kind: int, of: Sequence[float]) -> Floats:
    """ICC.1:2022, table 68."""
    g, a, b, c, d, e, f = of
    if kind == 0:
        return np.asarray(x**g)
    upper = np.maximum(a * x + b, 0) ** g
    if kind in (1, 2):
        above = x >= (-b / a if a else 0)
        return np.where(above, upper + c, c) if kind == 2 else np.where(above, upper, 0)
    return np.where(x >= d, upper + (e if kind == 4 else 0), c * x + (f if kind == 4 else 0))


@lru_cache(maxsize=1)
def _srgb_light() -> Floats:
    """Linear light by sRGB level."""
    level = np.arange(256) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


# -- gray --------------------------------------------------------------------------------------------------------------


def _with_colours(data: bytes) -> bytes:
    """A profile of gray as one of colours: the same curve for each channel, and sRGB's primaries.

    A gray sample, put into all three channels, is shown as before, and what is painted has a place beside it.
    """
    tags = _tags(data)
    curve = tags.get(b"kTRC", b"")
    if data[20:24] != b"XYZ " or curve[:4] not in (b"curv", b"para"):
        raise ProfileError("is of a kind of gray that cannot be read")
    primaries = [b"XYZ " + bytes(4) + struct.pack(">3i", *np.rint(each * 65536).astype(int)) for each in _RGB_TO_XYZ.T]
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    parts = {b"desc": _said("Gray as colours"), b"cprt": _said("CC0"), b"wtpt": white}
    parts |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True))
    parts |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, places = b"", b"", dict[bytes, int]()
    start = 132 + 12 * len(parts)
    for name, part in parts.items():
        if part not in places:
            places[part] = start + len(body)
            body += part + bytes(-len(part) % 4)
        table += struct.pack(">4sII", name, places[part], len(part))
    header = bytearray(data[:128])
    header[8:12], header[12:20] = b"\x04\x20\0\0", b"mntrRGB "
    header[84:100] = bytes(16)  # the sum of the old one
    header[:4] = struct.pack(">I", start + len(body))
    return bytes(header) + struct.pack(">I", len(parts)) + table + body


def _said(text: str) -> bytes:
    written = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(written), 28) + written
