"""`overpaint.open_picture`: a picture for a program, which hears of what was lost on the way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from PIL import Image

from overpaint import pictures
from overpaint.pictures import DEFAULT_MAX_PIXELS
from overpaint.taking import notes_of
from overpaint.watching import warn

if TYPE_CHECKING:
    import numpy.typing as npt

    from overpaint.taking import PictureLike


def open_picture(
    source: bytes | str | os.PathLike[str] | PictureLike, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Image.Image:
    """A picture, decoded and upright. Its header is judged before its pixels are decoded.

    `source` is a file's path or content, a PIL picture, a numpy array or a torch tensor (`overpaint.taking` has the
    rules). A picture of more than `max_pixels` is refused. PIL sees 8 bits per channel; where there are 16, they are
    kept beside them, and `overpaint.samples` gives them. What is lost, such as the second frame, is an
    `OverpaintWarning`.
    """
    picture = pictures.open_picture(source, max_pixels=max_pixels)
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "the picture"
    warn(f"{name}: {note}" for note in notes_of(picture))
    return picture


def samples(picture: Image.Image) -> npt.NDArray[Any]:
    """A picture's pixels as an array, (height, width) or (height, width, channels): uint16 where it has 16 bits."""
    import numpy as np

    from overpaint.deep import deep_of

    deep = deep_of(picture)
    if deep is None:
        return np.asarray(picture)
    values = deep.window((0, 0, *deep.size)).copy()
    return values[..., 0] if deep.channels == 1 else values
