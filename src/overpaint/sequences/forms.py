"""Sequences as plain values: for manifests, for the service, for whoever writes one down. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from enum import Enum
from types import MappingProxyType
from typing import Any

from overpaint.errors import RequestError, RequestTypeError
from overpaint.hints import did_you_mean
from overpaint.parts import nearest
from overpaint.request import PaintRequest
from overpaint.sequences.alternative import AlternativeTest
from overpaint.sequences.axes import axis_of
from overpaint.sequences.enlarge import GENTLE, Enlargement
from overpaint.sequences.grid import PictureGrid
from overpaint.sequences.loopback import Loopback
from overpaint.sequences.outpaint import STRONG, Outpainting, margins_for
from overpaint.sequences.outpaint_mk2 import OutpaintingMk2
from overpaint.sequences.outpaint_tiles import OutpaintedTiles
from overpaint.sequences.prompt_tools import PromptMatrix, PromptsFromText
from overpaint.sequences.reference_upscale import PastedTiles
from overpaint.sequences.scripts import script_sequence
from overpaint.sequences.story import PaintingSequence
from overpaint.settings import Settings

SCRIPT = "script"
KINDS: Mapping[str, type[PaintingSequence]] = MappingProxyType(
    {
        each.kind: each
        for each in (
            *(Outpainting, Loopback, Enlargement, PictureGrid, PromptMatrix, PromptsFromText),
            *(OutpaintingMk2, OutpaintedTiles, PastedTiles, AlternativeTest),
        )
    }
)
"""The tools by the name that a manifest or a body gives in `kind`. "script" is one of the reference's, by title."""

_NOT_GIVEN = ("request", "own_notes", "enlarged")
_AXES = ("x", "y", "z")
_SIZES = ("to", "aspect", "anchor")  # of an outpainting, in the place of its sides
_STRENGTHS = {Outpainting.kind: STRONG, Enlargement.kind: GENTLE}


def tool_fields(kind: str) -> frozenset[str]:
    """The fields of a tool beside those of a request."""
    if kind == SCRIPT:
        return frozenset({"title", "args"})
    own = {each.name for each in fields(_class_of(kind)) if each.name not in _NOT_GIVEN}
    return frozenset(own | set(_SIZES)) if kind == Outpainting.kind else frozenset(own)


def split_fields(kind: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the tool's fields, the request's), of a table that has both; unknown names are errors."""
    own = tool_fields(kind)
    tool = {name: value for name, value in values.items() if name in own}
    rest = {name: value for name, value in values.items() if name not in own and name != "kind"}
    for name in rest:
        if name not in PaintRequest.field_names():
            raise RequestTypeError(name, rest[name], nearest(name, PaintRequest.field_names() | own))
    if kind in _STRENGTHS and rest.get("strength") is None:
        rest["strength"] = _STRENGTHS[kind]
    return tool, rest


def sequence_of(
    kind: str, tool: Mapping[str, Any], request: PaintRequest, settings: Settings | None = None
) -> PaintingSequence:
    """The sequence that these fields ask for."""
    if kind == SCRIPT:
        args = tool.get("args") or ()
        if not isinstance(args, list | tuple):
            raise RequestError("args", args, "give a list of arguments by position")
        return script_sequence(tool.get("title", ""), args, request, settings or Settings(), "args")
    made = _class_of(kind)
    given = dict(tool)
    unknown = sorted(set(given) - tool_fields(kind))
    if unknown:
        raise RequestTypeError(unknown[0], given[unknown[0]], nearest(unknown[0], tool_fields(kind)))
    if made is PictureGrid:
        given |= {name: axis_of(given[name], name) for name in _AXES if given.get(name) is not None}
    if made is Outpainting:
        given = _with_sides(given, request)
    return made(request=request, **given)


def tool_json(sequence: PaintingSequence) -> dict[str, Any]:
    """A sequence's own fields as plain values, as `sequence_of` reads them; its request is written by itself."""
    found = {each.name: getattr(sequence, each.name) for each in fields(sequence) if each.name not in _NOT_GIVEN}
    return {name: _plain(value) for name, value in found.items()}


def known_kind(kind: object) -> str:
    """The kind, if there is one of this name."""
    if isinstance(kind, str) and (kind in KINDS or kind == SCRIPT):
        return kind
    names = ["paint", *KINDS, SCRIPT]
    near = did_you_mean(kind, names) if isinstance(kind, str) else None
    raise RequestError("kind", kind, near or f"give one of {', '.join(names)}")


def _class_of(kind: str) -> type[PaintingSequence]:
    return KINDS[known_kind(kind)]


def _with_sides(given: dict[str, Any], request: PaintRequest) -> dict[str, Any]:
    sizes = {name: given.pop(name) for name in _SIZES if given.get(name) is not None}
    if not sizes:
        return given
    sides = [name for name in ("left", "top", "right", "bottom") if given.get(name)]
    if sides:
        raise RequestError(sides[0], given[sides[0]], "give sides, or a size with `to` or `aspect`, not both")
    if not request.images:
        raise RequestError("images", (), "this tool starts from a picture; give one")
    return {**given, **margins_for(request.images[0].size, **sizes)}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "field") and hasattr(value, "values"):
        return {"field": value.field, "values": [_plain(each) for each in value.values], "title": value.title}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value
