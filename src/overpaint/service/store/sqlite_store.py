"""`JobStore`: jobs and their events in SQLite, their files below the same data folder, safe from a crash at any moment.

`recover` takes away what a crash has left behind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from overpaint.errors import RequestError, SaveError
from overpaint.files.saving import sync_folder
from overpaint.service.byproducts import BYPRODUCTS, byproduct_file
from overpaint.service.jobs import DoneBatch, Record
from overpaint.service.limits import Limits
from overpaint.service.store import job_rows as rows
from overpaint.service.store.database import Database
from overpaint.service.store.folder_lock import FolderLock
from overpaint.service.store.mending import opened
from overpaint.service.store.result_files import KeptFile, ResultFiles
from overpaint.service.store.shelf import Shelf
from overpaint.service.store.source_files import SourceFiles, references_in
from overpaint.service.store.store_on_tables import STAMP, UPTIME, StoreOnTables
from overpaint.service.store.uptime import Uptime

_DEFAULT_LIMITS = Limits()


class JobStore(StoreOnTables):
    """The one store of a data folder."""

    _database: Database
    _results: ResultFiles
    _sources: SourceFiles

    def __init__(
        self, data: Path, limits: Limits = _DEFAULT_LIMITS, *, uptime: Callable[[], float] | None = None
    ) -> None:
        _make_folder(data)
        if (data / STAMP).exists():
            remedy = "the pictures of a store on PostgreSQL lie there; give --store, or another folder"
            raise RequestError("--data", str(data), remedy)
        self.data, self._limits = data, limits
        self._lock = FolderLock(data)
        try:
            self._results = ResultFiles(data / "results")
            self._sources = SourceFiles(data / "inputs")
            self._shelf = Shelf(data)
            self._database = opened(data / "jobs.db", self._shelf)
            self._uptime = uptime or Uptime(self._reached()).seconds
        except BaseException:
            self._lock.release()
            raise
        for folder in (data, data.resolve().parent):
            sync_folder(folder)

    def uptime(self) -> float:
        return self._uptime()

    def recover(self) -> Sequence[Record]:
        self._set_unreadable_aside()
        torn = list(self._torn_batches())
        with self._database.write() as connection:
            for number, place, batch in torn:
                rows.drop_batch(connection, number, place, batch)
            query = "SELECT id FROM jobs WHERE state = 'running' ORDER BY number"
            interrupted = [each["id"] for each in connection.execute(query)]
            rows.requeue(connection, interrupted)
            records = [rows.found(connection, each) for each in interrupted]
        files = self._files_by_job()
        if self._shelf.said:  # somebody may want what jobs have left that nothing else is known of
            self._results.set_unknown_aside(files, self._shelf)
        self._results.clean(files)
        self._sources.clean()
        return records

    @property
    def damage(self) -> Sequence[str]:
        """What was found damaged and was set aside since this was opened, in a sentence each."""
        return self._shelf.said

    def trouble(self) -> str | None:
        if self._database.damage is None:
            try:
                self.counts()
            except SaveError as error:
                return str(error)
        return self._database.damage

    def integrity_check(self) -> Sequence[str]:
        """What is wrong with the database; nothing if all is well."""
        return self._database.integrity_check()

    def close(self) -> None:
        with suppress(SaveError):  # then it goes on from a moment before
            self.set_option(UPTIME, self.uptime())
        self._database.close()
        self._lock.release()

    # -- inside --------------------------------------------------------------------------------------------------

    def _reached(self) -> float:
        """The uptime so far; after a crash, as far as it was written down anywhere."""
        moments = "SELECT max(max(accepted_at), coalesce(max(started_at), 0), coalesce(max(ended_at), 0)) FROM jobs"
        with self._database.read() as connection:
            found = connection.execute(moments).fetchone()[0]
        return max(found or 0.0, self.option(UPTIME) or 0.0)

    def _set_unreadable_aside(self) -> None:
        """Jobs that wait and of which nobody can tell what they want have failed; what is left of the rows is kept."""
        with self._database.write() as connection:
            for row in connection.execute(f"{rows.RECORD} WHERE ended IS NULL").fetchall():
                if rows.is_readable(row):
                    if self._shelf.said:
                        rows.add_sources(connection, row["id"], references_in(json.loads(row["job"])["request"]))
                    continue
                place = self._shelf.keep(f"{row['id']}.json", json.dumps(dict(row)).encode())
                self._shelf.say(f"job {row['id']}: what was kept of it is damaged", place)
                rows.give_up(connection, row["id"], time.time(), self.uptime())

    def _torn_batches(self) -> Iterator[tuple[int, int, DoneBatch | None]]:
        """Batches of unfinished jobs that are not what was kept, each after the number of its job and its own."""
        with self._database.read() as connection:
            unfinished = connection.execute("SELECT number, id FROM jobs WHERE ended IS NULL").fetchall()
        for number, job_id in unfinished:
            with self._database.read() as connection:
                query = "SELECT name, bytes, sha256 FROM files WHERE job = ?"
                files = [KeptFile(**dict(each)) for each in connection.execute(query, (number,))]
            whole = {each.name for each in files if self._results.is_whole(job_id, each)}
            with self._database.read() as connection:
                batches = list(rows.batches_of(connection, number))
            for place, batch in batches:
                if batch is None or not whole.issuperset(each.file for each in batch.pictures):
                    yield number, place, batch

    def _files_by_job(self) -> dict[str, set[str] | None]:
        """What may lie in the result folders of jobs; of jobs that have ended, everything."""
        with self._database.read() as connection:
            jobs = connection.execute("SELECT id, ended FROM jobs WHERE gone = 0").fetchall()
        return {job_id: self._files_of(job_id) if ended is None else None for job_id, ended in jobs}

    def _files_of(self, job_id: str) -> set[str]:
        pictures = [each for batch in self.batches(job_id) for each in batch.pictures]
        beside = {byproduct_file(each.file, kind) for each in pictures for kind in BYPRODUCTS}
        return beside.union(each.file for each in pictures)


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)  # prompts and pictures are nobody else's business
    except OSError as error:
        remedy = f"the folder cannot be made ({error.strerror}); give another folder"
        raise RequestError("--data", str(data), remedy) from error
