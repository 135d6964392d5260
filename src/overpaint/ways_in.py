"""The six ways in which the reference's img2img page takes pictures, as one typed function (UI-1 to UI-5, BATCH).

for name, request in requests_for(PageInputs(way=WayIn.INPAINT, image=photo, mask=drawn), prompt="a cat"):
    engine.paint(request).save(f"{name}.png")
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from overpaint.errors import OverpaintWarning, PictureError, RequestError
from overpaint.pictures import open_picture
from overpaint.pixels.mask import to_gray_mask
from overpaint.pixels.sketch import inpaint_sketch_source, mask_from_sketch
from overpaint.request import Img2ImgRequest, Picture
from overpaint.seeds import fix_seed

LARGEST_SCALE = 64
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


class WayIn(Enum):
    """The tabs of the page; the values are the reference's numbers."""

    IMG2IMG = 0
    SKETCH = 1
    INPAINT = 2
    INPAINT_SKETCH = 3
    INPAINT_UPLOAD = 4
    BATCH = 5


@dataclass(frozen=True, kw_only=True)
class PageInputs:
    """What the page hands over. Which of these are read depends on the way in."""

    way: WayIn
    image: Picture | None = None
    sketch: Picture | None = None  # the picture with strokes drawn on it
    mask: Picture | None = None  # drawn, or uploaded
    mask_alpha: float = 0  # 0..100, how much of the strokes shows through
    folder: Path | None = None
    masks: Path | None = None  # a folder of masks, or one mask for all pictures
    scale_by: float | None = None  # instead of a width and height


def requests_for(entry: PageInputs, **fields: Any) -> Iterator[tuple[str, Img2ImgRequest]]:
    """The name and the request of every picture that comes in this way. `fields` are those of an `Img2ImgRequest`.

    A picture of a folder that cannot be read, or that none of several masks belongs to, is skipped with an
    `OverpaintWarning`.
    """
    if entry.way is WayIn.BATCH:
        yield from _folder(entry, fields)
        return
    image, mask = _WAYS[entry.way](entry, fields)
    yield entry.way.name.lower(), _request(image, mask, entry, fields)


def _plain(entry: PageInputs, fields: dict[str, Any]) -> tuple[Picture, Picture | None]:
    return _needed("image", entry.image), None


def _sketch(entry: PageInputs, fields: dict[str, Any]) -> tuple[Picture, Picture | None]:
    return _needed("sketch", entry.sketch), None


def _inpaint(entry: PageInputs, fields: dict[str, Any]) -> tuple[Picture, Picture | None]:
    """UI-1: a drawn mask is binary."""
    return _needed("image", entry.image), to_gray_mask(_needed("mask", entry.mask), True)


def _inpaint_sketch(entry: PageInputs, fields: dict[str, Any]) -> tuple[Picture, Picture | None]:
    """UI-2: what was drawn is the mask, and its blurred strokes are painted in."""
    image, sketch = _needed("image", entry.image), _needed("sketch", entry.sketch)
    mask = mask_from_sketch(image, sketch, entry.mask_alpha)
    return inpaint_sketch_source(image, sketch, mask, fields.get("mask_blur_x", 4)), mask


def _upload(entry: PageInputs, fields: dict[str, Any]) -> tuple[Picture, Picture | None]:
    return _needed("image", entry.image), _needed("mask", entry.mask)


_WAYS = {
    WayIn.IMG2IMG: _plain,
    WayIn.SKETCH: _sketch,
    WayIn.INPAINT: _inpaint,
    WayIn.INPAINT_SKETCH: _inpaint_sketch,
    WayIn.INPAINT_UPLOAD: _upload,
}


def _needed(name: str, picture: Picture | None) -> Picture:
    if picture is None:
        raise RequestError(name, None, "this way in needs it; give a picture")
    return picture


def _request(image: Picture, mask: Picture | None, entry: PageInputs, fields: dict[str, Any]) -> Img2ImgRequest:
    if entry.scale_by is not None:
        if not 0 < entry.scale_by <= LARGEST_SCALE:
            raise RequestError("scale_by", entry.scale_by, f"give a factor above 0, at most {LARGEST_SCALE}")
        size = {"width": int(image.width * entry.scale_by), "height": int(image.height * entry.scale_by)}  # UI-3
        fields = {**fields, **size}
    return Img2ImgRequest(images=(image,), mask=mask, **fields)


def _folder(entry: PageInputs, fields: dict[str, Any]) -> Iterator[tuple[str, Img2ImgRequest]]:
    if entry.folder is None or not entry.folder.is_dir():
        raise RequestError("folder", entry.folder, "give a folder of pictures")
    if entry.masks is not None and not entry.masks.exists():
        raise RequestError("masks", entry.masks, "give a folder of masks, or one mask")
    fields = {**fields, "seed": fix_seed(fields.get("seed", -1))}  # BATCH-1
    for path in pictures_below(entry.folder):
        mask = mask_for(path, entry.masks)
        if entry.masks is not None and mask is None:
            _warn(f"{path}: skipped, since no mask has its name")  # BATCH-2
            continue
        try:
            image = open_picture(path)
            opened = None if mask is None else open_picture(mask)
        except PictureError as error:
            _warn(f"{path}: skipped; {error}")  # BATCH-1
            continue
        yield path.stem, _request(image, opened, entry, fields)


def _warn(message: str) -> None:
    warnings.warn(message, OverpaintWarning, stacklevel=3)


def pictures_below(folder: Path) -> list[Path]:
    """Every picture of a folder and those below it, in natural order (BATCH-1)."""
    from overpaint.models.catalog import natural_key

    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    return sorted(found, key=lambda path: natural_key(str(path.relative_to(folder))))


def mask_for(picture: Path, masks: Path | None) -> Path | None:
    """BATCH-2: one mask serves all; of several, the one with the picture's stem."""
    if masks is None or masks.is_file():
        return masks
    files = [path for path in sorted(masks.iterdir()) if path.is_file()]
    if len(files) == 1:
        return files[0]
    return next((path for path in files if path.stem == picture.stem), None)
