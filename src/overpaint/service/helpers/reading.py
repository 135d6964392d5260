"""The reader: a helper that takes the pictures out of a large body. What is left of it is small enough for anybody.
A body that is a picture's file, and a file of a form, are looked at in the same way.

Of each picture it tells what judging needs to know, and where its file is. What it does not understand it leaves: the
process that answers finds the words for it. It also makes PNG files of pictures in formats that browsers do not show.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, _imaging
from pydantic_core import from_json

from overpaint.errors import PictureError, SaveError
from overpaint.files.saving import OWNER, save_bytes
from overpaint.pictures import open_picture
from overpaint.service.guard.foreign_pictures import as_png
from overpaint.service.guard.inputs import admit_picture, decoded_text
from overpaint.service.helpers.helping import help_with
from overpaint.service.limits import PICTURE_BLOCK, Limits
from overpaint.service.ports import TooLarge
from overpaint.service.wire import Message
from overpaint.upright import NOTES, SOURCE_MODE

# Under these names, and whatever is inside of them, doors take pictures; under any other a text stays what it is.
HOLDERS = frozenset(
    {
        *("images", "image", "mask", "latent_mask", "strength_map", "references", "picture", "pictures", "image_url"),
        *("init_images", "imageList", "data", "input_image", "mask_image", "effective_region_mask"),
        *("controlnet_input_images", "controlnet_images", "controlnet_masks"),
    }
)
ECHOED = "include_init_images"  # (I2I-7) a client that wants its texts back
_SHORTEST = 64 * 1024  # characters of a text that is worth the trouble
_MOST_LEFT = 2**20  # characters
_NAME = "picture"
_PLAIN = ("L", "RGB", "RGBA")  # modes
_LONGEST_PROFILE = 256 * 1024  # bytes, of all that one message can hold
_BEHIND = 2  # the process that answers; its client waits, so it comes before those that paint


def answer(message: Message, questions: BinaryIO) -> dict[str, Any]:
    """{"size": of the body that follows, "limits", "folder": for files, "mark": how marks begin}."""
    body = questions.read(message["size"])
    if message["type"] == "png":
        return _converted(body, message)
    taking = _Taking(Limits(**message["limits"]), Path(message["folder"]), message["mark"])
    if message["type"] == "picture":
        return {"picture": taking.kept(body)}
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError:
        return {"is_read": False}
    del body
    if not isinstance(values, dict) or values.get(ECHOED):
        return {"is_read": False}
    values = taking.left_of(values, is_inside=False)
    if taking.left > _MOST_LEFT:
        taking.undo()
        return {"is_read": False}
    return {"is_read": True, "values": values, "pictures": taking.pictures}


def _converted(body: bytes, message: Message) -> dict[str, Any]:
    """{"path": of the PNG}, or {"error": why there is none}."""
    try:
        png = as_png(body, Limits(**message["limits"]))
        return {"path": str(save_bytes(Path(message["folder"]) / message["mark"], png, mode=OWNER))}
    except (PictureError, SaveError) as error:
        return {"error": str(error)}


class _Taking:
    """The pictures of one body."""

    def __init__(self, limits: Limits, folder: Path, mark: str) -> None:
        self._limits, self._folder, self._mark = limits, folder, mark
        self.pictures: dict[str, dict[str, Any]] = {}
        self.left = 0  # characters

    def left_of(self, value: Any, *, is_inside: bool) -> Any:
        """The value with marks for pictures; texts that are taken are let go one by one."""
        if isinstance(value, dict):
            for key in value:
                self.left += len(key)
                value[key] = self.left_of(value[key], is_inside=is_inside or key in HOLDERS)
        elif isinstance(value, list):
            for i, each in enumerate(value):
                value[i] = self.left_of(each, is_inside=is_inside)
        elif isinstance(value, str):
            if is_inside and len(value) >= _SHORTEST and (found := self._taken(value)) is not None:
                mark = f"{self._mark}-{len(self.pictures)}"
                self.pictures[mark] = found
                return mark
            self.left += len(value)
        return value

    def undo(self) -> None:
        for each in self.pictures.values():
            if "path" in each:
                Path(each["path"]).unlink(missing_ok=True)

    def _taken(self, text: str) -> dict[str, Any] | None:
        """None if it is no picture."""
        limits = self._limits
        try:
            data = decoded_text(text, limits, _NAME)
        except TooLarge as error:
            return {"too_large": str(error).removeprefix(f"{_NAME}: ")}
        except PictureError:
            return None
        return self.kept(data)

    def kept(self, data: bytes) -> dict[str, Any] | None:
        """A file as it is, and what is to be known of it; None if the disk does not take it."""
        try:
            path = save_bytes(self._folder / f"{self._mark}-{len(self.pictures)}", data, mode=OWNER)
        except SaveError:
            return None
        return {"path": str(path), **self._judged(data)}

    def _judged(self, data: bytes) -> dict[str, Any]:
        """What is not fit to be decoded is not, and its door says why."""
        try:
            pixels = admit_picture(data, self._limits)
        except PictureError:
            return {}
        found: dict[str, Any] = {"digest": hashlib.sha256(data).hexdigest(), "pixels": pixels}
        try:
            with open_picture(data, max_pixels=self._limits.source_pixels) as picture:
                return {**found, "size": picture.size, **_beside_pixels(picture)}
        except PictureError as error:
            return {**found, "broken": str(error)}


def _beside_pixels(picture: Image.Image) -> dict[str, Any]:
    """What a picture says of itself, and whether anything in it is transparent."""
    found: dict[str, Any] = {}
    if picture.has_transparency_data:
        found["lowest_alpha"] = picture.convert("RGBA").getchannel("A").getextrema()[0]
    if picture.mode not in _PLAIN or "transparency" in picture.info or getattr(picture, "deep", None) is not None:
        return found
    icc = picture.info.get("icc_profile") or b""
    if len(icc) > _LONGEST_PROFILE:
        return found
    if icc:
        found["icc"] = base64.b64encode(icc).decode()
    notes = [str(each) for each in picture.info.get(NOTES, ())]
    return {**found, "mode": picture.mode, "source_mode": str(picture.info.get(SOURCE_MODE, "")), "notes": notes}


def started() -> None:
    """The whole life of the process."""
    _imaging.set_block_size(PICTURE_BLOCK)
    help_with(answer, behind=_BEHIND)
