"""Grids: the same job with other values along two or three axes, as cells and as one labelled sheet (X/Y/Z plot)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from overpaint.errors import RequestError
from overpaint.parts import check_number
from overpaint.request import PaintRequest, Picture
from overpaint.sequences.axes import GridAxis
from overpaint.sequences.sheets import labelled_sheet, stacked_sheets
from overpaint.sequences.story import (
    MOST_STEPS,
    AssembledPictures,
    PaintingSequence,
    SequenceStep,
    StepResult,
    first_seed,
)
from overpaint.settings import Settings

_NO_AXIS = GridAxis(field="replace", values=("",))
_SEEDS = ("seed", "variation_seed")
_AXES = ("x", "y", "z")


@dataclass(frozen=True, kw_only=True)
class PictureGrid(PaintingSequence):
    """Every combination of the axes' values. Cells with one checkpoint are painted one after another."""

    x: GridAxis | None = None  # across
    y: GridAxis | None = None  # down
    z: GridAxis | None = None  # sheets side by side
    labels: bool = True
    legend: bool = True  # what all cells have in common, under the sheet
    margin: int = 0
    with_cells: bool = True
    with_sheets: bool = False  # those of every value of z, beside the one of all
    vary_seeds: tuple[bool, ...] = (False, False, False)  # by axis: each value has a seed of its own
    script: str = ""  # the reference's title, for the sheet's infotext

    kind: ClassVar[str] = "grid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "vary_seeds", tuple(self.vary_seeds))
        check_number("margin", self.margin, low=0, high=500, whole=True)
        if len(self) > MOST_STEPS:
            shape = " x ".join(str(len(axis.values)) for axis in self.axes)
            raise RequestError(
                "grid", f"{len(self)} cells ({shape})", f"at most {MOST_STEPS} are painted; take values away"
            )
        for axis in self.given:
            axis.check(self.request)
        fields = [axis.field for axis in self.given]
        if len(set(fields)) < len(fields):
            raise RequestError("grid", ", ".join(fields), "two axes are about one field; choose another for one")
        self._cell(0)  # a wrong value is told at once

    @property
    def axes(self) -> tuple[GridAxis, GridAxis, GridAxis]:
        return self.x or _NO_AXIS, self.y or _NO_AXIS, self.z or _NO_AXIS

    @property
    def given(self) -> tuple[GridAxis, ...]:
        return tuple(axis for axis in (self.x, self.y, self.z) if axis is not None)

    def __len__(self) -> int:
        x, y, z = (len(axis.values) for axis in self.axes)
        return x * y * z

    def place(self, cell: int) -> tuple[int, int, int]:
        """(x, y, z) of a cell, in reading order."""
        x, y, _ = (len(axis.values) for axis in self.axes)
        return cell % x, cell // x % y, cell // (x * y)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The cells in the order of their painting: those of one model, and of one LoRA's weight, together."""
        heavy = [i for i, axis in enumerate(self.axes) if axis is not _NO_AXIS and axis.field in _MODELS]
        light = [i for i, axis in enumerate(self.axes) if axis.field.startswith("lora ")]

        def key(cell: int) -> tuple[Any, ...]:
            place = self.place(cell)
            return (*(place[i] for i in heavy), *(place[i] for i in light), cell)

        return tuple(sorted(range(len(self)), key=key))

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        cell = self.order[number]
        return SequenceStep(request=self._cell(cell), label=self.name_of(cell))

    def name_of(self, cell: int) -> str:
        """Such as "steps 20, cfg scale 7"."""
        pairs = zip(self.axes, self.place(cell), strict=True)
        return ", ".join(f"{axis.name} {axis.label(i)}" for axis, i in pairs if axis is not _NO_AXIS)

    def _cell(self, cell: int) -> PaintRequest:
        request, place = self.request, self.place(cell)
        request = request.with_changes(seed=first_seed(request) + self._offset(place), iterations=1)
        for axis, index in zip(self.axes, place, strict=True):
            if axis is not _NO_AXIS:
                request = axis.applied(request, index)
        return request

    def _offset(self, place: tuple[int, int, int]) -> int:
        offset, stride = 0, 1
        for axis, index, varies in zip(self.axes, place, self.vary_seeds, strict=True):
            if varies:
                offset += index * stride
                stride *= len(axis.values)
        return offset

    def assembled(self, done: Sequence[StepResult], settings: Settings) -> AssembledPictures:
        found = {self.order[i]: each for i, each in enumerate(done)}
        cells: list[Picture | None] = [None] * len(self)
        for cell, result in found.items():
            cells[cell] = result.pictures[0] if result.pictures else None
        in_order = [found[cell] for cell in sorted(found)]
        texts = tuple(each.infotexts[0] for each in in_order if each.pictures)
        pictures = tuple(each for each in cells if each is not None)
        if not pictures:
            return AssembledPictures(images=(), infotexts=())
        sheets = self._sheets(cells, texts[0], settings.grid_background_color)
        shown = (pictures, texts) if self.with_cells else ((), ())
        said = self._sheet_text(texts[0])
        return AssembledPictures(
            images=(*sheets, *shown[0]), infotexts=((said,) * len(sheets) + shown[1]), first=len(sheets)
        )

    def _sheets(self, cells: Sequence[Picture | None], text: str, background: str) -> list[Picture]:
        x, y, z = self.axes
        size, labels = len(x.values) * len(y.values), self.labels
        layers = [
            labelled_sheet(
                cells[i * size : (i + 1) * size],
                _titles(x if labels else None, len(x.values)),
                _titles(y if labels else None, len(y.values)),
                margin=self.margin,
                background=background,
                titles=(_name(x), _name(y)) if labels else ("", ""),
                legend=self._legend(text) if self.legend and labels and self.z is None else "",
            )
            for i in range(len(z.values))
        ]
        if len(layers) == 1:
            return layers
        titles = [f"{_name(z)} {each}" for each in _titles(z, len(layers))] if labels else [""] * len(layers)
        main = stacked_sheets(layers, titles, background, self._legend(text) if self.legend and labels else "")
        return [main, *(layers if self.with_sheets else ())]

    def _legend(self, text: str) -> str:
        """What the cells have in common: the first one's infotext without what an axis says."""
        if any(axis.field in ("prompt", "replace", "order") for axis in self.given):
            text = text.rpartition("\n")[2]
        varied = {_IN_INFOTEXT.get(axis.field) for axis in self.given} | {"Version"}
        if any(self.vary_seeds):
            varied.add("Seed")
        *lines, last = text.split("\n")
        kept = [each for each in last.split(", ") if each.partition(": ")[0] not in varied]
        return "\n".join([*lines, ", ".join(kept)])

    def _sheet_text(self, text: str) -> str:
        """The first cell's infotext, and what the axes are."""
        said = [f"Script: {self.script}"] if self.script else []
        for letter, axis in zip(_AXES, (self.x, self.y, self.z), strict=True):
            if axis is not None:
                values = ", ".join(axis.label(i) for i in range(len(axis.values)))
                shown = f'"{values}"' if "," in values or ":" in values else values
                said += [f"{letter.upper()} Type: {axis.name}", f"{letter.upper()} Values: {shown}"]
        before, version, after = text.rpartition(", Version: ")
        return f"{before}, {', '.join(said)}{version}{after}" if version else f"{text}, {', '.join(said)}"


_MODELS = ("checkpoint", "refiner", "sd_vae")
_IN_INFOTEXT = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scheduler": "Schedule type",
    "cfg_scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "checkpoint": "Model",
    "strength": "Denoising strength",
    "clip_skip": "Clip skip",
    "variation_strength": "Variation seed strength",
    "variation_seed": "Variation seed",
}


def _name(axis: GridAxis) -> str:
    return "" if axis is _NO_AXIS else axis.name


def _titles(axis: GridAxis | None, count: int) -> list[str]:
    if axis is None or axis is _NO_AXIS:
        return [""] * count
    return [axis.label(i) for i in range(count)]
