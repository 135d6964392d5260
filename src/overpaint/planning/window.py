"""The part of a canvas that the denoiser sees where a small mask asks for no more. Torch-free.

What lies outside the mask is put back into every prediction, so nobody needs an answer there: of a whole picture with a
small mask, most of a step's work is thrown away. A window of latent cells round the mask is enough, with surroundings
for what is painted to fit into. It keeps its place: noise, levels and cells outside are those of the whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from overpaint.errors import SettingError
from overpaint.models.specs import ModelSpec, UNetSpec
from overpaint.planning.canvas import Canvases
from overpaint.request import PaintRequest
from overpaint.settings import Settings

OPTION = "inpaint_window"
# By rule, which a number in place of "auto" does without:
_CONTEXT = 8  # the surroundings on each side are the model's native size by this,
_LEAST = 2  # no side of the window is less than the native size by this,
_MOST = 0.75  # and of a larger part of the canvas, what is saved is not worth what is unseen
_LONGEST = 4096


@dataclass(frozen=True)
class LatentWindow:
    """A box of latent cells."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)


def plan_window(
    request: PaintRequest, settings: Settings, spec: ModelSpec, prepared: Canvases
) -> tuple[LatentWindow | None, tuple[str, ...]]:
    """The window of a job that asks for one, or a warning why it sees the whole canvas."""
    context = _context(settings.inpaint_window, spec)
    if context is None:
        return None, ()
    refused = _refusal(request, settings, spec, prepared)
    if refused is not None or prepared.mask is None or not isinstance(spec.denoiser, UNetSpec):
        return None, (f"{OPTION}: {refused}, so the whole picture was seen",)
    rows, columns = (np.flatnonzero(prepared.mask.latent.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None, ()
    high, wide = prepared.mask.latent.shape
    cell, unit = spec.latent.factor, 2 ** (len(spec.denoiser.channel_mult) - 1)
    by_rule = settings.inpaint_window == "auto"
    least = spec.native_size // cell // _LEAST if by_rule else 0
    around = -(-context // cell)
    left, right = _grown(int(columns[0]), int(columns[-1]) + 1, wide, around=around, least=least, unit=unit)
    top, bottom = _grown(int(rows[0]), int(rows[-1]) + 1, high, around=around, least=least, unit=unit)
    window = LatentWindow(left, top, right, bottom)
    most = _MOST if by_rule else 1.0
    return (None if window.area > most * wide * high or window.area == wide * high else window), ()


def _context(option: str, spec: ModelSpec) -> int | None:
    """Pixels of surroundings; None: there is no window."""
    if option in ("off", "auto"):
        return None if option == "off" else spec.native_size // _CONTEXT
    if not (option.isascii() and option.isdigit() and int(option) <= _LONGEST):
        raise SettingError(
            OPTION, option, f"give off, auto, or the pixels round the mask that are seen, 0 to {_LONGEST}"
        )
    return int(option)


def _refusal(request: PaintRequest, settings: Settings, spec: ModelSpec, prepared: Canvases) -> str | None:
    if prepared.mask is None:
        return "there is no mask"
    if prepared.mask.crop is not None:
        return "only the masked area is painted already"
    if not isinstance(spec.denoiser, UNetSpec):
        return f"a {spec.title} model has no U-Net"
    if request.soft_inpainting is not None:
        return "soft inpainting changes what lies outside the mask"
    if request.controls:
        return "ControlNets look at the whole picture"
    return "pictures whose edges meet have no surroundings" if settings.tiling else None


def _grown(first: int, last: int, side: int, *, around: int, least: int, unit: int) -> tuple[int, int]:
    """A span with its surroundings: a multiple of what the U-Net halves, as large as asked, within the canvas."""
    first, last = max(0, first - around), min(side, last + around)
    length = -(-max(last - first, least) // unit) * unit
    if length >= side:
        return 0, side
    start = min(max(0, first - (length - (last - first)) // 2), side - length)
    return start, start + length
