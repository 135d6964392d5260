"""Masks that are drawn: rectangle, ellipse, polygon, and the strokes of a brush.

A pixel belongs to a shape when its middle lies in it. Shapes may reach past the picture; one that lies outside
altogether is an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from overpaint.errors import RequestError
from overpaint.pixels.mask import Box

Size = tuple[int, int]
Corners = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the picture."""
Point = tuple[float, float]

MOST_POINTS = 20_000
LARGEST_RADIUS = 1000
_STRIP = 256  # rows that are drawn together


def everything(size: Size) -> Image.Image:
    """White all over."""
    return Image.new("L", size, 255)


def nothing(size: Size) -> Image.Image:
    """Black all over."""
    return Image.new("L", size, 0)


def rectangle(size: Size, corners: Corners) -> Image.Image:
    """An upright box, in which right and bottom are outside."""
    left, top, right, bottom = _ordered("rectangle", corners)
    mask = nothing(size)
    box = _within("rectangle", (round(left), round(top), round(right), round(bottom)), size)
    mask.paste(255, box)
    return mask


def ellipse(size: Size, corners: Corners) -> Image.Image:
    """The largest ellipse in a box."""
    left, top, right, bottom = _ordered("ellipse", corners)
    box = _within("ellipse", _outer((left, top, right, bottom)), size)
    middle, across, down = (left + right) / 2, (right - left) / 2, (bottom - top) / 2
    rows = (np.arange(box[1], box[3]) + 0.5 - (top + bottom) / 2) / down
    half = across * np.sqrt(np.maximum(1 - rows * rows, 0))  # of each row
    half[np.abs(rows) > 1] = -1
    columns = np.arange(box[0], box[2], dtype=np.float32) + np.float32(0.5)
    pixels = np.empty((box[3] - box[1], box[2] - box[0]), np.uint8)
    for start in range(0, len(pixels), _STRIP):
        reach = half[start : start + _STRIP, None].astype(np.float32)
        pixels[start : start + _STRIP] = (np.abs(columns - np.float32(middle)) <= reach).view(np.uint8) * np.uint8(255)
    return _laid(pixels, box, size)


def polygon(size: Size, points: Sequence[Point]) -> Image.Image:
    """The area between at least three corners."""
    if not 3 <= len(points) <= MOST_POINTS:
        raise RequestError("polygon", f"{len(points)} points", f"give 3 to {MOST_POINTS} corners, each as x,y")
    across, down = zip(*points, strict=True)
    box = _within("polygon", _outer((min(across), min(down), max(across) + 1, max(down) + 1)), size)
    mask = nothing((box[2] - box[0], box[3] - box[1]))
    # Pillow fills the pixels whose corner, not whose middle, is at a whole number.
    ImageDraw.Draw(mask).polygon([(x - box[0] - 0.5, y - box[1] - 0.5) for x, y in points], fill=255)
    return _laid(np.asarray(mask), box, size)


def stroke(size: Size, points: Sequence[Point], radius: float = 16, softness: float = 0) -> Image.Image:
    """What a round brush leaves along a line of points; with `softness` 1 its gray falls from the middle on."""
    if not 1 <= len(points) <= MOST_POINTS:
        raise RequestError("stroke", f"{len(points)} points", f"give 1 to {MOST_POINTS} points, each as x,y")
    if not 0 < radius <= LARGEST_RADIUS:
        raise RequestError("radius", radius, f"give a radius above 0, at most {LARGEST_RADIUS} pixels")
    if not 0 <= softness <= 1:
        raise RequestError("softness", softness, "give a value from 0 to 1")
    across, down = zip(*points, strict=True)
    reached = (min(across) - radius, min(down) - radius, max(across) + radius, max(down) + radius)
    area = _within("stroke", _outer(reached), size)
    pixels = np.zeros((area[3] - area[1], area[2] - area[0]), np.uint8)
    for start, end in zip(points, [*points[1:], points[-1]], strict=True):
        _brush(pixels, area, (start, end), radius, softness)
    return _laid(pixels, area, size)


def _brush(pixels: npt.NDArray[np.uint8], area: Box, line: tuple[Point, Point], radius: float, soft: float) -> None:
    """One straight line, laid over what is there."""
    (ax, ay), (bx, by) = line
    reached = (min(ax, bx) - radius, min(ay, by) - radius, max(ax, bx) + radius, max(ay, by) + radius)
    left, top, right, bottom = _cut(_outer(reached), area)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - ax)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - ay)
    dx, dy = np.float32(bx - ax), np.float32(by - ay)
    length = dx * dx + dy * dy
    along = np.clip((x * dx + y * dy) / length, 0, 1) if length > 0 else np.float32(0)
    distance = np.hypot(x - along * dx, y - along * dy)
    if soft > 0:
        value = np.rint(255 * np.clip((radius - distance) / (soft * radius), 0, 1)).astype(np.uint8)
    else:
        value = np.where(distance <= radius, 255, 0).astype(np.uint8)
    place = pixels[top - area[1] : bottom - area[1], left - area[0] : right - area[0]]
    np.maximum(place, value, out=place)


def _ordered(name: str, corners: Corners) -> Corners:
    left, top, right, bottom = corners
    if not (left < right and top < bottom):
        told = ",".join(f"{each:g}" for each in corners)
        raise RequestError(name, told, "give left,top,right,bottom, with left before right and top before bottom")
    return corners


def _outer(corners: Corners) -> Box:
    left, top, right, bottom = corners
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def _cut(box: Box, area: Box) -> Box:
    return max(box[0], area[0]), max(box[1], area[1]), min(box[2], area[2]), min(box[3], area[3])


def _within(name: str, box: Box, size: Size) -> Box:
    """The part of a box that is on the picture."""
    left, top, right, bottom = _cut(box, (0, 0, *size))
    if left >= right or top >= bottom:
        told = ",".join(map(str, box))
        raise RequestError(name, told, f"it lies outside the picture of {size[0]}x{size[1]}; give places on it")
    return left, top, right, bottom


def _laid(pixels: npt.NDArray[np.uint8], box: Box, size: Size) -> Image.Image:
    mask = nothing(size)
    mask.paste(Image.fromarray(pixels), box[:2])
    return mask
