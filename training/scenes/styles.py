"""Manners of painting, as filters over the finished scene."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.scenes.brush import (
    Map,
    Rng,
    blurred,
    chance,
    colour,
    from_pillow,
    grey,
    mixed,
    noise,
    pick,
    smoothstep,
    to_pillow,
)

Style = Callable[[Map, Rng], Map]


def _photo(image: Map, rng: Rng) -> Map:
    return image


def _black_and_white(image: Map, rng: Rng) -> Map:
    return _in_three(np.clip((grey(image) - 0.5) * 1.15 + 0.5, 0, 1))


def _watercolor(image: Map, rng: Rng) -> Map:
    """Pale washes that pool at the edges, on paper with a torn white border."""
    size = image.shape[0]
    wash = _median(image, 5)
    wash = mixed(wash, np.round(wash * 5) / 5, 0.35)
    pigment = np.float32(0.62) + np.float32(0.5) * (noise(rng, size, 0.5) - 0.5)
    wash = 1 - (1 - wash) * pigment[..., None]
    wash = wash * (1 - 0.45 * np.clip(_edges(wash), 0, 1))[..., None]
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    inset = np.minimum(line, 1 - line)
    border = np.minimum(inset[None], inset[:, None]) + 0.06 * (noise(rng, size, 0.8) - 0.5)
    sheet = smoothstep((border - np.float32(rng.uniform(0.04, 0.07))) / 0.02)[..., None]
    return mixed(colour(0.975, 0.965, 0.94), wash, sheet)


def _oil(image: Map, rng: Rng) -> Map:
    """Kuwahara et al., "Processing of RI-Angiocardiographic Images" (1976), strong colours, ridges of the brush."""
    size = image.shape[0]
    radius = max(1, round(2 * size / 128))
    around = np.pad(image.astype(np.float64), ((2 * radius,) * 2, (2 * radius,) * 2, (0, 0)), mode="edge")
    means, squares = _box(around, radius), _box(around**2, radius)
    variances = (squares - means**2).sum(axis=-1)
    corners = [(top, left) for top in (0, 2 * radius) for left in (0, 2 * radius)]
    calmest = np.stack([variances[y : y + size, x : x + size] for y, x in corners]).argmin(axis=0)
    choices = np.stack([means[y : y + size, x : x + size] for y, x in corners])
    painted = np.take_along_axis(choices, calmest[None, ..., None], axis=0)[0].astype(np.float32)
    painted = grey(painted)[..., None] + (painted - grey(painted)[..., None]) * 1.4
    ridges = np.gradient(noise(rng, size, 0.8, 0.5), axis=0) * size / 128
    warm = painted * colour(1.05, 1.0, 0.90)
    return np.asarray(warm + np.clip(1.6 * ridges, -0.1, 0.1)[..., None], dtype=np.float32)


def _sketch(image: Map, rng: Rng) -> Map:
    """Dark lines where the lightness changes, light hatching in the shade, on paper."""
    lightness = grey(blurred(image, 0.7))
    around = grey(blurred(image, 4.0))
    lines = np.clip(1 - np.abs(lightness - around) * 3.2, 0, 1)
    shade = 0.66 + 0.34 * np.clip(lightness * 1.4, 0, 1)
    paper = colour(0.97, 0.965, 0.95)
    return np.asarray((lines * shade)[..., None] * paper, dtype=np.float32)


def _pixel(image: Map, rng: Rng) -> Map:
    size = image.shape[0]
    small = to_pillow(image).resize((32, 32), Image.Resampling.BOX)
    colours = int(rng.integers(14, 26))
    few = small.quantize(colours, dither=Image.Dither.NONE).convert("RGB")
    return from_pillow(few.resize((size, size), Image.Resampling.NEAREST))


def _flat(image: Map, rng: Rng) -> Map:
    """A few flat colours, often with dark outlines."""
    calm = _median(image, 5)
    vivid = grey(calm)[..., None] + (calm - grey(calm)[..., None]) * 1.35
    colours = int(rng.integers(8, 13))
    few = to_pillow(vivid).quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    flat = _median(from_pillow(few), 3)
    outline = 0.85 * np.clip(_edges(flat) * 1.4 - 0.15, 0, 1) if chance(rng, 0.6) else np.zeros_like(flat[..., 0])
    return np.asarray(flat * (1 - outline)[..., None], dtype=np.float32)


def _box(image: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """The mean of every whole square of 2 * radius + 1 pixels."""
    width = 2 * radius + 1
    for axis in (0, 1):
        sums = np.cumsum(image, axis=axis)
        before = np.roll(sums, width, axis=axis)
        before[(slice(None),) * axis + (slice(0, width),)] = 0
        image = (sums - before)[(slice(None),) * axis + (slice(width - 1, None),)] / width
    return image


def _in_three(lightness: Map) -> Map:
    return np.repeat(np.asarray(lightness, dtype=np.float32)[..., None], 3, axis=-1)


def _median(image: Map, width: int) -> Map:
    """The median of a square `width` pixels of a 128-pixel picture wide."""
    odd = max(3, round(width * image.shape[0] / 128) | 1)
    return from_pillow(to_pillow(image).filter(ImageFilter.MedianFilter(odd)))


def _edges(image: Map) -> Map:
    """How fast the lightness changes, per pixel of a 128-pixel picture."""
    down, across = np.gradient(grey(image))
    return np.asarray(np.hypot(down, across) * 4 * image.shape[0] / 128, dtype=np.float32)


STYLES: dict[str, Style] = {
    "photo": _photo,
    "watercolor": _watercolor,
    "oil painting": _oil,
    "pencil sketch": _sketch,
    "pixel art": _pixel,
    "flat": _flat,
    "black and white": _black_and_white,
}


def soften(image: Map, rng: Rng) -> Map:
    """Out of focus: what the caption then calls blurry."""
    return blurred(image, pick(rng, (1.6, 2.2)))
