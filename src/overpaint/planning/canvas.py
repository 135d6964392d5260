"""Pictures before the encoder: the mask, the crop, and one canvas per source picture.

Two ways of working share these steps. With quirks on, every accident of the reference is reproduced. Without them every
pixel outside the mask, the requested size and the source's transparency are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from PIL import Image, ImageOps

from overpaint.deep import shallow
from overpaint.errors import RequestError
from overpaint.models.families import LatentSpec
from overpaint.pictures import flatten
from overpaint.pixels.ground import Ground
from overpaint.pixels.mask import Box, blur_mask, crop_region, expand_crop_region, to_gray_mask
from overpaint.pixels.resize import as_mode
from overpaint.pixels.tiles import gray_counts
from overpaint.planning.canvas_pixels import Canvas, CanvasInputs, Geometry, MaskPlan, rounded_up
from overpaint.planning.sizes import filled_up, size_for_box
from overpaint.request import MaskedContent, PaintRequest, Picture
from overpaint.settings import Settings
from overpaint.taking import BECAME_8, had_16_bits

_NEARLY = 16  # levels of gray that count as black or white
_GRAY_OF_EDGES = 0.25  # of what is not black; a soft edge has less
_ROOM = 4  # times the area a model was trained at
BLANK_MASK_COMMENT = 'Unable to perform "Inpaint Only mask" because mask is blank, switch to img2img mode.'


@dataclass(frozen=True)
class Canvases:
    """The pictures of a job, with what is worth writing down about them."""

    geometry: Geometry
    canvases: tuple[Canvas, ...]
    mask: MaskPlan | None
    blank_mask: bool = False
    notes: Mapping[str, object] = field(default_factory=dict)  # infotext fields, in order
    comments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_empty(job: CanvasInputs, native_size: int) -> Canvases:
    """A job without a source: only its size is to be decided."""
    width, height = job.request.width or native_size, job.request.height or native_size
    return Canvases(geometry_of(width, height, job.settings, job.factor), (), None)


def plan_canvases(job: CanvasInputs, native_size: int) -> Canvases:
    """Pictures and mask to canvases, in the order of the reference's job (JOB-2.9)."""
    request, settings = job.request, job.settings
    sources = tuple(_ground(each, settings) for each in request.images)
    notes: dict[str, object] = {}
    warnings = [f"images[{i}]: {note}" for i, each in enumerate(sources) for note in each.notes]
    gray = _gray_mask(job, sources[0], notes, warnings)
    geometry = _geometry(job, sources[0], gray, native_size, warnings)
    if gray is not None and gray.getbbox() is None and _blank_counts(job):
        return _without_mask(job, sources, geometry, notes, warnings)
    mask = None
    if gray is not None:
        crop = _crop(request, gray, geometry) if request.only_masked else None
        mask = MaskPlan(gray, crop, geometry, job)
    if mask is not None and mask.crop is not None:
        notes["Inpaint area"] = "Only masked"
        notes["Masked area padding"] = request.padding
    if mask is not None and request.masked_content is MaskedContent.FILL:
        notes["Masked content"] = "fill"
    if mask is not None and request.round_mask and request.soft_inpainting is None:
        warnings.extend(_gray_warnings(request, mask))
    canvases = _canvases(job, sources, mask, geometry)
    for each in canvases:
        _check_fill(each)
    return Canvases(geometry, canvases, mask, notes=notes, warnings=tuple(warnings))


def _canvases(
    job: CanvasInputs, sources: tuple[Ground, ...], mask: MaskPlan | None, geometry: Geometry
) -> tuple[Canvas, ...]:
    pairs = zip(job.request.images, sources, strict=True)
    return tuple(Canvas(given, ground, mask, geometry, job) for given, ground in pairs)


def _check_fill(canvas: Canvas) -> None:
    """The reference fills by a latent mask as it is (MASK-10), so its size has to be that of what is encoded."""
    job = canvas.job
    keeps_size = canvas.mask is not None and job.settings.quirks.mask_keeps_its_size
    if not keeps_size or job.request.masked_content is MaskedContent.ORIGINAL:
        return
    wide, high = canvas.encoded_size
    given = job.request.latent_mask
    size = (canvas.geometry.pass_width, canvas.geometry.pass_height) if given is None else given.size
    if size != (wide, high):
        remedy = f"to fill masked content it must be {wide}x{high}, the size of the pass"
        raise RequestError("latent_mask", f"{size[0]}x{size[1]}", remedy)


def _ground(picture: Picture, settings: Settings) -> Ground:
    """A source with all that it holds, or as the reference takes it: 8 bits of RGB, in whatever colours."""
    background = settings.img2img_background_color
    if not settings.quirks.drop_source_extras:
        return Ground.of(picture, background)
    notes = (BECAME_8,) if had_16_bits(picture) else ()
    return Ground(flatten(shallow(picture), background, settings.quirks), background, None, notes)


def selected(mask: MaskPlan) -> float:
    """The part of the picture, in per cent, that a mask lets change."""
    counts = gray_counts(as_mode(mask.overlay, "L"))
    return round(100 * sum(counts[1:]) / sum(counts), 1)


def _gray_warnings(request: PaintRequest, mask: MaskPlan) -> Iterator[str]:
    """Warn about a mask with more gray than soft edges have."""
    assert request.mask is not None
    counts = gray_counts(to_gray_mask(request.mask, False))
    gray = sum(counts[_NEARLY : 256 - _NEARLY])
    if gray > _GRAY_OF_EDGES * sum(counts[_NEARLY:]):
        said = f"its gray is read as black or white; {selected(mask)} % of the picture may change"
        yield f"mask: {said}; round_mask=False keeps the gray, soft_inpainting lets it change a little"


def _blank_counts(job: CanvasInputs) -> bool:
    """The reference notices a blank mask only in "only masked" mode (MASK-6, MASK-8)."""
    return job.request.only_masked or not job.settings.quirks.blank_mask_is_whole_picture


def _without_mask(
    job: CanvasInputs,
    sources: tuple[Ground, ...],
    geometry: Geometry,
    notes: dict[str, object],
    warnings: list[str],
) -> Canvases:
    canvases = _canvases(job, sources, None, geometry)
    if job.settings.quirks.blank_mask_is_whole_picture:
        return Canvases(geometry, canvases, None, notes=notes, comments=(BLANK_MASK_COMMENT,))
    warnings.append("mask: it selects no pixel, so nothing was changed; paint the part to repaint white")
    return Canvases(geometry, canvases, None, blank_mask=True, notes=notes, warnings=tuple(warnings))


def _gray_mask(
    job: CanvasInputs,
    source: Ground,
    notes: dict[str, object],
    warnings: list[str],
) -> Picture | None:
    """The blurred mask (MASK-1 to MASK-4), still at its own size."""
    if job.request.mask is None:
        return None
    gray = to_gray_mask(job.request.mask, job.request.round_mask)
    if gray.size != source.size and not job.settings.quirks.mask_keeps_its_size:
        _check_same_shape(gray, source)
        warnings.append(f"mask: its size {gray.size} was changed to the picture's {source.size}")
        gray = gray.resize(source.size, Image.Resampling.BICUBIC)
    if job.request.invert_mask:
        gray = ImageOps.invert(gray)
        notes["Mask mode"] = "Inpaint not masked"
    if job.request.mask_blur_x > 0 or job.request.mask_blur_y > 0:
        notes["Mask blur"] = job.request.mask_blur_x if job.request.mask_blur_x == job.request.mask_blur_y else None
    stays_white = not job.settings.quirks.blur_erodes_mask
    return blur_mask(gray, job.request.mask_blur_x, job.request.mask_blur_y, never_darker=stays_white)


def _check_same_shape(mask: Picture, source: Ground) -> None:
    """A mask of another size is fine, one of another shape would cover something else than was meant."""
    wide, high = source.size
    across, down = mask.width * high, mask.height * wide
    if abs(across - down) > 0.02 * max(across, down):
        remedy = f"give a mask of the picture's shape, {wide}x{high}"
        raise RequestError("mask", f"{mask.width}x{mask.height}", remedy)


def _geometry(
    job: CanvasInputs, source: Ground, gray: Picture | None, native_size: int, warnings: list[str]
) -> Geometry:
    width, height = job.request.width, job.request.height
    if width is None and height is None and not (gray is not None and job.request.only_masked):
        width, height = _own_size(job, source, gray, native_size, warnings)
    elif width is None or height is None:
        width, height = _default_size(job.request, source, gray, native_size)
    return geometry_of(width, height, job.settings, job.factor)


def _own_size(
    job: CanvasInputs, source: Ground, gray: Picture | None, native_size: int, warnings: list[str]
) -> tuple[int, int]:
    """The source's own size; where models begin to repeat themselves, that shape at the largest size before.

    Where a mask or strength 0 promise that pixels stay what they are, the size does too.
    """
    wide, high = source.size
    scale = (_ROOM * native_size**2 / (wide * high)) ** 0.5
    if scale >= 1 or (job.request.strength == 0 and not job.settings.quirks.strength_zero_runs_a_step):
        return wide, high
    said = f"width x height: {wide}x{high} is far above the {native_size} pixels this model was trained at"
    if gray is not None:
        warnings.append(f"{said}; only_masked paints the masked part alone, at such a size")
        return wide, high
    smaller = tuple(max(job.factor, int(each * scale) // job.factor * job.factor) for each in source.size)
    warnings.append(f"{said}, so it is painted at {smaller[0]}x{smaller[1]}; give a size to have another")
    return smaller[0], smaller[1]


def geometry_of(width: int, height: int, settings: Settings, factor: int = LatentSpec.factor) -> Geometry:
    """A size and what the networks see of it, within this site's limits."""
    floors = settings.quirks.floor_odd_sizes
    sides = (width, height) if floors else (rounded_up(width, factor), rounded_up(height, factor))
    geometry = Geometry(width, height, *sides, factor)
    pixels = geometry.pass_width * geometry.pass_height
    if pixels > settings.max_pixels_per_pass:
        most = f"give a smaller size (the option max_pixels_per_pass is {settings.max_pixels_per_pass})"
        remedy = f"{most}, or paint only the masked part with only_masked"
        raise RequestError("width x height", f"{geometry.width}x{geometry.height}", remedy)
    if min(geometry.latent_size) < 1:
        raise RequestError("width x height", f"{geometry.width}x{geometry.height}", f"give at least {factor}x{factor}")
    return geometry


def _default_size(request: PaintRequest, source: Ground, gray: Picture | None, native_size: int) -> tuple[int, int]:
    """Unset sizes: the source's own, or the model's native area in the crop's shape if only that is painted."""
    box = crop_region(gray, request.padding) if gray is not None and request.only_masked else None
    return filled_up(request, *source.size) if box is None else size_for_box(request, box, native_size)


def _crop(request: PaintRequest, gray: Picture, geometry: Geometry) -> Box:
    box = crop_region(gray, request.padding)
    if box is None:
        raise RequestError("mask", "a blank picture", "paint the part to repaint white")
    return expand_crop_region(box, geometry.pass_width, geometry.pass_height, gray.width, gray.height)
