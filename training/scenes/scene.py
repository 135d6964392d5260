"""A picture from its labels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.scenes.art import Art
from training.scenes.brush import Canvas, Map, Rng, Steady, aside, chance, colour, jitter, noise, pick, to_bytes
from training.scenes.captions import caption
from training.scenes.labels import PLAIN, Item, Labels, draw_labels
from training.scenes.light import LIGHTS
from training.scenes.objects import THINGS
from training.scenes.places import PLACES, Floor, paint_backdrop
from training.scenes.styles import STYLES, soften
from training.scenes.weather import WEATHERS

CAPTIONS = 4
_WIDEST = 0.86
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    pixels: NDArray[np.uint8]  # (size, size, 3)
    labels: Labels
    captions: tuple[str, ...]
    boxes: tuple[_Box, ...]  # left, top, right, bottom of each item, in sides

    def record(self) -> str:
        """All but the pixels, as a line of JSON."""
        return json.dumps({"labels": asdict(self.labels), "captions": self.captions, "boxes": self.boxes})


def read_labels(record: dict[str, Any]) -> Labels:
    """The labels of a line of JSON."""
    said = dict(record["labels"])
    said["items"] = tuple(Item(**item) for item in said["items"])
    return Labels(**said)


def render(
    seed: tuple[int, ...], size: int, art: Art, labels: Labels | None = None, *, steady: bool = False
) -> Picture:
    """The picture of a seed: the same on every machine, and much the same at every size.

    Steady pictures of a seed keep their layout when given other labels; they are not those of that seed otherwise.
    """
    rng: Rng = Steady(seed) if steady else np.random.default_rng(seed)
    labels = labels or draw_labels(rng)
    canvas = Canvas(size)
    if labels.place == PLAIN:
        floor = paint_backdrop(canvas, rng, labels.backdrop or "white")
    else:
        floor = PLACES[labels.place](canvas, rng, labels.time, labels.weather == "snow")
    boxes = tuple(_paint_items(canvas, rng, labels, floor, art))
    if labels.weather in WEATHERS:
        WEATHERS[labels.weather](canvas, aside(rng, "weather"), labels.time)
    image = STYLES[labels.style](np.clip(canvas.image, 0, 1), aside(rng, "style"))
    if labels.blurry:
        image = soften(image, rng)
    return Picture(to_bytes(image), labels, tuple(caption(labels, rng) for _ in range(CAPTIONS)), boxes)


def _paint_items(canvas: Canvas, rng: Rng, labels: Labels, floor: Floor, art: Art) -> list[_Box]:
    spots = [rng.uniform(0.40, 0.60)] if len(labels.items) < 2 else [rng.uniform(0.24, 0.30), rng.uniform(0.70, 0.76)]
    tint = LIGHTS[labels.time].on_objects if labels.outdoors else colour(1, 1, 1)
    boxes = []
    for item, x in zip(labels.items, spots, strict=False):
        height = THINGS[item.name].height * rng.uniform(0.92, 1.18) * (1 if len(labels.items) < 2 else 0.72)
        foot, stands = _foot(item, labels, floor, height, rng)
        boxes.append(
            _paste(
                canvas, art.sprite(item.name, item.paint, aside(rng, f"sprite {x}")), (x, foot, height), tint, stands
            )
        )
    return boxes


def _foot(item: Item, labels: Labels, floor: Floor, height: float, rng: Rng) -> tuple[float, bool]:
    """Where its lower edge goes, and whether it throws a shadow there."""
    home = THINGS[item.name].home
    if labels.place == PLAIN:
        return 0.5 + height / 2 + rng.uniform(-0.03, 0.06), home != "air"
    if home == "air" or (floor.ground is None and floor.water is None):
        return max(height + 0.03, rng.uniform(0.44, 0.62) + height * 0.25), False
    if home == "water" and floor.water is not None:
        return floor.water + height * 0.25 + rng.uniform(0, 0.08), False
    return min(0.97, (floor.ground or 0.8) + rng.uniform(-0.04, 0.06)), True


def _paste(canvas: Canvas, sprite: Image.Image, spot: tuple[float, float, float], tint: Map, stands: bool) -> _Box:
    x, foot, height = spot
    width = height * sprite.width / sprite.height
    if width > _WIDEST:
        width, height = _WIDEST, _WIDEST * sprite.height / sprite.width
    if stands:
        spread = ((canvas.x - x) / (width * 0.5)) ** 2 + ((canvas.y - foot + 0.004) / (0.03 + 0.03 * height)) ** 2
        canvas.image *= (1 - 0.42 * np.exp(-spread * 1.2))[..., None].astype(np.float32)
    size = canvas.size
    pixels = (max(4, round(width * size)), max(4, round(height * size)))
    left, top = round(x * size) - pixels[0] // 2, round(foot * size) - pixels[1]
    stamp = np.asarray(sprite.resize(pixels, Image.Resampling.LANCZOS), dtype=np.float32) / 255
    rows, columns = slice(max(0, top), min(size, top + pixels[1])), slice(max(0, left), min(size, left + pixels[0]))
    shown = stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    window = canvas.image[rows, columns]
    window += shown[..., 3:] * (shown[..., :3] * tint - window)
    return columns.start / size, rows.start / size, columns.stop / size, rows.stop / size


def confetti(seed: tuple[int, ...], size: int, art: Art) -> NDArray[np.uint8]:
    """Overlapping shapes and sprites: what teaches the codec pictures that no scene shows."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(size)
    canvas.image += rng.random(3, dtype=np.float32)
    for _ in range(int(rng.integers(6, 24))):
        radius = np.float32(0.02 + 0.4 * rng.random() ** 2)
        turned = rng.uniform(0, np.pi)
        across, down = canvas.x - np.float32(rng.random()), canvas.y - np.float32(rng.random())
        along = across * np.float32(np.cos(turned)) + down * np.float32(np.sin(turned))
        off = (down * np.float32(np.cos(turned)) - across * np.float32(np.sin(turned))) * np.float32(rng.uniform(1, 3))
        reach = np.hypot(along, off) if chance(rng, 0.6) else np.maximum(np.abs(along), np.abs(off))
        canvas.cover(canvas.inside(radius - reach), rng.random(3, dtype=np.float32))
    if chance(rng, 0.5):
        canvas.image *= (0.7 + 0.6 * noise(rng, size, rng.uniform(0.2, 1)))[..., None]
    for _ in range(int(rng.integers(0, 3))):
        height = rng.uniform(0.3, 0.8)
        spot = (rng.random(), min(1.0, height + rng.random()), height)
        _paste(canvas, art.sprite(pick(rng, tuple(THINGS)), None, rng), spot, 1 + jitter(rng, 0.05), False)
    return to_bytes(canvas.image)
