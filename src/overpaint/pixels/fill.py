"""Colours from around the mask, flowing inwards: what `fill` paints before the encoder sees the picture."""

from __future__ import annotations

from PIL import Image, ImageFilter

from overpaint.pixels.composite import premultiplied_outside

_WASHES = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))  # blur radius, times it is laid on


def fill_masked(image: Image.Image, mask: Image.Image) -> Image.Image:
    """`image` with the masked part replaced by ever finer blurs of what lies outside the mask."""
    outside = premultiplied_outside(image, mask)
    filled = Image.new("RGBA", image.size)
    for radius, times in _WASHES:
        wash = outside.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            filled = Image.alpha_composite(filled, wash)
    return filled.convert("RGB")
