"""Rows of a batch that ask for a tool that paints more than once: {"kind": "outpaint", "left": 128, ...}."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from overpaint.errors import RequestError
from overpaint.events import Control, Event, StepFinished
from overpaint.files.formats import KINDS
from overpaint.files.keeping import Origins, files_of, numbered
from overpaint.files.metadata import RECIPE_ITEM, encode_picture, recipe_of, recipe_path, recipe_text
from overpaint.files.recipe import JobFiles, Recipe
from overpaint.outcome import Processed
from overpaint.painted import PaintedPicture
from overpaint.request import PaintRequest
from overpaint.sequences.forms import known_kind, sequence_of, split_fields
from overpaint.sequences.kept import KeptSteps
from overpaint.sequences.running import run_sequence
from overpaint.sequences.story import PaintingSequence
from overpaint.settings import Settings
from overpaint.text.infotext import split_infotext

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


@dataclass(frozen=True)
class RowSteps:
    """Where the steps of one row are kept until the row is done, so that a crash costs the one that was running."""

    folder: Path  # of all that rows are making here
    key: str
    model: str
    origins: Origins

    def run(self, engine: Any, sequence: PaintingSequence, settings: Settings, control: Control) -> Iterator[Event]:
        """The row's story, as an engine tells that of a request."""
        if isinstance(engine, OpenedLate):
            engine = engine.engine_for(sequence.step(0, ()).request, settings)
        if len(sequence) == 1:
            yield from run_sequence(engine, sequence, settings, control)
            return
        kept = self._opened(sequence, settings)
        for event in run_sequence(engine, kept.sequence, settings, control, kept.done):
            if isinstance(event, StepFinished):
                kept.keep(event.number, event.result, self.origins, f"step-{event.number + 1}.png")
            yield event

    def _opened(self, sequence: PaintingSequence, settings: Settings) -> KeptSteps:
        """What another version, or another hand, left there is of no use to this row."""
        place = self.folder / self.key
        try:
            return KeptSteps.opened(place, sequence, settings, self.model)
        except RequestError:
            rmtree(place)
            return KeptSteps.opened(place, sequence, settings, self.model)

    def forget(self) -> None:
        """The row's own files are written."""
        rmtree(self.folder / self.key, ignore_errors=True)
        with suppress(OSError):  # others are being made there
            self.folder.rmdir()


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
            yield from _files_again(image, own, processed.infotexts[number - 1], records, processed.plan.settings)


def _files_again(
    image: Image.Image, name: str, infotext: str, records: JobFiles, settings: Settings
) -> Iterator[tuple[str, str, bytes]]:
    """A sheet, or a picture that was painted before a crash and read back with what it carries."""
    kept = image.info.get(RECIPE_ITEM)
    if kept is None:
        yield name, name, encode_picture(image, name.rpartition(".")[2], infotext=infotext)
        return
    named = {each.name: getattr(records, each.name) for each in fields(JobFiles)}
    files = {
        field: record
        for field, record in named.items()
        if record and (field not in ("controls", "references") or all(record))
    }
    recipe = replace(Recipe.from_json(recipe_of(kept, name)), **files).to_json()
    extension = name.rpartition(".")[2]
    data = encode_picture(
        image,
        extension,
        infotext=infotext,
        recipe=recipe,
        exif=image.info.get("exif"),
        icc=image.info.get("icc_profile"),
        quality=settings.jpeg_quality,
        lossless=settings.webp_lossless,
        background=settings.img2img_background_color,
    )
    if KINDS[extension] != "PNG":
        yield str(recipe_path(Path(name))), name, recipe_text(recipe).encode()
    yield name, name, data


def seeds_of(processed: Processed) -> tuple[int, ...]:
    """Of the pictures; a sheet has none."""
    texts = processed.infotexts[processed.index_of_first_image :]
    seeds = (split_infotext(text).fields.get("Seed") for text in texts)
    return tuple(int(each) for each in seeds if each is not None and str(each).isdecimal())
