"""The mask, from what a client sends to what the crop, the overlay and the latent space need. White = repaint."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from overpaint.pixels.resize import as_mode, resample
from overpaint.pixels.tiles import Box, Tiles, gray_pixels
from overpaint.settings import Quirks

__all__ = [
    "Box",
    "blur_mask",
    "crop_region",
    "expand_crop_region",
    "invert",
    "latent_mask",
    "overlay_mask_whole",
    "to_gray_mask",
]

LATENT_CELL = 8
_BLUR_BLOCK = 128
_SHORT_REACH = 20  # pixels


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

    A blur leaves alone what is of one gray as far as it reaches, so only the tiles near an edge are worked on.
    With `never_darker` every pixel keeps at least the gray that it had.
    """
    blurred, box = mask.copy(), mask.getbbox()
    if box is None or max(sigma_x, sigma_y) <= 0:
        return blurred
    area = widened(box, blur_reach(sigma_x) + 1, blur_reach(sigma_y) + 1, mask.size)
    given = gray_pixels(mask, area)
    for part, pixels in _blurred_tiles(given, sigma_x, sigma_y):
        left, top, right, bottom = part
        made = np.maximum(pixels, given[top:bottom, left:right]) if never_darker else pixels
        blurred.paste(Image.fromarray(np.ascontiguousarray(made)), (area[0] + left, area[1] + top))
    return blurred


def _blurred_tiles(
    given: npt.NDArray[np.uint8], sigma_x: float, sigma_y: float
) -> Iterator[tuple[Box, npt.NDArray[np.uint8]]]:
    """Where a blur changes anything, and what is there after it."""
    near_across = Tiles.of(given).spread(blur_reach(sigma_x), 0)
    near = near_across.spread(0, blur_reach(sigma_y))
    across = given
    if sigma_x > 0:
        across = given.copy()
        for left, top, right, bottom in near_across.boxes(near_across.varied):
            across[top:bottom, left:right] = _blurred_rows(given[top:bottom].T, left, right, sigma_x).T
    for box in near.boxes(near.varied):
        left, top, right, bottom = box
        if sigma_y > 0:
            yield box, _blurred_rows(across[:, left:right], top, bottom, sigma_y)
        else:
            yield box, across[top:bottom, left:right]


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


def ground_of(mask: Image.Image) -> tuple[int, Box | None]:
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


def _blurred_rows(pixels: npt.NDArray[np.uint8], start: int, stop: int, sigma: float) -> npt.NDArray[np.uint8]:
    """Lines `start` to `stop` of a blur along the first axis, mirrored at the border without repeating the edge line.

    Every partial sum is an integer below 2**16, so both ways to add up are exact.
    """
    weights = _gaussian_weights(sigma)
    radius = len(weights) // 2
    add_up = _sums if radius <= _SHORT_REACH else _banded_sums
    blurred = np.empty((stop - start, pixels.shape[1]), np.uint8)
    for first in range(start, stop, _BLUR_BLOCK):
        lines = min(_BLUR_BLOCK, stop - first)
        given = _mirrored(pixels, first - radius, first + lines + radius)
        blurred[first - start : first - start + lines] = (add_up(given, weights) + 128) >> 8  # rounded
    return blurred


def _sums(given: npt.NDArray[np.uint8], weights: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """Weight by weight; the two lines at one distance share theirs."""
    radius = len(weights) // 2
    lines = len(given) - 2 * radius
    sums = np.multiply(given[radius : radius + lines], np.uint16(weights[radius]), dtype=np.uint16)
    for i in np.flatnonzero(weights[:radius]).tolist():
        far = 2 * radius - i
        pair = np.add(given[i : i + lines], given[far : far + lines], dtype=np.uint16)
        pair *= np.uint16(weights[i])
        sums += pair
    return sums


def _banded_sums(given: npt.NDArray[np.uint8], weights: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
    """As the product with a banded matrix, which is quicker for many weights. float32 holds such integers exactly."""
    lines = len(given) - len(weights) + 1
    band = np.zeros((lines, len(given)), dtype=np.float32)
    for line in range(lines):
        band[line, line : line + len(weights)] = weights
    sums: npt.NDArray[np.float32] = band @ given.astype(np.float32)
    return sums.astype(np.uint16)


def _mirrored(pixels: npt.NDArray[np.uint8], start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Lines `start` to `stop`; those beyond the border are the ones as far on this side of it."""
    size = len(pixels)
    if start >= 0 and stop <= size:
        return pixels[start:stop]
    there_and_back = max(2 * (size - 1), 1)
    lines = np.arange(start, stop) % there_and_back
    return pixels[np.minimum(lines, there_and_back - lines) if size > 1 else lines * 0]
