"""The seam of an inpainted picture: measured along the mask's edge, and mended within the mask.

Colours are compared in CIE Lab, by the distance of 1976; a step of 1 can just be seen, one of 2 is seen at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from overpaint.pixels.color import rgb_to_lab
from overpaint.pixels.mask import Box, widened

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Mend = Literal["plain", "colour", "bands"]

BAND = 8  # pixels to both sides of an edge whose colours are compared
_CORE = 128  # from this gray on a pixel counts as painted
_MOST = 150_000  # pixels that are looked at; of larger boxes a smaller picture is
_SEEN = 1.0  # a step below this needs no mending
_BETTER = 0.9  # what a mended step may be of the plain one
_ALIKE = 10.0  # levels that source and painting may differ by, colour apart, where they are blended in bands
_LAB_SCALE = np.array([100 / 255, 1, 1], np.float32)


@dataclass(frozen=True)
class Seam:
    """How visible the edge of a mask is in a finished picture."""

    step: float  # mean colour step across the edge beyond the source's own, delta E
    step_p95: float
    source_step: float  # the mean step that the source has there of itself
    shift: float  # low-frequency colour shift of the painted side against the source, delta E
    gradient_jump: float  # how much steeper the lightness is on the edge than beside it, levels a pixel
    coverage: float  # per cent of the picture that the mask lets change
    outside: int = 0  # pixels that changed outside the mask; a result with any is not handed out
    blend: Mend = "plain"  # how it was blended


def measure_seam(source: Image.Image, result: Image.Image, alpha: Image.Image, blend: Mend = "plain") -> Seam | None:
    """The seam between what changed and what stayed; None where a mask has no edge in the picture."""
    box = alpha.getbbox()
    if box is None:
        return None
    area = widened(box, 2 * BAND, 2 * BAND, alpha.size)
    factor = _factor(area)
    before, after, shown = (_small(each, area, factor) for each in (source, result, alpha.convert("L")))
    edge = _Edge.of(shown)
    if edge is None:
        return None
    lab_before, lab_after = _lab(before), _lab(after)
    inner, outer = edge.means(lab_after)
    own_inner, own_outer = edge.means(lab_before)
    own = _length(own_inner - own_outer)
    steps = np.maximum(_length(inner - outer) - own, 0)
    return Seam(
        step=_rounded(steps.mean()),
        step_p95=_rounded(np.percentile(steps, 95)),
        source_step=_rounded(own.mean()),
        shift=_rounded(_length(inner - own_inner).mean()),
        gradient_jump=_rounded(edge.jump(lab_after[..., 0]) - edge.jump(lab_before[..., 0])),
        coverage=coverage_of(alpha, alpha.size),
        blend=blend,
    )


def coverage_of(alpha: Image.Image, size: tuple[int, int]) -> float:
    """How much of a picture of this size may change, in per cent; `alpha` may be the mask's part that is not black."""
    return _rounded(100 * sum(alpha.convert("L").histogram()[1:]) / (size[0] * size[1]))


def mended(
    source: Image.Image, painted: Image.Image, alpha: Image.Image, within: Box | None = None
) -> list[tuple[Mend, Image.Image]]:
    """The painting with its colours drawn to the source's near the edge, in the ways that fit.

    `colour`: what the painting shows outside the mask should be the source; the difference, smoothed, is taken off,
    less and less inwards. `bands`: the low frequencies of the two are blended over a wider band than the details, all
    of it inside the mask; only where the painting still shows what the source does. `within` is the box that was
    painted.
    """
    box = alpha.getbbox()
    if box is None:
        return []
    left, top, right, bottom = widened(box, 2 * BAND, 2 * BAND, alpha.size)
    if within is not None:
        left, top, right, bottom = (
            max(left, within[0]),
            max(top, within[1]),
            min(right, within[2]),
            min(bottom, within[3]),
        )
    area = left, top, right, bottom
    factor = _factor(area)
    old, new = (_small(each, area, factor).astype(np.float32) for each in (source, painted))
    weight = _small(alpha.convert("L"), area, factor)
    outside = (weight == 0) & _near(weight > 0, 2 * BAND)
    if not outside.any() or not (weight >= _CORE).any():
        return []
    field = _spread(old - new, outside)
    if _length(_lab_step(new, field)[outside]).mean() < _SEEN:
        return []
    fade = _fade(weight > 0)
    found: list[tuple[Mend, Image.Image]] = [("colour", _corrected(painted, area, field * fade))]
    low = _smooth(old - new, BAND)
    inner = (weight > 0) & (fade[..., 0] > 0.5)
    if inner.any() and float(np.abs(low - field)[inner].mean()) < _ALIKE:
        found.append(("bands", _corrected(painted, area, low * fade)))
    return found


def best(plain: Seam, others: list[Seam]) -> int | None:
    """Which of the mended ones is clearly better than the plain one; the place in the list."""
    if not others:
        return None
    steps = [_visible(each) for each in others]
    least = min(range(len(steps)), key=steps.__getitem__)
    return least if steps[least] < _BETTER * _visible(plain) else None


def _visible(seam: Seam) -> float:
    """What counts against a seam: its step, its worst places, and its gradient."""
    return seam.step + 0.25 * seam.step_p95 + max(0.0, seam.gradient_jump)


@dataclass(frozen=True)
class _Edge:
    """The two sides of a mask's edge."""

    inner: Flags
    outer: Flags
    line: Flags  # where they are compared
    border: Flags  # pixels right at the edge of what changed

    @classmethod
    def of(cls, alpha: npt.NDArray[np.uint8]) -> _Edge | None:
        touched, core = alpha > 0, alpha >= _CORE
        outer = ~touched & _near(touched, BAND)
        inner = core & _near(~core, BAND)
        line = _near(outer, BAND) & _near(inner, BAND)
        line &= (_share(outer) > 1e-3) & (_share(inner) > 1e-3)
        border = (touched & _near(~touched, 1)) | (~touched & _near(touched, 1))
        return cls(inner, outer, line, border) if line.any() else None

    def means(self, values: Floats) -> tuple[Floats, Floats]:
        """The mean colours of the two sides, along the line."""
        return self._mean_of(values, self.inner), self._mean_of(values, self.outer)

    def _mean_of(self, values: Floats, side: Flags) -> Floats:
        sums = _smooth(values * side[..., None].astype(np.float32), BAND)
        return _ratio(sums, _share(side)[..., None])[self.line]

    def jump(self, light: Floats) -> float:
        """The gradient on the edge beyond that beside it."""
        down, across = np.gradient(light)
        steep = np.hypot(down, across)
        beside = (self.inner | self.outer) & ~_near(self.border, 2)
        if not beside.any() or not self.border.any():
            return 0.0
        return float(steep[self.border].mean() - steep[beside].mean())


def _factor(area: Box) -> int:
    """How much smaller an area is looked at."""
    return max(1, math.ceil(math.sqrt((area[2] - area[0]) * (area[3] - area[1]) / _MOST)))


def _small(picture: Image.Image, area: Box, factor: int) -> npt.NDArray[np.uint8]:
    part = picture.crop(area)
    part = part if part.mode == "L" else part.convert("RGB")
    return np.asarray(part.reduce(factor) if factor > 1 else part)


def _lab(pixels: npt.NDArray[np.uint8]) -> Floats:
    return rgb_to_lab(pixels).astype(np.float32) * _LAB_SCALE


def _lab_step(new: Floats, field: Floats) -> Floats:
    """How far a correction moves colours, in Lab."""
    moved = np.clip(np.rint(new + field), 0, 255).astype(np.uint8)
    return _lab(moved) - _lab(new.astype(np.uint8))


def _length(vectors: Floats) -> Floats:
    result: Floats = np.sqrt((vectors * vectors).sum(axis=-1))
    return result


def _share(flags: Flags) -> Floats:
    return _smooth(flags.astype(np.float32)[..., None], BAND)[..., 0]


def _near(flags: Flags, pixels: int) -> Flags:
    """Within a square of so many pixels."""
    return _smooth(flags.astype(np.float32)[..., None], pixels, passes=1)[..., 0] > 1e-4


def _smooth(values: Floats, radius: int, passes: int = 2) -> Floats:  # (h, w, channels)
    """Means over squares, of what lies within the picture; twice, they fall off like a tent."""
    for _ in range(passes):
        for axis in (0, 1):
            values = _mean_along(values, radius, axis)
    return values


def _mean_along(values: Floats, radius: int, axis: int) -> Floats:
    length = values.shape[axis]
    radius = min(radius, length - 1)
    margin = [(0, 0)] * 3
    margin[axis] = (radius + 1, radius)
    sums: Floats = np.cumsum(np.pad(values, margin), axis=axis, dtype=np.float32)
    place = np.arange(length)
    counts = np.minimum(place + radius + 1, length) - np.maximum(place - radius, 0)
    shape = [1, 1, 1]
    shape[axis] = length
    upper, lower = (slice(2 * radius + 1, None), slice(None, length))
    cut = (slice(None),) * axis
    return _ratio(sums[(*cut, upper)] - sums[(*cut, lower)], counts.reshape(shape))


def _ratio(above: Floats, below: npt.NDArray[Any]) -> Floats:
    """Nothing where there is nothing to divide by."""
    ratio: Floats = np.divide(above, np.maximum(below, 1e-6), dtype=np.float32)
    return ratio


def _spread(values: Floats, known: Flags) -> Floats:
    """What is known on a ring, smoothed along it and carried inwards, from ever further away where nothing is near."""
    weight = known.astype(np.float32)[..., None]
    result: Floats = np.zeros_like(values)
    filled: Floats = np.zeros_like(weight)
    radius, longest = BAND, max(values.shape[:2])
    while True:
        share = _smooth(weight, radius)
        found = _ratio(_smooth(values * weight, radius), share)
        sure = np.clip(share * 50, 0, 1) * (1 - filled)
        result += found * sure
        filled += sure
        if radius >= longest or float(filled.min()) > 0.999:
            break
        radius *= 2
    return _smooth(_ratio(result, filled), BAND // 2)


def _fade(touched: Flags) -> Floats:
    """1 at the edge, falling to 0 inside over a part of the mask's size; (h, w, 1)."""
    reach = int(max(4 * BAND, 0.5 * math.sqrt(float(touched.sum()))))
    inside = np.pad(touched.astype(np.float32)[..., None], ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    depth = _smooth(inside, reach, passes=1)[reach:-reach, reach:-reach]
    fade = np.clip(2 * (1 - depth), 0, 1)
    result: Floats = fade * fade * (3 - 2 * fade)
    return result


def _corrected(painted: Image.Image, area: Box, change: Floats) -> Image.Image:
    """The painting with a smooth change of its colours, which may be known at a smaller size."""
    result = painted.convert("RGB")
    part = np.asarray(result.crop(area), np.float32)
    high, wide = part.shape[:2]
    channels = [Image.fromarray(each).resize((wide, high), Image.Resampling.BILINEAR) for each in _planes(change)]
    moved = part + np.stack([np.asarray(each) for each in channels], axis=-1)
    result.paste(Image.fromarray(np.clip(np.rint(moved), 0, 255).astype(np.uint8)), area[:2])
    return result


def _planes(values: Floats) -> list[Floats]:
    return [np.ascontiguousarray(values[..., channel]) for channel in range(values.shape[-1])]


def _rounded(value: float | np.floating) -> float:
    return round(float(value), 3)
