"""Many pictures, one after another: a folder or a manifest of rows in, a folder of pictures out.

One row is one request. A row that fails is reported and the next one runs. What was finished is known from the
journal, so the same command, given again after whatever ended it, goes on with the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeAlias

from overpaint.errors import OverpaintError, PictureError, RequestError, SaveError
from overpaint.events import Cancelled, Control, Event, Finished, Progress, Started
from overpaint.files.batch_tools import STEPS_FOLDER, RowSteps, asks_for_tool, seeds_of, sequence_of_row, tool_files
from overpaint.files.journal import Journal
from overpaint.files.keeping import (
    KeptPicture,
    Origins,
    check_format,
    files_of,
    finished_pictures,
    lost_in,
    name_for,
    numbered,
)
from overpaint.files.kept_files import file_sha256
from overpaint.files.recipe import JobFiles, changed_options, quirks_on
from overpaint.files.rows import BatchRow, UnreadableRow
from overpaint.files.saving import save_first_free
from overpaint.files.shards import Shard
from overpaint.masks import draw, files_in, names_in
from overpaint.outcome import Processed
from overpaint.pictures import open_picture
from overpaint.request import PICTURE_FIELDS, SOURCE_FIELDS, PaintRequest, Picture
from overpaint.seeds import fix_seed
from overpaint.settings import Settings
from overpaint.text.shorthand import control_files, with_control_pictures, without_second_pass

_TORN = re.compile(r"\.[0-9a-f]{16}\.tmp")  # as `saving` names what is not whole yet
_SURELY_TORN = 3600.0  # seconds after which nobody is still writing such a file


class BatchEngine(Protocol):
    """What a batch needs of an engine."""

    def run(
        self, request: PaintRequest, settings: Settings | None = None, control: Control | None = None
    ) -> Iterator[Event]: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What all rows share."""

    out: Path
    fields: Mapping[str, Any] = field(default_factory=dict)  # of the request, where a row does not say otherwise
    settings: Settings = field(default_factory=Settings)
    model: str = ""  # names the weights: pictures of other weights are other pictures
    format: str = "png"
    overwrite: bool = False
    shard: Shard | None = None  # the part of the rows that is painted; None: all of them

    def __post_init__(self) -> None:
        check_format(f"picture.{self.format}", "format", self.format)


@dataclass(frozen=True)
class RowStarted:
    row: BatchRow


@dataclass(frozen=True)
class RowPainted:
    row: BatchRow
    files: tuple[str, ...]
    seeds: tuple[int, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowSkipped:
    """It was finished before."""

    row: BatchRow
    files: tuple[str, ...]


@dataclass(frozen=True)
class RowFailed:
    row: BatchRow | UnreadableRow
    error: Exception


@dataclass(frozen=True)
class BatchStopped:
    """Stopped on request; the rest is for the next time."""


BatchEvent: TypeAlias = RowStarted | Started | Progress | RowPainted | RowSkipped | RowFailed | BatchStopped


def run_batch(
    rows: Sequence[BatchRow | UnreadableRow],
    batch: Batch,
    painter: Callable[[], BatchEngine],
    control: Control | None = None,
) -> Iterator[BatchEvent]:
    """Paint all rows that are not painted yet. The painter is asked for when the first row needs it."""
    control = control or Control()
    _check_shared(batch.fields, rows)
    if batch.shard is not None:
        rows = batch.shard.rows(rows)
    with Journal(batch.out, batch.shard) as journal:
        _remove_torn_files(batch, journal)
        fields = _with_seed(batch, journal)
        seen: Counter[str] = Counter()
        for row in rows:
            if control.message is not None:
                yield BatchStopped()
                return
            if isinstance(row, UnreadableRow):
                yield RowFailed(row, OverpaintError(row.problem))
                continue
            with closing(_row_events(row, fields, batch, journal, painter, control, seen)) as events:
                yield from events
        if control.message is not None:
            yield BatchStopped()


def _row_events(
    row: BatchRow,
    fields: Mapping[str, Any],
    batch: Batch,
    journal: Journal,
    painter: Callable[[], BatchEngine],
    control: Control,
    seen: Counter[str],
) -> Generator[BatchEvent, None, None]:
    """One row, from its key to its files; only what concerns all rows leaves it as an exception."""
    try:
        key = _key(row, fields, batch, seen)
        if journal.whole(key):
            yield RowSkipped(row, _settle(key, journal))
            return
        yield RowStarted(row)
        own = _fields_of(row, fields)
        sequence = None
        if asks_for_tool(own):
            sequence = sequence_of_row(own, partial(_request_of, row, settings=batch.settings), batch.settings)
        request = None if sequence is not None else _request_of(row, own, settings=batch.settings)
    except SaveError:
        raise
    except (OverpaintError, OSError) as error:
        yield RowFailed(row, error)
        return
    engine = painter()
    try:
        if sequence is not None:
            steps = RowSteps(batch.out / STEPS_FOLDER, key, batch.model, _origins(row, batch))
            story = steps.run(engine, sequence, batch.settings, control)
        else:
            assert request is not None
            story = engine.run(request, batch.settings, control)
        for event in story:
            if isinstance(event, Started | Progress):
                yield event
            elif isinstance(event, Finished):
                yield _kept(row, key, event.result, batch, journal)
                if sequence is not None and journal.whole(key):
                    RowSteps(batch.out / STEPS_FOLDER, key, batch.model, _origins(row, batch)).forget()
            elif isinstance(event, Cancelled) and event.result is not None:
                _write(row, key, event.result, batch, journal)
    except SaveError:
        raise
    except Exception as error:  # whatever one row makes the engine do, the others still run
        yield RowFailed(row, error)


def _check_shared(fields: Mapping[str, Any], rows: Sequence[BatchRow | UnreadableRow]) -> None:
    """Refuse what is asked of all rows and none can have."""
    kinds = {row.has_source for row in rows if isinstance(row, BatchRow)}
    if kinds == {True}:
        without_second_pass(fields)
    of_source = sorted(SOURCE_FIELDS & fields.keys())
    if kinds == {False} and of_source:
        raise RequestError(of_source[0], fields[of_source[0]], "no row has a source picture; leave it out")


def _fields_of(row: BatchRow, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Its own, before those of all rows as far as they fit a row of its kind."""
    unfit = {"hires"} if row.has_source else SOURCE_FIELDS
    return {**{name: value for name, value in shared.items() if name not in unfit}, **row.fields}


def _settle(key: str, journal: Journal) -> tuple[str, ...]:
    entry = journal.entry(key)
    assert entry is not None
    if not entry.done:
        journal.done(key)
    return _pictures_among(entry.files)


def _with_seed(batch: Batch, journal: Journal) -> dict[str, Any]:
    """BATCH-1: one seed for the whole batch, and the same one when it is resumed."""
    fields = {"seed": -1, **batch.fields}
    fresh = fix_seed(fields["seed"])
    if fields["seed"] == -1 and isinstance(fresh, int):
        batch_name = _digest({"fields": fields, "model": batch.model})
        fields["seed"] = journal.seed_of(batch_name, _digest(fields), fresh)
    return fields


def _key(row: BatchRow, fields: Mapping[str, Any], batch: Batch, seen: Counter[str]) -> str:
    """What a row's result depends on, as a name; equal rows are told apart by their order."""
    own = _fields_of(row, fields)
    pictures = {name: file_sha256(path) for name, path in row.files.items()}
    guides = enumerate(control_files(own))
    pictures |= {f"controls[{number}]": file_sha256(path) for number, path in guides if path is not None}
    named = {name for text in _masks_in_words(own).values() for name in names_in(text)}
    pictures |= {f"named {name}": file_sha256(row.folder / name) for name in named}
    parts = {
        "fields": own,
        "pictures": pictures,
        "output": str(row.output),
        "format": batch.format,
        "model": batch.model,
        "settings": changed_options(batch.settings),
        "quirks": quirks_on(batch.settings),
    }
    plain = _digest(parts)
    seen[plain] += 1
    return plain if seen[plain] == 1 else f"{plain}-{seen[plain]}"


def _masks_in_words(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: fields[name] for name in PICTURE_FIELDS if isinstance(fields.get(name), str)}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def _request_of(row: BatchRow, fields: Mapping[str, Any], *, settings: Settings) -> PaintRequest:
    pictures: dict[str, Any] = {name: _opened(name, path, settings) for name, path in row.files.items()}
    own = with_control_pictures(fields, lambda path: _opened("controls", path, settings))
    if row.has_source:
        read = files_in(row.folder, settings.max_source_pixels)
        own |= {name: draw(text, pictures["picture"], read) for name, text in _masks_in_words(own).items()}

        own, pictures["images"] = without_second_pass(own), [pictures.pop("picture")]
    return PaintRequest.from_json({**own, **pictures})


def _opened(name: str, path: Path, settings: Settings) -> Picture:
    try:
        return open_picture(path, max_pixels=settings.max_source_pixels)
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from error


def _kept(row: BatchRow, key: str, processed: Processed, batch: Batch, journal: Journal) -> RowPainted:
    names = _write(row, key, processed, batch, journal)
    is_tool, pictures = asks_for_tool(row.fields), tuple(finished_pictures(processed))
    images = processed.images if is_tool else [each.image for each in pictures]
    lost = (told for name, image in zip(names, images, strict=True) for told in lost_in(image, name))
    warnings = (*processed.warnings, *lost)
    if processed.stopped:  # some pictures of the row are missing, the next run paints it whole
        return RowPainted(row, names, (), warnings)
    journal.done(key)
    seeds = seeds_of(processed) if is_tool else ()
    return RowPainted(row, names, seeds or tuple(each.seed for each in pictures), warnings)


def _write(row: BatchRow, key: str, processed: Processed, batch: Batch, journal: Journal) -> tuple[str, ...]:
    """Promise, then write. The names are those of an earlier promise as far as they are still free or ours."""
    origins = _origins(row, batch)
    target = batch.out / row.output
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"{target.parent}: the folder cannot be made ({error.strerror})") from error
    records = origins.records(target.parent, processed.plan.settings)
    files: dict[str, bytes] = {}
    if asks_for_tool(row.fields):
        files = _tool_files(row, key, processed, batch, journal, records)
    for painted in finished_pictures(processed) if not asks_for_tool(row.fields) else ():
        name = _free_name(_wished_name(row, painted, processed, batch), key, journal, batch, files)
        files.update(files_of(painted, processed, name, records))
    promised = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    journal.promise(key, row.name, promised, part=processed.stopped)
    for name, data in files.items():
        save_first_free([batch.out / name], data, replace=(batch.out / name).exists())
    return _pictures_among(files)


def _origins(row: BatchRow, batch: Batch) -> Origins:
    masks = {name: path for name, path in row.files.items() if name != "picture"}
    return Origins(row.files.get("picture"), masks, control_files(_fields_of(row, batch.fields)))


def _tool_files(
    row: BatchRow, key: str, processed: Processed, batch: Batch, journal: Journal, records: JobFiles
) -> dict[str, bytes]:
    """All files of a tool's result; what lies beside a picture follows its name."""
    files: dict[str, bytes] = {}
    names: dict[str, str] = {}
    for wished, picture, data in tool_files(processed, f"{row.output}.{batch.format}", records):
        if picture not in names:
            names[picture] = _free_name(picture, key, journal, batch, files)
        stem, free = PurePosixPath(picture).stem, PurePosixPath(names[picture]).stem
        files[wished.replace(stem, free) if stem != free else wished] = data
    return files


def _pictures_among(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if PurePosixPath(name).suffix != ".json")


def _wished_name(row: BatchRow, painted: KeptPicture, processed: Processed, batch: Batch) -> str:
    """BATCH-3: the source's stem, numbered where a row makes several pictures."""
    name = f"{row.output}.{batch.format}"
    if len(processed.plan.images) > 1:
        name = numbered(name, painted.index + 1)
    return name_for(painted, name)


def _free_name(name: str, key: str, journal: Journal, batch: Batch, taken: Iterable[str]) -> str:
    candidate, number = name, 1
    while candidate in taken or not _usable(candidate, key, journal, batch):
        candidate, number = numbered(name, number), number + 1
    return candidate


def _usable(name: str, key: str, journal: Journal, batch: Batch) -> bool:
    """Whether a file of this name may be written: it is nobody's, or this row's own."""
    owner = journal.owner(name)
    if owner is not None and owner != key:
        return False
    if not (batch.out / name).exists() or batch.overwrite:
        return True
    return owner == key and (journal.wrote(name) or (batch.out / name).stat().st_size == 0)


def _remove_torn_files(batch: Batch, journal: Journal) -> None:
    """What a killed process was writing. The lock says that no other batch writes here now; but other shards may."""
    youngest = math.inf if batch.shard is None else journal.now() - _SURELY_TORN
    for path in batch.out.rglob(".*.tmp"):
        if _TORN.fullmatch(path.name):
            with suppress(OSError):
                if path.stat().st_mtime < youngest:
                    path.unlink(missing_ok=True)
