"""`overpaint.open_picture`: a picture for a program, which hears of what was lost on the way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from PIL import Image

from overpaint import pictures
from overpaint.pictures import DEFAULT_MAX_PIXELS
from overpaint.taking import had_16_bits
from overpaint.watching import warn

if TYPE_CHECKING:
    from overpaint.taking import PictureLike


def open_picture(
    source: bytes | str | os.PathLike[str] | PictureLike, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Image.Image:
    """A picture, decoded, upright and with 8 bits per channel. Its header is judged before its pixels are decoded.

    `source` is a file's path or content, a PIL picture, a numpy array or a torch tensor (`overpaint.taking` has the
    rules). A picture of more than `max_pixels` is refused. That 16 bits became 8 is an `OverpaintWarning`.
    """
    picture = pictures.open_picture(source, max_pixels=max_pixels)
    if had_16_bits(picture):
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else "the picture"
        warn([f"{name}: its 16 bits per channel became 8, which is what is painted with"])
    return picture
