"""Many pictures, one after another: a folder or a manifest of rows in, a folder of pictures out.

One row is one request. A row that fails is reported and the next one runs. What was finished is known from the
journal, so the same command, given again after whatever ended it, goes on with the rest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeAlias

from overpaint.errors import OverpaintError, RequestError, SaveError
from overpaint.events import Cancelled, Control, Event, Finished, Progress, Started
from overpaint.files.batch_tools import RowSteps, asks_for_tool, seeds_of, tool_files
from overpaint.files.keeping import (
    KeptPicture,
    Origins,
    check_format,
    files_of,
    finished_pictures,
    lost_in,
    name_for,
    numbered,
    with_recipe,
)
from overpaint.files.ledger import Ledger
from overpaint.files.ledgers import ledger_of, look_at_ledger
from overpaint.files.recipe import JobFiles
from overpaint.files.row_requests import asked_of, digest, fetched, fields_of, row_digest
from overpaint.files.rows import BatchRow, Rows, UnreadableRow, has_sources
from overpaint.files.shards import Shard
from overpaint.outcome import Processed
from overpaint.request import SOURCE_FIELDS, PaintRequest
from overpaint.seeds import fix_seed
from overpaint.settings import Settings
from overpaint.stores import AnyFile
from overpaint.text.shorthand import control_files, reference_files, without_second_pass

_NAME_TRIES = 100  # of names that others take in the same moment


class BatchEngine(Protocol):
    """What a batch needs of an engine."""

    def run(
        self, request: PaintRequest, settings: Settings | None = None, control: Control | None = None
    ) -> Iterator[Event]: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What all rows share."""

    out: AnyFile  # a folder, or a prefix of an object store
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
class RowPlanned:
    """It would be painted now, to these files."""

    row: BatchRow
    files: tuple[str, ...]


@dataclass(frozen=True)
class BatchStopped:
    """Stopped on request; the rest is for the next time."""


BatchEvent: TypeAlias = (
    RowStarted | Started | Progress | RowPainted | RowSkipped | RowFailed | RowPlanned | BatchStopped
)


def run_batch(
    rows: Rows,
    batch: Batch,
    painter: Callable[[], BatchEngine],
    control: Control | None = None,
) -> Iterator[BatchEvent]:
    """Paint all rows that are not painted yet. The painter is asked for when the first row needs it."""
    control = control or Control()
    check_shared(batch.fields, rows)
    if batch.shard is not None:
        rows = batch.shard.rows(rows)
    with ledger_of(batch.out, batch.shard) as journal:
        yield from paint_rows(rows, begun(batch, journal), journal, painter, control)


def look_at_batch(rows: Rows, batch: Batch) -> Iterator[BatchEvent]:
    """What `run_batch` would do by now. Sources are read; nothing is written, and nobody else is kept from writing."""
    check_shared(batch.fields, rows)
    journal = look_at_ledger(batch.out)
    if batch.fields.get("seed", -1) == -1 and (seed := journal.known_seed(*_seed_names(batch))) is not None:
        batch = replace(batch, fields={**batch.fields, "seed": seed})
    seen, taken = Counter[str](), set[str]()
    for row in rows if batch.shard is None else batch.shard.rows(rows):
        if isinstance(row, UnreadableRow):
            yield RowFailed(row, OverpaintError(row.problem))
            continue
        try:
            key = _key(row, batch, seen)
            if journal.whole(key):
                entry = journal.entry(key)
                yield RowSkipped(row, _pictures_among(entry.files if entry is not None else ()))
                continue
            request = asked_of(row, fields_of(row, batch.fields), batch.settings)
        except (OverpaintError, OSError) as error:
            yield RowFailed(row, error)
            continue
        several = request.batch_size * request.iterations if isinstance(request, PaintRequest) else 1
        wished = f"{row.output}.{batch.format}"
        names = [wished] if several == 1 else [numbered(wished, each + 1) for each in range(several)]
        for number, name in enumerate(names):
            names[number] = _free_name(name, key, journal, batch, taken)
            taken.add(names[number])
        yield RowPlanned(row, tuple(names))


def begun(batch: Batch, journal: Ledger) -> Batch:
    """The batch with the seed that all its rows have, once what a killed process was writing is gone."""
    journal.remove_torn()
    return replace(batch, fields=_with_seed(batch, journal))


def paint_rows(
    rows: Iterable[BatchRow | UnreadableRow],
    batch: Batch,
    journal: Ledger,
    painter: Callable[[], BatchEngine],
    control: Control,
) -> Iterator[BatchEvent]:
    """Some rows of a batch that has begun. Those whose results may want one name have to be painted by one call."""
    seen: Counter[str] = Counter()
    for row in rows:
        if control.message is not None:
            yield BatchStopped()
            return
        if isinstance(row, UnreadableRow):
            yield RowFailed(row, OverpaintError(row.problem))
            continue
        with closing(_row_events(row, batch, journal, painter, control, seen)) as events:
            yield from events
    if control.message is not None:
        yield BatchStopped()


def _row_events(
    row: BatchRow,
    batch: Batch,
    journal: Ledger,
    painter: Callable[[], BatchEngine],
    control: Control,
    seen: Counter[str],
) -> Generator[BatchEvent, None, None]:
    """One row, from its key to its files; only what concerns all rows leaves it as an exception."""
    try:
        key = _key(row, batch, seen)
        if journal.whole(key):
            yield RowSkipped(row, _settle(key, journal))
            return
        yield RowStarted(row)
        row = fetched(row)
        asked = asked_of(row, fields_of(row, batch.fields), batch.settings)
    except SaveError:
        raise
    except (OverpaintError, OSError) as error:
        yield RowFailed(row, error)
        return
    engine = painter()
    try:
        steps = RowSteps(journal.place.steps(), key, batch.model, _origins(row, batch))
        if isinstance(asked, PaintRequest):
            story = engine.run(asked, batch.settings, control)
        else:
            story = steps.run(engine, asked, batch.settings, control)
        for event in story:
            if isinstance(event, Started | Progress):
                yield event
            elif isinstance(event, Finished):
                yield _kept(row, key, event.result, batch, journal)
                if not isinstance(asked, PaintRequest) and journal.whole(key):
                    steps.forget()
            elif isinstance(event, Cancelled) and event.result is not None:
                _write(row, key, event.result, batch, journal)
    except SaveError:
        raise
    except Exception as error:  # whatever one row makes the engine do, the others still run
        yield RowFailed(row, error)


def check_shared(fields: Mapping[str, Any], rows: Rows) -> None:
    """Refuse what is asked of all rows and none can have."""
    kinds = has_sources(rows)
    if kinds == {True}:
        without_second_pass(fields)
    of_source = sorted(SOURCE_FIELDS & fields.keys())
    if kinds == {False} and of_source:
        raise RequestError(of_source[0], fields[of_source[0]], "no row has a source picture; leave it out")


def _settle(key: str, journal: Ledger) -> tuple[str, ...]:
    entry = journal.entry(key)
    assert entry is not None
    if not entry.done:
        journal.done(key)
    return _pictures_among(entry.files)


def _with_seed(batch: Batch, journal: Ledger) -> dict[str, Any]:
    """BATCH-1: one seed for the whole batch, and the same one when it is resumed."""
    fields = {"seed": -1, **batch.fields}
    fresh = fix_seed(fields["seed"])
    if fields["seed"] == -1 and isinstance(fresh, int):
        fields["seed"] = journal.seed_of(*_seed_names(batch), fresh)
    return fields


def _seed_names(batch: Batch) -> tuple[str, str]:
    fields = {"seed": -1, **batch.fields}
    return digest({"fields": fields, "model": batch.model}), digest(fields)


def _key(row: BatchRow, batch: Batch, seen: Counter[str]) -> str:
    """The name of what a row asks for; equal rows are told apart by their order."""
    own = fields_of(row, batch.fields)
    plain = row_digest(row, own, format=batch.format, model=batch.model, settings=batch.settings)
    seen[plain] += 1
    return plain if seen[plain] == 1 else f"{plain}-{seen[plain]}"


def _kept(row: BatchRow, key: str, processed: Processed, batch: Batch, journal: Ledger) -> RowPainted:
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


def _write(row: BatchRow, key: str, processed: Processed, batch: Batch, journal: Ledger) -> tuple[str, ...]:
    """Promise, then write. The names are those of an earlier promise as far as they are still free or ours."""
    records = _origins(row, batch).records(journal.place.beside(str(row.output)), processed.plan.settings)
    for _ in range(_NAME_TRIES):
        files = _named_files(row, key, processed, batch, journal, records)
        ours = {name for name in files if batch.overwrite or _is_own(name, key, journal)}
        promised = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        journal.promise(key, row.name, promised, part=processed.stopped)
        if _are_laid_down(files, ours, journal):
            return _pictures_among(files)
        journal.read_others()
        entry = journal.entry(key)
        if entry is not None and not processed.stopped and journal.whole(key):  # by another painter of this row
            return _pictures_among(entry.files)
    raise SaveError(f"{batch.out}: others take every name of {row.output}; give another OUT")


def _are_laid_down(files: Mapping[str, bytes], ours: Container[str], journal: Ledger) -> bool:
    """Whether each name was free or ours. If somebody was faster with one, none is kept."""
    created: list[str] = []
    for name, data in files.items():
        if name in ours:
            journal.place.replace(name, data)
        elif journal.place.create(name, data):
            created.append(name)
        else:
            for each in created:
                journal.place.remove(each)
            return False
    return True


def _named_files(
    row: BatchRow, key: str, processed: Processed, batch: Batch, journal: Ledger, records: JobFiles
) -> dict[str, bytes]:
    if asks_for_tool(row.fields):
        return _tool_files(row, key, processed, batch, journal, records)
    files: dict[str, bytes] = {}
    for painted in finished_pictures(processed):
        name = _free_name(_wished_name(row, painted, processed, batch), key, journal, batch, files)
        files.update(files_of(painted, processed, name, records))
    return files


def _origins(row: BatchRow, batch: Batch) -> Origins:
    masks = {name: path for name, path in row.files.items() if name != "picture"}
    own = fields_of(row, batch.fields)
    return Origins(row.files.get("picture"), masks, control_files(own), reference_files(own))


def _tool_files(
    row: BatchRow, key: str, processed: Processed, batch: Batch, journal: Ledger, records: JobFiles
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


def _free_name(name: str, key: str, journal: Ledger, batch: Batch, taken: Iterable[str]) -> str:
    candidate, number = name, 1
    while candidate in taken or not all(_usable(each, key, journal, batch) for each in with_recipe(candidate)):
        candidate, number = numbered(name, number), number + 1
    return candidate


def _usable(name: str, key: str, journal: Ledger, batch: Batch) -> bool:
    """Whether a file of this name may be written: it is nobody's, or this row's own."""
    owner, is_taken = journal.owner(name), journal.place.is_taken(name)
    if owner is None and is_taken:  # perhaps by another painter of this very row, whose machine was thought to be lost
        journal.read_others()
        owner = journal.owner(name)
    if owner is not None and owner != key:
        return False
    return batch.overwrite or not is_taken or _is_own(name, key, journal)


def _is_own(name: str, key: str, journal: Ledger) -> bool:
    """Whether it is a file that this row has written, and nobody has changed since."""
    return journal.owner(name) == key and (journal.wrote(name) or journal.place.is_held(name))
