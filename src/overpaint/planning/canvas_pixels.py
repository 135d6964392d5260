"""The pixels of a canvas and of its mask. A plan decides by sizes and boxes; these are made when they are first used.

So a plan of a large picture costs little where it is only looked at, and what is made is the same whenever that is, as
long as nobody changes the request's pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from overpaint.models.families import LatentSpec
from overpaint.pixels.color import ColorTarget, color_target
from overpaint.pixels.composite import make_overlay
from overpaint.pixels.fill import fill_masked
from overpaint.pixels.ground import Ground
from overpaint.pixels.mask import Box, latent_mask, overlay_mask_whole, to_gray_mask
from overpaint.pixels.resize import Upscaler, resize_image
from overpaint.request import MaskedContent, PaintRequest, Picture, ResizeMode
from overpaint.settings import Settings

STRETCH, RESIZE_FILL = 0, 2


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
class CanvasInputs:
    """The inputs that every step below reads."""

    request: PaintRequest
    settings: Settings
    upscaler: Upscaler | None = None
    factor: int = LatentSpec.factor

    def resized(self, picture: Picture, mode: ResizeMode, width: int, height: int) -> Picture:
        number, quirks = mode_number(mode), self.settings.quirks
        return resize_image(number, picture, width, height, upscaler=self.upscaler, quirks=quirks)

    def to_pass(self, picture: Picture, mode: int, geometry: Geometry) -> Picture:
        wide, high = geometry.pass_width, geometry.pass_height
        return resize_image(mode, picture, wide, high, upscaler=self.upscaler, quirks=self.settings.quirks)

    def for_pickles(self) -> CanvasInputs:
        """Without what enlarges sources, which may be a network."""
        return replace(self, upscaler=None)


class _PassMask(NamedTuple):
    pixel: Picture
    change: Picture
    latent: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MaskPlan:
    """What the mask decides. `pixel` and `change` are at the size of the pass, `overlay` at that of the result."""

    gray: Picture  # blurred, at the size of the source
    crop: Box | None  # (x1, y1, x2, y2) in the source
    geometry: Geometry
    job: CanvasInputs
    adapted: Picture | None = None  # an overlay that was found after painting

    @cached_property
    def overlay(self) -> Picture:
        """What lets the painted picture show."""
        if self.adapted is not None:
            return self.adapted
        return self.gray if self.crop is not None else overlay_mask_whole(self._resized)

    @property
    def pixel(self) -> Picture:
        return self._of_pass.pixel

    @property
    def change(self) -> Picture:
        """What latents and filling follow: the latent mask, if there is one."""
        return self._of_pass.change

    @property
    def latent(self) -> NDArray[np.float32]:  # (h/8, w/8)
        """1 = repaint."""
        return self._of_pass.latent

    @property
    def paste_to(self) -> tuple[int, int, int, int] | None:
        """(x, y, width, height) of the crop, as the reference publishes it."""
        if self.crop is None:
            return None
        x1, y1, x2, y2 = self.crop
        return x1, y1, x2 - x1, y2 - y1

    def __getstate__(self) -> dict[str, Any]:
        """For pickles: with everything made."""
        _ = self.overlay, self._of_pass
        return {**vars(self), "job": self.job.for_pickles()}

    @cached_property
    def _resized(self) -> Picture:
        """The whole mask at the size of the result."""
        job, geometry, mode = self.job, self.geometry, self.job.request.resize_mode
        if mode is ResizeMode.LATENT and not job.settings.quirks.latent_resize_fills_mask:
            mode = ResizeMode.STRETCH
        return job.resized(self.gray, mode, geometry.width, geometry.height)

    @cached_property
    def _of_pass(self) -> _PassMask:
        request, geometry = self.job.request, self.geometry
        if self.crop is not None:
            pixel = self.job.to_pass(self.gray.crop(self.crop), RESIZE_FILL, geometry)
        else:
            pixel = _padded(self._resized, geometry)
        change = pixel if request.latent_mask is None else self._changing(request.latent_mask)
        latent = latent_mask(change, *geometry.latent_size, request.round_mask, self.job.settings.quirks)
        return _PassMask(pixel, change, latent)

    def _changing(self, given: Picture) -> Picture:
        """MASK-10: the reference takes a latent mask as it is; otherwise it takes the way of the mask."""
        if self.job.settings.quirks.mask_keeps_its_size:
            return given
        fitted = to_gray_mask(given, False)
        if self.crop is not None:
            cut = fitted.resize(self.gray.size, Image.Resampling.BICUBIC).crop(self.crop)
            return self.job.to_pass(cut, RESIZE_FILL, self.geometry)
        return self.job.to_pass(fitted, STRETCH, self.geometry)


class _ReadyPictures(NamedTuple):
    base: Picture
    encoded: Picture
    overlay: Picture | None


@dataclass(frozen=True, eq=False)
class Canvas:
    """One source picture made ready: what is encoded, and what the result is composited on."""

    source: Picture  # as given
    ground: Ground  # the same, and how what is painted comes back to it
    mask: MaskPlan | None
    geometry: Geometry
    job: CanvasInputs
    given_target: ColorTarget | None = None  # in place of the source's own colours

    @property
    def base(self) -> Picture:
        """The size of the result, before any change; of a crop it is the source."""
        return self._ready.base

    @property
    def encoded(self) -> Picture:
        """RGB, what the encoder sees."""
        return self._ready.encoded

    @property
    def encoded_size(self) -> tuple[int, int]:
        """(width, height) of that, without making it."""
        is_cropped = self.mask is not None and self.mask.crop is not None
        if is_cropped or self.job.request.resize_mode is not ResizeMode.LATENT:
            return self.geometry.pass_width, self.geometry.pass_height
        wide, high = self.ground.size
        if self.job.settings.quirks.floor_odd_sizes:
            return wide, high
        return rounded_up(wide, self.job.factor), rounded_up(high, self.job.factor)

    @property
    def overlay(self) -> Picture | None:
        """RGBA, the kept part."""
        return self._ready.overlay

    @property
    def has_target(self) -> bool:
        return self.given_target is not None or bool(self.job.settings.img2img_color_correction)

    @cached_property
    def target(self) -> ColorTarget | None:
        """The colours that the result is to have."""
        if self.given_target is not None or not self.has_target:
            return self.given_target
        return color_target(self.encoded)

    def __getstate__(self) -> dict[str, Any]:
        """For pickles: with everything made."""
        _ = self._ready, self.target
        return {**vars(self), "job": self.job.for_pickles()}

    @cached_property
    def _ready(self) -> _ReadyPictures:
        """IMG-1 for one picture. Of a crop no more is made ready than what lies in it."""
        job, mask = self.job, self.mask
        if mask is not None and mask.crop is not None:
            base = whole = self.ground.picture
            picture = job.to_pass(self.ground.seen(mask.crop), RESIZE_FILL, self.geometry)
        else:
            base, whole, picture = self._whole()
        overlay = None
        if mask is not None and job.settings.quirks.drop_source_extras:
            number, quirks = mode_number(job.request.resize_mode), job.settings.quirks
            overlay = make_overlay(whole, mask.overlay, number, quirks, upscaler=job.upscaler)
        if mask is not None and job.request.masked_content is not MaskedContent.ORIGINAL:
            picture = fill_masked(picture, _fitted(mask.change, picture.size))
        return _ReadyPictures(base, picture, overlay)

    def _whole(self) -> tuple[Picture, Picture, Picture]:
        """What the result is composited on, the same without transparency, and what is encoded."""
        job, geometry, mode = self.job, self.geometry, self.job.request.resize_mode
        flat = self.ground.seen()
        if mode is not ResizeMode.LATENT:
            whole = job.resized(flat, mode, geometry.width, geometry.height)
            return self._with_alpha(whole), whole, _padded(whole, geometry)
        if job.settings.quirks.floor_odd_sizes:
            return self._with_alpha(flat), flat, flat
        stretched = job.resized(flat, ResizeMode.STRETCH, geometry.width, geometry.height)
        padded = _padded(flat, Geometry(*flat.size, *self.encoded_size, job.factor))
        return self._with_alpha(stretched), flat, padded

    def _with_alpha(self, picture: Picture) -> Picture:
        """The resized source with its transparency, resized alike; at its own size the source itself is the ground."""
        job, given, mode = self.job, self.source, self.job.request.resize_mode
        if job.settings.quirks.drop_source_extras or picture.size == given.size or not given.has_transparency_data:
            return picture
        mode = ResizeMode.STRETCH if mode is ResizeMode.LATENT else mode
        alpha = given.convert("RGBA").getchannel("A")
        picture = picture.copy()
        picture.putalpha(job.resized(alpha, mode, *picture.size).convert("L"))
        return picture


def rounded_up(value: int, factor: int) -> int:
    return -(-value // factor) * factor


def mode_number(mode: ResizeMode) -> int:
    return list(ResizeMode).index(mode)


def _fitted(mask: Picture, size: tuple[int, int]) -> Picture:
    fitted = mask if mask.size == size else mask.resize(size, Image.Resampling.BICUBIC)
    return fitted.convert("L")


def _padded(picture: Picture, geometry: Geometry) -> Picture:
    """Extend the right and bottom by their last lines, up to what the networks can take."""
    right, bottom = geometry.pass_width - geometry.width, geometry.pass_height - geometry.height
    if (geometry.width, geometry.height) != picture.size or (right <= 0 and bottom <= 0):
        return picture
    values = np.asarray(picture)
    edges = ((0, bottom), (0, right), (0, 0))[: values.ndim]
    return Image.fromarray(np.pad(values, edges, mode="edge"))
