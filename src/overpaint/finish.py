"""After the decoder: colour correction, pasting back, compositing over the source. Pure, and without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from overpaint.pictures import source_extras
from overpaint.pixels.color import correct_color
from overpaint.pixels.composite import (
    apply_overlay,
    assert_untouched,
    composite_exact,
    make_overlay,
    mask_composite,
    paste_back,
)
from overpaint.pixels.resize import resize_image
from overpaint.pixels.seams import Seam, best, measure_seam, mended
from overpaint.pixels.soft import adaptive_mask, soft_overlay_mask
from overpaint.planning.canvas import RESIZE_FILL, Canvas, MaskPlan
from overpaint.planning.plans import Plan
from overpaint.request import Picture, SoftInpainting


@dataclass(frozen=True)
class FinishedPicture:
    """One result, with the extra outputs that options may ask for."""

    image: Picture
    uncorrected: Picture | None = None
    mask: Picture | None = None
    mask_composite: Picture | None = None
    seam: Seam | None = None  # of an inpainted one


@dataclass(frozen=True)
class SoftLatents:
    """What soft inpainting compares to find how much each place changed; (4, h/8, w/8) each."""

    sampled: NDArray[np.float32]
    source: NDArray[np.float32]
    nmask: NDArray[np.float32]


def finish(plan: Plan, place: int, pixels: NDArray[np.uint8], soft: SoftLatents | None = None) -> FinishedPicture:
    """OUT-1 for the picture at a place of its iteration."""
    if not plan.canvases:
        return FinishedPicture(_cut_to(plan, Image.fromarray(pixels)))
    canvas = plan.canvas_of(place)
    mask = plan.mask
    if soft is not None and mask is not None and plan.request.soft_inpainting is not None:
        mask = _adapted(plan, mask, soft, plan.request.soft_inpainting)
    picture = Image.fromarray(pixels)
    corrected = picture if canvas.target is None else correct_color(picture, canvas.target)
    keep_uncorrected = canvas.target is not None and plan.settings.save_images_before_color_correction
    image, painted, seam = _composited(plan, canvas, mask, corrected, adapted=mask is not plan.mask)
    return FinishedPicture(
        image if plan.settings.quirks.drop_source_extras else _carrying(canvas.source, image),
        _composited(plan, canvas, mask, picture, adapted=mask is not plan.mask)[0] if keep_uncorrected else None,
        *_mask_outputs(plan, mask, painted),
        seam,
    )


def unchanged(plan: Plan, place: int) -> FinishedPicture:
    """The result of a job that changes nothing: the source itself, at the size that was asked for."""
    canvas = plan.canvas_of(place)
    cropped = plan.request.only_masked and plan.request.mask is not None
    kept = canvas.source if cropped or canvas.base.size == canvas.source.size else canvas.base
    return FinishedPicture(_carrying(canvas.source, kept.copy()))


def _carrying(source: Picture, image: Picture) -> Picture:
    """The result with the source's EXIF and colour profile, which say how to show its pixels."""
    extras = source_extras(source)
    found = {"icc_profile": extras.icc, "exif": extras.exif}
    image.info.update({name: value for name, value in found.items() if value is not None})
    return image


def _composited(
    plan: Plan, canvas: Canvas, mask: MaskPlan | None, picture: Picture, *, adapted: bool
) -> tuple[Picture, Picture, Seam | None]:
    """The finished picture, the painted one before the kept part was laid over it, and the seam between them."""
    if mask is None or mask.crop is None:
        picture = _cut_to(plan, picture)
    if plan.settings.quirks.drop_source_extras:
        image, painted = _under_overlay(plan, canvas, mask, picture, adapted=adapted)
        return image, painted, _seam_of(plan, canvas, mask, image)
    return _over_source(plan, canvas, mask, picture)


def _seam_of(plan: Plan, canvas: Canvas, mask: MaskPlan | None, image: Picture) -> Seam | None:
    """What the reference's way leaves to see."""
    if mask is None or not plan.settings.overlay_inpaint:
        return None
    base, alpha = canvas.base, mask.overlay.convert("L")
    same = base.size == alpha.size == image.size
    return measure_seam(base, image, alpha) if same else None


def _cut_to(plan: Plan, picture: Picture) -> Picture:
    """The size that was asked for; the reference keeps what the networks could take (IMG-6)."""
    if plan.settings.quirks.floor_odd_sizes:
        return picture
    return picture.crop((0, 0, plan.geometry.width, plan.geometry.height))


def _under_overlay(
    plan: Plan, canvas: Canvas, mask: MaskPlan | None, picture: Picture, *, adapted: bool
) -> tuple[Picture, Picture]:
    """The reference's way (OUT-2): a premultiplied overlay of the kept part covers the picture."""
    quirks, upscaler = plan.settings.quirks, plan.upscaler
    shows_overlay = plan.settings.overlay_inpaint
    if mask is not None and mask.crop is not None and not shows_overlay and not quirks.bare_crop_without_overlay:
        pasted = paste_back(canvas.base, picture, mask.crop, upscaler=upscaler)
        return pasted, pasted
    overlay = canvas.overlay if shows_overlay else None
    if overlay is not None and adapted and mask is not None:
        overlay = make_overlay(canvas.base, mask.overlay, 0, quirks)
    return apply_overlay(picture, overlay, mask.paste_to if mask is not None else None, quirks, upscaler=upscaler)


def _over_source(
    plan: Plan, canvas: Canvas, mask: MaskPlan | None, picture: Picture
) -> tuple[Picture, Picture, Seam | None]:
    """The sane way: only what the mask touches is blended into the source, and that is checked."""
    if mask is None:
        return composite_exact(canvas.source, _cut(canvas.base, picture.size), picture, None), picture, None
    if mask.crop is None:
        painted, base, alpha = picture, _cut(canvas.base, picture.size), _cut(mask.overlay.convert("L"), picture.size)
    else:
        painted = paste_back(canvas.base, picture, mask.crop, upscaler=plan.upscaler)
        base, alpha = canvas.base, _only_inside(mask.overlay.convert("L"), mask.crop)
    if not plan.settings.overlay_inpaint:
        alpha = _everything(alpha, mask)
    result, painted, seam = _blended(plan, canvas, (base, painted, alpha), mask.crop)
    assert_untouched(canvas.source if canvas.source.size == result.size else base, result, alpha)
    return result, painted, seam


def _blended(
    plan: Plan, canvas: Canvas, layers: tuple[Picture, Picture, Picture], crop: tuple[int, int, int, int] | None
) -> tuple[Picture, Picture, Seam | None]:
    """The composite as it is or, with blend="auto", the one of several whose seam is least to be seen."""
    base, painted, alpha = layers
    result = composite_exact(canvas.source, base, painted, alpha)
    seam = measure_seam(base, result, alpha)
    if plan.request.blend != "auto" or seam is None:
        return result, painted, seam
    others = mended(base, painted, alpha, crop)
    made = [composite_exact(canvas.source, base, each, alpha) for _, each in others]
    seams = [measure_seam(base, each, alpha, how) or seam for each, (how, _) in zip(made, others, strict=True)]
    chosen = best(seam, seams)
    return (result, painted, seam) if chosen is None else (made[chosen], others[chosen][1], seams[chosen])


def _cut(picture: Picture, size: tuple[int, int]) -> Picture:
    """IMG-6: with floored sizes the picture is a few pixels smaller than its ground."""
    return picture if picture.size == size else picture.crop((0, 0, *size))


def _only_inside(alpha: Picture, crop: tuple[int, int, int, int]) -> Picture:
    """A blurred mask may reach past a crop that the picture's edge cut short."""
    inside = Image.new("L", alpha.size, 0)
    inside.paste(alpha.crop(crop), crop[:2])
    return inside


def _everything(alpha: Picture, mask: MaskPlan) -> Picture:
    """Without an overlay the whole pass is shown, within its crop."""
    if mask.crop is None:
        return Image.new("L", alpha.size, 255)
    shown = Image.new("L", alpha.size, 0)
    shown.paste(255, mask.crop)
    return shown


def _adapted(plan: Plan, mask: MaskPlan, soft: SoftLatents, parameters: SoftInpainting) -> MaskPlan:
    """SOFT-4: the overlay mask found from what actually changed."""
    geometry = plan.geometry
    raw = adaptive_mask(soft.sampled, soft.source, soft.nmask[0], parameters)
    small = Image.fromarray(raw)
    quirks = plan.settings.quirks
    resized = resize_image(RESIZE_FILL, small, geometry.pass_width, geometry.pass_height, quirks=quirks)
    found = soft_overlay_mask(resized, mask.paste_to, mask.overlay.size, quirks)
    if not quirks.drop_source_extras:
        touched = mask.overlay.convert("L").point(lambda value: 255 if value else 0)
        found = ImageChops.darker(found.crop((0, 0, *mask.overlay.size)), touched)
    return replace(mask, overlay=found)


def _mask_outputs(plan: Plan, mask: MaskPlan | None, painted: Picture) -> tuple[Picture | None, Picture | None]:
    """OUT-4: the mask, and the painted part alone on nothing."""
    settings = plan.settings
    if mask is None:
        return None, None
    shown = mask.overlay.convert("RGB") if settings.return_mask or settings.save_mask else None
    composite = settings.return_mask_composite or settings.save_mask_composite
    return shown, mask_composite(painted, mask.overlay) if composite else None
