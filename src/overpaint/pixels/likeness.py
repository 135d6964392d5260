"""How alike two pictures are, as numbers that others use as well: PSNR, and SSIM (Wang et al. 2004)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_Plane = npt.NDArray[Any]

_SIGMA, _RADIUS = 1.5, 5  # of the window that the paper looks through: 11 pixels wide
_STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Decibels over all channels; infinite where nothing differs. Above 40 nobody sees a difference."""
    a, b = (np.asarray(each.convert("RGB"), np.float64) for each in (one, other))
    error = float(np.mean((a - b) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(one: Image.Image, other: Image.Image) -> float:
    """Of the brightness, the mean over all places where the window lies within the picture; 1 where nothing differs."""
    a, b = (np.asarray(each.convert("L"), np.float64) for each in (one, other))
    if min(a.shape) <= 2 * _RADIUS:
        raise ValueError(f"a picture of {a.shape[1]}x{a.shape[0]} is too small; SSIM looks at {2 * _RADIUS + 1} pixels")
    mean_a, mean_b = _seen(a), _seen(b)
    var_a, var_b = _seen(a * a) - mean_a**2, _seen(b * b) - mean_b**2
    both = _seen(a * b) - mean_a * mean_b
    first, second = _STABLE
    light = (2 * mean_a * mean_b + first) / (mean_a**2 + mean_b**2 + first)
    rest = (2 * both + second) / (var_a + var_b + second)
    return float(np.mean(light * rest))


def _seen(plane: _Plane) -> _Plane:
    """The weighted mean around each pixel."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(plane, 2 * _RADIUS + 1, axis)
        plane = windows @ weights
    return plane
