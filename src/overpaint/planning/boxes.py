"""What of a source is painted, from the box round its mask alone: for those who ask while the mask is still drawn."""

from __future__ import annotations

from overpaint.pixels.mask import Box, blur_reach, expand_crop_region, widened
from overpaint.planning.canvas import geometry_of
from overpaint.planning.canvas_pixels import Geometry
from overpaint.planning.sizes import size_for_box
from overpaint.request import PaintRequest
from overpaint.settings import Settings


def boxed(
    request: PaintRequest, source: tuple[int, int], box: Box, native_size: int, settings: Settings, factor: int
) -> tuple[Box, Geometry]:
    """(crop, sizes) of an "only masked" job whose mask is white somewhere within `box` and up to its edges."""
    reach = blur_reach(request.mask_blur_x), blur_reach(request.mask_blur_y)
    padded = widened(widened(box, *reach, source), request.padding, request.padding, source)
    width, height = request.width, request.height
    if width is None or height is None:
        width, height = size_for_box(request, padded, native_size)
    geometry = geometry_of(width, height, settings, factor)
    return expand_crop_region(padded, geometry.pass_width, geometry.pass_height, *source), geometry
