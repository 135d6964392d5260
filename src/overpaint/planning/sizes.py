"""Sizes that a request leaves open, and those that a model does not know."""

from __future__ import annotations

from overpaint.errors import RequestError
from overpaint.models.specs import MmditSpec, ModelSpec
from overpaint.pixels.mask import Box
from overpaint.request import PaintRequest


def size_for_box(request: PaintRequest, box: Box, native_size: int) -> tuple[int, int]:
    """The model's native area in a box's shape, where no size is given."""
    scale = native_size / ((box[2] - box[0]) * (box[3] - box[1])) ** 0.5
    wide = max(64, round((box[2] - box[0]) * scale / 64) * 64)
    high = max(64, round((box[3] - box[1]) * scale / 64) * 64)
    return filled_up(request, wide, high)


def filled_up(request: PaintRequest, wide: int, high: int) -> tuple[int, int]:
    """What of the size is not given, in the shape of `wide` x `high`."""
    if request.width is not None:
        return request.width, max(1, round(request.width * high / wide))
    if request.height is not None:
        return max(1, round(request.height * wide / high)), request.height
    return wide, high


def check_side(latent_size: tuple[int, int], spec: ModelSpec) -> None:
    """Networks with a table of places know so many a side."""
    if not isinstance(spec.denoiser, MmditSpec):
        return
    most = spec.denoiser.side * spec.denoiser.patch
    if max(latent_size) > most:
        size = "x".join(str(each * spec.latent.factor) for each in latent_size)
        remedy = f"a {spec.title} model knows places for {most * spec.latent.factor} pixels a side; give a smaller size"
        raise RequestError("width and height", size, remedy)
