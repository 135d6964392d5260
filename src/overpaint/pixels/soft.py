"""Soft inpainting, the side of the pixels: how much each place changed decides how much of it is shown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from overpaint.pixels.composite import PasteBox, uncrop
from overpaint.request import SoftInpainting
from overpaint.settings import Quirks

Floats = npt.NDArray[np.float32]

_OUTLIERS = (0.9, 1.0)  # percentiles of the two passes: first the strongest change of the neighbourhood,
_MIDDLE = (0.25, 0.75)  # then the middle of what that leaves
_EDGE_BLUR = 4


def adaptive_mask(
    sampled: Floats,  # (channels, h, w)
    source: Floats,  # (channels, h, w)
    nmask: Floats,  # (h, w), 1 = repaint
    parameters: SoftInpainting,
) -> npt.NDArray[np.uint8]:  # (h, w), 255 = new
    """How much of the new picture each latent cell shows: more where it differs, more where the mask asks for it."""
    asked = np.clip(nmask, 0, 1).astype(np.float64) ** (parameters.preservation_strength / 2)
    kept = 1 - asked
    kept = 0.5 * (1 - parameters.mask_influence) + kept * parameters.mask_influence
    kept = kept / (1.00001 - kept)
    change = np.linalg.norm((sampled - source).astype(np.float64), axis=0).astype(np.float32)
    for low, high in (_OUTLIERS, _MIDDLE):
        change = histogram_filter(change, FALLOFF, low, high)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a threshold of 0 shows every change whole
        ratio = np.where(change > 0, change / (parameters.difference_threshold * kept), 0.0)
        shown = 1 / (1 + ratio**parameters.difference_contrast)
    shown = shown**3 * (shown * (6 * shown - 15) + 10)
    return (255 * (1 - shown)).astype(np.uint8)


def histogram_filter(image: Floats, kernel: npt.NDArray[np.float64], low: float, high: float) -> Floats:
    """A weighted rank filter: the mean of the neighbours between two percentiles of the cumulated kernel weights."""
    values, weights = _neighbours(image, kernel)  # (n, h, w)
    order = np.argsort(np.where(weights > 0, values, np.inf), axis=0, kind="stable")
    values = np.take_along_axis(values, order, axis=0)
    tops = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    bottoms = np.concatenate([np.zeros_like(tops[:1]), tops[:-1]])
    start, stop = _window(tops[-1], low, high)
    inside = np.maximum(0, np.minimum(tops, stop) - np.maximum(bottoms, start))
    total = inside.sum(axis=0)
    mean = (values * inside).sum(axis=0) / np.where(total > 0, total, 1)
    return np.where(total > 0, mean, 0).astype(np.float32)


def soft_overlay_mask(
    adaptive: Image.Image, paste_to: PasteBox | None, size: tuple[int, int], quirks: Quirks
) -> Image.Image:
    """The adaptive mask, at the size that was painted, as overlay mask of a picture of `size`."""
    blurred = adaptive.convert("L").filter(ImageFilter.GaussianBlur(_EDGE_BLUR))
    return blurred if paste_to is None else uncrop(blurred, paste_to, size, quirks).convert("L")


def _falloff() -> npt.NDArray[np.float64]:
    """A 5x5 Gaussian let down so that it would end at a distance of 3."""
    offsets = np.arange(-2, 3)
    distance = offsets[:, None] ** 2 + offsets[None, :] ** 2
    gaussian, end = np.exp(-distance / 1.5**2), np.exp(-9 / 1.5**2)
    kernel: npt.NDArray[np.float64] = np.maximum(0, (gaussian - end) / (1 - end))
    kernel.flags.writeable = False
    return kernel


FALLOFF = _falloff()


def _neighbours(
    image: Floats, kernel: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The values round each pixel and their weights, in reading order; beyond the border both are 0."""
    height, width = image.shape
    down, across = kernel.shape
    margin = ((down // 2, down // 2), (across // 2, across // 2))
    padded = np.pad(image.astype(np.float64), margin)
    within = np.pad(np.ones(image.shape), margin)
    places = [(slice(i, i + height), slice(j, j + width)) for i in range(down) for j in range(across)]
    weights = [within[place] * weight for place, weight in zip(places, kernel.ravel(), strict=True)]
    return np.stack([padded[place] for place in places]), np.stack(weights)


def _window(
    total: npt.NDArray[np.float64], low: float, high: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where the percentiles lie on the cumulated weights; at least one whole weight is looked at."""
    start, stop = total * low, total * high
    narrow = stop - start < 1
    middle = (start + stop) / 2
    wide_start, wide_stop = middle - 0.5, middle + 0.5
    past = wide_stop > total
    wide_start, wide_stop = np.where(past, total - 1, wide_start), np.where(past, total, wide_stop)
    below = wide_start < 0
    wide_start, wide_stop = np.where(below, 0, wide_start), np.where(below, 1, wide_stop)
    return np.where(narrow, wide_start, start), np.where(narrow, wide_stop, stop)
