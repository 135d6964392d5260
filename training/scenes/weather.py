"""What comes between us and the scene."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.scenes.brush import Canvas, Rng, colour, noise, smoothstep
from training.scenes.light import LIGHTS


def _fog(canvas: Canvas, rng: Rng, time: str) -> None:
    thickness = 0.45 + 0.35 * smoothstep((canvas.y - 0.05) / 0.6) + 0.3 * (noise(rng, canvas.size, 0.4) - 0.5)
    grey = colour(0.83, 0.85, 0.87) * (0.25 + 0.75 * LIGHTS[time].ambient)
    canvas.cover(np.clip(thickness, 0, 0.85).astype(np.float32), grey.astype(np.float32))


def _rain(canvas: Canvas, rng: Rng, time: str) -> None:
    ambient = LIGHTS[time].ambient
    canvas.image = (canvas.image * 0.66 + colour(0.34, 0.38, 0.44) * ambient * 0.22).astype(np.float32)
    streaks = np.zeros_like(canvas.x)
    for _ in range(int(rng.integers(40, 70))):
        x, y = rng.uniform(-0.1, 1.1), rng.uniform(-0.1, 1)
        length = rng.uniform(0.08, 0.16)
        along = np.clip((canvas.y - y) / length, 0, 1)
        off = np.abs(canvas.x - np.float32(x) + along * np.float32(0.35 * length))
        streaks += canvas.inside(0.004 - off) * ((canvas.y > y) & (canvas.y < y + length))
    canvas.glow(np.clip(streaks * 0.32, 0, 0.5), colour(0.8, 0.85, 0.95))


def _snowfall(canvas: Canvas, rng: Rng, time: str) -> None:
    flakes = np.zeros_like(canvas.x)
    for _ in range(int(rng.integers(45, 80))):
        radius = np.float32(rng.uniform(0.007, 0.017))
        flakes += canvas.inside(radius - canvas.distance(rng.random(), rng.random()), 1.6)
    canvas.cover(np.clip(flakes, 0, 0.95), colour(0.96, 0.97, 1.0))


WEATHERS: dict[str, Callable[[Canvas, Rng, str], None]] = {"fog": _fog, "rain": _rain, "snowfall": _snowfall}
