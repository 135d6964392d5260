"""Painted trees, and the soil things stand on."""

from __future__ import annotations

from typing import Literal

import numpy as np

from training.scenes.brush import Canvas, Map, Rng, aside, colour, jitter, noise, pick, smoothstep

TreeKind = Literal["pine", "leaf", "autumn"]

GREEN = colour(0.36, 0.62, 0.20)
SNOW = colour(0.93, 0.96, 1.0)
SAND = colour(0.92, 0.80, 0.54)
_TRUNK = colour(0.36, 0.23, 0.13)
_CROWNS: dict[TreeKind, tuple[Map, ...]] = {
    "pine": (colour(0.08, 0.34, 0.19),),
    "leaf": (colour(0.20, 0.50, 0.14), colour(0.30, 0.56, 0.16)),
    "autumn": (colour(0.88, 0.44, 0.08), colour(0.80, 0.22, 0.09), colour(0.94, 0.70, 0.14)),
}


def paint_ground(canvas: Canvas, rng: Rng, line: Map | float, soil: Map, ambient: Map, roughness: float = 0.22) -> None:
    texture = noise(rng, canvas.size, 0.45, 2.0)
    shade = (1 - roughness / 2 + roughness * texture) * (0.80 + 0.28 * canvas.y)
    paint = np.clip(soil + jitter(rng, 0.02), 0, 1) * shade[..., None] * ambient
    canvas.cover(canvas.below(line), np.asarray(paint, dtype=np.float32))


def paint_tree(
    canvas: Canvas, rng: Rng, x: float, foot: float, height: float, kind: TreeKind, ambient: Map, snowy: bool
) -> None:
    """A tree standing at (x, foot). Only its own window of the canvas is touched."""
    size = canvas.size
    rows = slice(max(0, int((foot - height * 1.05) * size)), min(size, int(foot * size) + 1))
    columns = slice(max(0, int((x - height * 0.45) * size)), min(size, int((x + height * 0.45) * size) + 1))
    up = (np.float32(foot) - canvas.y[rows, columns]) / np.float32(height)
    across = (canvas.x[rows, columns] - np.float32(x)) / np.float32(height)
    if up.size == 0:
        return
    edge = 1.3 / (height * size)
    grain = noise(rng, size, 0.6)[rows, columns]
    trunk = np.clip((0.04 - np.abs(across)) / edge + 0.5, 0, 1) * (up < 0.6)
    crown = np.clip(_crown(kind, up, across, grain) / edge + 0.5, 0, 1)
    leaves = np.clip(pick(aside(rng, f"crown {x}"), _CROWNS[kind]) + jitter(rng, 0.03), 0, 1)
    shade = 0.66 + 0.5 * np.clip(0.5 - across * 1.1 + 0.35 * (up - 0.5), 0, 1) + 0.25 * (grain - 0.5)
    leaves = leaves * shade[..., None]
    if snowy:
        white = smoothstep((0.3 * grain + 0.6 * np.clip(up, 0, 1) - 0.3) / 0.2)[..., None]
        leaves = leaves + white * (SNOW - leaves)
    window = canvas.image[rows, columns]
    window += trunk[..., None] * (_TRUNK * ambient - window)
    window += crown[..., None] * (leaves * ambient - window)


def _crown(kind: TreeKind, up: Map, across: Map, grain: Map) -> Map:
    """How deep a point lies in the crown; negative outside."""
    if kind == "pine":
        widths = np.zeros_like(up)
        for tier in range(4):
            bottom = 0.14 + 0.2 * tier
            slope = (bottom + 0.36 - up) / 0.36 * (0.30 - 0.055 * tier)
            widths = np.maximum(widths, np.where((up > bottom) & (up < bottom + 0.36), slope, 0))
        return np.asarray(widths - np.abs(across), dtype=np.float32)
    balls = ((0.0, 0.66, 0.0), (-0.17, 0.53, 0.06), (0.17, 0.55, 0.06))
    nearest = np.minimum.reduce([np.hypot((across - x) * 1.15, up - y) + shrink for x, y, shrink in balls])
    return np.asarray(0.29 - nearest + 0.10 * (grain - 0.5), dtype=np.float32)
