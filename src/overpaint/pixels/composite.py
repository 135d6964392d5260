"""Putting the new picture and the old one together: pasted back, blended, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps

from overpaint.errors import OverpaintError
from overpaint.pixels.resize import CROP_AND_RESIZE, RESIZE_AND_FILL, Upscaler, as_mode, resize_image
from overpaint.pixels.tiles import Box, Tiles
from overpaint.settings import Quirks

PasteBox = tuple[int, int, int, int]
"""Left, top, width, height: where the painted crop belongs."""

_TOUCHED = [0, *[255] * 255]
_STRIP = 1 << 22  # pixels that are looked at together


class PreservationError(OverpaintError):
    """A pixel outside the mask is not the source's; the result is not handed out."""


def make_overlay(
    image: Image.Image,
    overlay_mask: Image.Image,
    resize_mode: int,
    quirks: Quirks,
    *,
    upscaler: str | Upscaler | None = None,
) -> Image.Image:
    """The part of `image` that stays, as RGBA: opaque where the mask is black."""
    if overlay_mask.size != image.size:
        overlay_mask = resize_image(resize_mode, overlay_mask, *image.size, upscaler=upscaler, quirks=quirks)
    if image.mode != "RGB" or image.has_transparency_data:
        return premultiplied_outside(image, overlay_mask).convert("RGBA")
    overlay, mask = image.convert("RGBA"), as_mode(overlay_mask, "L")
    overlay.info.clear()
    if (box := mask.getbbox()) is not None:  # where the mask is black, the picture stays as it is
        _cut_out(overlay, image, mask, box)
    return overlay


def _cut_out(overlay: Image.Image, image: Image.Image, mask: Image.Image, area: Box) -> None:
    """Take the masked part out of the overlay. Nothing is left under white, so only tiles with gray are work."""
    tiles = Tiles.of(np.asarray(mask.crop(area)))
    is_white = tiles.low == 255

    def boxes(chosen: npt.NDArray[np.bool_]) -> Iterator[Box]:
        return ((area[0] + x1, area[1] + y1, area[0] + x2, area[1] + y2) for x1, y1, x2, y2 in tiles.boxes(chosen))

    for box in boxes(is_white):
        overlay.paste((0, 0, 0, 0), box)
    for box in boxes((tiles.high > 0) & ~is_white):
        overlay.paste(premultiplied_outside(image.crop(box), mask.crop(box)).convert("RGBA"), box)


def premultiplied_outside(image: Image.Image, mask: Image.Image) -> Image.Image:
    """`image` through the inverted mask on a transparent canvas, colours multiplied by their alpha (RGBa)."""
    canvas = Image.new("RGBa", image.size)
    canvas.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    return canvas


def uncrop(
    picture: Image.Image,
    paste_to: PasteBox,
    size: tuple[int, int],
    quirks: Quirks,
    *,
    upscaler: str | Upscaler | None = None,
) -> Image.Image:
    """A painted crop at its place on a transparent canvas of `size`."""
    left, top, width, height = paste_to
    canvas = Image.new("RGBA", size)
    canvas.paste(resize_image(CROP_AND_RESIZE, picture, width, height, upscaler=upscaler, quirks=quirks), (left, top))
    return canvas


def apply_overlay(
    picture: Image.Image,
    overlay: Image.Image | None,
    paste_to: PasteBox | None,
    quirks: Quirks,
    *,
    upscaler: str | Upscaler | None = None,
) -> tuple[Image.Image, Image.Image]:
    """The reference's composite: the finished picture, and the picture before the overlay covered it."""
    if overlay is None:
        return picture, picture.copy()
    if paste_to is not None:
        picture = uncrop(picture, paste_to, overlay.size, quirks, upscaler=upscaler)
    original_denoised = picture.copy()
    covered = picture.convert("RGBA")
    covered.alpha_composite(overlay.crop((0, 0, *picture.size)))  # IMG-6: an overlay may be larger by a few pixels
    return covered.convert("RGB"), original_denoised


def mask_composite(original_denoised: Image.Image, overlay_mask: Image.Image) -> Image.Image:
    """Only what was repainted, on a transparent ground."""
    size = original_denoised.size
    # IMG-6: the sizes differ only where the reference floors an odd size, so its own resize is the one to use.
    stencil = resize_image(RESIZE_AND_FILL, overlay_mask, *size, quirks=Quirks.reference()).convert("L")
    painted = original_denoised.convert("RGBA").convert("RGBa")
    return Image.composite(painted, Image.new("RGBa", size), stencil).convert("RGBA")


def paste_back(
    base: Image.Image, picture: Image.Image, crop: Box, *, upscaler: str | Upscaler | None = None
) -> Image.Image:
    """`base` with the painted crop resized to `crop` and laid at its place."""
    left, top, right, bottom = crop
    pasted = base.copy()
    size = right - left, bottom - top
    fitted = resize_image(CROP_AND_RESIZE, picture, *size, upscaler=upscaler, quirks=Quirks.none())
    pasted.paste(fitted, (left, top))
    return pasted


def composite_exact(
    source: Image.Image, base: Image.Image, picture: Image.Image, overlay_mask: Image.Image | None
) -> Image.Image:
    """`picture` over the source where `overlay_mask` is white (everywhere without one); under black the source.

    `base` is the source at the size of the result; where that is the source's own size, the source itself is the ground
    and keeps its transparency. Colours are blended straight and rounded, so that no byte under black mask changes.
    """
    ground = source if source.size == base.size else base
    mask = Image.new("L", ground.size, 255) if overlay_mask is None else overlay_mask.convert("L")
    for name, size in (("picture", picture.size), ("overlay mask", mask.size)):
        if size != ground.size:
            wanted = f"{ground.width}x{ground.height}"
            raise PreservationError(f"the {name} is {size[0]}x{size[1]}: bring it to the {wanted} of the source first")
    result = with_colours(ground)
    result = result.copy() if result is ground else result
    result.info = {}
    if (box := mask.getbbox()) is not None:
        for strip in strips(box):
            result.paste(blended(result.crop(strip), picture.crop(strip), mask.crop(strip)), strip)
    return result


def blended(ground: Image.Image, picture: Image.Image, mask: Image.Image | None) -> Image.Image:
    """`picture` over RGB, RGBA or CMYK where the mask is white, everywhere without one; alpha stays the ground's."""
    pixels = np.array(ground)
    channels = 4 if ground.mode == "CMYK" else 3
    new = np.asarray(as_mode(picture, "CMYK" if ground.mode == "CMYK" else "RGB"))
    if mask is None:
        pixels[..., :channels] = new
    else:
        weight = np.asarray(mask)[..., None].astype(np.uint16)
        pixels[..., :channels] = (pixels[..., :channels] * (255 - weight) + new * weight + 127) // 255
    return Image.fromarray(pixels, ground.mode) if ground.mode == "CMYK" else Image.fromarray(pixels)


def strips(box: Box) -> Iterator[Box]:
    """A box in parts of full width, so that a camera's picture is never whole in wide numbers."""
    left, top, right, bottom = box
    rows = max(1, _STRIP // (right - left))
    for start in range(top, bottom, rows):
        yield left, start, right, min(start + rows, bottom)


def assert_untouched(source: Image.Image, result: Image.Image, mask: Image.Image) -> None:
    """Raise unless every pixel under black mask is, alpha included, the source's."""
    if not source.size == result.size == mask.size:
        raise PreservationError(f"source, result and mask differ in size: {source.size}, {result.size}, {mask.size}")
    changed, first = 0, (0, 0)
    for strip in strips((0, 0, *result.size)):
        before, after, shown = source.crop(strip), result.crop(strip), mask.crop(strip).convert("L")
        if _differs_only_under(shown, before, after):
            continue
        wrong = changed_pixels(before, after) & (np.asarray(shown) == 0)
        if not changed and wrong.any():
            row, column = np.argwhere(wrong)[0]
            first = int(column), int(row) + strip[1]
        changed += int(wrong.sum())
    if changed:
        raise _touched(changed, first)


def check_samples(before: npt.NDArray[Any], after: npt.NDArray[Any], mask: Image.Image) -> None:
    """The same for arrays of samples (height, width, channels), at any depth."""
    wrong = (before != after).any(axis=-1) & (np.asarray(mask) == 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise _touched(int(wrong.sum()), (int(column), int(row)))


def _touched(changed: int, first: tuple[int, int]) -> PreservationError:
    return PreservationError(
        f"{changed} pixels outside the mask changed, the first at x={first[0]}, y={first[1]}: "
        "nothing was handed out; report this together with the request"
    )


def _differs_only_under(mask: Image.Image, before: Image.Image, after: Image.Image) -> bool:
    """The quick answer, for pictures that are as they should be."""
    difference = ImageChops.difference(with_colours(before).convert(after.mode), after)
    difference.paste(Image.new(after.mode, after.size), mask=mask.point(_TOUCHED))
    return difference.getbbox(alpha_only=False) is None


def changed_pixels(source: Image.Image, result: Image.Image) -> npt.NDArray[np.bool_]:  # (height, width)
    """Where two pictures of one size differ in any channel; transparency counts if `result` has it."""
    before = np.asarray(with_colours(source).convert(result.mode))
    different: npt.NDArray[np.bool_] = np.not_equal(before, np.asarray(result))
    return np.logical_or.reduce(different, axis=-1) if different.ndim == 3 else different


def with_colours(image: Image.Image) -> Image.Image:
    """RGB or, where something is transparent, RGBA; the picture itself if it is that."""
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode and "transparency" not in image.info else image.convert(mode)
