"""The places: each paints the whole canvas and tells where things can stand and swim."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from training.scenes.brush import Canvas, Map, Rng, aside, chance, colour, mixed, noise, pick, skyline, smoothstep
from training.scenes.buildings import paint_towers
from training.scenes.light import LIGHTS, paint_sky, paint_water
from training.scenes.plants import GREEN, SAND, SNOW, TreeKind, paint_ground, paint_tree


class Floor(NamedTuple):
    """Where an object's foot goes; None where nothing of that kind can be."""

    ground: float | None
    water: float | None = None


Painter = Callable[[Canvas, Rng, str, bool], Floor]  # canvas, rng, time, snow on the ground


def _beach(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    horizon = rng.uniform(0.34, 0.44)
    paint_sky(canvas, rng, time, horizon)
    paint_water(canvas, rng, time, horizon)
    ambient = LIGHTS[time].ambient
    slope = rng.uniform(-0.12, 0.12)
    shore = horizon + rng.uniform(0.14, 0.24) + slope * (canvas.x[0] - 0.5) + 0.06 * (skyline(rng, canvas.size) - 0.5)
    paint_ground(canvas, rng, shore, SAND, ambient, 0.10)
    canvas.cover(np.exp(-(((canvas.y - shore) / 0.014) ** 2)) * np.float32(0.85), colour(1, 1, 1) * ambient)
    return Floor(float(np.mean(shore)) + 0.26, horizon + 0.18)


def _sea(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    horizon = rng.uniform(0.36, 0.5)
    paint_sky(canvas, rng, time, horizon)
    paint_water(canvas, rng, time, horizon)
    return Floor(None, horizon + 0.26)


def _paint_peaks(canvas: Canvas, rng: Rng, time: str, horizon: float, snowy: bool) -> None:
    ambient = LIGHTS[time].ambient
    for base, height, haze in ((horizon - 0.06, 0.30, 0.6), (horizon, 0.26, 0.3)):
        middle, width = rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.5)
        cone = np.maximum(0, 1 - np.abs(canvas.x[0] - middle) / width)
        ridge = base - height * (0.55 * skyline(rng, canvas.size, 0.5) + 0.6 * cone)
        relief = noise(rng, canvas.size, 0.35)
        slopes = np.clip(1 + 14 * np.gradient(relief, axis=1) * canvas.size / 128, 0.62, 1.2)
        rock = mixed(colour(0.38, 0.38, 0.45), LIGHTS[time].horizon, haze * 0.5)
        cap = 1.0 if snowy else smoothstep((ridge.min() + 0.16 + 0.10 * (relief - 0.5) - canvas.y) / 0.05)[..., None]
        canvas.cover(canvas.below(ridge), (mixed(rock, SNOW, cap) * slopes[..., None] * ambient).astype(np.float32))


def _mountains(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    horizon = rng.uniform(0.52, 0.6)
    paint_sky(canvas, rng, time, horizon)
    _paint_peaks(canvas, rng, time, horizon, snowy)
    ambient = LIGHTS[time].ambient
    paint_ground(canvas, rng, horizon + 0.05 * skyline(rng, canvas.size), SNOW if snowy else GREEN, ambient)
    for _ in range(int(rng.integers(0, 5))):
        paint_tree(canvas, rng, rng.random(), horizon + rng.uniform(0.06, 0.14), 0.2, "pine", ambient, snowy)
    return Floor(horizon + 0.32)


def _lake(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    horizon = rng.uniform(0.46, 0.54)
    paint_sky(canvas, rng, time, horizon)
    _paint_peaks(canvas, rng, time, horizon, snowy)
    row = int(horizon * canvas.size)
    mirrored = canvas.image[max(0, 2 * row - canvas.size) : row][::-1].copy()
    paint_water(canvas, rng, time, horizon)
    lake = canvas.image[row : row + len(mirrored)]
    lake += 0.55 * (mirrored[: len(lake)] * 0.85 - lake)
    shore = horizon + 0.28 + 0.08 * skyline(rng, canvas.size)
    paint_ground(canvas, rng, shore, SNOW if snowy else GREEN * 0.9, LIGHTS[time].ambient)
    return Floor(horizon + 0.42, horizon + 0.2)


def _forest_of(kinds: tuple[TreeKind, ...], soil: Map, haze: Map) -> Painter:
    def paint(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
        horizon = rng.uniform(0.52, 0.6)
        ambient = LIGHTS[time].ambient
        paint_sky(canvas, rng, time, horizon)
        distance = colour(0.68, 0.76, 0.82) if snowy else haze
        texture = noise(rng, canvas.size, 0.6)
        back = (distance * ambient * (0.75 + 0.45 * texture)[..., None]).astype(np.float32)
        canvas.cover(canvas.below(horizon - 0.30 + 0.12 * skyline(rng, canvas.size, 0.8)), back)
        paint_ground(canvas, rng, horizon - 0.02, SNOW if snowy else soil, ambient)
        wood = kinds if chance(rng, 0.5) else (pick(aside(rng, "wood"), kinds),)
        for near in np.sort(rng.random(int(rng.integers(9, 15))) ** 1.4):
            x = rng.random()
            if near > 0.35:  # a clearing in the middle, where things stand
                x = 0.5 + np.copysign(0.28 + 0.28 * abs(x - 0.5) * 2, x - 0.5)
            height = (0.36 + 0.6 * near) * rng.uniform(0.85, 1.15)
            dim = (ambient * (0.82 + 0.2 * near)).astype(np.float32)
            paint_tree(canvas, rng, x, horizon + near * 0.3, height, pick(aside(rng, f"tree {near}"), wood), dim, snowy)
        return Floor(horizon + 0.36)

    return paint


def _meadow(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    horizon = rng.uniform(0.45, 0.58)
    ambient = LIGHTS[time].ambient
    paint_sky(canvas, rng, time, horizon)
    for hill in range(3):
        line = horizon - 0.04 + 0.10 * hill + 0.14 * (skyline(rng, canvas.size, 0.3) - 0.5)
        soil = np.clip((SNOW if snowy else GREEN) * np.float32(1.14 - 0.1 * hill), 0, 1)
        paint_ground(canvas, rng, line, soil, ambient, 0.14)
    flowers = aside(rng, "flowers")
    if not snowy and chance(flowers, 0.6):
        _paint_flowers(canvas, flowers, horizon + 0.14, ambient)
    for _ in range(int(rng.integers(0, 3))):
        paint_tree(canvas, rng, rng.random(), horizon + rng.uniform(0, 0.06), 0.24, "leaf", ambient, snowy)
    return Floor(horizon + 0.34)


_FLOWERS = (colour(0.92, 0.24, 0.24), colour(0.98, 0.86, 0.24), colour(0.97, 0.97, 0.98), colour(0.75, 0.36, 0.86))


def _paint_flowers(canvas: Canvas, rng: Rng, line: float, ambient: Map) -> None:
    for _ in range(int(rng.integers(10, 26))):
        y = rng.uniform(line, 1)
        radius = np.float32(0.008 + 0.022 * (y - line))
        canvas.cover(canvas.inside(radius - canvas.distance(rng.random(), y)), pick(rng, _FLOWERS) * ambient)


def _desert(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    horizon = rng.uniform(0.45, 0.56)
    paint_sky(canvas, rng, time, horizon)
    for dune in range(3):
        line = horizon - 0.03 + 0.13 * dune + 0.22 * (skyline(rng, canvas.size, 0.3) - 0.5)
        sand = colour(0.90, 0.64, 0.34) * np.float32(1.06 - 0.1 * dune)
        paint_ground(canvas, rng, line, sand, LIGHTS[time].ambient, 0.2)
    return Floor(horizon + 0.34)


def _city(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    street = rng.uniform(0.70, 0.78)
    ambient = LIGHTS[time].ambient
    paint_sky(canvas, rng, time, street)
    paint_towers(canvas, rng, time, street)
    paint_ground(canvas, rng, street, SNOW if snowy else colour(0.36, 0.37, 0.40), ambient, 0.08)
    if not snowy:
        dash = canvas.inside(np.float32(0.009) - np.abs(canvas.y - np.float32(street + 0.12))) * (
            np.sin(canvas.x * 30) > 0
        )
        canvas.cover(dash, colour(0.95, 0.9, 0.7) * ambient)
    return Floor(min(0.95, street + 0.17))


def _road(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    horizon = rng.uniform(0.44, 0.54)
    ambient = LIGHTS[time].ambient
    paint_sky(canvas, rng, time, horizon)
    hills = (colour(0.32, 0.45, 0.36) * ambient).astype(np.float32)
    canvas.cover(canvas.below(horizon + 0.02 - 0.16 * skyline(rng, canvas.size, 0.4)), hills)
    side = SNOW if snowy else pick(aside(rng, "wayside"), (GREEN, colour(0.76, 0.66, 0.38)))
    paint_ground(canvas, rng, horizon, side, ambient, 0.14)
    far = rng.uniform(0.4, 0.6)
    depth = np.clip(canvas.y - np.float32(horizon), 0, 1)
    middle = far + (0.5 - far) * depth / (1 - horizon)
    off = np.abs(canvas.x - middle)
    road = canvas.below(horizon) * canvas.inside(depth * 0.95 + 0.004 - off)
    canvas.cover(road, colour(0.33, 0.34, 0.37) * ambient)
    line = road * canvas.inside(depth * 0.035 + 0.002 - off) * (np.sin(9 / (depth + 0.08)) > 0)
    canvas.cover(line, colour(0.97, 0.93, 0.75) * ambient)
    return Floor(horizon + 0.4)


def _snow(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    horizon = rng.uniform(0.46, 0.56)
    ambient = LIGHTS[time].ambient
    paint_sky(canvas, rng, time, horizon)
    for hill in range(3):
        line = horizon - 0.03 + 0.12 * hill + 0.14 * (skyline(rng, canvas.size, 0.3) - 0.5)
        paint_ground(canvas, rng, line, SNOW * np.float32(0.94 + 0.02 * hill), ambient, 0.12)
    for _ in range(int(rng.integers(1, 6))):
        height = rng.uniform(0.2, 0.36)
        paint_tree(canvas, rng, rng.random(), horizon + rng.uniform(0, 0.12), height, "pine", ambient, True)
    return Floor(horizon + 0.34)


_NEBULAE = (colour(0.45, 0.1, 0.5), colour(0.1, 0.25, 0.6), colour(0.5, 0.15, 0.2), colour(0.05, 0.4, 0.4))
_PLANETS = (colour(0.85, 0.55, 0.3), colour(0.35, 0.55, 0.85), colour(0.75, 0.7, 0.6), colour(0.6, 0.35, 0.7))


def _space(canvas: Canvas, rng: Rng, time: str, snowy: bool) -> Floor:
    canvas.image += colour(0.01, 0.01, 0.04)
    canvas.glow(np.clip(noise(rng, canvas.size, 0.4) - 0.42, 0, 1) * np.float32(1.1), pick(rng, _NEBULAE))
    for _ in range(int(rng.integers(25, 55))):
        star = canvas.distance(rng.random(), rng.random()) * np.float32(128 / rng.uniform(0.6, 1.2))
        canvas.glow(np.exp(-(star**2)), colour(0.95, 0.95, 0.9))
    if chance(rng, 0.7):
        x, y, radius = rng.uniform(0.15, 0.85), rng.uniform(0.12, 0.85), rng.uniform(0.10, 0.2)
        lit = np.clip(1.1 - ((canvas.x - x) + (canvas.y - y)) / radius * 0.5, 0.12, 1.25)
        bands = 0.75 + 0.5 * noise(rng, canvas.size, 0.3, 3)
        planet = pick(rng, _PLANETS) * (lit * bands)[..., None]
        canvas.cover(canvas.inside(np.float32(radius) - canvas.distance(x, y)), planet.astype(np.float32))
    return Floor(None)


PLACES: dict[str, Painter] = {
    "beach": _beach,
    "forest": _forest_of(("leaf", "pine"), colour(0.29, 0.45, 0.16), colour(0.36, 0.54, 0.34)),
    "autumn forest": _forest_of(("autumn",), colour(0.66, 0.43, 0.18), colour(0.88, 0.62, 0.30)),
    "mountains": _mountains,
    "lake": _lake,
    "meadow": _meadow,
    "desert": _desert,
    "city": _city,
    "road": _road,
    "snow": _snow,
    "sea": _sea,
    "space": _space,
}

BACKDROPS: dict[str, Map] = {
    "white": colour(0.97, 0.97, 0.97),
    "black": colour(0.06, 0.06, 0.07),
    "gray": colour(0.55, 0.56, 0.58),
    "red": colour(0.83, 0.16, 0.16),
    "blue": colour(0.20, 0.42, 0.85),
    "green": colour(0.28, 0.66, 0.34),
    "yellow": colour(0.97, 0.84, 0.30),
    "pink": colour(0.97, 0.68, 0.78),
    "purple": colour(0.52, 0.32, 0.72),
    "orange": colour(0.96, 0.58, 0.20),
}


def paint_backdrop(canvas: Canvas, rng: Rng, name: str) -> Floor:
    """A studio: one colour, a little darker towards the corners."""
    vignette = 1.03 - 0.2 * rng.random() * canvas.distance(0.5, 0.45)
    canvas.image = (BACKDROPS[name] * vignette[..., None]).astype(np.float32)
    return Floor(0.8)
