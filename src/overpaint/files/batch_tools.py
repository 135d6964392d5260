"""Rows of a batch that ask for a tool that paints more than once: {"kind": "outpaint", "left": 128, ...}."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from overpaint.events import Control, Event
from overpaint.files.keeping import files_of, numbered
from overpaint.files.metadata import encode_picture
from overpaint.files.recipe import JobFiles
from overpaint.outcome import Processed
from overpaint.painted import PaintedPicture
from overpaint.request import PaintRequest
from overpaint.sequences.forms import known_kind, sequence_of, split_fields
from overpaint.sequences.running import run_sequence
from overpaint.sequences.story import PaintingSequence
from overpaint.settings import Settings

KIND = "kind"


class RequestReader(Protocol):
    """Makes a request of fields, pictures and all."""

    def __call__(self, fields: Mapping[str, Any]) -> PaintRequest: ...


@runtime_checkable
class OpenedLate(Protocol):
    """A painter whose engine is opened for the first job that holds."""

    def engine_for(self, request: PaintRequest, settings: Settings) -> Any: ...


def asks_for_tool(fields: Mapping[str, Any]) -> bool:
    return bool(fields.get(KIND, "paint") != "paint")


def sequence_of_row(fields: Mapping[str, Any], read: RequestReader, settings: Settings) -> PaintingSequence:
    """The sequence that a row asks for."""
    kind = known_kind(fields[KIND])
    tool, rest = split_fields(kind, fields)
    return sequence_of(kind, tool, read(rest), settings)


def run_tool(engine: Any, sequence: PaintingSequence, settings: Settings, control: Control) -> Iterator[Event]:
    """Its story, as an engine tells that of a request."""
    if isinstance(engine, OpenedLate):
        engine = engine.engine_for(sequence.step(0, ()).request, settings)
    return run_sequence(engine, sequence, settings, control)


def tool_files(processed: Processed, name: str, records: JobFiles) -> Iterator[tuple[str, str, bytes]]:
    """(wished name, name of the picture it belongs to, contents) of all files of a tool's result."""
    several = len(processed.images) > 1
    for number, image in enumerate(processed.images, 1):
        own = numbered(name, number) if several else name
        if isinstance(image, PaintedPicture):
            painted, made = image.story
            for file, data in files_of(painted, made, own, records):
                yield file, own, data
        else:
            text = processed.infotexts[number - 1]
            yield own, own, encode_picture(image, own.rpartition(".")[2], infotext=text)


def seeds_of(processed: Processed) -> tuple[int, ...]:
    return tuple(each.seed for each in processed.images if isinstance(each, PaintedPicture))
