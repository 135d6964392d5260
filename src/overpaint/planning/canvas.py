"""Pictures before the encoder: the mask, the crop, and one canvas per source picture.

Two ways of working share these steps. With quirks on, every accident of the reference is reproduced. Without them every
pixel outside the mask, the requested size and the source's transparency are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from overpaint.deep import shallow
from overpaint.errors import RequestError
from overpaint.models.families import LatentSpec
from overpaint.pictures import flatten
from overpaint.pixels.color import ColorTarget, color_target
from overpaint.pixels.composite import make_overlay
from overpaint.pixels.fill import fill_masked
from overpaint.pixels.ground import Ground
from overpaint.pixels.mask import (
    Box,
    blur_mask,
    crop_region,
    expand_crop_region,
    latent_mask,
    overlay_mask_whole,
    to_gray_mask,
)
from overpaint.pixels.resize import Upscaler, as_mode, resize_image
from overpaint.pixels.tiles import gray_counts
from overpaint.planning.sizes import filled_up, size_for_box
from overpaint.request import MaskedContent, PaintRequest, Picture, ResizeMode
from overpaint.settings import Settings
from overpaint.taking import BECAME_8, had_16_bits

STRETCH, RESIZE_FILL = 0, 2
_NEARLY = 16  # levels of gray that count as black or white
_GRAY_OF_EDGES = 0.25  # of what is not black; a soft edge has less
_ROOM = 4  # times the area a model was trained at
BLANK_MASK_COMMENT = 'Unable to perform "Inpaint Only mask" because mask is blank, switch to img2img mode.'


@dataclass(frozen=True)
class Geometry:
    """The sizes of one job: what was asked, what the networks see, and the latent."""

    width: int
    height: int
    pass_width: int
    pass_height: int
    factor: int = LatentSpec.factor  # pixels a side of one latent cell

    @property
    def latent_size(self) -> tuple[int, int]:
        """(width, height) of the latent."""
        return self.pass_width // self.factor, self.pass_height // self.factor

    @property
    def covered(self) -> tuple[int, int]:
        """(width, height) of the pixels that the latent stands for."""
        wide, high = self.latent_size
        return wide * self.factor, high * self.factor


@dataclass(frozen=True)
class MaskPlan:
    """What the mask decides. `pixel` and `change` are at the size of the pass, `overlay` at that of the result."""

    pixel: Picture
    change: Picture  # what latents and filling follow: the latent mask, if there is one
    overlay: Picture
    latent: NDArray[np.float32]  # (h/8, w/8), 1 = repaint
    crop: Box | None  # (x1, y1, x2, y2) in the source

    @property
    def paste_to(self) -> tuple[int, int, int, int] | None:
        """(x, y, width, height) of the crop, as the reference publishes it."""
        if self.crop is None:
            return None
        x1, y1, x2, y2 = self.crop
        return x1, y1, x2 - x1, y2 - y1


@dataclass(frozen=True)
class Canvas:
    """One source picture made ready: what is encoded, and what the result is composited on."""

    source: Picture  # as given
    ground: Ground  # the same, and how what is painted comes back to it
    base: Picture  # the size of the result, before any change; of a crop it is the source
    encoded: Picture  # RGB, what the encoder sees
    overlay: Picture | None  # RGBA, the kept part
    target: ColorTarget | None


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


@dataclass(frozen=True)
class CanvasInputs:
    """The inputs that every step below reads."""

    request: PaintRequest
    settings: Settings
    upscaler: Upscaler | None = None
    factor: int = LatentSpec.factor

    def resized(self, picture: Picture, mode: ResizeMode, width: int, height: int) -> Picture:
        number, quirks = _mode_number(mode), self.settings.quirks
        return resize_image(number, picture, width, height, upscaler=self.upscaler, quirks=quirks)

    def to_pass(self, picture: Picture, mode: int, geometry: Geometry) -> Picture:
        wide, high = geometry.pass_width, geometry.pass_height
        return resize_image(mode, picture, wide, high, upscaler=self.upscaler, quirks=self.settings.quirks)


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
    mask = _mask_plan(job, gray, geometry) if gray is not None else None
    if mask is not None and mask.crop is not None:
        notes["Inpaint area"] = "Only masked"
        notes["Masked area padding"] = request.padding
    if mask is not None and request.masked_content is MaskedContent.FILL:
        notes["Masked content"] = "fill"
    if mask is not None and request.round_mask and request.soft_inpainting is None:
        warnings.extend(_gray_warnings(request, mask))
    canvases = tuple(map(partial(_canvas, mask=mask, geometry=geometry, job=job), request.images, sources))
    return Canvases(geometry, canvases, mask, notes=notes, warnings=tuple(warnings))


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
    canvases = tuple(map(partial(_canvas, mask=None, geometry=geometry, job=job), job.request.images, sources))
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
    sides = (width, height) if floors else (_round_up(width, factor), _round_up(height, factor))
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


def _round_up(value: int, factor: int) -> int:
    return -(-value // factor) * factor


def _mask_plan(job: CanvasInputs, gray: Picture, geometry: Geometry) -> MaskPlan:
    quirks = job.settings.quirks
    crop = None
    if job.request.only_masked:
        crop = _crop(job.request, gray, geometry)
        overlay = gray
        pixel = job.to_pass(gray.crop(crop), RESIZE_FILL, geometry)
    else:
        mode = job.request.resize_mode
        if mode is ResizeMode.LATENT and not quirks.latent_resize_fills_mask:
            mode = ResizeMode.STRETCH
        resized = job.resized(gray, mode, geometry.width, geometry.height)
        overlay = overlay_mask_whole(resized)
        pixel = _padded(resized, geometry)
    change = (
        pixel if job.request.latent_mask is None else _change_mask(job, job.request.latent_mask, gray, crop, geometry)
    )
    wide, high = geometry.latent_size
    return MaskPlan(pixel, change, overlay, latent_mask(change, wide, high, job.request.round_mask, quirks), crop)


def _change_mask(job: CanvasInputs, given: Picture, gray: Picture, crop: Box | None, geometry: Geometry) -> Picture:
    """MASK-10: the reference takes a latent mask as it is; otherwise it takes the way of the mask."""
    if job.settings.quirks.mask_keeps_its_size:
        return given
    fitted = to_gray_mask(given, False)
    if crop is not None:
        return job.to_pass(fitted.resize(gray.size, Image.Resampling.BICUBIC).crop(crop), RESIZE_FILL, geometry)
    return job.to_pass(fitted, STRETCH, geometry)


def _crop(request: PaintRequest, gray: Picture, geometry: Geometry) -> Box:
    box = crop_region(gray, request.padding)
    if box is None:
        raise RequestError("mask", "a blank picture", "paint the part to repaint white")
    return expand_crop_region(box, geometry.pass_width, geometry.pass_height, gray.width, gray.height)


def _canvas(given: Picture, ground: Ground, mask: MaskPlan | None, geometry: Geometry, job: CanvasInputs) -> Canvas:
    """IMG-1 for one picture. Of a crop no more is made ready than what lies in it."""
    quirks, mode = job.settings.quirks, job.request.resize_mode
    if mask is not None and mask.crop is not None:
        base = ground.picture
        picture = job.to_pass(ground.seen(mask.crop), RESIZE_FILL, geometry)
    else:
        flat = ground.seen()
        whole = flat if mode is ResizeMode.LATENT else job.resized(flat, mode, geometry.width, geometry.height)
        base, picture = _with_alpha(whole, given, job), whole
        if mode is not ResizeMode.LATENT:
            picture = _padded(picture, geometry)
        elif not quirks.floor_odd_sizes:
            stretched = job.resized(flat, ResizeMode.STRETCH, geometry.width, geometry.height)
            base = _with_alpha(stretched, given, job)
            wide, high = (_round_up(side, job.factor) for side in flat.size)
            picture = _padded(flat, Geometry(*flat.size, wide, high, job.factor))
    overlay = None
    if mask is not None and quirks.drop_source_extras:
        shown = ground.picture if mask.crop is not None else whole
        overlay = make_overlay(shown, mask.overlay, _mode_number(mode), quirks, upscaler=job.upscaler)
    if mask is not None and job.request.masked_content is not MaskedContent.ORIGINAL:
        picture = fill_masked(picture, _fill_mask(job, mask, picture))
    wanted = job.settings.img2img_color_correction
    target = color_target(picture) if wanted else None
    return Canvas(given, ground, base, picture, overlay, target)


def _with_alpha(picture: Picture, given: Picture, job: CanvasInputs) -> Picture:
    """The resized source with its transparency, resized alike; at its own size the source itself is the ground."""
    if job.settings.quirks.drop_source_extras or picture.size == given.size or not given.has_transparency_data:
        return picture
    mode = ResizeMode.STRETCH if job.request.resize_mode is ResizeMode.LATENT else job.request.resize_mode
    alpha = given.convert("RGBA").getchannel("A")
    picture = picture.copy()
    picture.putalpha(job.resized(alpha, mode, *picture.size).convert("L"))
    return picture


def _fill_mask(job: CanvasInputs, mask: MaskPlan, picture: Picture) -> Picture:
    chosen = mask.change
    if chosen.size != picture.size and job.settings.quirks.mask_keeps_its_size:
        remedy = f"to fill masked content it must be {picture.width}x{picture.height}, the size of the pass"
        raise RequestError("latent_mask", f"{chosen.width}x{chosen.height}", remedy)
    if chosen.size != picture.size:
        chosen = chosen.resize(picture.size, Image.Resampling.BICUBIC)
    return chosen.convert("L")


def _mode_number(mode: ResizeMode) -> int:
    return list(ResizeMode).index(mode)


def _padded(picture: Picture, geometry: Geometry) -> Picture:
    """Extend the right and bottom by their last lines, up to what the networks can take."""
    right, bottom = geometry.pass_width - geometry.width, geometry.pass_height - geometry.height
    if (geometry.width, geometry.height) != picture.size or (right <= 0 and bottom <= 0):
        return picture
    values = np.asarray(picture)
    edges = ((0, bottom), (0, right), (0, 0))[: values.ndim]
    return Image.fromarray(np.pad(values, edges, mode="edge"))
