"""The mask, from what a client sends to what the crop, the overlay and the latent space need. White = repaint."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from overpaint.pixels.resize import as_mode, resample
from overpaint.settings import Quirks

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""

LATENT_CELL = 8
_BLUR_BLOCK = 128


def to_gray_mask(mask: Image.Image, round_: bool) -> Image.Image:
    """One 8-bit channel. A mask with transparency means its alpha; only then does `round_` act here."""
    if mask.mode != "RGBA" or mask.getextrema()[-1] == (255, 255):
        return as_mode(mask, "L")
    alpha = mask.getchannel("A")
    return alpha.point([255 * (value > 128) for value in range(256)]) if round_ else alpha


def invert(mask: Image.Image) -> Image.Image:
    """Repaint what was kept and keep what was repainted."""
    return ImageOps.invert(mask)


def blur_mask(mask: Image.Image, sigma_x: float, sigma_y: float, *, never_darker: bool = False) -> Image.Image:
    """Gaussian blur of a gray mask, first along rows, then along columns, rounded to 8 bits after each.

    Most masks are black, or white, but for a box. Only there, and as far around it as a blur reaches, is work to do.
    With `never_darker` every pixel keeps at least the gray that it had.
    """
    ground, box = _ground(mask)
    if box is None or max(sigma_x, sigma_y) <= 0:
        return mask.copy()
    area = widened(box, blur_reach(sigma_x) + 1, blur_reach(sigma_y) + 1, mask.size)
    given = np.asarray(mask.crop(area), dtype=np.uint8)
    pixels = given
    if sigma_x > 0:
        pixels = _blurred_rows(pixels.T, sigma_x).T
    if sigma_y > 0:
        pixels = _blurred_rows(pixels, sigma_y)
    if never_darker:
        pixels = np.maximum(pixels, given)
    blurred = Image.new("L", mask.size, ground)
    blurred.paste(Image.fromarray(np.ascontiguousarray(pixels)), area)
    return blurred


def crop_region(mask: Image.Image, padding: int) -> Box | None:
    """The box round everything that is not black, widened by `padding` within the mask; None for a black mask."""
    box = mask.getbbox()
    if box is None:
        return None
    return widened(box, padding, padding, mask.size)


def expand_crop_region(box: Box, width: int, height: int, image_width: int, image_height: int) -> Box:
    """`box` grown to the shape of `width` x `height` as far as the picture reaches."""
    left, top, right, bottom = box
    wanted = width / height
    if (right - left) / (bottom - top) > wanted:
        missing = int((right - left) / wanted - (bottom - top))
        top, bottom = _grown(top, bottom, missing, image_height)
    else:
        missing = int((bottom - top) * wanted - (right - left))
        left, right = _grown(left, right, missing, image_width)
    return left, top, right, bottom


def latent_mask(
    mask: Image.Image, latent_width: int, latent_height: int, round_: bool, quirks: Quirks
) -> npt.NDArray[np.float32]:  # (latent_height, latent_width)
    """The mask in latent space, 1 = repaint. A cell counts as much as the strongest pixel it holds."""
    if quirks.resample_latent_mask:
        small = resample(mask.convert("RGB"), latent_width, latent_height, Image.Resampling.BICUBIC)
        cells = np.asarray(small.getchannel(0), dtype=np.uint8)
    else:
        rows = _strongest(np.asarray(mask.convert("L"), dtype=np.uint8), latent_height)
        cells = _strongest(rows.T, latent_width).T
    values = cells.astype(np.float32) / 255
    return np.around(values) if round_ else np.ascontiguousarray(values)


def overlay_mask_whole(mask: Image.Image) -> Image.Image:
    """What covers the picture of a whole-picture job: doubled, so that the repainted side of a soft edge is all new."""
    return mask.point([min(255, 2 * value) for value in range(256)] * len(mask.getbands()))


def _ground(mask: Image.Image) -> tuple[int, Box | None]:
    """Black or white, whichever is more of the mask, and the box round everything else; None if there is nothing."""
    box = mask.getbbox()
    if box is None or 2 * _area(box) <= mask.width * mask.height:
        return 0, box
    of_black = ImageOps.invert(mask).getbbox()
    if of_black is None or _area(of_black) < _area(box):
        return 255, of_black
    return 0, box


def _area(box: Box) -> int:
    left, top, right, bottom = box
    return (right - left) * (bottom - top)


def widened(box: Box, across: int, down: int, size: tuple[int, int]) -> Box:
    """The box with so much more on each side, as far as there is a picture."""
    left, top, right, bottom = box
    return max(left - across, 0), max(top - down, 0), min(right + across, size[0]), min(bottom + down, size[1])


def _grown(low: int, high: int, missing: int, limit: int) -> tuple[int, int]:
    low -= missing // 2
    high += missing - missing // 2
    if high >= limit:
        low, high = low - (high - limit), limit
    if low < 0:
        low, high = 0, high - low
    return low, min(high, limit)


def _strongest(pixels: npt.NDArray[np.uint8], cells: int) -> npt.NDArray[np.uint8]:
    """The maximum of each of `cells` strips of rows; a last strip may be thinner, strips may share a row."""
    size = len(pixels)
    step = LATENT_CELL if math.ceil(size / LATENT_CELL) == cells else size / cells
    strips = (pixels[math.floor(i * step) : math.ceil((i + 1) * step)] for i in range(cells))
    return np.stack([strip.max(axis=0) for strip in strips])


def blur_reach(sigma: float) -> int:
    """How far a blur reaches, in pixels."""
    return int(2.5 * sigma + 0.5) if sigma > 0 else 0


def _gaussian_weights(sigma: float) -> npt.NDArray[np.int64]:
    """A Gaussian in units of 1/256 whose sum is 256: each rounding error is handed on to the next weight inwards."""
    radius = blur_reach(sigma)
    offsets = np.arange(-radius, 1)
    tail = np.exp(-(offsets**2) / (2 * sigma**2))
    tail *= 256 / (2 * tail.sum() - tail[-1])
    weights = np.zeros(2 * radius + 1, dtype=np.int64)
    error = 0.0
    for i in range(radius):
        exact = float(tail[i]) + error
        weights[i] = weights[-1 - i] = round(exact)
        error = exact - round(exact)
    weights[radius] = 256 - weights.sum()
    return weights


def _blurred_rows(pixels: npt.NDArray[np.uint8], sigma: float) -> npt.NDArray[np.uint8]:
    """Blur along the first axis, mirrored at the border without repeating the edge line.

    Blocks of lines are products with one banded matrix. Every partial sum is an integer below 2**16, so float32 is
    exact in any order of summation. Where a column is of one gray throughout a block, it stays that.
    """
    weights = _gaussian_weights(sigma)
    size, radius = len(pixels), len(weights) // 2
    padded = np.pad(pixels, ((radius, radius), (0, 0)), mode="reflect")  # in the order of `pixels`: nothing is turned
    block = min(_BLUR_BLOCK, size)
    band = np.zeros((block, block + 2 * radius), dtype=np.float32)
    for line in range(block):
        band[line, line : line + len(weights)] = weights
    blurred = np.empty_like(pixels)
    for start in range(0, size, block):
        lines = min(block, size - start)
        given, made = padded[start : start + lines + 2 * radius], blurred[start : start + lines]
        made[:] = lowest = given.min(axis=0)
        varied = lowest != given.max(axis=0)
        sums = band[:lines, : lines + 2 * radius] @ given[:, varied].astype(np.float32)
        made[:, varied] = (sums.astype(np.uint16) + 128) >> 8  # rounded
    return blurred
