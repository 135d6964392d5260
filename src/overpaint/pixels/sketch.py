"""A picture somebody drew on: where the drawing is, and the soft start it gives."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from overpaint.errors import RequestError


def mask_from_sketch(original: Image.Image, sketch: Image.Image, mask_alpha: float = 0) -> Image.Image:
    """White where the sketch differs from the original, made darker by `mask_alpha` percent."""
    before, after = _pair(original, sketch)
    drawn = (np.asarray(before) != np.asarray(after)).any(axis=-1)
    mask = Image.fromarray(np.where(drawn, 255, 0).astype(np.uint8))
    return ImageEnhance.Brightness(mask).enhance(1 - mask_alpha / 100)


def inpaint_sketch_source(
    original: Image.Image, sketch: Image.Image, mask: Image.Image, mask_blur: float
) -> Image.Image:
    """The picture to start from: the blurred drawing over the original, through the blurred mask."""
    before, after = _pair(original, sketch)
    blur = ImageFilter.GaussianBlur(mask_blur)
    return Image.composite(after.filter(blur), before, mask.filter(blur))


def _pair(original: Image.Image, sketch: Image.Image) -> tuple[Image.Image, Image.Image]:
    if original.size != sketch.size:
        raise RequestError("sketch", sketch.size, f"draw on a copy of the original, {original.width}x{original.height}")
    return original.convert("RGB"), sketch.convert("RGB")
