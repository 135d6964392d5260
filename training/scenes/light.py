"""Times of day: the colour of the light, the sky, and water under it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from training.scenes.brush import Canvas, Map, Rng, aside, chance, colour, jitter, mixed, noise, smoothstep

TIMES = ("day", "sunset", "night", "overcast")


class Light(NamedTuple):
    """What a time of day does to colours."""

    ambient: Map  # what the land's colours are multiplied with
    on_objects: Map  # gentler, so that an object's own colour stays visible
    zenith: Map
    horizon: Map
    cloud: Map
    shallow: Map
    deep: Map


LIGHTS: dict[str, Light] = {
    "day": Light(
        colour(1, 1, 1),
        colour(1, 1, 1),
        colour(0.16, 0.46, 0.90),
        colour(0.72, 0.89, 0.99),
        colour(1, 1, 1),
        colour(0.25, 0.64, 0.86),
        colour(0.04, 0.32, 0.62),
    ),
    "sunset": Light(
        colour(0.96, 0.62, 0.48),
        colour(1.0, 0.84, 0.74),
        colour(0.36, 0.16, 0.44),
        colour(1.0, 0.60, 0.20),
        colour(1.0, 0.52, 0.40),
        colour(0.98, 0.56, 0.32),
        colour(0.28, 0.16, 0.36),
    ),
    "night": Light(
        colour(0.17, 0.23, 0.42),
        colour(0.48, 0.52, 0.70),
        colour(0.01, 0.015, 0.06),
        colour(0.06, 0.09, 0.22),
        colour(0.11, 0.13, 0.23),
        colour(0.06, 0.09, 0.20),
        colour(0.015, 0.03, 0.09),
    ),
    "overcast": Light(
        colour(0.70, 0.73, 0.76),
        colour(0.86, 0.87, 0.88),
        colour(0.52, 0.56, 0.60),
        colour(0.78, 0.80, 0.82),
        colour(0.62, 0.64, 0.68),
        colour(0.52, 0.58, 0.62),
        colour(0.28, 0.36, 0.42),
    ),
}


def paint_sky(canvas: Canvas, rng: Rng, time: str, horizon: float) -> None:
    light = LIGHTS[time]
    height = np.clip(canvas.y / max(horizon, 0.05), 0, 1)[..., None]
    canvas.image = mixed(light.zenith + jitter(rng, 0.02), light.horizon, height)
    if time == "night":
        _paint_stars(canvas, aside(rng, "stars"), horizon)
    if chance(rng, 0.6):
        _paint_clouds(canvas, rng, light, horizon)
    rng = aside(rng, "sun or moon")
    if time == "sunset":
        _paint_disc(
            canvas, rng, horizon * rng.uniform(0.72, 0.98), 0.075, colour(1, 0.92, 0.58), colour(0.35, 0.2, 0.02)
        )
    elif time == "day" and chance(rng, 0.35):
        _paint_disc(canvas, rng, horizon * rng.uniform(0.15, 0.5), 0.055, colour(1, 0.97, 0.72), colour(0.3, 0.25, 0.1))
    elif time == "night" and chance(rng, 0.7):
        _paint_disc(
            canvas, rng, horizon * rng.uniform(0.2, 0.55), 0.065, colour(0.95, 0.94, 0.84), colour(0.1, 0.11, 0.15)
        )


def _paint_disc(canvas: Canvas, rng: Rng, y: float, radius: float, face: Map, halo: Map) -> None:
    """Sun or moon."""
    distance = canvas.distance(rng.uniform(0.12, 0.88), y)
    canvas.glow(np.exp(-((distance / 0.2) ** 2)), halo)
    canvas.cover(canvas.inside(np.float32(radius * rng.uniform(0.85, 1.2)) - distance), face)


def _paint_stars(canvas: Canvas, rng: Rng, horizon: float) -> None:
    for _ in range(int(rng.integers(8, 22))):
        distance = canvas.distance(rng.random(), rng.random() * horizon)
        canvas.glow(np.exp(-((distance * 128 / rng.uniform(0.6, 1.1)) ** 2)), colour(0.9, 0.9, 0.8))


def _paint_clouds(canvas: Canvas, rng: Rng, light: Light, horizon: float) -> None:
    field = noise(rng, canvas.size, 0.4, 1.8)
    mask = smoothstep((field - np.float32(rng.uniform(0.50, 0.66))) / 0.2) * np.clip((horizon - canvas.y) / 0.12, 0, 1)
    canvas.cover(mask * np.float32(0.9), light.cloud)


def paint_water(canvas: Canvas, rng: Rng, time: str, top: float) -> None:
    """Everything under `top`, with soft waves and, at sunset or night, the reflection of the light."""
    light = LIGHTS[time]
    depth = np.clip((canvas.y - top) / max(0.05, 0.95 - top), 0, 1)[..., None]
    waves = noise(rng, canvas.size, 0.3, 2.6)
    water = mixed(light.shallow, light.deep + jitter(rng, 0.02), depth) * (1 + 0.5 * (waves - 0.5))[..., None]
    if time in ("sunset", "night"):
        shine = np.exp(-(((canvas.x - aside(rng, "shine").uniform(0.25, 0.75)) / 0.11) ** 2)) * np.clip(
            waves * 1.6 - 0.45, 0, 1
        )
        water = water + shine[..., None] * (colour(0.6, 0.36, 0.1) if time == "sunset" else colour(0.2, 0.21, 0.24))
    canvas.cover(canvas.below(top), np.asarray(water, dtype=np.float32))
