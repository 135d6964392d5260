"""`JobStore`: jobs, their events and their files below one data folder, safe from a crash at any moment.

Files come first and the record that names them after; on the way out, the record first. So what a crash leaves behind
is at worst a file that nobody names, and `recover` takes that away.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from overpaint.errors import RequestError, SaveError
from overpaint.files.saving import sync_folder
from overpaint.service.byproducts import BYPRODUCTS, byproduct_file
from overpaint.service.jobs import (
    Claim,
    DoneBatch,
    Job,
    JobChange,
    JobError,
    JobEvent,
    JobResult,
    JobState,
    Json,
    Live,
    Record,
)
from overpaint.service.limits import Limits
from overpaint.service.ports import Damaged, NoPlace
from overpaint.service.store import job_rows as rows
from overpaint.service.store.folder_lock import FolderLock
from overpaint.service.store.forms import plain
from overpaint.service.store.job_rows import ENDS
from overpaint.service.store.mending import opened
from overpaint.service.store.result_files import KeptFile, ResultFiles, check_name, is_kept
from overpaint.service.store.shelf import Shelf
from overpaint.service.store.source_files import SourceFiles, references_in
from overpaint.service.store.uptime import Uptime

_UPTIME = "uptime"  # the option that holds it
_DEFAULT_LIMITS = Limits()
_BY_ID = "(SELECT number FROM jobs WHERE id = ?)"


class JobStore:
    """The one store of a data folder; `Store` in ports.py says what is promised. Any thread may call."""

    def __init__(
        self, data: Path, limits: Limits = _DEFAULT_LIMITS, *, uptime: Callable[[], float] | None = None
    ) -> None:
        _make_folder(data)
        self.data, self._limits = data, limits
        self._lock = FolderLock(data)
        try:
            self._results = ResultFiles(data / "results")
            self._sources = SourceFiles(data / "inputs")
            self.incoming = self._sources.incoming
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

    # -- jobs ----------------------------------------------------------------------------------------------------

    def accept(self, job: Job) -> JobChange:
        check_name("id", job.id)
        job = job if job.created else replace(job, created=time.time())
        references = sorted(set(references_in(plain(job.request))))
        with self._database.write() as connection:
            known = rows.already_accepted(connection, job)
            if known is not None:
                return JobChange(record=known)
            self._check_room(connection, job)
            for each in references:
                if not self._sources.has(each):
                    raise RequestError("picture", each, "it is not kept here (any more); upload it again")
            record = rows.add_job(connection, job, references, self.uptime())
            return JobChange(record=record, event=self._told(connection, job.id, "queued", {"kind": job.kind}))

    def get(self, job_id: str) -> Record | None:
        found = self._records("WHERE id = ?", job_id)
        return found[0] if found else None

    def records(
        self, *, states: Iterable[JobState] = (), client: str | None = None, limit: int = 100
    ) -> Sequence[Record]:
        wanted = [each.value for each in states] or [each.value for each in JobState]
        marks = ", ".join("?" * len(wanted))
        where = f"WHERE state IN ({marks}) AND (? IS NULL OR client = ?) ORDER BY number DESC LIMIT ?"
        return self._records(where, *wanted, client, client, limit)

    def waiting(self) -> Sequence[Record]:
        return self._records("WHERE state = 'queued' ORDER BY number")

    def counts(self) -> Mapping[JobState, int]:
        """How many jobs are known in each state that there are any in."""
        with self._database.read() as connection:
            found = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        return {JobState(state): count for state, count in found}

    def claim(self, job_id: str, worker: str, lease_seconds: float, *, at: float | None = None) -> Claim | None:
        at = time.time() if at is None else at
        with self._database.write() as connection:
            fence = rows.claim(connection, job_id, worker, at, self.uptime(), lease_seconds)
            record = rows.found(connection, job_id)
        return None if fence is None else Claim(record=record, worker=worker, fence=fence)

    def renew(self, claim: Claim, lease_seconds: float) -> bool:
        with self._database.write() as connection:
            return rows.renew(connection, claim.record.id, claim.fence, self.uptime() + lease_seconds)

    def progress(self, live: Live, *, fence: int | None = None) -> JobEvent | None:
        data = {name: getattr(live, name) for name in ("step", "steps", "batch", "batches", "images")}
        with self._database.write() as connection:
            rows.check_fence(connection, live.job, fence)
            if rows.set_progress(connection, live):
                return self._told(connection, live.job, "progress", data)
        return None

    def keep_batch(self, job_id: str, batch: DoneBatch, *, fence: int | None = None) -> JobEvent:
        files = self._results.kept(job_id, {each.file for each in batch.pictures})
        with self._database.write() as connection:
            rows.check_fence(connection, job_id, fence)
            number = rows.number_of(connection, job_id)
            values = (number, batch.number, rows.text_of(batch))
            connection.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", values)
            rows.keep_files(connection, number, files)
            return self._told(connection, job_id, "painted", rows.painted_data(batch))

    def batches(self, job_id: str) -> Sequence[DoneBatch]:
        with self._database.read() as connection:
            row = connection.execute("SELECT number FROM jobs WHERE id = ?", (job_id,)).fetchone()
            found = list(rows.batches_of(connection, row["number"])) if row else []
        return [batch for _, batch in found if batch is not None]

    def end(
        self,
        job_id: str,
        state: JobState,
        at: float,
        *,
        result: JobResult | None = None,
        error: JobError | None = None,
        live: Live | None = None,
        unless: Collection[JobState] = (),
        fence: int | None = None,
    ) -> JobChange:
        if not state.is_end:
            raise RequestError("state", state.value, "a job ends finished, failed or cancelled")
        files = self._results.kept(job_id, {each.file for each in result.pictures} if result else ())
        is_whole = state is JobState.FINISHED and not (result and result.stopped)
        step = "steps" if is_whole else "step"  # the last steps may not have been told
        change = f"SET state = ?, ended = ?, ended_at = ?, step = {step}, result = ?, error = ?"
        told = (state.value, at, self.uptime(), rows.text_of(result), rows.text_of(error))
        with self._database.write() as connection:
            before = rows.state_of(connection, job_id)
            if before.is_end or before in unless:
                return JobChange(record=rows.found(connection, job_id))
            rows.check_fence(connection, job_id, fence)
            if live is not None and live.steps:
                rows.set_progress(connection, live)
            connection.execute(f"UPDATE jobs {change} WHERE id = ?", (*told, job_id))
            rows.keep_files(connection, rows.number_of(connection, job_id), files)
            record = rows.found(connection, job_id)
            event = self._told(connection, job_id, state.value, rows.end_data(record), at)
            return JobChange(record=record, event=event)

    def requeue(self, job_id: str, *, fence: int | None = None) -> Record:
        with self._database.write() as connection:
            rows.check_fence(connection, job_id, fence)
            rows.requeue(connection, [job_id])
            return rows.found(connection, job_id)

    # -- events --------------------------------------------------------------------------------------------------

    def add_event(self, job_id: str, name: str, data: Json, at: float, *, fence: int | None = None) -> JobEvent:
        with self._database.write() as connection:
            rows.check_fence(connection, job_id, fence)
            return self._told(connection, job_id, name, data, at)

    def events_after(self, job_id: str, number: int) -> Sequence[JobEvent]:
        query = f"SELECT number, name, data, at FROM events WHERE job = {_BY_ID} AND number > ? ORDER BY number"
        with self._database.read() as connection:
            found = list(_events(job_id, connection.execute(query, (job_id, number)).fetchall()))
            end = None if found and found[-1].name in ENDS else rows.untold_end(connection, job_id)
        return found if end is None or end.number <= number else [*found, end]

    # -- what becomes old, or was broken off ---------------------------------------------------------------------

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

    def expire(self, *, keep_seconds: float, keep_bytes: int) -> Sequence[str]:
        uptime = self.uptime()
        with self._database.write() as connection:
            old = rows.too_old(connection, uptime, keep_seconds, keep_bytes)
            rows.let_go(connection, [number for number, _ in old])
            rows.forget(connection)
            rows.set_option(connection, _UPTIME, uptime)
        for _, job_id in old:
            self._results.delete(job_id)
        # NOTE: within a transaction, so that no job is accepted that names a picture on its way out.
        with self._database.write() as connection:
            needed = "SELECT reference FROM sources JOIN jobs ON jobs.number = sources.job WHERE ended IS NULL"
            wanted = {each["reference"] for each in connection.execute(needed)}
            self._sources.collect(wanted, uptime, keep_seconds=keep_seconds, keep_bytes=keep_bytes)
        return [job_id for _, job_id in old]

    def pin(self, job_id: str, pinned: bool) -> Record:
        with self._database.write() as connection:
            connection.execute("UPDATE jobs SET pinned = ? WHERE id = ? AND gone = 0", (pinned, job_id))
            return rows.found(connection, job_id)

    def pinned_bytes(self) -> int:
        query = "SELECT coalesce(sum(bytes), 0) FROM files JOIN jobs ON jobs.number = files.job WHERE pinned = 1"
        with self._database.read() as connection:
            return int(connection.execute(query).fetchone()[0])

    def delete(self, job_id: str) -> Record:
        with self._database.write() as connection:
            if rows.state_of(connection, job_id).is_end:
                rows.let_go(connection, [rows.number_of(connection, job_id)])
            record = rows.found(connection, job_id)
        if record.gone:
            self._results.delete(job_id)
        return record

    def option(self, name: str) -> Any:
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM options WHERE name = ?", (name,)).fetchone()
        try:
            return None if row is None else json.loads(row["value"])
        except rows.UNREADABLE:
            self._shelf.say(f"option {name!r}: what was kept of it is damaged, so it is as if it was never set")
            return None

    def set_option(self, name: str, value: Any) -> None:
        with self._database.write() as connection:
            rows.set_option(connection, name, value)

    def put_picture(self, data: bytes) -> str:
        return self._sources.keep(data)

    def take_picture(self, path: Path, digest: str) -> str:
        return self._sources.take(path, digest)

    def picture(self, reference: str) -> bytes:
        return self._sources.read(reference)

    def result_file(self, job_id: str, name: str) -> Path:
        return self._results.path(job_id, name)

    def result_bytes(self, job_id: str, name: str) -> bytes:
        path = self.result_file(job_id, name)
        query = "SELECT name, bytes, sha256 FROM files JOIN jobs ON jobs.number = files.job WHERE id = ? AND name = ?"
        with self._database.read() as connection:
            row = connection.execute(query, (job_id, name)).fetchone()
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            if row is None:
                raise
            raise Damaged(f"job {job_id}: its picture {name} is not there any more; paint it again") from None
        if row is not None and not is_kept(KeptFile(**dict(row)), data):
            place = self._shelf.take(path, f"{job_id}-{name}")
            self._shelf.say(f"results/{job_id}/{name}: it is not what was kept", place)
            raise Damaged(f"job {job_id}: its picture {name} was damaged on the disk; paint it again")
        return data

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
            self.set_option(_UPTIME, self.uptime())
        self._database.close()
        self._lock.release()

    def _told(
        self, connection: sqlite3.Connection, job_id: str, name: str, data: Json, at: float | None = None
    ) -> JobEvent:
        """An event, added within the transaction of the change that it tells of."""
        event = rows.add_event(connection, job_id, name, data, time.time() if at is None else at)
        rows.thin(connection, job_id, self._limits.events_per_job)
        return event

    def _reached(self) -> float:
        """The uptime so far; after a crash, as far as it was written down anywhere."""
        moments = "SELECT max(max(accepted_at), coalesce(max(started_at), 0), coalesce(max(ended_at), 0)) FROM jobs"
        with self._database.read() as connection:
            found = connection.execute(moments).fetchone()[0]
        return max(found or 0.0, self.option(_UPTIME) or 0.0)

    def _check_room(self, connection: sqlite3.Connection, job: Job) -> None:
        count = "SELECT count(*), coalesce(sum(client = ?), 0) FROM jobs WHERE state = 'queued'"
        waiting, own = connection.execute(count, (job.client,)).fetchone()
        limits = self._limits
        if waiting < limits.waiting and own < limits.waiting_per_client:
            return
        is_own = waiting < limits.waiting
        raise NoPlace(own if is_own else waiting, is_own=is_own)

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

    def _records(self, where: str, *values: Any) -> list[Record]:
        with self._database.read() as connection:
            found = connection.execute(f"{rows.RECORD} {where}", values).fetchall()
        return [rows.record_of(each) for each in found]


def _events(job_id: str, found: Iterable[sqlite3.Row]) -> Iterator[JobEvent]:
    for row in found:
        with suppress(*rows.UNREADABLE):  # the story goes on without one that is damaged
            yield JobEvent(job=job_id, **{**dict(row), "data": json.loads(row["data"])})


def _make_folder(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)  # prompts and pictures are nobody else's business
    except OSError as error:
        remedy = f"the folder cannot be made ({error.strerror}); give another folder"
        raise RequestError("--data", str(data), remedy) from error
