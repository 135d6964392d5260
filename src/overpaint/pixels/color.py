"""Colour correction: the painted picture takes the colours of its source and keeps its own light.

LAB is the 8-bit convention with L * 255/100, a + 128, b + 128 for sRGB and D65, in fixed point: lookup tables for the
transfer curve and the cube root, integer matrices between them. The roundings are OpenCV's, bit for bit, both ways.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int32]

ColorTarget = Bytes
"""The LAB pixels (height, width, 3) whose colours a painted picture is matched to."""

_RGB_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_XYZ_TO_RGB = np.array(
    [[3.240479, -1.537150, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]]
)
_D65 = np.array([0.950456, 1.0, 1.088754])

_MATRIX_BITS = 12
_LINEAR_STEPS = 8  # steps of a linear value per 8-bit level, on the way to LAB
_ROOT_BITS = 15  # a cube root of 1 on the way to LAB
_UNIT = 1 << 14  # a relative XYZ, or its root, of 1 on the way back
_LOWEST_ROOT = -8145
_OFFSET = 16 / 116  # CIE 1976: f(t) = 7.787 t + 16/116 for small t, else the cube root of t


def color_target(image: Image.Image) -> ColorTarget:
    """What the source gives to the correction."""
    return rgb_to_lab(np.asarray(image.convert("RGB")))


def correct_color(picture: Image.Image, target: ColorTarget) -> Image.Image:
    """`picture` with the colour distribution of `target` and its own luminosity."""
    pixels = np.asarray(picture.convert("RGB"))
    matched = lab_to_rgb(match_histograms(rgb_to_lab(pixels), target))
    return Image.fromarray(with_luminosity(matched, pixels))


def match_histograms(pixels: Bytes, target: Bytes) -> Bytes:
    """Each channel's values replaced so that their cumulative distribution follows the target's."""
    matched = np.empty_like(pixels)
    for channel in range(pixels.shape[-1]):
        given, wanted = pixels[..., channel], target[..., channel]
        ranks = np.cumsum(np.bincount(given.ravel(), minlength=256)) / given.size
        counts = np.bincount(wanted.ravel(), minlength=256)
        present = np.flatnonzero(counts)
        wanted_ranks = np.cumsum(counts[present]) / wanted.size
        curve = np.interp(ranks, wanted_ranks, present).astype(np.uint8)
        matched[..., channel] = curve[given]
    return matched


def with_luminosity(colors: Bytes, light: Bytes) -> Bytes:
    """The colours of one picture with the luminosity of another (blend mode "luminosity" of W3C Compositing, 10)."""
    shifted = colors / 255.0
    shifted += _luma(light / 255.0) - _luma(shifted)
    luma = _luma(shifted)
    low, high = shifted.min(axis=-1, keepdims=True), shifted.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # flat pixels divide by zero in the branch not taken
        shifted = np.where(low < 0, luma + (shifted - luma) * luma / (luma - low), shifted)
        shifted = np.where(high > 1, luma + (shifted - luma) * (1 - luma) / (high - luma), shifted)
    return (np.clip(shifted, 0, 1) * 255).astype(np.uint8)


def _luma(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # NOTE: a matrix product sums in another order, and the last bit decides where results are cut to bytes.
    return 0.299 * pixels[..., :1] + 0.587 * pixels[..., 1:2] + 0.114 * pixels[..., 2:]


def rgb_to_lab(pixels: Bytes) -> Bytes:  # (..., 3)
    """sRGB bytes to LAB bytes."""
    tables = _forward_tables()
    linear = tables.linear[pixels]
    xyz = _descaled(linear @ tables.matrix.T, _MATRIX_BITS)
    root = tables.root[xyz]
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    neutral, unit = 128 << _ROOT_BITS, 255 << _ROOT_BITS
    lab = np.stack([296 * y - (16 * unit + 50) // 100, 500 * (x - y) + neutral, 200 * (y - z) + neutral], axis=-1)
    return np.clip(_descaled(lab, _ROOT_BITS), 0, 255).astype(np.uint8)


def lab_to_rgb(lab: Bytes) -> Bytes:  # (..., 3)
    """LAB bytes to sRGB bytes; colours outside sRGB are cut off channel by channel."""
    tables = _backward_tables()
    lightness, a, b = (lab[..., channel].astype(np.int32) for channel in range(3))
    root = tables.root[lightness]
    root_x = root + ((5 * a * 53687 + (1 << 7)) >> 13) - 128 * _UNIT // 500
    root_z = root - ((b * 41943 + (1 << 4)) >> 9) + 128 * _UNIT // 200 - 1
    x, z = tables.cube[root_x - _LOWEST_ROOT], tables.cube[root_z - _LOWEST_ROOT]
    linear = _descaled(np.stack([x, tables.luminance[lightness], z], axis=-1) @ tables.matrix.T, 14)
    return tables.encoded[np.clip(linear, 0, len(tables.encoded) - 1)]


class _Forward(NamedTuple):
    matrix: Integers
    linear: Integers  # of an sRGB byte
    root: Integers  # of a relative X, Y or Z in steps of 1/(255*8)


class _Backward(NamedTuple):
    matrix: Integers
    root: Integers  # of Y, by L
    luminance: Integers  # Y, by L
    cube: Integers  # X or Z by its root, from _LOWEST_ROOT on
    encoded: Bytes  # the sRGB byte of a linear value in 1/4096


@cache
def _forward_tables() -> _Forward:
    byte = np.arange(256) / 255
    linear = np.where(byte <= 0.04045, byte / 12.92, ((byte + 0.055) / 1.055) ** 2.4)
    xyz = np.arange(256 * 3 // 2 * _LINEAR_STEPS) / (255 * _LINEAR_STEPS)
    root = np.where(xyz < 0.008856, 7.787 * xyz + _OFFSET, np.cbrt(xyz))
    return _Forward(
        _rounded((1 << _MATRIX_BITS) * _RGB_TO_XYZ / _D65[:, None]),
        _rounded(255 * _LINEAR_STEPS * linear),
        # NOTE: OpenCV rounds a float32; two entries are ties there that are none in float64.
        _rounded(((1 << _ROOT_BITS) * root).astype(np.float32)),
    )


@cache
def _backward_tables() -> _Backward:
    lightness = np.arange(256) * 100 / 255
    dark = lightness <= 8
    luminance = np.where(dark, lightness / 903.3, ((lightness + 16) / 116) ** 3)
    root = np.where(dark, 7.787 * luminance + _OFFSET, (lightness + 16) / 116)
    roots = np.arange(_LOWEST_ROOT, _LOWEST_ROOT + _UNIT * 9 // 4, dtype=np.int64)
    straight = np.trunc(roots * 108 / 841) - int(_UNIT * _OFFSET * 108 / 841)
    linear = np.arange(4096) / 4096
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return _Backward(
        _rounded((1 << _MATRIX_BITS) * _XYZ_TO_RGB * _D65),
        _rounded(_UNIT * root),
        _rounded(_UNIT * luminance),
        np.where(roots <= _UNIT * 6 // 29, straight, roots * roots // _UNIT * roots // _UNIT).astype(np.int32),
        np.rint(255 * encoded).astype(np.uint8),
    )


def _rounded(values: npt.NDArray[np.floating]) -> Integers:
    rounded: Integers = np.rint(values).astype(np.int32)
    return rounded


def _descaled(values: Integers, bits: int) -> Integers:
    return (values + (1 << (bits - 1))) >> bits
