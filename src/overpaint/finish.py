"""After the decoder: colour correction, pasting back, compositing over the source. Pure, and without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from overpaint.pixels.color import correct_color
from overpaint.pixels.composite import (
    apply_overlay,
    composite_exact,
    make_overlay,
    mask_composite,
    paste_back,
)
from overpaint.pixels.ground import Ground
from overpaint.pixels.mask import Box, widened
from overpaint.pixels.resize import as_mode, resize_image
from overpaint.pixels.seams import BAND, Mend, Seam, best, coverage_of, measure_seam, mended
from overpaint.pixels.soft import adaptive_mask, soft_overlay_mask
from overpaint.planning.canvas_pixels import RESIZE_FILL, Canvas, MaskPlan
from overpaint.planning.plans import Plan
from overpaint.request import Picture, SoftInpainting

Painted = Callable[[], Picture]
"""Makes the painted picture, at the size of the result, when somebody wants it."""


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
        image if plan.settings.quirks.drop_source_extras else _carrying(canvas.ground, image),
        _composited(plan, canvas, mask, picture, adapted=mask is not plan.mask)[0] if keep_uncorrected else None,
        *_mask_outputs(plan, mask, painted),
        seam,
    )


def unchanged(plan: Plan, place: int) -> FinishedPicture:
    """The result of a job that changes nothing: the source itself, at the size that was asked for."""
    canvas = plan.canvas_of(place)
    cropped = plan.request.only_masked and plan.request.mask is not None
    is_source = cropped or canvas.base.size == canvas.source.size
    if plan.settings.quirks.drop_source_extras:
        return FinishedPicture((canvas.source if is_source else canvas.base).copy())
    kept = canvas.ground.unchanged() if is_source else canvas.ground.brought_back(canvas.base.copy())
    return FinishedPicture(_carrying(canvas.ground, kept))


def _carrying(ground: Ground, image: Picture) -> Picture:
    """The result with what its source has beside its pixels."""
    kept = ground.carried(image)
    if "icc_profile" not in kept:
        image.info.pop("icc_profile", None)
    image.info.update(kept)
    return image


def _composited(
    plan: Plan, canvas: Canvas, mask: MaskPlan | None, picture: Picture, *, adapted: bool
) -> tuple[Picture, Painted, Seam | None]:
    """The finished picture, the painted one before the kept part was laid over it, and the seam between them."""
    if mask is None or mask.crop is None:
        picture = _cut_to(plan, picture)
    if plan.settings.quirks.drop_source_extras:
        image, painted = _under_overlay(plan, canvas, mask, picture, adapted=adapted)
        return image, lambda: painted, _seam_of(plan, canvas, mask, image)
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
) -> tuple[Picture, Painted, Seam | None]:
    """The sane way: only what the mask touches is blended into the source, and that is checked.

    No more of the source than that is looked at: what lies beside it goes into the result as it is.
    """
    crop = None if mask is None else mask.crop
    ground = _ground(canvas, picture.size if crop is None else canvas.ground.size)
    if mask is None:
        image = ground.with_painted((0, 0, *picture.size), picture, None)
        return _in_own_colours(canvas, ground, image), lambda: picture, None
    area, alpha = _shown(plan, mask, ground.size)
    old = ground.seen(area)
    if crop is None:
        painted, within = picture.crop(area), None
    else:
        within = _moved(crop, area)
        painted = paste_back(old, picture, within, upscaler=plan.upscaler)
    painted, seam = _blended(plan, old, painted, alpha, within)
    image = ground.with_painted(area, painted, alpha)
    ground.check_untouched(area, image, alpha)
    seam = None if seam is None else replace(seam, coverage=coverage_of(alpha, ground.size))

    def whole() -> Picture:
        result = (picture if crop is None else ground.seen()).copy()
        result.paste(painted, area)
        return result

    return _in_own_colours(canvas, ground, image), whole, seam


def _ground(canvas: Canvas, size: tuple[int, int]) -> Ground:
    """What the result is laid on: the source itself or, where the result has another size, what became of it."""
    if canvas.ground.size == size:
        return canvas.ground
    base = canvas.base
    # IMG-6: with floored sizes the picture is a few pixels smaller than its ground.
    return Ground(base if base.size == size else base.crop((0, 0, *size)), canvas.ground.background)


def _in_own_colours(canvas: Canvas, ground: Ground, image: Picture) -> Picture:
    return image if ground is canvas.ground else canvas.ground.brought_back(image)


def _shown(plan: Plan, mask: MaskPlan, size: tuple[int, int]) -> tuple[Box, Picture]:
    """The part of the picture that matters, some pixels round what may change, and how much shows there (gray)."""
    overlay, within = as_mode(mask.overlay, "L"), mask.crop or (0, 0, *size)
    shows_all = not plan.settings.overlay_inpaint  # the whole pass, within its crop
    touched = within if shows_all else overlay.getbbox()
    if touched is None:
        return (0, 0, 1, 1), Image.new("L", (1, 1))
    area = widened(touched, 2 * BAND, 2 * BAND, size)
    alpha = Image.new("L", (area[2] - area[0], area[3] - area[1]))
    inside = _moved(within, area)
    # A blurred mask may reach past a crop that the picture's edge cut short.
    alpha.paste(255 if shows_all else overlay.crop(within), inside)
    return area, alpha


def _moved(box: Box, area: Box) -> Box:
    """A box as it lies in an area."""
    left, top = area[:2]
    return box[0] - left, box[1] - top, box[2] - left, box[3] - top


def _blended(
    plan: Plan, old: Picture, painted: Picture, alpha: Picture, crop: Box | None
) -> tuple[Picture, Seam | None]:
    """What was painted or, with blend="auto", drawn to its surroundings in the way that shows least."""

    def seam_of(each: Picture, how: Mend = "plain") -> Seam | None:
        return measure_seam(old, composite_exact(old, old, each, alpha), alpha, how)

    seam = seam_of(painted)
    if plan.request.blend != "auto" or seam is None:
        return painted, seam
    others = mended(old, painted, alpha, crop)
    seams = [seam_of(each, how) or seam for how, each in others]
    chosen = best(seam, seams)
    return (painted, seam) if chosen is None else (others[chosen][1], seams[chosen])


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
    return replace(mask, adapted=found)


def _mask_outputs(plan: Plan, mask: MaskPlan | None, painted: Painted) -> tuple[Picture | None, Picture | None]:
    """OUT-4: the mask, and the painted part alone on nothing."""
    settings = plan.settings
    if mask is None:
        return None, None
    shown = mask.overlay.convert("RGB") if settings.return_mask or settings.save_mask else None
    composite = settings.return_mask_composite or settings.save_mask_composite
    return shown, mask_composite(painted(), mask.overlay) if composite else None
