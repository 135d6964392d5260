"""HEIC, which phones make. Pillow does not know it; the extra `overpaint[heic]` brings pillow-heif."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from overpaint.errors import PictureError

HEAD = 12  # bytes that tell
_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def is_heic(start: bytes) -> bool:
    """By a file's first bytes."""
    return start[4:8] == b"ftyp" and start[8:12] in _BRANDS


def heic_header(data: bytes, name: str) -> Image.Image:
    """The file's picture, not decoded yet."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        remedy = "install it with: pip install 'overpaint[heic]'"
        raise PictureError(f"{name}: to read HEIC the extra overpaint[heic] is needed; {remedy}") from None
    opened: Any = HeifImageFile
    picture: Image.Image = opened(io.BytesIO(data))
    return picture


def deep_heic(picture: Image.Image, data: bytes) -> Image.Image | None:
    """A picture of 10 or 12 bits, with 16 in their place; None for one of 8."""
    if picture.format != "HEIF" or picture.info.get("bit_depth", 8) <= 8:
        return None
    import numpy as np
    import pillow_heif

    from overpaint.deep import deep_array

    whole = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    values = np.asarray(whole)
    return deep_array(values, picture.info) if values.dtype == np.uint16 else None
