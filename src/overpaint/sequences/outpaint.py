"""Outpaint: a picture that grows in one pass, with the whole old picture as context and none of its pixels changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from overpaint.errors import RequestError
from overpaint.parts import check_number
from overpaint.pixels.ground import Ground
from overpaint.request import MaskedContent, Picture
from overpaint.sequences.margins import MOST_PIXELS, Margins
from overpaint.sequences.story import PaintingSequence, SequenceStep, StepResult, one_source
from overpaint.settings import Settings
from overpaint.upright import NOTES

STRONG = 0.9  # the strength that leaves little of what the new part starts from
ANCHORS = ("center", "left", "right", "top", "bottom", "top-left", "top-right", "bottom-left", "bottom-right")
_SIDES = ("left", "top", "right", "bottom")

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Outpainting(PaintingSequence):
    """One job: the grown picture, its new part masked to the pixel."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    start: str = "noise"  # what the new part starts from
    context: int | None = None  # pixels of the old picture that the model sees beside the new part; None: all

    kind: ClassVar[str] = "outpaint"

    def __post_init__(self) -> None:
        for side in _SIDES:
            check_number(side, getattr(self, side), low=0, high=MOST_PIXELS, whole=True)
        if not any(getattr(self, side) for side in _SIDES):
            raise RequestError("left, top, right, bottom", 0, "the picture does not grow; give a side some pixels")
        if self.start not in STARTS:
            raise RequestError("start", self.start, f"choose one of {', '.join(STARTS)}")
        if self.context is not None:
            check_number("context", self.context, low=0, high=MOST_PIXELS, whole=True)
        if self.request.mask is not None:
            raise RequestError("mask", "a picture", "the new part is the mask here; leave it out")
        if max(self.size) > MOST_PIXELS:
            size = f"{self.size[0]}x{self.size[1]}"
            raise RequestError("size", size, f"at most {MOST_PIXELS} pixels a side are painted; grow it by less")

    @property
    def margins(self) -> Margins:
        return Margins(left=self.left, right=self.right, up=self.top, down=self.bottom)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the result."""
        return self.margins.size(*one_source(self.request).size)

    def __len__(self) -> int:
        return 1

    @cached_property
    def canvas(self) -> Picture:
        """The old picture in its place, and around it what the new part starts from."""
        source = one_source(self.request)
        ground = Ground.of(source, Settings.img2img_background_color)
        canvas = STARTS[self.start](ground.seen(), self.margins)
        canvas = ground.around(canvas, (self.left, self.top))
        canvas.info.update({**ground.carried(canvas), NOTES: ground.notes})
        return canvas

    @cached_property
    def mask(self) -> Picture:
        mask = Image.new("L", self.size, 255)
        mask.paste(0, (self.left, self.top, self.size[0] - self.right, self.size[1] - self.bottom))
        return mask

    def step(self, number: int, done: Sequence[StepResult]) -> SequenceStep:
        width, height = (None, None) if self.context is not None else self.size
        request = self.request.with_changes(
            images=(self.canvas,),
            mask=self.mask,
            mask_blur_x=0,
            mask_blur_y=0,
            width=width if self.request.width is None or self.context is None else self.request.width,
            height=height if self.request.height is None or self.context is None else self.request.height,
            only_masked=self.context is not None,
            padding=self.context or 0,
            masked_content=MaskedContent.ORIGINAL,
        )
        sides = ", ".join(f"{side} {getattr(self, side)}" for side in _SIDES if getattr(self, side))
        return SequenceStep(request=request, notes={"Outpainted": sides, "Outpainting start": self.start})


def margins_for(size: tuple[int, int], to: Any = None, aspect: Any = None, anchor: str = "center") -> dict[str, int]:
    """The sides that bring a picture to a size, or to a shape; `anchor` is where the old picture is in the new one."""
    if anchor not in ANCHORS:
        raise RequestError("anchor", anchor, f"choose one of {', '.join(ANCHORS)}")
    if (to is None) == (aspect is None):
        raise RequestError("to, aspect", (to, aspect), "give one of them")
    wide, high = _pair("to", to, "x") if to is not None else _grown(size, _pair("aspect", aspect, ":"))
    if wide < size[0] or high < size[1]:
        remedy = f"the picture has {size[0]}x{size[1]}, and outpainting cuts nothing off; give at least that"
        raise RequestError("to", f"{wide}x{high}", remedy)
    left, right = _shared(wide - size[0], "left" in anchor, "right" in anchor)
    top, bottom = _shared(high - size[1], "top" in anchor, "bottom" in anchor)
    return {"left": left, "top": top, "right": right, "bottom": bottom}


def _shared(room: int, at_start: bool, at_end: bool) -> tuple[int, int]:
    before = 0 if at_start else room if at_end else room // 2
    return before, room - before


def _grown(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The least size of this shape that holds the picture."""
    (wide, high), (across, down) = size, shape
    if wide * down >= high * across:
        return wide, max(high, round(wide * down / across))
    return max(wide, round(high * across / down)), high


def _pair(name: str, value: Any, between: str) -> tuple[int, int]:
    if isinstance(value, str) and (found := re.fullmatch(rf"\s*(\d+)\s*{between}\s*(\d+)\s*", value)):
        value = (int(found[1]), int(found[2]))
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(each, int) for each in value):
        if min(value) >= 1 and max(value) <= MOST_PIXELS:
            return value[0], value[1]
        raise RequestError(name, value, f"give numbers from 1 to {MOST_PIXELS}")
    raise RequestError(name, value, f"write it as {'1024x768' if between == 'x' else '16:9'}")


# -- what the new part starts from -------------------------------------------------------------------------------------


def mirrored(source: Picture, margins: Margins) -> Picture:
    """The picture's mirror image, more blurred the farther away it is."""
    return _blurred_outwards(_padded(source, margins, "symmetric"), source, margins)


def stretched(source: Picture, margins: Margins) -> Picture:
    """The strip at each edge, mirrored and pulled out over the whole margin."""
    values = np.asarray(source)
    for axis, (before, after) in ((1, (margins.left, margins.right)), (0, (margins.up, margins.down))):
        values = _stretched(values, axis, before, after)
    return _blurred_outwards(Image.fromarray(np.ascontiguousarray(values)), source, margins)


def noisy(source: Picture, margins: Margins) -> Picture:
    """The edge's colours going on, softly, with noise as strong as the grain that the edge has."""
    smooth = np.asarray(_blurred_outwards(_padded(source, margins, "edge"), source, margins), dtype=np.float32)
    pixels = np.asarray(source, dtype=np.float32)
    soft = np.asarray(source.filter(ImageFilter.GaussianBlur(_GRAIN)), dtype=np.float32)
    grain = np.sqrt(((pixels - soft) ** 2).mean(axis=(0, 1)) + 1)
    noise = np.random.default_rng(0).normal(size=smooth.shape).astype(np.float32) * np.minimum(grain * 2, 48)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


STARTS: Mapping[str, Callable[[Picture, Margins], Picture]] = MappingProxyType(
    {"noise": noisy, "mirror": mirrored, "stretch": stretched}
)
_GRAIN = 2.0  # pixels: what is finer counts as grain


def _padded(source: Picture, margins: Margins, mode: Any) -> Picture:
    sides = ((margins.up, margins.down), (margins.left, margins.right), (0, 0))
    return Image.fromarray(np.pad(np.asarray(source), sides, mode=mode))


def _stretched(values: npt.NDArray[np.uint8], axis: int, before: int, after: int) -> npt.NDArray[np.uint8]:
    side = values.shape[axis]

    def strip(margin: int) -> npt.NDArray[np.int64]:
        depth = max(1, min(side, margin // 4))
        found: npt.NDArray[np.int64] = np.minimum(np.arange(margin) * depth // max(margin, 1), side - 1)
        return found

    place = np.concatenate([strip(before)[::-1], np.arange(side), side - 1 - strip(after)])
    return np.take(values, place, axis=axis)


def _blurred_outwards(canvas: Picture, source: Picture, margins: Margins) -> Picture:
    """Blurred more the farther from the old picture, in a few levels with soft changes between them."""
    x = _distance(canvas.width, margins.left, source.width)
    y = _distance(canvas.height, margins.up, source.height)
    away = np.maximum(x[None, :], y[:, None])
    result = np.asarray(canvas, dtype=np.float32)
    for radius in (2, 6, 18, 48):
        blurred = np.asarray(canvas.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
        share: Values = np.clip(away / (2 * radius) - 0.5, 0, 1)[:, :, None].astype(np.float32)
        result = result * (1 - share) + blurred * share
    return Image.fromarray(np.rint(result).astype(np.uint8))


def _distance(side: int, before: int, inside: int) -> Values:
    place = np.arange(side)
    away: Values = np.maximum(np.maximum(before - place, place - (before + inside - 1)), 0).astype(np.float32)
    return away
