"""The reference's poor man's outpainting: tiles over the grown picture, where they hold anything new (SCR-4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from PIL import Image, ImageDraw

from overpaint.errors import RequestError
from overpaint.parts import check_number
from overpaint.request import MaskedContent, Picture
from overpaint.sequences.margins import DIRECTIONS, Margins, rounded_margins
from overpaint.sequences.story import (
    AssembledPictures,
    PaintingSequence,
    SequenceStep,
    StepResult,
    check_count,
    first_seed,
    first_text,
    one_source,
    pictures_of,
)
from overpaint.sequences.tiles import Place, TileGrid, combined
from overpaint.settings import Settings


@dataclass(frozen=True, kw_only=True)
class OutpaintedTiles(PaintingSequence):
    """Tiles of the request's width and height, which overlap by the pixels that the picture grows by."""

    pixels: int = 128
    mask_blur: int = 4
    masked_content: MaskedContent = MaskedContent.FILL
    directions: tuple[str, ...] = DIRECTIONS

    kind: ClassVar[str] = "poor-mans-outpainting"
    saved: ClassVar = "result"

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", tuple(self.directions))
        object.__setattr__(self, "masked_content", MaskedContent(self.masked_content))
        check_number("mask_blur", self.mask_blur, low=0, high=1024, whole=True)
        check_count("tiles", len(self))

    @property
    def margins(self) -> Margins:
        return rounded_margins(one_source(self.request).size, self.pixels, self.directions)

    @property
    def size(self) -> tuple[int, int]:
        return self.margins.size(*one_source(self.request).size)

    @cached_property
    def canvas(self) -> Picture:
        """The picture in its place on black."""
        canvas = Image.new("RGB", self.size)
        canvas.paste(one_source(self.request), (self.margins.left, self.margins.up))
        return canvas

    def kept(self, inset: int) -> Picture:
        """White, with a black rectangle where the picture is kept, drawn in on the sides that grow."""
        (wide, high), margins = self.size, self.margins
        sides = (margins.left, margins.up, -margins.right, -margins.down)
        insets = [0 if side == 0 else inset if side > 0 else -inset for side in sides]
        corners = [start + side + by for start, side, by in zip((0, 0, wide, high), sides, insets, strict=True)]
        mask = Image.new("L", self.size, "white")
        if corners[2] >= corners[0] and corners[3] >= corners[1]:
            ImageDraw.Draw(mask).rectangle(tuple(corners), fill="black")
        return mask

    @property
    def grid(self) -> TileGrid:
        width, height = self.request.width, self.request.height
        if width is None or height is None:
            raise RequestError("width x height", None, "give the size of a tile")
        return TileGrid.of(self.size, (width, height), self.pixels)

    @property
    def places(self) -> tuple[Place, ...]:
        """The tiles that hold anything new."""
        grid, margins, (wide, high) = self.grid, self.margins, self.size

        def is_old(place: Place) -> bool:
            x, y = place
            inside_across = x >= margins.left and x + grid.tile[0] <= wide - margins.right
            return inside_across and y >= margins.up and y + grid.tile[1] <= high - margins.down

        return tuple(place for place in grid.places if not is_old(place))

    def __len__(self) -> int:
        return len(self.places)

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        (left, top), (wide, high) = self.places[number], self.grid.tile
        box = (left, top, left + wide, top + high)
        request = self.request.with_changes(
            images=(self.canvas.crop(box),),
            mask=self.kept(2 * self.mask_blur).crop(box),
            latent_mask=self.kept(self.mask_blur // 2).crop(box),
            mask_blur_x=2 * self.mask_blur,
            mask_blur_y=2 * self.mask_blur,
            only_masked=False,
            masked_content=self.masked_content,
            seed=first_seed(self.request) + number,
            batch_size=1,
            iterations=1,
        )
        return SequenceStep(request=request, label=f"tile {number + 1} of {len(self)}")

    def assembled(self, done: Sequence[StepResult], settings: Settings) -> AssembledPictures:
        painted = dict(zip(self.places, pictures_of(done), strict=False))
        old = dict(zip(self.grid.places, self.grid.cut(self.canvas), strict=True))
        whole = combined(self.grid, [painted.get(place, old[place]) for place in self.grid.places])
        return AssembledPictures(images=(whole,), infotexts=(first_text(done),))
