"""What all painters hold in their hand: a canvas whose unit is its own side, masks with soft edges, smooth noise."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Map: TypeAlias = NDArray[np.floating[Any]]  # (h, w), or (h, w, 3) for colours, in 0..1
Rng: TypeAlias = np.random.Generator
_T = TypeVar("_T")

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_TILE = 256
_TILES = 6


class Canvas:
    """A picture being painted. `x` and `y` run from 0 to 1, whatever the number of pixels."""

    def __init__(self, size: int) -> None:
        self.size = size
        line = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = np.meshgrid(line, line)
        self.image: Map = np.zeros((size, size, 3), dtype=np.float32)

    def cover(self, mask: Map, paint: Map) -> None:
        """Lay a colour (3,) or a picture over what is there, where the mask is 1."""
        self.image += mask[..., None] * (paint - self.image)

    def glow(self, strength: Map, light: Map) -> None:
        """Add light."""
        self.image += strength[..., None] * light

    def inside(self, distance: Map, soft: float = 1.2) -> Map:
        """1 where the signed distance (in sides) is positive, with an edge `soft` wide (in 128ths)."""
        return np.asarray(np.clip(distance * 128 / soft + 0.5, 0, 1))

    def below(self, line: Map | float, soft: float = 1.2) -> Map:
        """Everything under a horizon."""
        return self.inside(np.asarray(self.y - line, dtype=np.float32), soft)

    def distance(self, x: float, y: float) -> Map:
        return np.hypot(self.x - np.float32(x), self.y - np.float32(y))


class Steady(np.random.Generator):
    """A generator for pictures that differ in a label and are alike in everything else."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        super().__init__(np.random.PCG64(seed))
        self.seed = seed


def aside(rng: Rng, what: str) -> Rng:
    """Where draws that not every picture makes come from: a stream of their own if the layout is to be steady."""
    if isinstance(rng, Steady):
        return np.random.default_rng((*rng.seed, zlib.crc32(what.encode())))
    return rng


def colour(red: float, green: float, blue: float) -> Map:
    return np.array([red, green, blue], dtype=np.float32)


def mixed(first: Map, second: Map, share: Map | float) -> Map:
    """`share` of the second, the rest of the first."""
    return np.asarray(first + (second - first) * share, dtype=np.float32)


def smoothstep(values: Map) -> Map:
    clipped = np.clip(values, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped), dtype=np.float32)


def pick(rng: Rng, choices: Sequence[_T], weights: Sequence[float] | None = None) -> _T:
    """One of them, by weight."""
    if weights is None:
        return choices[int(rng.integers(len(choices)))]
    ladder = np.cumsum(weights)
    return choices[int(np.searchsorted(ladder, rng.random() * ladder[-1], side="right"))]


def chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def jitter(rng: Rng, spread: float) -> Map:
    """A small shift of colour."""
    return rng.normal(0, spread, 3).astype(np.float32)


def noise(rng: Rng, size: int, reach: float = 0.5, stretch: float = 1.0) -> Map:
    """Smooth noise in 0..1 (size, size): `reach` is the share of a tile seen, `stretch` > 1 flattens its blobs."""
    tile = _tile(int(rng.integers(_TILES)))
    width = max(8, round(_TILE * reach))
    height = max(8, min(_TILE, round(width * stretch)))
    top, left = (int(each) for each in rng.integers(0, _TILE, 2))
    rows, columns = (top + np.arange(height)) % _TILE, (left + np.arange(width)) % _TILE
    seen = tile[np.ix_(rows, columns)]
    enlarged = np.asarray(Image.fromarray(seen).resize((size, size), Image.Resampling.BICUBIC))
    return np.asarray(np.clip(enlarged, 0, 1))


def skyline(rng: Rng, size: int, reach: float = 0.5) -> Map:
    """One line of smooth noise (size,), for ridges and shores."""
    return np.asarray(noise(rng, size, reach)[size // 2])


@cache
def _tile(index: int) -> Map:
    """Noise whose power falls with frequency, without seams: the texture of clouds and hills."""
    rng = np.random.default_rng((7, index))
    across = np.fft.fftfreq(_TILE)
    frequency = np.hypot(across[:, None], across[None])
    frequency[0, 0] = 1
    values = np.fft.ifft2(np.fft.fft2(rng.standard_normal((_TILE, _TILE))) * frequency**-1.9).real
    values = (values - values.mean()) / values.std()
    return np.asarray(1 / (1 + np.exp(-1.7 * values)), dtype=np.float32)


def to_bytes(image: Map) -> NDArray[np.uint8]:
    values: NDArray[np.uint8] = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return values


def to_pillow(image: Map) -> Image.Image:
    return Image.fromarray(to_bytes(image))


def from_pillow(picture: Image.Image) -> Map:
    return np.asarray(picture, dtype=np.float32) / 255


def blurred(image: Map, radius: float) -> Map:
    """Gaussian blur, `radius` in pixels of a 128-pixel picture."""
    scale = image.shape[0] / 128
    return from_pillow(to_pillow(image).filter(ImageFilter.GaussianBlur(radius * scale)))


def grey(image: Map) -> Map:
    """Lightness (h, w)."""
    return np.asarray(image @ LUMA, dtype=np.float32)
