"""How much a picture grows on each of its sides."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from overpaint.errors import RequestError

DIRECTIONS = ("left", "right", "up", "down")
MOST_PIXELS = 16_384  # a side of the result
_MULTIPLE = 64


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Pixels to be added, side by side."""

    left: int = 0
    right: int = 0
    up: int = 0
    down: int = 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Of a picture that has grown so much."""
        return width + self.left + self.right, height + self.up + self.down


def rounded_margins(size: tuple[int, int], pixels: int, directions: Collection[str]) -> Margins:
    """So many pixels in each of these directions, and what is missing to a multiple of 64 (SCR-4, SCR-5)."""
    check_pixels("pixels", pixels)
    unknown = [each for each in directions if each not in DIRECTIONS]
    if unknown or isinstance(directions, str):
        raise RequestError("directions", directions, f"give a list of some of {', '.join(DIRECTIONS)}")
    asked = {each: pixels if each in directions else 0 for each in DIRECTIONS}
    left, right = _rounded(size[0], asked["left"], asked["right"])
    up, down = _rounded(size[1], asked["up"], asked["down"])
    return Margins(left=left, right=right, up=up, down=down)


def check_pixels(name: str, pixels: object) -> None:
    if isinstance(pixels, bool) or not isinstance(pixels, int) or not 0 < pixels <= MOST_PIXELS:
        raise RequestError(name, pixels, f"give 1 to {MOST_PIXELS} pixels")


def _rounded(side: int, before: int, after: int) -> tuple[int, int]:
    if not before and not after:
        return 0, 0
    room = -(-(side + before + after) // _MULTIPLE) * _MULTIPLE - side
    first = before * room // (before + after)
    return (first, room - first) if after else (room, 0)
