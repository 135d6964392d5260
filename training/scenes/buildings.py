"""Rows of towers with windows."""

from __future__ import annotations

import numpy as np

from training.scenes.brush import Canvas, Map, Rng, chance, colour, mixed, pick
from training.scenes.light import LIGHTS

_WALLS = (
    colour(0.55, 0.60, 0.68),
    colour(0.68, 0.58, 0.48),
    colour(0.45, 0.50, 0.58),
    colour(0.74, 0.72, 0.70),
    colour(0.60, 0.36, 0.30),
)
_LAMP = colour(1.0, 0.86, 0.46)
_GLASS = colour(0.24, 0.33, 0.46)
_LIT = {"night": 0.6, "sunset": 0.45, "overcast": 0.25, "day": 0.0}


def paint_towers(canvas: Canvas, rng: Rng, time: str, street: float) -> None:
    """A far row of high towers behind a near row of lower ones."""
    for low, high, haze in ((0.34, 0.62, 0.45), (0.16, 0.40, 0.0)):
        left = -rng.uniform(0, 0.1)
        while left < 1:
            width = rng.uniform(0.13, 0.22)
            wall = mixed(pick(rng, _WALLS), colour(0.7, 0.78, 0.86), haze) * LIGHTS[time].ambient
            _paint_tower(canvas, rng, time, (left, left + width), (street - rng.uniform(low, high), street), wall)
            left += width + rng.uniform(0, 0.03)


def _paint_tower(
    canvas: Canvas, rng: Rng, time: str, sides: tuple[float, float], ends: tuple[float, float], wall: Map
) -> None:
    _fill(canvas, sides, ends, wall.astype(np.float32))
    ambient = LIGHTS[time].ambient
    pitch = 0.055
    for y in np.arange(ends[0] + 0.03, ends[1] - 0.03, pitch):
        for x in np.arange(sides[0] + 0.02, sides[1] - 0.03, pitch):
            pane = _LAMP if chance(rng, _LIT[time]) else _GLASS * ambient
            _fill(canvas, (x, x + 0.026), (y, y + 0.03), pane.astype(np.float32))


def _fill(canvas: Canvas, sides: tuple[float, float], ends: tuple[float, float], paint: Map) -> None:
    columns, rows = (
        slice(max(0, round(first * canvas.size)), max(0, round(last * canvas.size))) for first, last in (sides, ends)
    )
    canvas.image[rows, columns] = paint
