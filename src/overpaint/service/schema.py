"""JSON schemas of what clients may send, told from the types and bounds of the requests themselves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import Enum
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from overpaint.extras import ExtrasRequest
from overpaint.masks.language import MOST_CHARACTERS
from overpaint.models.usual import USUAL
from overpaint.request import PICTURE_FIELDS, PICTURE_LISTS, SOURCE_FIELDS, Img2ImgRequest, Picture, Txt2ImgRequest
from overpaint.request_checks import NUMBERS, SEED_LIMIT
from overpaint.sequences.forms import KINDS, SCRIPT, tool_fields
from overpaint.service.limits import Limits
from overpaint.service.shapes import alternatives, hints_of

Schema = dict[str, Any]
NAME = "x-name"  # of a schema that others refer to; the document knows it by that
Bounds = Mapping[str, Mapping[str, Any]]  # by field

PICTURE: Mapping[str, Any] = {
    "type": "string",
    "format": "picture",
    "description": 'A PNG, JPEG, WebP, TIFF, AVIF or HEIC file as base64 or a data URL, or "sha256:..." of an upload.',
}
MASK_IN_WORDS: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "expression": {
            "type": "string",
            "maxLength": MOST_CHARACTERS,
            "description": "The mask in words, such as `ellipse 10,10,90,60 | feather 8`, drawn on the first source.",
        },
        "pictures": {
            "type": "object",
            "additionalProperties": dict(PICTURE),
            "description": "The pictures that it names, by name.",
        },
    },
    "required": ["expression"],
    "description": "A mask in words.",
    NAME: "MaskInWords",
}
_PAINT: Mapping[str, Schema] = {"kind": {"const": "paint", "default": "paint"}}
_SIMPLE: Mapping[Any, str] = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}

# What stands beside the request's own fields, about the job
PRIORITIES = (-10, 10)
_ENVELOPE: Mapping[str, Schema] = {
    "priority": {
        "type": "integer",
        "minimum": PRIORITIES[0],
        "maximum": PRIORITIES[1],
        "default": 0,
        "description": "Higher is sooner.",
    },
    "queue_seconds": {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "How long it may wait before it fails; the server's limit is the greatest.",
    },
    "run_seconds": {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "How long it may run before it fails; the server's limit is the greatest.",
    },
}
ENVELOPE_FIELDS = frozenset(_ENVELOPE)


def job_schema(limits: Limits) -> Schema:
    """A job: a request of either kind, with what is said about the job itself."""
    bounds = _bounds(limits)
    return {
        "oneOf": [
            named("Img2ImgJob", _closed(Img2ImgRequest, bounds, {**_PAINT, **_ENVELOPE})),
            named("Txt2ImgJob", _closed(Txt2ImgRequest, bounds, {**_PAINT, **_ENVELOPE})),
            named("ExtrasJob", _closed(ExtrasRequest, {}, {"kind": {"const": "extras"}, **_ENVELOPE}, "kind")),
            named("SequenceJob", _sequence_schema(bounds, _ENVELOPE)),
        ],
        NAME: "Job",
    }


def _sequence_schema(bounds: Bounds, more: Mapping[str, Schema]) -> Schema:
    """A tool that paints more than once: its own fields beside those of the request that it is made from."""
    request = schema_of(Txt2ImgRequest, bounds)["properties"]
    tools = {name: {"description": f"Of {', '.join(kinds)}."} for name, kinds in _tools_by_field().items()}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **request,
            **{name: each for name, each in tools.items() if name not in request},
            "kind": {
                "enum": [*KINDS, SCRIPT],
                "description": "Which tool; script is one of the reference's, by title.",
            },
            **more,
        },
        "required": ["kind"],
    }


def _tools_by_field() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind in (*KINDS, SCRIPT):
        for name in sorted(tool_fields(kind)):
            found.setdefault(name, []).append(kind)
    return found


def plan_schema(limits: Limits) -> Schema:
    """A request to plan only."""
    bounds = _bounds(limits)
    kinds = ((Img2ImgRequest, "Img2ImgPlan"), (Txt2ImgRequest, "Txt2ImgPlan"))
    single = [named(name, _closed(kind, bounds, _PAINT)) for kind, name in kinds]
    return {"oneOf": [*single, named("SequencePlan", _sequence_schema(bounds, {}))], NAME: "PlanRequest"}


def named(name: str, schema: Schema) -> Schema:
    """The schema, which stands in the document once and under this name."""
    return {**schema, NAME: name}


def schema_of(kind: type, bounds: Bounds) -> Schema:
    """A dataclass as an object of its fields and no others."""
    hints = hints_of(kind)
    assert dataclasses.is_dataclass(kind)
    properties = {each.name: _field(each, hints[each.name], bounds) for each in dataclasses.fields(kind)}
    needed = [each.name for each in dataclasses.fields(kind) if _is_needed(each)]
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": needed}


def _closed(kind: type, bounds: Bounds, more: Mapping[str, Schema], *needed: str) -> Schema:
    """A request, and what may stand beside its fields. Either way to paint leaves out what only the other has."""
    schema = schema_of(kind, bounds)
    left_out = SOURCE_FIELDS if kind is Txt2ImgRequest else {"hires"}
    properties = {name: each for name, each in schema["properties"].items() if name not in left_out}
    return {**schema, "properties": {**properties, **more}, "required": [*schema["required"], *needed]}


def _bounds(limits: Limits) -> Bounds:
    """The requests' own bounds within the server's."""
    bounds: dict[str, dict[str, Any]] = {
        name: {"minimum": low, **({"maximum": high} if math.isfinite(high) else {})}
        for name, (low, high, _, _) in NUMBERS.items()
    }
    for name in ("seed", "variation_seed"):
        bounds[name] = {"minimum": -SEED_LIMIT, "maximum": SEED_LIMIT - 1}
    for name in ("cfg_scale", "image_cfg_scale"):
        bounds[name] = {"minimum": 0, "maximum": limits.cfg_scale}
    for name in ("batch_size", "iterations"):
        bounds[name]["maximum"] = limits.images
    bounds["steps"]["maximum"] = limits.steps
    for name in ("prompt", "negative_prompt"):
        bounds[name] = {"maxLength": limits.prompt_chars}
    return bounds


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _field(field: dataclasses.Field[Any], hint: Any, bounds: Bounds) -> Schema:
    schema = _of_hint(hint, bounds.get(field.name, {}))
    if field.name in USUAL and field.default is None:
        schema["anyOf"][0]["default"] = USUAL[field.name]  # what most models mean by null
    if field.name in PICTURE_FIELDS - PICTURE_LISTS:
        schema["anyOf"].insert(1, MASK_IN_WORDS)
    if field.name == "images":
        schema["minItems"] = 1
    if field.default is not dataclasses.MISSING:
        schema["default"] = _plain(field.default)
    return schema


def _of_hint(hint: Any, bounds: Mapping[str, Any]) -> Schema:
    kinds = [_of_kind(each, bounds) for each in alternatives(hint)]
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _of_kind(kind: Any, bounds: Mapping[str, Any]) -> Schema:
    origin = get_origin(kind) or kind
    if kind is Picture:
        return dict(PICTURE)
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind], **(bounds if kind in (int, float, str) else {})}
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    if origin is tuple:
        return _of_tuple(get_args(kind), bounds)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [each.value for each in kind]}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return named(kind.__name__, {**schema_of(kind, {}), "description": (kind.__doc__ or "").partition("\n")[0]})
    return {"type": "object"}


def _of_tuple(members: tuple[Any, ...], bounds: Mapping[str, Any]) -> Schema:
    size = {} if members[-1] is Ellipsis else {"minItems": len(members), "maxItems": len(members)}
    return {"type": "array", "items": _of_hint(members[0], bounds), **size}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value
