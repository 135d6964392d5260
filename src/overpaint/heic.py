"""HEIC, which phones make. Pillow does not know it; the extra `overpaint[heic]` brings pillow-heif."""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from PIL import Image

from overpaint.errors import PictureError

REMEDY = "install it with: pip install 'overpaint[heic]'"
HEAD = 12  # bytes that tell
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def is_heic(start: bytes) -> bool:
    """By a file's first bytes."""
    return start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS


def heic_header(data: bytes, name: str) -> Image.Image:
    """The file's picture, not decoded yet."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise PictureError(f"{name}: to read HEIC the extra overpaint[heic] is needed; {REMEDY}") from None
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


def can_write_heic() -> bool:
    """Whether the extra is there; asked without importing it."""
    return find_spec("pillow_heif") is not None


def heic_bytes(picture: Image.Image, options: Mapping[str, Any]) -> bytes:
    """A file of a picture in RGB or RGBA; one of 16 bits a channel becomes one of 10. `options` are Pillow's."""
    import pillow_heif

    from overpaint.deep import deep_of
    from overpaint.deep_pixels import with_channels

    deep = deep_of(picture)
    if deep is None:
        made = pillow_heif.from_bytes(picture.mode, picture.size, picture.tobytes())
    else:
        channels = 4 if deep.channels in (2, 4) else 3
        samples = with_channels(deep.window((0, 0, *deep.size)), channels)
        made = pillow_heif.from_bytes(f"{'RGBA' if channels == 4 else 'RGB'};16", deep.size, samples.tobytes())
    made.info["icc_profile"] = options.get("icc_profile")
    file = io.BytesIO()
    told = {"exif": options.get("exif"), "xmp": options.get("xmp"), "quality": options.get("quality", 95)}
    made.save(file, **told, tile_size=_TILE if max(picture.size) > _LONGEST_FRAME else 0)
    return file.getvalue()


_LONGEST_FRAME, _TILE = 8192, 2048  # pixels a side; encoders end there, and a grid of tiles does not
