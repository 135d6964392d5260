"""What is made of a control picture where no network is needed for it, besides the edges of `control`.

Names and ranges are those that the reference's extension has for them; the formulas are the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from overpaint.errors import RequestError
from overpaint.parts import AMOUNTS, Preprocessor
from overpaint.pixels.color import rgb_to_lab

# Winnemoeller, Kyprianidis, Olsen, "XDoG: An eXtended difference-of-Gaussians compendium" (2012), section 2.
_SIGMA = 1.4
_WIDER = 1.6  # k: the second Gaussian's width, with which the difference comes closest to a Laplacian
_SHARP = 20.0  # p: how much the difference counts beside the picture itself


def preprocessed(picture: Image.Image, name: str, amount: float | None = None) -> Image.Image:
    """The picture, RGB, after the preprocessor of this name; an amount of None is the usual one."""
    if name not in _MAKERS:
        raise RequestError("controls.preprocessor", name, f"choose one of {', '.join(get_args(Preprocessor))}")
    usual = AMOUNTS[name][0] if name in AMOUNTS else 0.0
    return _MAKERS[name](picture.convert("RGB"), usual if amount is None else amount).convert("RGB")


def threshold(picture: Image.Image, level: float) -> Image.Image:
    """White where the picture is lighter than the level."""
    return picture.convert("L").point([255 if value > level else 0 for value in range(256)])


def blurred(picture: Image.Image, sigma: float) -> Image.Image:
    """Under a Gaussian, or what three boxes make of one."""
    return picture.filter(ImageFilter.GaussianBlur(sigma))


def coarser(picture: Image.Image, times: float) -> Image.Image:
    """So many times smaller, each pixel the mean of what it stands for, and back to its size: what a tile keeps."""
    small = (max(1, round(each / times)) for each in picture.size)
    return picture.resize(tuple(small), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)  # type: ignore[arg-type]


def luminance(picture: Image.Image, gamma: float) -> Image.Image:
    """L of CIELAB, which is how light a colour looks."""
    return _with_gamma(rgb_to_lab(np.asarray(picture))[..., 0], gamma)


def intensity(picture: Image.Image, gamma: float) -> Image.Image:
    """V of HSV: the largest of red, green and blue."""
    return _with_gamma(np.asarray(picture).max(axis=-1), gamma)


def scribble(picture: Image.Image, level: float) -> Image.Image:
    """White strokes on black, where (1 + p) G_sigma - p G_k*sigma of the lightness is below the level."""
    gray = np.asarray(picture.convert("L"), dtype=np.float64)
    sharpened = (1 + _SHARP) * _gaussian(gray, _SIGMA) - _SHARP * _gaussian(gray, _SIGMA * _WIDER)
    return Image.fromarray(np.where(sharpened < level, 255, 0).astype(np.uint8))


def _with_gamma(values: NDArray[np.uint8], gamma: float) -> Image.Image:
    return Image.fromarray(values).point([round(255 * (value / 255) ** gamma) for value in range(256)])


def _gaussian(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Separable, to four standard deviations, the picture mirrored at its edges."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        padded = np.pad(values, [(radius, radius) if each == axis else (0, 0) for each in (0, 1)], mode="reflect")
        length = values.shape[axis]
        values = sum(
            (weight * padded.take(range(i, i + length), axis=axis) for i, weight in enumerate(weights)),
            start=np.zeros_like(values),
        )
    return values


_MAKERS: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "none": lambda picture, _: picture,
    "threshold": threshold,
    "blur_gaussian": blurred,
    "tile_resample": coarser,
    "recolor_luminance": luminance,
    "recolor_intensity": intensity,
    "scribble_xdog": scribble,
}
