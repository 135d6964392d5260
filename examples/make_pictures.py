"""Draws the examples' pictures: a house at a lake, and a mask of the house. In whole numbers, so every pixel is exact.

python examples/make_pictures.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT, SHORE = 256, 192, 104
Color = tuple[int, int, int]
Pixels = NDArray[np.int64]
Places = NDArray[np.bool_]

y, x = np.indices((HEIGHT, WIDTH))


def mixed(top: Color, bottom: Color, part: Pixels, whole: int) -> Pixels:
    """From one colour to another; `part` of `whole` says how far."""
    far = np.clip(part, 0, whole)[..., None]
    first, last = (np.array(each, dtype=np.int64) for each in (top, bottom))
    return (first * (whole - far) + last * far) // whole


def wave(period: int, height: int, shift: int) -> Pixels:
    """A parabola up, a parabola down: hills without a sine."""
    at = (x + shift) % (2 * period)
    rise = np.where(at < period, at * (period - at), (at - period) * (at - 2 * period))
    return np.asarray(4 * height * rise // period**2)


def disc(column: int, row: int, radius: int) -> Places:
    """A circle's inside."""
    return np.asarray((x - column) ** 2 + (y - row) ** 2 <= radius**2)


def box(left: int, top: int, right: int, bottom: int) -> Places:
    """A rectangle's inside, right and bottom excluded."""
    return np.asarray((x >= left) & (x < right) & (y >= top) & (y < bottom))


def roof(left: int, top: int, right: int, bottom: int) -> Places:
    """A triangle on its longest side."""
    half = (right - left) // 2
    away = abs(2 * x - left - right) * (bottom - top)
    return np.asarray((y >= top) & (y < bottom) & (away < 2 * half * (y - top)))


def house() -> Places:
    """Where the house stands."""
    return box(40, 88, 92, 124) | roof(32, 62, 100, 88) | box(80, 62, 88, 80)


def sky_and_hills() -> Pixels:
    """The far half of the landscape."""
    picture = mixed((96, 152, 214), (232, 214, 190), y, SHORE)
    picture[disc(196, 40, 13)] = (255, 240, 196)
    for column, row, radius in ((66, 28, 9), (78, 25, 12), (92, 29, 8), (140, 46, 6), (149, 44, 8), (159, 47, 5)):
        picture[disc(column, row, radius)] = (246, 246, 244)
    picture[y > 78 - wave(74, 18, 20)] = (126, 142, 168)
    picture[y > 92 - wave(52, 10, 96)] = (92, 122, 112)
    return picture


def water(picture: Pixels) -> Pixels:
    """What lies above the shore once more, upside down, darker and rippled."""
    mirrored = np.clip(2 * SHORE - y - 1, 0, SHORE - 1)
    ripple = ((y * y // 7 + x // 5) % 6 - 3) * (y > SHORE + 4)
    reflected = picture[mirrored, np.clip(x + ripple, 0, WIDTH - 1)]
    tint = mixed((60, 108, 140), (30, 66, 104), y - SHORE, HEIGHT - SHORE)
    return np.asarray((2 * reflected + 3 * tint) // 5)


def landscape() -> Image.Image:
    """A lake, hills behind it, a house and firs on its near bank."""
    picture = sky_and_hills()
    picture[y >= SHORE] = water(picture)[y >= SHORE]
    bank = y > 122 + x * x // 900
    picture[bank] = mixed((104, 140, 74), (54, 88, 44), y - 116, HEIGHT - 116)[bank]
    for column, foot, size in ((14, 132, 30), (112, 136, 24), (130, 146, 32), (28, 158, 40)):
        picture[box(column - 1, foot - 4, column + 2, foot + 3)] = (84, 62, 46)
        for part in range(3):
            top, width = foot - size + part * size // 4, size // 5 + part * size // 10
            picture[roof(column - width, top, column + width, top + size // 2)] = (34 + 8 * part, 78 + 6 * part, 56)
    picture[box(80, 62, 88, 80)] = (122, 74, 62)
    picture[box(40, 88, 92, 124)] = (226, 210, 182)
    picture[roof(32, 62, 100, 88)] = (158, 66, 54)
    picture[box(60, 102, 70, 124)] = (104, 70, 50)
    for left in (46, 76):
        picture[box(left, 96, left + 10, 106)] = (250, 222, 140)
    return Image.fromarray(picture.astype(np.uint8))


def house_mask() -> Image.Image:
    """White where the house stands, with a little room around it."""
    inside = house()
    for axis in (0, 1):
        inside = np.logical_or.reduce([np.roll(inside, step, axis) for step in range(-4, 5)])
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (("lake.png", landscape()), ("house-mask.png", house_mask())):
        picture.save(folder / name, optimize=True)
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
