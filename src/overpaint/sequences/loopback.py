"""Loopback: paint over a picture, then over the result, and so on, each time a little more or less (SCR-3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from overpaint.errors import RequestError
from overpaint.models.usual import USUAL
from overpaint.parts import check_number
from overpaint.pixels.grid import image_grid
from overpaint.request import MaskedContent
from overpaint.sequences.story import (
    MOST_STEPS,
    AssembledPictures,
    PaintingSequence,
    SequenceStep,
    StepResult,
    check_count,
    first_seed,
    first_text,
    one_source,
    pictures_of,
    texts_of,
)
from overpaint.settings import Settings

CURVES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "linear": lambda way: way,
        "aggressive": lambda way: math.sin(way * math.pi / 2),
        "lazy": lambda way: 1 - math.cos(way * math.pi / 2),
    }
)


@dataclass(frozen=True, kw_only=True)
class Loopback(PaintingSequence):
    """So many loops from each of the request's iterations; the strength goes from the request's to the final one."""

    loops: int = 4
    final_strength: float = 0.5
    curve: str = "linear"

    kind: ClassVar[str] = "loopback"

    def __post_init__(self) -> None:
        check_number("loops", self.loops, low=1, high=MOST_STEPS, whole=True)
        check_number("final_strength", self.final_strength, low=0, high=1)
        if not isinstance(self.curve, str) or self.curve.lower() not in CURVES:
            raise RequestError("curve", self.curve, f"choose one of {', '.join(CURVES)}")
        one_source(self.request)
        check_count("loops", len(self))

    def __len__(self) -> int:
        return self.loops * self.request.iterations

    def strength(self, loop: int) -> float:
        """Of a loop, counted from 0."""
        first = USUAL["strength"] if self.request.strength is None else self.request.strength
        if self.loops == 1:
            return first
        return first + (self.final_strength - first) * CURVES[self.curve.lower()](loop / (self.loops - 1))

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        loop = number % self.loops
        changes: dict[str, object] = {
            "seed": first_seed(self.request) + number,
            "strength": self.strength(loop),
            "batch_size": 1,
            "iterations": 1,
            "images": self.request.images[:1],
        }
        if loop:
            changes["images"] = done[number - 1].pictures[:1]
            if self.request.mask is not None:
                changes["masked_content"] = MaskedContent.ORIGINAL
        notes = {"Final denoising strength": self.final_strength, "Denoising curve": self.curve.capitalize()}
        return SequenceStep(
            request=self.request.with_changes(**changes),  # type: ignore[arg-type]
            label=f"loop {loop + 1}",
            notes=notes,
            colors_of=self.request.images[0],
        )

    def assembled(self, done: Sequence[StepResult], settings: Settings) -> AssembledPictures:
        """Every loop of one iteration, or the last loops of several; before them a row of all."""
        shown = done if self.request.iterations == 1 else done[self.loops - 1 :: self.loops]
        images, texts = pictures_of(shown), texts_of(shown)
        if settings.quirks.first_step_speaks_for_all:
            texts = (first_text(done),) * len(images)
        if len(images) < 2 or not settings.return_grid:
            return AssembledPictures(images=images, infotexts=texts)
        row = image_grid(images, 1, settings.grid_background_color)
        return AssembledPictures(images=(row, *images), infotexts=(first_text(done), *texts), first=1)
