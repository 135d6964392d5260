"""Masks that a picture gives: its alpha, its colours, what a wand reaches, and where it differs from another."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageColor

from overpaint.errors import RequestError
from overpaint.masks.regions import regions_of
from overpaint.pixels.resize import as_mode

Colour = str | tuple[int, int, int]
DEFAULT_TOLERANCE = 24  # levels of 255 that each channel may be off


def from_alpha(picture: Image.Image) -> Image.Image:
    """White where the picture is opaque; one without transparency is white all over."""
    if not picture.has_transparency_data:
        return Image.new("L", picture.size, 255)
    return picture.convert("RGBA").getchannel("A")


def from_gray(picture: Image.Image, size: tuple[int, int] | None = None) -> Image.Image:
    """A mask file as it is: its gray, or its alpha where it has transparency; with a size, it must have that."""
    if size is not None and picture.size != size:
        remedy = f"it is {picture.width}x{picture.height}; give a mask of the picture's size, {size[0]}x{size[1]}"
        raise RequestError("file", f"{picture.width}x{picture.height}", remedy)
    if picture.has_transparency_data:
        return from_alpha(picture)
    return picture.convert("L")


def from_colour(picture: Image.Image, colour: Colour, tolerance: float = DEFAULT_TOLERANCE) -> Image.Image:
    """White where no channel is further from the colour than the tolerance."""
    _check_tolerance(tolerance)
    return _close_to(picture, _rgb(colour), tolerance)


def from_difference(picture: Image.Image, other: Image.Image, tolerance: float = DEFAULT_TOLERANCE) -> Image.Image:
    """White where a channel of two pictures differs by more than the tolerance."""
    _check_tolerance(tolerance)
    if picture.size != other.size:
        sizes = f"{picture.width}x{picture.height} and {other.width}x{other.height}"
        raise RequestError("difference", sizes, f"they are {sizes}; give a picture of the same size")
    return _furthest(as_mode(picture, "RGB"), as_mode(other, "RGB")).point(
        [255 * (value > tolerance) for value in range(256)]
    )


def wand(picture: Image.Image, point: tuple[float, float], tolerance: float = DEFAULT_TOLERANCE) -> Image.Image:
    """What is connected with a point, side by side, by pixels as close to its colour as `from_colour` takes."""
    _check_tolerance(tolerance)
    x, y = int(point[0]), int(point[1])
    if not (0 <= point[0] < picture.width and 0 <= point[1] < picture.height):
        remedy = f"it lies outside the picture of {picture.width}x{picture.height}; give a point on it"
        raise RequestError("wand", f"{point[0]:g},{point[1]:g}", remedy)
    seed = picture.crop((x, y, x + 1, y + 1)).convert("RGB").tobytes()
    alike = np.asarray(_close_to(picture, (seed[0], seed[1], seed[2]), tolerance)) > 0
    regions = regions_of(alike)
    chosen = np.zeros(int(regions.region.max()) + 1, np.bool_)
    chosen[regions.at(x, y)] = True
    return Image.fromarray(regions.drawn(chosen).astype(np.uint8) * np.uint8(255))


def _close_to(picture: Image.Image, colour: tuple[int, int, int], tolerance: float) -> Image.Image:
    levels = [[255 * (abs(value - wanted) <= tolerance) for value in range(256)] for wanted in colour]
    red, green, blue = as_mode(picture, "RGB").point([each for channel in levels for each in channel]).split()
    return ImageChops.darker(ImageChops.darker(red, green), blue)


def _furthest(one: Image.Image, other: Image.Image) -> Image.Image:
    red, green, blue = ImageChops.difference(one, other).split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def _rgb(colour: Colour) -> tuple[int, int, int]:
    if not isinstance(colour, str):
        return colour
    try:
        found = ImageColor.getrgb(colour)
    except ValueError:
        raise RequestError("colour", colour, "give a colour such as #c0ffee or orange") from None
    return found[0], found[1], found[2]


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance <= 255:
        raise RequestError("tolerance", tolerance, "give levels from 0 to 255")
