"""Sequences on their way in and out of the store: a tool's fields beside the request that it is made from.

Stored is the request's own JSON with "kind": "sequence", and in "sequence" the tool with everything known, so that a
job that goes on after a crash paints what it began.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from overpaint.errors import RequestError
from overpaint.request import PaintRequest, Picture
from overpaint.sequences.forms import KINDS, SCRIPT, sequence_of, split_fields, tool_json
from overpaint.sequences.story import PaintingSequence, SequenceStep
from overpaint.service.limits import Limits
from overpaint.service.shapes import plain
from overpaint.settings import Settings

SEQUENCE = "sequence"
_TEXTS = ("text", "title")


@dataclass(frozen=True)
class SequenceOrder:
    """A sequence as it was stored."""

    tool: Mapping[str, Any]
    request: PaintRequest

    @property
    def images(self) -> tuple[Picture, ...]:
        """The sources."""
        return self.request.images

    def sequence(self, settings: Settings) -> PaintingSequence:
        own = {name: value for name, value in self.tool.items() if name != "kind"}
        return sequence_of(self.tool["kind"], own, self.request, settings)


def is_sequence(values: Mapping[str, Any]) -> bool:
    """Whether a body asks for one of the tools."""
    kind = values.get("kind")
    return isinstance(kind, str) and (kind in KINDS or kind == SCRIPT)


def tool_and_request(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A body's own part and that of the request; both plain and of a size that can be written down."""
    kind = str(values["kind"])
    tool, rest = split_fields(kind, values)
    return {"kind": kind, **{name: plain(name, value) for name, value in tool.items()}}, rest


def judged_tool(
    tool: Mapping[str, Any],
    request: PaintRequest,
    limits: Limits,
    settings: Settings,
    check: Callable[[SequenceStep], None],
) -> dict[str, Any]:
    """The tool as it is stored. Every step is judged as a job of its own would be."""
    for name in _TEXTS:
        if isinstance(tool.get(name), str) and len(tool[name]) > limits.prompt_chars * limits.sequence:
            raise RequestError(name, f"{len(tool[name])} characters", "that is too long; send less")
    sequence = SequenceOrder(tool, request).sequence(settings)
    if len(sequence) > limits.sequence:
        raise RequestError(
            "kind", f"{len(sequence)} steps", f"this server takes sequences of at most {limits.sequence}"
        )
    for step in sequence.outline():
        check(step)
    return {"kind": sequence.kind, **tool_json(sequence)}
