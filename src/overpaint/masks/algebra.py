"""Masks put together. All take masks of one size; gray counts as a part."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageOps

from overpaint.errors import RequestError


def union(one: Image.Image, other: Image.Image) -> Image.Image:
    """What is in either."""
    return ImageChops.lighter(*_alike("union", one, other))


def intersect(one: Image.Image, other: Image.Image) -> Image.Image:
    """What is in both."""
    return ImageChops.darker(*_alike("intersect", one, other))


def subtract(one: Image.Image, other: Image.Image) -> Image.Image:
    """What is in the first and not in the second."""
    first, second = _alike("subtract", one, other)
    return ImageChops.darker(first, ImageOps.invert(second))


def invert(mask: Image.Image) -> Image.Image:
    """White for black, black for white."""
    return ImageOps.invert(mask)


def threshold(mask: Image.Image, level: float = 128) -> Image.Image:
    """White from this gray on, black below it."""
    if not 0 <= level <= 256:
        raise RequestError("threshold", level, "give a gray from 0 to 255")
    return mask.point([255 * (value >= level) for value in range(256)])


def coverage(mask: Image.Image) -> float:
    """How much of the picture is white, in per cent; gray counts in part."""
    counts = mask.histogram()
    total = sum(value * count for value, count in enumerate(counts))
    return 100 * total / (255 * sum(counts))


def overlay(picture: Image.Image, mask: Image.Image, colour: str = "#ff3b30") -> Image.Image:
    """The picture with the mask laid over it in half of a colour, to look at."""
    shown = picture.convert("RGB")
    tint = Image.new("RGB", shown.size, colour)
    shown.paste(tint, mask=mask.point([(value * 140) // 255 for value in range(256)]))
    return shown


def _alike(name: str, one: Image.Image, other: Image.Image) -> tuple[Image.Image, Image.Image]:
    if one.size != other.size:
        sizes = f"{one.width}x{one.height} and {other.width}x{other.height}"
        raise RequestError(name, sizes, "give masks of one size")
    return one, other
