"""A data folder looked at without touching it, and mended when that is asked for: `overpaint serve --check`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from overpaint.errors import OverpaintError, RequestError, SaveError
from overpaint.service.jobs import PICTURE_REFERENCE
from overpaint.service.ports import Damaged
from overpaint.service.store import job_rows as rows
from overpaint.service.store.database import Database
from overpaint.service.store.folder_lock import check_nobody_works
from overpaint.service.store.mending import copy_of, opened
from overpaint.service.store.result_files import KeptFile, ResultFiles
from overpaint.service.store.shelf import Shelf
from overpaint.service.store.source_files import SourceFiles
from overpaint.service.store.sqlite_store import JobStore


@dataclass(frozen=True)
class Report:
    """What there is, in a sentence, and what is wrong with it, in a sentence each."""

    summary: str
    found: tuple[str, ...]


class _Trial(Shelf):
    """Only hears what would be set aside."""

    def say(self, sentence: str, place: Path | None = None) -> None:
        self.said.append(sentence)


def examined(data: Path) -> Report:
    """Look through everything that is kept in a data folder that no server works in."""
    path = data / "jobs.db"
    if not path.is_file():
        raise RequestError("--data", str(data), "there is no jobs.db, so no server has kept anything there")
    check_nobody_works(data)
    with tempfile.TemporaryDirectory() as folder:
        shelf = _Trial(Path(folder))
        try:
            database = opened(copy_of(path, Path(folder)), shelf)
        except SaveError as error:
            said = str(error).replace(f"{folder}/", "")
            return Report("nothing can be read of the jobs", (*shelf.said, said))
        with closing(database):
            found = (*shelf.said, *_rows(database), *_results(database, data), *_sources(database, data))
            return Report(_summary(database), found)


def mended(data: Path) -> tuple[str, ...]:
    """Do what a server does when it starts, and set damaged results aside, too; what was done."""
    store = JobStore(data)
    with closing(store):
        store.recover()
        for record in store.records(limit=rows.FORGOTTEN_BEYOND * 10):
            for picture in () if record.gone else record.result.pictures:
                with suppress(Damaged, FileNotFoundError):
                    store.result_bytes(record.id, picture.file)
        return tuple(store.damage)


def _summary(database: Database) -> str:
    with database.read() as connection:
        counts = Counter(dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()))
        files, size = connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM files").fetchone()
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"{counts.total()} jobs{f' ({states})' if states else ''}, {files} files of results with {size} bytes"


def _rows(database: Database) -> Iterator[str]:
    with database.read() as connection:
        found = (row for row in connection.execute(rows.RECORD) if not rows.is_given_up(row))
        unreadable = [row["id"] for row in found if not rows.is_readable(row)]
    yield from (f"job {each}: what was kept of it is damaged" for each in unreadable)


def _results(database: Database, data: Path) -> Iterator[str]:
    root = data / "results"
    if not root.is_dir():
        return
    with database.read() as connection:
        known = {row["id"] for row in connection.execute("SELECT id FROM jobs WHERE gone = 0")}
        query = "SELECT id, name, bytes, sha256 FROM files JOIN jobs ON jobs.number = files.job WHERE gone = 0"
        files = [dict(row) for row in connection.execute(query)]
    results = ResultFiles(root)
    for each in files:
        job_id, file = each.pop("id"), KeptFile(**each)
        if not results.is_whole(job_id, file):
            there = (root / job_id / file.name).is_file()
            yield f"results/{job_id}/{file.name}: it is {'not what was kept' if there else 'not there'}"
    for folder in sorted(root.iterdir()):
        if folder.name not in known:
            yield f"results/{folder.name}: no job is known that it belongs to"


def _sources(database: Database, data: Path) -> Iterator[str]:
    with database.read() as connection:
        query = "SELECT DISTINCT reference FROM sources JOIN jobs ON jobs.number = sources.job WHERE ended IS NULL"
        needed = [row["reference"] for row in connection.execute(query)]
    root = data / "inputs"
    sources = SourceFiles(root) if root.is_dir() else None
    for each in needed:
        if wrong := _wrong_with(sources, each):
            yield f"inputs/{each.removeprefix(PICTURE_REFERENCE)}: a job that waits needs it, and it is {wrong}"


def _wrong_with(sources: SourceFiles | None, reference: str) -> str | None:
    if sources is None or not sources.is_there(reference):
        return "not there"
    try:
        sources.read(reference)
    except OverpaintError:
        return "damaged"
    return None
