"""What a PIL picture says of itself: how it lies, and what its file held."""

from __future__ import annotations

from PIL import Image

ORIENTATION = 0x0112
SOURCE_MODE = "source_mode"  # in a picture's info: the mode of its file
NOTES = "source_notes"  # and what its user should know of it


def upright(picture: Image.Image) -> Image.Image:
    """REQ-5. Turned as its EXIF says, if it says so; broken EXIF does not spoil a picture that is otherwise good."""
    from PIL import ImageOps

    try:
        if picture.getexif().get(ORIENTATION, 1) == 1:
            return picture
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture
