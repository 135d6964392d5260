"""Pictures in formats that browsers do not show, such as TIFF, made into PNG files with every bit that they have."""

from __future__ import annotations

from typing import Any

from overpaint.errors import PictureError
from overpaint.files.metadata import encode_picture
from overpaint.pictures import open_picture, source_extras
from overpaint.service.limits import Limits


def as_png(data: bytes, limits: Limits) -> bytes:
    """The first frame, upright, with 8 or 16 bits a channel as its file has; `PictureError` where it cannot be read.

    NOTE: decoders of many formats see what a stranger sent. Call it where a crash costs nobody anything.
    """
    with open_picture(data, max_pixels=limits.source_pixels) as picture:
        beside: dict[str, Any] = dict(source_extras(picture).beside)
        for name, most in (("exif", limits.exif_bytes), ("icc", limits.icc_bytes), ("xmp", limits.text_chunk_bytes)):
            if beside[name] is not None and len(beside[name]) > most:
                beside[name] = None  # the PNG would not be taken with it
        try:
            return encode_picture(picture, "png", **beside)
        except Exception as error:  # what stands beside the pixels may be anything
            raise PictureError(f"the picture cannot be made a PNG ({error}): save it as PNG or JPEG") from error
