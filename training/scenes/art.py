"""Sprites: the emoji of a folder and our own drawings, painted over in a colour on demand."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from training.scenes.brush import Map, Rng, chance, colour, pick
from training.scenes.drawings import DRAWINGS
from training.scenes.objects import HUES, THINGS

_FOX = colour(0.93, 0.45, 0.10)
_HUE_REACH = 0.13
_BODY: dict[str, Map] = {"white": colour(0.95, 0.95, 0.95), "black": colour(0.11, 0.11, 0.13)}


class Art(Protocol):
    """Where sprites come from."""

    def sprite(self, name: str, paint: str | None, rng: Rng) -> Image.Image:
        """The thing in RGBA, cut to its outline, its body in the named colour or its own."""


class EmojiArt:
    """Emoji pictures from the unpacked package, kept in memory once read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[tuple[str, str | None, int], Image.Image] = {}

    def sprite(self, name: str, paint: str | None, rng: Rng) -> Image.Image:
        drawings = DRAWINGS.get(name, ())
        pose = int(rng.integers(max(1, len(drawings))))
        key = (name, paint, pose)
        if key not in self._kept:
            self._kept[key] = draw(name, paint, pose) if drawings else self._read(name, paint)
        found = self._kept[key]
        return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if chance(rng, 0.5) else found

    def _read(self, name: str, paint: str | None) -> Image.Image:
        thing = THINGS[name]
        with Image.open(self._folder / f"{thing.art}.webp") as opened:
            picture = opened.convert("RGBA")
        cut = picture.crop(picture.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox())
        return repainted(cut, thing.hue, paint) if paint and thing.hue is not None else cut


class DrawnArt:
    """Our own drawings for every name: enough for tests, which have no emoji."""

    def sprite(self, name: str, paint: str | None, rng: Rng) -> Image.Image:
        known = name if name in DRAWINGS else pick(rng, tuple(DRAWINGS))
        return draw(known, paint, int(rng.integers(len(DRAWINGS[known]))))


def draw(name: str, paint: str | None, pose: int) -> Image.Image:
    body = body_colour(paint) if paint else _FOX if name == "fox" else body_colour("red")
    return DRAWINGS[name][pose](body)


def body_colour(name: str) -> Map:
    """What a shiny body of that colour looks like."""
    if name in _BODY:
        return _BODY[name]
    saturation, value = (0.55, 0.97) if name == "pink" else (0.88, 0.95 if name in ("yellow", "orange") else 0.82)
    return colour(*colorsys.hsv_to_rgb(HUES[name], saturation, value))


def repainted(sprite: Image.Image, hue: float, paint: str) -> Image.Image:
    """Move the pixels near a hue to another colour; all others stay."""
    pixels = np.asarray(sprite, dtype=np.float32) / 255
    rgb, alpha = pixels[..., :3], pixels[..., 3:]
    hues, saturation, value = _to_hsv(rgb)
    apart = np.abs((hues - hue + 0.5) % 1 - 0.5)
    chosen = np.clip((_HUE_REACH - apart) / 0.04, 0, 1) * np.clip((saturation - 0.25) / 0.15, 0, 1)
    new = _painted(paint, saturation, value)
    mixed = rgb + chosen[..., None] * (new - rgb)
    return Image.fromarray((np.concatenate([mixed, alpha], axis=-1).clip(0, 1) * 255 + 0.5).astype(np.uint8))


def _painted(paint: str, saturation: Map, value: Map) -> Map:
    if paint == "white":
        shade = np.clip(0.62 + 0.5 * value * value, 0, 1)
        return np.repeat(shade[..., None], 3, axis=-1)
    if paint == "black":
        return np.repeat((value * 0.2)[..., None], 3, axis=-1)
    if paint in ("yellow", "pink"):
        value = np.clip(value * 1.15, 0, 1)
    return _from_hsv(HUES[paint], saturation * (0.55 if paint == "pink" else 1), value)


def _to_hsv(rgb: Map) -> tuple[Map, Map, Map]:
    red, green, blue = (rgb[..., i] for i in range(3))
    value, span = rgb.max(axis=-1), rgb.max(axis=-1) - rgb.min(axis=-1) + 1e-6
    sector = np.where(
        value == red,
        ((green - blue) / span) % 6,
        np.where(value == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    return (sector / 6).astype(np.float32), span / (value + 1e-6), value


def _from_hsv(hue: float, saturation: Map, value: Map) -> Map:
    parts = []
    for offset in (5, 3, 1):
        k = (offset + 6 * hue) % 6
        parts.append(value - value * saturation * np.clip(min(k, 4 - k), 0, 1))
    return np.stack(parts, axis=-1).astype(np.float32)
