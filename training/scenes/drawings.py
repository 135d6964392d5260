"""Our own sprites, for what the emoji lack: a fox on its legs, and a flat sports car in any colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from training.scenes.brush import Map

Point: TypeAlias = tuple[float, float]
Paint: TypeAlias = Sequence[float] | Map
_SIDE = 256
_OVERSAMPLING = 3
_DARK = (26, 26, 30)
_CREAM = (255, 243, 228)


class Sheet:
    """A transparent sheet to draw rounded shapes on, in units of 1/256."""

    def __init__(self) -> None:
        side = _SIDE * _OVERSAMPLING
        self.picture = Image.new("RGBA", (side, side))

    def shape(self, points: Sequence[Point], top: Paint, bottom: Paint | None = None) -> None:
        """A closed smooth curve through the points, filled from one colour above to another below."""
        outline = [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in _smooth(points)]
        mask = Image.new("L", self.picture.size)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        self._fill(mask, outline, top, top if bottom is None else bottom)

    def sharp(self, points: Sequence[Point], paint: Paint) -> None:
        outline = [(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in points]
        ImageDraw.Draw(self.picture).polygon(outline, fill=_rgb(paint))

    def disc(self, centre: Point, radius: float, paint: Paint) -> None:
        x, y, r = (value * _OVERSAMPLING for value in (*centre, radius))
        ImageDraw.Draw(self.picture).ellipse((x - r, y - r, x + r, y + r), fill=_rgb(paint))

    def finished(self) -> Image.Image:
        small = self.picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        box = small.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox()
        return small.crop(box)

    def _fill(self, mask: Image.Image, outline: Sequence[Point], top: Paint, bottom: Paint) -> None:
        first, last = (chosen(y for _, y in outline) for chosen in (min, max))
        share = np.clip((np.arange(mask.height) - first) / max(1.0, last - first), 0, 1)[:, None, None]
        rows = np.asarray(top) + (np.asarray(bottom) - np.asarray(top)) * share
        paint = np.broadcast_to(rows, (mask.height, mask.width, 3)).astype(np.uint8)
        self.picture.paste(Image.fromarray(paint), mask=mask)


def _rgb(paint: Paint) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in paint)
    return red, green, blue


def _smooth(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """Catmull and Rom, "A Class of Local Interpolating Splines" (1974), closed."""
    curve: list[Point] = []
    ring = np.asarray(points, dtype=np.float64)
    for i in range(len(ring)):
        a, b, c, d = (ring[(i + k) % len(ring)] for k in (-1, 0, 1, 2))
        for t in np.arange(steps) / steps:
            at = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
            curve.append((float(at[0]), float(at[1])))
    return curve


def sports_car(paint: Map) -> Image.Image:
    """Side view, nose to the right."""
    body = np.asarray(paint) * 255
    light, dark = body + (255 - body) * 0.4, body * 0.55
    sheet = Sheet()
    hull = [
        (4, 156),
        (8, 136),
        (34, 128),
        (66, 120),
        (96, 100),
        (140, 96),
        (172, 104),
        (204, 122),
        (240, 134),
        (253, 154),
    ]
    sheet.shape([*hull, (250, 172), (200, 176), (60, 176), (10, 172)], light, dark)
    for window in (
        [(78, 122), (102, 105), (134, 102), (136, 123)],
        [(142, 102), (168, 107), (192, 123), (142, 123)],
    ):
        sheet.sharp(window, (70, 92, 116))
        sheet.sharp([(x, (y + 112) / 2 - 4) for x, y in window], (176, 206, 224))
    sheet.sharp([(8, 130), (34, 116), (42, 121), (24, 133)], dark)
    sheet.shape([(228, 136), (240, 138), (249, 148), (234, 146)], (255, 246, 200))
    sheet.shape([(5, 140), (16, 138), (16, 147), (5, 148)], (255, 90, 74))
    for x in (58, 202):
        for radius, rim in ((24, _DARK), (13, (190, 196, 202)), (4, (70, 70, 74))):
            sheet.disc((x, 172), radius, rim)
    return sheet.finished()


def standing_fox(paint: Map) -> Image.Image:
    """Looking at us, tail to the left."""
    fur = np.asarray(paint) * 255
    shade, paw = fur * 0.82, (72, 36, 20)
    sheet = Sheet()
    sheet.shape([(84, 150), (56, 142), (38, 112), (22, 78), (6, 92), (10, 126), (34, 156), (72, 168)], fur, shade)
    sheet.shape([(28, 84), (16, 80), (6, 94), (10, 116), (22, 108), (34, 102)], _CREAM)
    for x, tone in ((104, shade), (176, shade), (84, fur), (194, fur)):
        sheet.sharp([(x - 9, 170), (x + 9, 170), (x + 8, 246), (x - 8, 246)], tone)
        sheet.sharp([(x - 9, 224), (x + 9, 224), (x + 9, 246), (x - 9, 246)], paw)
    sheet.shape(
        [(66, 168), (84, 138), (130, 132), (182, 132), (210, 152), (206, 190), (150, 196), (88, 196)], fur, shade
    )
    sheet.shape([(172, 140), (208, 144), (206, 178), (188, 192), (174, 172)], _CREAM)
    _head(sheet, fur)
    return sheet.finished()


def sitting_fox(paint: Map) -> Image.Image:
    """Looking at us, tail round its feet."""
    fur = np.asarray(paint) * 255
    shade, paw = fur * 0.82, (72, 36, 20)
    sheet = Sheet()
    sheet.shape([(118, 244), (70, 240), (38, 216), (36, 174), (56, 172), (70, 204), (110, 220)], fur, shade)
    sheet.shape([(42, 206), (36, 178), (52, 168), (64, 192)], _CREAM)
    sheet.shape([(150, 120), (112, 156), (96, 204), (102, 244), (220, 244), (234, 190), (220, 120)], fur, shade)
    sheet.shape([(162, 136), (214, 136), (206, 184), (188, 200), (170, 184)], _CREAM)
    for x in (172, 206):
        sheet.sharp([(x - 10, 196), (x + 10, 196), (x + 11, 246), (x - 11, 246)], shade)
        sheet.sharp([(x - 11, 232), (x + 11, 232), (x + 11, 246), (x - 11, 246)], paw)
    _head(sheet, fur)
    return sheet.finished()


def _head(sheet: Sheet, fur: Map) -> None:
    for side in (-1, 1):
        sheet.sharp([(188 + side * x, y) for x, y in ((8, 62), (40, 66), (36, 14))], fur)
        sheet.sharp([(188 + side * x, y) for x, y in ((18, 54), (34, 56), (33, 28))], _DARK)
    sheet.shape([(188, 46), (226, 58), (238, 84), (214, 112), (188, 132), (162, 112), (138, 84), (150, 58)], fur)
    for side in (-1, 1):
        sheet.shape([(188 + side * x, y) for x, y in ((2, 128), (24, 112), (46, 86), (20, 88), (6, 100))], _CREAM)
        sheet.disc((188 + side * 18, 82), 6, _DARK)
    sheet.disc((188, 126), 8, _DARK)


DRAWINGS: dict[str, tuple[Callable[[Map], Image.Image], ...]] = {
    "fox": (standing_fox, sitting_fox),
    "sports car": (sports_car,),
}
