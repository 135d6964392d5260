"""What an edit is asked with: a form and its files, or JSON in which pictures are URLs, data URLs mostly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overpaint.errors import RequestError
from overpaint.service.config import ServeConfig
from overpaint.service.doors.openai.requests import ImagesRequest, body_schema, read_images_request
from overpaint.service.guard.budgets import room_for
from overpaint.service.guard.inputs import admit_picture, picture_from_text
from overpaint.service.limits import Limits
from overpaint.service.ports import TooLarge
from overpaint.service.request_limits import check_together
from overpaint.service.schema import Schema

_PICTURES = ("images", "image", "mask")
_REMEDY = 'give {"image_url": "data:image/png;base64,..."}'


@dataclass(frozen=True)
class ImagesBody:
    """Fields, pictures that are fit to be decoded, and how much there is to decode."""

    fields: Mapping[str, Any]
    pictures: tuple[bytes, ...]
    mask: bytes | None = None
    pixels: int = 0

    def wanted(self, *, as_one: bool = False) -> ImagesRequest:
        """Decodes, so it belongs in a thread."""
        if not self.pictures:
            raise RequestError("image", None, "give the picture to paint over, as a file of a form or by its URL")
        with room_for(self.pixels):
            return read_images_request(self.fields, self.pictures, self.mask, as_one=as_one)


def is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def read_json(given: Mapping[str, Any], config: ServeConfig) -> ImagesBody:
    """Like a form: `images` is a list of {"image_url": ...}, `mask` is one. It may fetch, so it belongs in a thread."""
    named = [(name, given[name]) for name in ("images", "image") if given.get(name) is not None]
    texts = [each for name, value in named for each in _urls(name, value)]
    masks = [] if given.get("mask") is None else [("mask", _url("mask", given["mask"]))]
    if len(texts) + len(masks) > config.limits.pictures:
        raise TooLarge(f"images: the request holds more than {config.limits.pictures} pictures; send fewer")
    files = [(name, picture_from_text(text, config, name)) for name, text in (*texts, *masks)]
    pixels = pixels_of(files, config.limits)
    pictures = tuple(data for _, data in files[: len(texts)])
    fields = {name: value for name, value in given.items() if name not in _PICTURES}
    return ImagesBody(fields, pictures, files[-1][1] if masks else None, pixels)


def pixels_of(files: Sequence[tuple[str, bytes]], limits: Limits) -> int:
    """How much there is to decode, by the headers; too much for one request is refused."""
    total = 0
    for name, data in files:
        total += (pixels := admit_picture(data, limits, name))
        check_together(name, pixels, total, limits)
    return total


def json_schema(limits: Limits, *, mask: bool) -> Schema:
    """What may be sent as JSON, for the server's document."""
    form = body_schema(limits, picture=True, mask=mask)
    url: Schema = {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"image_url": {"type": "string"}}}]}
    fields = {name: each for name, each in form["properties"].items() if name not in ("image", "image[]", "mask")}
    images = {"type": "array", "items": url, "minItems": 1, "maxItems": limits.pictures}
    properties = {**fields, "images": images, **({"mask": url} if mask else {})}
    return {"type": "object", "properties": properties, "required": ["images"]}


def _urls(name: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        return [(name, _url(name, value))]
    return [(f"{name}[{i}]", _url(f"{name}[{i}]", each)) for i, each in enumerate(value)]


def _url(name: str, value: Any) -> str:
    """OpenAI names a picture by its URL or as a file that it keeps; there are no such files here."""
    if isinstance(value, Mapping):
        if value.get("file_id") is not None:
            raise RequestError(f"{name}.file_id", value["file_id"], f"no files are kept here; {_REMEDY}")
        value = value.get("image_url")
    if not isinstance(value, str):
        raise RequestError(name, value, _REMEDY)
    return value
