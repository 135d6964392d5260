"""Masks: drawn, found in pictures, put together and changed; white is what is repainted.

    from overpaint import masks
    mask = masks.feather(masks.grow(masks.ellipse(photo.size, (120, 40, 300, 180)), 8), 12)
    mask = masks.draw("ellipse 120,40,300,180 | grow 8 | feather 12", photo)

Every function takes and gives Pillow pictures of one 8-bit channel, and changes none. The words of a text are the
functions' names. Nothing here knows torch.
"""

from overpaint.masks.algebra import coverage, intersect, invert, overlay, subtract, threshold, union
from overpaint.masks.colours import from_alpha, from_colour, from_difference, from_gray, wand
from overpaint.masks.cutout import cut_out
from overpaint.masks.drawing import draw, files_in, means_mask, names_in
from overpaint.masks.edges import feather, feather_in, feather_out, grow, shrink
from overpaint.masks.language import MaskText, parse
from overpaint.masks.regions import drop_specks, fill_holes
from overpaint.masks.shapes import ellipse, everything, nothing, polygon, rectangle, stroke

__all__ = [
    "MaskText",
    "coverage",
    "cut_out",
    "draw",
    "drop_specks",
    "ellipse",
    "everything",
    "feather",
    "feather_in",
    "feather_out",
    "files_in",
    "fill_holes",
    "from_alpha",
    "from_colour",
    "from_difference",
    "from_gray",
    "grow",
    "intersect",
    "invert",
    "means_mask",
    "names_in",
    "nothing",
    "overlay",
    "parse",
    "polygon",
    "rectangle",
    "shrink",
    "stroke",
    "subtract",
    "threshold",
    "union",
    "wand",
]
