"""What clients of OpenAI's Images API send, as requests of ours.

Everything in a form is text. Fields that OpenAI does not know are those of our own requests, by the same names; what
OpenAI knows and has no meaning here (quality, style, moderation, ...) is accepted and has no effect. Names of neither
are passed over too, and the answer's header says which: clients learn new fields faster than servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overpaint.errors import RequestError
from overpaint.heic import can_write_heic
from overpaint.request import PICTURE_FIELDS, Txt2ImgRequest
from overpaint.service.doors.openai.masks import masked
from overpaint.service.limits import Limits
from overpaint.service.schema import Schema, schema_of

MOST_PICTURES = 10  # of one request's `n`
MOST_PARTIALS = 3
MEDIA_TYPES: Mapping[str, str] = {  # the last three are none of OpenAI's
    name: f"image/{name}" for name in ("png", "jpeg", "webp", "avif", "tiff", "heic")
}

_IMAGE = "One, or several under this name or as `image[]`."
_WITHOUT_MEANING = ("quality", "style", "user", "moderation", "background", "input_fidelity")
_THEIRS = frozenset(
    {
        *("prompt", "model", "n", "size", "response_format", "stream", "partial_images"),
        *("output_format", "output_compression", *_WITHOUT_MEANING),
    }
)
_OURS = Txt2ImgRequest.field_names() - PICTURE_FIELDS - {"iterations", "batch_size", "checkpoint"}
_TEXTS = frozenset(
    {"prompt", "negative_prompt", "sampler", "scheduler", "refiner", "resize_mode", "masked_content", "blend"}
)
_BOTH_AXES: Mapping[str, tuple[str, ...]] = {"mask_blur": ("mask_blur_x", "mask_blur_y")}
_KNOWN = _THEIRS | _OURS | _BOTH_AXES.keys()

# Names that generic clients send when they mean "the image model"; any other has to be one of this server's.
_FOREIGN_MODEL = re.compile(r"|default|overpaint|(dall-e|gpt-image|chatgpt-image)[\w.-]*", re.ASCII)
_ANSWERED_BY_URL = ("dall-e-2", "dall-e-3")  # unless a client asks otherwise
_SIZE = re.compile(r"(\d{1,5})[xX](\d{1,5})", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_SHOWN_NAME = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)  # which a header can hold
_MOST_SHOWN = 20


@dataclass(frozen=True)
class ImagesRequest:
    """A request of ours, and how its result is to be answered."""

    values: Mapping[str, Any]
    model: str | None = None  # None: the one in force
    as_url: bool = False
    stream: bool = False
    partials: int = 0
    format: str = "png"
    quality: int = 95  # of formats that lose something
    size: tuple[int, int] | None = None  # of the result, as far as it is known
    ignored: tuple[str, ...] = ()  # fields that nobody here knows


def read_images_request(
    given: Mapping[str, Any], pictures: Sequence[bytes] = (), mask: bytes | None = None, *, as_one: bool = False
) -> ImagesRequest:
    """A form or JSON object with its files. Pictures are repainted; without any a new one is made.

    `as_one`: the first of them is repainted, and the others are looked at.
    """
    given = {name: value for name, value in given.items() if value is not None and value != ""}
    values = _own_fields(given)
    values["iterations"] = _whole("n", given.get("n"), 1, 1, MOST_PICTURES)
    values.update(_size(given.get("size")))
    size: tuple[int, int] | None = None
    if pictures:
        painted, seen = (pictures[:1], pictures[1:]) if as_one else (pictures, ())
        found = masked(painted, mask)
        values = {**found.values, **values, "images": list(found.pictures), "batch_size": len(painted)}
        values.update({"references": list(seen)} if seen else {})
        size = found.size
    if "width" in values and "height" in values:
        size = (values["width"], values["height"])
    usual = "url" if given.get("model") in _ANSWERED_BY_URL else "b64_json"
    wanted = _one_of("response_format", given.get("response_format"), ("b64_json", "url"), usual)
    return ImagesRequest(
        values,
        model=model_name(given.get("model")),
        as_url=wanted == "url",
        stream=_switch("stream", given.get("stream")),
        partials=_whole("partial_images", given.get("partial_images"), 0, 0, MOST_PARTIALS),
        format=_format(given.get("output_format")),
        quality=_whole("output_compression", given.get("output_compression"), 95, 0, 100),
        size=size,
        ignored=tuple(sorted(filter(_SHOWN_NAME.fullmatch, given.keys() - _KNOWN))[:_MOST_SHOWN]),
    )


def _own_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Ours, as JSON has them; a name for one axis counts more than the name for both."""
    values: dict[str, Any] = {}
    for name, axes in _BOTH_AXES.items():
        if name in given:
            values.update(dict.fromkeys(axes, _typed(name, given[name])))
    return {**values, **{name: _typed(name, given[name]) for name in sorted(given.keys() & _OURS)}}


def _typed(name: str, value: Any) -> Any:
    """A field of ours out of a form: numbers, switches, lists and tables are written as in JSON."""
    if not isinstance(value, str) or name in _TEXTS:
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    if name == "styles":
        return [each.strip() for each in value.split(",") if each.strip()]
    raise RequestError(name, value, "write it as in JSON, for example 0.6, true or [1, 2]")


def model_name(value: Any) -> str | None:
    name = str(value or "")
    return None if _FOREIGN_MODEL.fullmatch(name) else name


def _size(value: Any) -> dict[str, int]:
    """1024x1024; "auto" is the source's own size, or the model's."""
    if value in (None, "auto"):
        return {}
    found = _SIZE.fullmatch(str(value))
    if found is None:
        raise RequestError("size", value, 'give width x height, like 1024x768, or "auto"')
    return {"width": int(found[1]), "height": int(found[2])}


def _whole(name: str, value: Any, default: int, low: int, high: int) -> int:
    if value is None:
        return default
    text = str(value)
    if not (_NUMBER.fullmatch(text) and low <= int(text) <= high):
        raise RequestError(name, value, f"give a whole number from {low} to {high}")
    return int(text)


def _switch(name: str, value: Any) -> bool:
    if value is None:
        return False
    text = str(value).lower()
    if text not in ("true", "false"):
        raise RequestError(name, value, "give true or false")
    return text == "true"


def _format(value: Any) -> str:
    known = tuple(name for name in MEDIA_TYPES if name != "heic" or can_write_heic())
    return _one_of("output_format", value, known, "png")


def _one_of(name: str, value: Any, choices: tuple[str, ...], default: str) -> str:
    if value is None:
        return default
    if value not in choices:
        raise RequestError(name, value, f"choose one of {', '.join(choices)}")
    return str(value)


def body_schema(limits: Limits, *, picture: bool, mask: bool = False) -> Schema:
    """What may be sent, for the server's document; further fields are allowed and have no effect."""
    ours = schema_of(Txt2ImgRequest, {})["properties"]
    file: Schema = {"type": "string", "format": "binary"}
    files: Schema = {"type": "array", "items": file, "minItems": 1, "maxItems": limits.pictures}
    theirs: Schema = {
        "prompt": {"type": "string", "maxLength": limits.prompt_chars},
        "model": {"type": "string", "description": "One that GET /v1/models lists; OpenAI's names mean the default."},
        "n": {"type": "integer", "minimum": 1, "maximum": MOST_PICTURES, "default": 1},
        "size": {"type": "string", "pattern": r"^(auto|[0-9]{1,5}x[0-9]{1,5})$", "default": "auto"},
        "response_format": {
            "enum": ["b64_json", "url"],
            "description": f"Without it, `url` for the models {' and '.join(_ANSWERED_BY_URL)}, else `b64_json`.",
        },
        "stream": {"type": "boolean", "default": False},
        "partial_images": {"type": "integer", "minimum": 0, "maximum": MOST_PARTIALS, "default": 0},
        "output_format": {"enum": list(MEDIA_TYPES), "default": "png"},
        "output_compression": {"type": "integer", "minimum": 0, "maximum": 100},
        **{name: {"type": "string", "description": "Has no effect."} for name in _WITHOUT_MEANING},
    }
    properties = {
        **{name: ours[name] for name in sorted(_OURS)},
        **theirs,
        **({"image": {"anyOf": [file, files], "description": _IMAGE}} if picture else {}),
        **({"mask": file} if mask else {}),
        "mask_blur": ours["mask_blur_x"],
    }
    return {"type": "object", "properties": properties, "required": ["image" if picture else "prompt"]}
