"""A strength for each place: which latent cells walk how many steps. Torch-free.

A cell of strength s takes part as in a plain job of that strength: it starts at that job's first level of noise, and
until the walk has come down to it, it is held to its source, noised (differential diffusion, arXiv:2306.00950). Cells
that start at the same step are one level; the strongest level is the job's own walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from overpaint.pixels.mask import to_gray_mask
from overpaint.pixels.resize import resize_image
from overpaint.planning.canvas import Canvases
from overpaint.planning.canvas_pixels import RESIZE_FILL, STRETCH
from overpaint.planning.sampler_plan import SamplerPlan, Start
from overpaint.request import PaintRequest, Picture, ResizeMode, decided
from overpaint.schedules import img2img_steps
from overpaint.settings import Quirks, Settings

_RESIZE = tuple(ResizeMode)


@dataclass(frozen=True)
class StrengthLevel:
    """Cells that start at one step, and their walk."""

    cells: NDArray[np.bool_]  # (h/8, w/8)
    sampler: SamplerPlan
    strength: float  # the mean of its cells

    @property
    def share(self) -> float:
        """The part of the picture, in per cent."""
        return round(100 * float(self.cells.mean()), 1)


def gray_of(strength_map: Picture) -> Picture:
    """White: the whole of `strength`."""
    return to_gray_mask(strength_map, False)


def ceiling(request: PaintRequest) -> float:
    """The strength of the strongest place."""
    if request.strength_map is None:
        return decided(request.strength)
    lightest = max(value for value, count in enumerate(gray_of(request.strength_map).histogram()) if count)
    return decided(request.strength) * lightest / 255


def start_of(request: PaintRequest, settings: Settings) -> Start:
    """Where the job's own walk begins."""
    start = Start.of(request, settings)
    return start if request.strength_map is None else replace(start, strength=ceiling(request), at_a_step=True)


def with_mask(request: PaintRequest) -> PaintRequest:
    """A map with black in it, and without a mask beside it, is a mask, too: what is black stays, byte for byte."""
    if request.strength_map is None or request.mask is not None:
        return request
    gray = gray_of(request.strength_map)
    if not gray.histogram()[0] or gray.getbbox() is None:
        return request
    shown = gray.point([0, *[255] * 255])
    return request.with_changes(mask=shown, invert_mask=False, round_mask=True)


def strength_levels(
    request: PaintRequest,
    prepared: Canvases,
    own: SamplerPlan,
    walk: Callable[[PaintRequest, Start], SamplerPlan],
    quirks: Quirks,
) -> tuple[StrengthLevel, ...]:
    """The levels of a job, the strongest first; none where all cells are of the strongest.

    `walk` plans that of a plain job of some strength.
    """
    if request.strength_map is None or not own.takes_steps or ceiling(request) == 0:
        return ()
    strongest = decided(request.strength)
    shares = _shares(gray_of(request.strength_map), request, prepared, quirks)
    strengths = np.where(shares > 0, strongest * shares.astype(np.float64) / 255, 0)
    before = np.array([-1 if value == 0 else _steps_before(strongest * value / 255, own) for value in range(256)])
    first = np.minimum(before[shares], own.t_enc)
    plain = request.with_changes(steps=own.steps)
    found = []
    for t_enc in sorted({int(each) for each in np.unique(first)} - {-1}, reverse=True):
        cells = first == t_enc
        strength = float(strengths[cells].mean())
        sampler = (
            own if t_enc == own.t_enc else walk(plain, Start(strength=float(strengths[cells].min()), at_a_step=True))
        )
        found.append(StrengthLevel(cells, sampler, strength))
    return () if len(found) == 1 and found[0].cells.all() else tuple(found)


def told(levels: tuple[StrengthLevel, ...]) -> Iterator[dict[str, float | int]]:
    """Each level in plain values, and what is held all the way."""
    for each in levels:
        yield {"strength": round(each.strength, 4), "steps": each.sampler.evaluations, "share": each.share}
    held = round(100 - sum(100 * float(each.cells.mean()) for each in levels), 1)
    if levels and held > 0:
        yield {"strength": 0.0, "steps": 0, "share": held}


def _steps_before(strength: float, own: SamplerPlan) -> int:
    return img2img_steps(own.steps, strength)[1]


def _shares(
    gray: Picture, request: PaintRequest, prepared: Canvases, quirks: Quirks
) -> NDArray[np.uint8]:  # (h/8, w/8)
    """The map in latent cells, by the way that the picture takes."""
    geometry = prepared.geometry
    source = prepared.canvases[0].source
    if gray.size != source.size:
        gray = gray.resize(source.size, Image.Resampling.BICUBIC)
    size = geometry.pass_width, geometry.pass_height
    if prepared.mask is not None and prepared.mask.crop is not None:
        fitted = resize_image(RESIZE_FILL, gray.crop(prepared.mask.crop), *size, quirks=quirks)
    else:
        latent = request.resize_mode is ResizeMode.LATENT
        mode = STRETCH if latent else _RESIZE.index(request.resize_mode)
        fitted = resize_image(mode, gray, geometry.width, geometry.height, quirks=quirks)
        fitted = _padded(fitted, size)
    wide, high = geometry.latent_size
    covered = fitted.convert("L").crop((0, 0, *geometry.covered))
    return np.asarray(covered.resize((wide, high), Image.Resampling.BOX))


def _padded(picture: Picture, size: tuple[int, int]) -> Picture:
    right, bottom = max(0, size[0] - picture.width), max(0, size[1] - picture.height)
    if not (right or bottom):
        return picture
    return Image.fromarray(np.pad(np.asarray(picture.convert("L")), ((0, bottom), (0, right)), mode="edge"))
