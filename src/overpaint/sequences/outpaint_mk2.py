"""The reference's outpainting mk2: one side after the other, each begun from shaped noise (SCR-5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from overpaint.errors import RequestError
from overpaint.parts import check_number
from overpaint.pixels.grid import grid_shape, image_grid
from overpaint.request import MaskedContent, Picture
from overpaint.sequences.margins import DIRECTIONS, Margins, rounded_margins
from overpaint.sequences.shaped_noise import matched_noise
from overpaint.sequences.story import (
    AssembledPictures,
    PaintingSequence,
    SequenceStep,
    StepResult,
    first_text,
    one_source,
    texts_of,
)
from overpaint.settings import Settings

_MULTIPLE = 64


@dataclass(frozen=True)
class Expansion:
    """One picture made larger on one side: the canvas begun with noise, and the window of it that is painted."""

    side: str
    size: tuple[int, int]  # of the grown picture
    canvas: Picture  # of multiples of 64, or more than the grown picture
    window: tuple[int, int, int, int]  # what is painted of the canvas
    mask: Picture  # of the window
    latent_mask: Picture

    @property
    def is_horizontal(self) -> bool:
        return self.side in ("left", "right")

    def pasted(self, painted: Picture) -> Picture:
        """The grown picture, with what was painted in its place."""
        canvas = self.canvas.copy()
        left = 0 if self.side == "left" else canvas.width - painted.width
        top = 0 if self.side == "up" else canvas.height - painted.height
        canvas.paste(painted, (left, top))
        return canvas.crop((0, 0, *self.size))


@dataclass(frozen=True, kw_only=True)
class OutpaintingMk2(PaintingSequence):
    """Left, right, up and down in turn, each on the result of the one before; the same seed every time."""

    pixels: int = 128
    mask_blur: int = 8
    directions: tuple[str, ...] = DIRECTIONS
    fall_off: float = 1.0
    color_variation: float = 0.05

    kind: ClassVar[str] = "outpainting-mk2"
    saved: ClassVar = "result"

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", tuple(self.directions))
        check_number("mask_blur", self.mask_blur, low=0, high=1024, whole=True)
        check_number("fall_off", self.fall_off, low=0, high=100)
        check_number("color_variation", self.color_variation, low=0, high=1)
        if not self.sides:
            raise RequestError("directions", self.directions, f"give at least one of {', '.join(DIRECTIONS)}")

    @property
    def margins(self) -> Margins:
        return rounded_margins(one_source(self.request).size, self.pixels, self.directions)

    @property
    def sides(self) -> tuple[tuple[str, int], ...]:
        """Those that grow, and by how much, in their order."""
        given = ((side, getattr(self.margins, side)) for side in DIRECTIONS)
        return tuple((side, pixels) for side, pixels in given if pixels > 0)

    def __len__(self) -> int:
        return len(self.sides) * self.request.iterations

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        grown = self._grown(done, number)
        expansions = [self._expansion(each, number) for each in grown]
        first, (left, top, right, bottom) = expansions[0], expansions[0].window
        along = [each for each in ("left", "right", "up", "down") if getattr(self.margins, each)]
        request = self.request.with_changes(
            images=tuple(each.canvas.crop(each.window) for each in expansions),
            mask=first.mask,
            latent_mask=first.latent_mask,
            width=right - left,
            height=bottom - top,
            mask_blur_x=4 * self.mask_blur if {"left", "right"} & set(along) else 0,
            mask_blur_y=4 * self.mask_blur if {"up", "down"} & set(along) else 0,
            only_masked=False,
            masked_content=MaskedContent.ORIGINAL,
            iterations=1,
        )
        return SequenceStep(request=request, label=first.side)

    def assembled(self, done: Sequence[StepResult], settings: Settings) -> AssembledPictures:
        """The grown pictures of every iteration, and before them a sheet of them."""
        sides = len(self.sides)
        ends = [n for n in range(len(done) + 1) if n and (n % sides == 0 or n == len(done))]
        images = tuple(picture for end in ends for picture in self._after(done, end))
        texts = tuple(text for end in ends for text in texts_of(done[end - 1 : end]))
        if settings.quirks.first_step_speaks_for_all:
            texts = (first_text(done),) * len(images)
        if not settings.return_grid or not images or (len(images) < 2 and settings.grid_only_if_multiple):
            return AssembledPictures(images=images, infotexts=texts)
        rows, _ = grid_shape(len(images), self.request.batch_size, settings.n_rows, settings.grid_prevent_empty_spots)
        sheet = image_grid(images, rows, settings.grid_background_color)
        return AssembledPictures(images=(sheet, *images), infotexts=(first_text(done), *texts), first=1)

    def _grown(self, done: Sequence[StepResult], number: int) -> list[Picture]:
        """What a step begins with: the source, or the result of the side before."""
        if number % len(self.sides) == 0:
            return [one_source(self.request).convert("RGB")] * self.request.batch_size
        return self._after(done, number)

    def _after(self, done: Sequence[StepResult], count: int) -> list[Picture]:
        """The pictures after so many steps."""
        before = self._grown(done, count - 1)
        painted = done[count - 1].pictures
        pairs = zip(before, painted, strict=False)
        return [self._expansion(picture, count - 1).pasted(result) for picture, result in pairs]

    def _expansion(self, picture: Picture, number: int) -> Expansion:
        side, pixels = self.sides[number % len(self.sides)]
        blurs = (
            self.mask_blur if self.margins.left or self.margins.right else 0,
            self.mask_blur if self.margins.up or self.margins.down else 0,
        )
        limits = (self.request.width or picture.width, self.request.height or picture.height)
        return expand(picture, side, pixels, blurs, limits, self)


def expand(
    picture: Picture,
    side: str,
    pixels: int,
    blurs: tuple[int, int],
    limits: tuple[int, int],
    tool: OutpaintingMk2,
) -> Expansion:
    """A picture with room on one side, begun with noise; the window is as long as `limits` allow along that side."""
    axis = 0 if side in ("left", "right") else 1
    grown = tuple(each + (pixels if i == axis else 0) for i, each in enumerate(picture.size))
    padded = tuple(-(-each // _MULTIPLE) * _MULTIPLE for each in grown)
    canvas = Image.new("RGB", (padded[0], padded[1]))
    canvas.paste(picture, (pixels if side == "left" else 0, pixels if side == "up" else 0))
    mask = _kept(canvas.size, (grown[0], grown[1]), side, pixels + blurs[axis])
    values, covered = np.asarray(canvas) / 255.0, np.asarray(mask) / 255.0
    noised = matched_noise(values, covered, tool.fall_off, tool.color_variation)
    begun = Image.fromarray((noised * 255.0).astype(np.uint8))
    window = list(canvas.size)
    window[axis] = min(limits[axis], grown[axis])
    left = 0 if side == "left" else canvas.width - window[0]
    top = 0 if side == "up" else canvas.height - window[1]
    box = (left, top, left + window[0], top + window[1])
    latent = _kept((window[0], window[1]), (grown[0], grown[1]), side, pixels + 2 * blurs[axis])
    return Expansion(side, (grown[0], grown[1]), begun, box, mask.crop(box), latent)


def _kept(size: tuple[int, int], grown: tuple[int, int], side: str, inset: int) -> Picture:
    """White, with a black rectangle over what is kept: drawn in by `inset` from the side that grows."""
    wide, high = size
    corners = (
        inset if side == "left" else 0,
        inset if side == "up" else 0,
        wide - inset if side == "right" else grown[0],
        high - inset if side == "down" else grown[1],
    )
    mask = Image.new("L", size, "white")
    if corners[2] >= corners[0] and corners[3] >= corners[1]:
        ImageDraw.Draw(mask).rectangle(corners, fill="black")
    return mask
