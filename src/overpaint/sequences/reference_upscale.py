"""The reference's SD upscale: a picture enlarged, painted over tile by tile, and put together (SCR-1, SCR-2).

Tiles know nothing of each other here; `enlarge` is the way of our own, in which they agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from overpaint.errors import RequestError
from overpaint.parts import check_number
from overpaint.pictures import flatten
from overpaint.pixels.resize import Upscaler, find_upscaler, upscaled
from overpaint.request import Picture
from overpaint.sequences.story import (
    AssembledPictures,
    PaintingSequence,
    SequenceStep,
    StepResult,
    check_count,
    first_seed,
    first_text,
    one_source,
    texts_of,
)
from overpaint.sequences.tiles import TileGrid, combined
from overpaint.settings import Settings

LARGEST_SIDE = 16_384


@dataclass(frozen=True, kw_only=True)
class PastedTiles(PaintingSequence):
    """Tiles of the request's width and height, a batch of them in each step, all of it once per iteration."""

    overlap: int = 64
    upscaler: str = "None"  # which leaves the picture as large as it is
    scale: float = 2.0
    enlarged: Picture | None = None  # made by `prepared`

    kind: ClassVar[str] = "sd-upscale"
    saved: ClassVar = "result"

    def __post_init__(self) -> None:
        check_number("overlap", self.overlap, low=0, high=LARGEST_SIDE, whole=True)
        check_number("scale", self.scale, low=0.01, high=64)
        one_source(self.request)
        if max(self._source.size) * self.scale > LARGEST_SIDE * 4:
            raise RequestError("scale", self.scale, "the picture would become too large; ask for less")
        check_count("tiles", len(self))

    def prepared(self, settings: Settings, known: Mapping[str, Upscaler]) -> PaintingSequence:
        enlarge = find_upscaler(self.upscaler, replace(settings.quirks, unknown_names_fall_back=False), known)
        picture = flatten(one_source(self.request), settings.img2img_background_color, settings.quirks).convert("RGB")
        larger = picture if enlarge is None else upscaled(picture, self.scale, enlarge, settings.quirks)
        return replace(self, enlarged=larger)

    @property
    def _source(self) -> Picture:
        return self.enlarged or one_source(self.request)

    @property
    def grid(self) -> TileGrid:
        width, height = self.request.width, self.request.height
        if width is None or height is None:
            raise RequestError("width x height", None, "give the size of a tile")
        return TileGrid.of(self._source.size, (width, height), self.overlap)

    @property
    def _batches(self) -> int:
        return math.ceil(len(self.grid.places) / self.request.batch_size)

    def __len__(self) -> int:
        return self._batches * self.request.iterations

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        iteration, batch = divmod(number, self._batches)
        size, grid = self.request.batch_size, self.grid
        start = first_seed(self.request) + iteration
        before = sum(self._painted(each) for each in range(batch))
        request = self.request.with_changes(
            images=tuple(self._tile(grid, each) for each in grid.places[batch * size : (batch + 1) * size]),
            seed=start + batch,
            iterations=1,
        )
        label = f"tile {before + 1} of {len(grid.places)}"
        notes = {"SD upscale overlap": self.overlap, "SD upscale upscaler": self.upscaler}
        return SequenceStep(request=request, label=label, notes=notes)

    def _tile(self, grid: TileGrid, place: tuple[int, int]) -> Picture:
        (left, top), (wide, high) = place, grid.tile
        return self._source.crop((left, top, left + wide, top + high))

    def _painted(self, batch: int) -> int:
        size = self.request.batch_size
        return min(size, len(self.grid.places) - batch * size)

    def assembled(self, done: Sequence[StepResult], settings: Settings) -> AssembledPictures:
        wholes: list[Picture] = []
        texts: list[str] = []
        grid = self.grid
        unpainted = grid.cut(self._source)
        for start in range(0, len(done), self._batches):
            part = done[start : start + self._batches]
            tiles = [picture for i, each in enumerate(part) for picture in each.pictures[: self._painted(i)]]
            wholes.append(combined(grid, tiles + unpainted[len(tiles) :]))
            texts.append(texts_of(part)[0])
        if settings.quirks.first_step_speaks_for_all:
            texts = [first_text(done)] * len(wholes)
        return AssembledPictures(images=tuple(wholes), infotexts=tuple(texts))
