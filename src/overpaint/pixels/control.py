"""Pictures that guide a ControlNet: brought to the size of the pass, and edges found in them.

Edges are those of Canny, "A Computational Approach to Edge Detection" (1986), in whole numbers as OpenCV has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from overpaint.pictures import flatten
from overpaint.pixels.mask import Box, to_gray_mask
from overpaint.pixels.preprocessors import preprocessed
from overpaint.pixels.resize import JUST_RESIZE, LATENT_UPSCALE, RESIZE_AND_FILL, resize_image
from overpaint.settings import Quirks

Ints = NDArray[np.int32]

_SHIFT = 15
_TAN_22 = 13573  # tan(22.5 degrees) in units of 2**-15; tan(67.5 degrees) is 2 more


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a pass looks: the size asked for, the networks' size, and the part of the source that alone is painted."""

    width: int
    height: int
    pass_width: int
    pass_height: int
    mode: int = JUST_RESIZE  # as the source is resized
    source_size: tuple[int, int] | None = None  # needed with a crop, which is in its pixels
    crop: Box | None = None


def control_picture(
    picture: Image.Image,
    frame: Frame,
    preprocessor: str = "none",
    *,
    amount: float | None = None,
    canny_low: int = 100,
    canny_high: int = 200,
    background: str = "#ffffff",
    quirks: Quirks | None = None,
) -> Image.Image:
    """What a ControlNet sees: the picture at the size of the pass, RGB, then preprocessed.

    In this order, so that edges are a pixel wide at the size that is painted.
    """
    fitted = fit_to_pass(flatten(picture, background), frame, quirks or Quirks())
    if preprocessor == "canny":
        return canny(fitted, canny_low, canny_high).convert("RGB")
    if preprocessor == "invert":
        return invert(fitted)
    return preprocessed(fitted, preprocessor, amount)


def control_region(mask: Image.Image, frame: Frame, quirks: Quirks) -> Image.Image:
    """Where a ControlNet counts: the mask in gray, at the size of the pass."""
    return fit_to_pass(to_gray_mask(mask, round_=False).convert("RGB"), frame, quirks).convert("L")


def fit_to_pass(picture: Image.Image, frame: Frame, quirks: Quirks) -> Image.Image:
    """An RGB picture, taken the way of the source: stretched, cropped or filled up, or cut out where that is."""
    wide, high = frame.pass_width, frame.pass_height
    if frame.crop is not None and frame.source_size is not None:
        whole = resize_image(JUST_RESIZE, picture, *frame.source_size, quirks=quirks)
        return resize_image(RESIZE_AND_FILL, whole.crop(frame.crop), wide, high, quirks=quirks)
    mode = JUST_RESIZE if frame.mode == LATENT_UPSCALE else frame.mode
    fitted = resize_image(mode, picture, frame.width, frame.height, quirks=quirks)
    if (wide, high) == fitted.size:
        return fitted
    edges = ((0, max(0, high - fitted.height)), (0, max(0, wide - fitted.width)), (0, 0))
    return Image.fromarray(np.pad(np.asarray(fitted), edges, mode="edge")[:high, :wide])


def invert(picture: Image.Image) -> Image.Image:
    """Dark lines on white become what line ControlNets know: white lines on black."""
    return ImageOps.invert(picture if picture.mode == "L" else picture.convert("RGB"))


def canny(picture: Image.Image, low: float, high: float) -> Image.Image:
    """Edges, 255 on 0, bit for bit those of OpenCV's Canny (8 bits, aperture 3, L1 norm).

    Of a colour picture each pixel counts by the channel that changes most there.
    """
    gray = picture.mode in ("1", "L")
    pixels = np.asarray(picture.convert("L" if gray else "RGB"), dtype=np.int32)
    dx, dy, magnitude = _gradient(pixels if pixels.ndim == 3 else pixels[:, :, None])
    low, high = sorted((int(low // 1), int(high // 1)))
    candidates = (magnitude > low) & _is_ridge(dx, dy, magnitude)
    strong = candidates & (magnitude > high)
    edges = _grown(strong, candidates & ~strong)
    return Image.fromarray(edges.astype(np.uint8) * np.uint8(255))


def _gradient(pixels: Ints) -> tuple[Ints, Ints, Ints]:
    """Sobel's derivatives and |dx| + |dy|, (h, w) each, of (h, w, channels)."""
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    across = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    dx, dy = down[:, 2:] - down[:, :-2], across[2:] - across[:-2]
    magnitude = np.abs(dx) + np.abs(dy)
    chosen = magnitude.argmax(axis=2)[:, :, None]  # the first of equals
    return tuple(np.take_along_axis(each, chosen, axis=2)[:, :, 0] for each in (dx, dy, magnitude))  # type: ignore[return-value]


def _is_ridge(dx: Ints, dy: Ints, magnitude: Ints) -> NDArray[np.bool_]:
    """Where nothing along the gradient is larger, in the nearest of four directions; beyond the picture all is 0."""
    around = np.pad(magnitude, 1)
    height, width = magnitude.shape

    def beside(rows: int, columns: int) -> Ints:
        return around[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    x, y = np.abs(dx), np.abs(dy) << _SHIFT
    flat = x * _TAN_22
    steep = flat + (x << (_SHIFT + 1))
    across = (magnitude > beside(0, -1)) & (magnitude >= beside(0, 1))
    along = (magnitude > beside(-1, 0)) & (magnitude >= beside(1, 0))
    falling = (magnitude > beside(-1, -1)) & (magnitude > beside(1, 1))
    rising = (magnitude > beside(-1, 1)) & (magnitude > beside(1, -1))
    diagonal = np.where((dx ^ dy) < 0, rising, falling)
    return np.where(y < flat, across, np.where(y > steep, along, diagonal))


def _grown(strong: NDArray[np.bool_], weak: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The strong pixels and the weak ones that touch them, directly or through others."""
    stride = strong.shape[1] + 2
    edges = np.pad(strong, 1)
    waiting = np.pad(weak, 1)
    steps = (-stride - 1, -stride, -stride + 1, -1, 1, stride - 1, stride, stride + 1)
    open_ = bytearray(waiting.tobytes())
    # A weak pixel is visited once; the first of each chain are found all at once.
    first = waiting & _touched(edges)
    stack = np.flatnonzero(first).tolist()
    for at in stack:
        open_[at] = 0
    while stack:
        at = stack.pop()
        for step in steps:
            if open_[at + step]:
                open_[at + step] = 0
                stack.append(at + step)
    left = np.frombuffer(open_, dtype=np.bool_).reshape(waiting.shape)
    return (edges | (waiting & ~left))[1:-1, 1:-1]


def _touched(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and its eight neighbours."""
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    both = rows.copy()
    both[:, 1:] |= rows[:, :-1]
    both[:, :-1] |= rows[:, 1:]
    return both
