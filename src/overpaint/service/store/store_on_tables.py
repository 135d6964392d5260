"""What all stores do that keep jobs in tables and pictures in a folder: `Store` in ports.py says what is promised.

Files come first and the record that names them after; on the way out, the record first. So what a crash leaves behind
is at worst a file that nobody names.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from overpaint.errors import RequestError
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
from overpaint.service.store.blobs import ResultBlobs, SourceBlobs
from overpaint.service.store.forms import plain
from overpaint.service.store.job_rows import ENDS
from overpaint.service.store.result_files import KeptFile, check_name, is_kept
from overpaint.service.store.room import size_of, takes_files
from overpaint.service.store.shelf import Shelf
from overpaint.service.store.source_files import references_in
from overpaint.service.store.tables import Connection, Row, Tables

UPTIME = "uptime"  # the option that holds it
STAMP = "overpaint-store"  # the file that says whose pictures lie in a folder that several processes share
_BY_ID = "(SELECT number FROM jobs WHERE id = ?)"


class StoreOnTables:
    """All but how it is opened, and what is done about damage and crashes. Any thread may call."""

    data: Path
    _limits: Limits
    _database: Tables
    _results: ResultBlobs
    _sources: SourceBlobs
    _shelf: Shelf

    def uptime(self) -> float:
        raise NotImplementedError

    def recover(self) -> Sequence[Record]:
        raise NotImplementedError

    def trouble(self) -> str | None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def _now(self, connection: Connection) -> float:
        """The uptime by the clock that everybody goes by."""
        return self.uptime()

    def _more_of(self, job: Job) -> Mapping[str, Any]:
        """Columns of a job that only this database has."""
        return {}

    def _more_of_live(self, live: Live) -> Mapping[str, Any]:
        """The same of how far it has come."""
        return {}

    # -- jobs ----------------------------------------------------------------------------------------------------

    def accept(self, job: Job) -> JobChange:
        check_name("id", job.id)
        job = job if job.created else replace(job, created=time.time())
        references = sorted(set(references_in(plain(job.request))))
        with self._database.write() as connection:
            connection.one_at_a_time()
            known = rows.already_accepted(connection, job)
            if known is not None:
                return JobChange(record=known)
            self._check_room(connection, job)
            for each in references:
                if not self._sources.has(each, connection):
                    raise RequestError("picture", each, "it is not kept here (any more); upload it again")
            record = rows.add_job(connection, job, references, self._now(connection), self._more_of(job))
            return JobChange(record=record, event=self._told(connection, job.id, "queued", {"kind": job.kind}))

    def get(self, job_id: str) -> Record | None:
        found = self._records("WHERE id = ?", job_id)
        return found[0] if found else None

    def records(
        self, *, states: Iterable[JobState] = (), client: str | None = None, limit: int = 100
    ) -> Sequence[Record]:
        wanted = [each.value for each in states] or [each.value for each in JobState]
        marks = ", ".join("?" * len(wanted))
        where = f"WHERE state IN ({marks}) AND (CAST(? AS TEXT) IS NULL OR client = ?) ORDER BY number DESC LIMIT ?"
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
            fence = rows.claim(connection, job_id, worker, at, self._now(connection), lease_seconds)
            record = rows.found(connection, job_id)
        return None if fence is None else Claim(record=record, worker=worker, fence=fence)

    def renew(self, claim: Claim, lease_seconds: float) -> bool:
        with self._database.write() as connection:
            return rows.renew(connection, claim.record.id, claim.fence, self._now(connection) + lease_seconds)

    def progress(self, live: Live, *, fence: int | None = None) -> JobEvent | None:
        data = {name: getattr(live, name) for name in ("step", "steps", "batch", "batches", "images")}
        with self._database.write() as connection:
            rows.check_fence(connection, live.job, fence)
            if rows.set_progress(connection, live, self._more_of_live(live)):
                return self._told(connection, live.job, "progress", data)
        return None

    def keep_batch(self, job_id: str, batch: DoneBatch, *, fence: int | None = None) -> JobEvent:
        names = {each.file for each in batch.pictures}
        with self._kept(job_id, names) as files, self._database.write() as connection:
            rows.check_fence(connection, job_id, fence)
            number = rows.number_of(connection, job_id)
            rows.keep_batch(connection, number, batch)
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
        names = {each.file for each in result.pictures} if result else set[str]()
        is_whole = state is JobState.FINISHED and not (result and result.stopped)
        step = "steps" if is_whole else "step"  # the last steps may not have been told
        change = f"SET state = ?, ended = ?, ended_at = ?, step = {step}, result = ?, error = ?"
        with self._kept(job_id, names) as files, self._database.write() as connection:
            before = rows.state_of(connection, job_id)
            if before.is_end or before in unless:
                return JobChange(record=rows.found(connection, job_id))
            rows.check_fence(connection, job_id, fence)
            told = (state.value, at, self._now(connection), rows.text_of(result), rows.text_of(error))
            if live is not None and live.steps:
                rows.set_progress(connection, live, self._more_of_live(live))
            connection.execute(f"UPDATE jobs {change} WHERE id = ?", (*told, job_id))
            rows.keep_files(connection, rows.number_of(connection, job_id), files)
            record = rows.found(connection, job_id)
            return JobChange(
                record=record, event=self._told(connection, job_id, state.value, rows.end_data(record), at)
            )

    def requeue(self, job_id: str, *, fence: int | None = None) -> Record:
        with self._database.write() as connection:
            rows.check_fence(connection, job_id, fence)
            rows.requeue(connection, [job_id])
            connection.announce(JobState.QUEUED.value, job_id)
            return rows.found(connection, job_id)

    # -- events --------------------------------------------------------------------------------------------------

    def add_event(
        self, job_id: str, name: str, data: Json, at: float, *, fence: int | None = None, picture: bytes | None = None
    ) -> JobEvent:
        with self._database.write() as connection:
            rows.check_fence(connection, job_id, fence)
            event = self._told(connection, job_id, name, data, at)
            if picture is not None:
                self._show(connection, event, picture)
            return event

    def events_after(self, job_id: str, number: int) -> Sequence[JobEvent]:
        query = f"SELECT number, name, data, at FROM events WHERE job = {_BY_ID} AND number > ? ORDER BY number"
        with self._database.read() as connection:
            found = list(_events(job_id, connection.execute(query, (job_id, number)).fetchall()))
            end = None if found and found[-1].name in ENDS else rows.untold_end(connection, job_id)
        return found if end is None or end.number <= number else [*found, end]

    def expire(self, *, keep_seconds: float, keep_bytes: int) -> Sequence[str]:
        with self._database.write() as connection:
            uptime = self._now(connection)
            old = rows.too_old(connection, uptime, keep_seconds, keep_bytes)
            rows.let_go(connection, [number for number, _ in old])
            rows.forget(connection)
            rows.set_option(connection, UPTIME, uptime)
        for _, job_id in old:
            self._results.delete(job_id)
        # NOTE: within a transaction, so that no job is accepted that names a picture on its way out.
        with self._database.write() as connection:
            connection.one_at_a_time()
            needed = "SELECT reference FROM sources JOIN jobs ON jobs.number = sources.job WHERE ended IS NULL"
            wanted = {each["reference"] for each in connection.execute(needed)}
            places = self._sources.collect(wanted, connection, uptime, keep_seconds=keep_seconds, keep_bytes=keep_bytes)
        self._sources.delete(places)
        return [job_id for _, job_id in old]

    def pin(self, job_id: str, pinned: bool) -> Record:
        with self._database.write() as connection:
            connection.execute("UPDATE jobs SET pinned = ? WHERE id = ? AND gone = 0", (int(pinned), job_id))
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

    # -- options and files ---------------------------------------------------------------------------------------

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

    @property
    def incoming(self) -> Path:
        return self._sources.incoming

    def take_picture(self, path: Path, digest: str) -> str:
        return self._sources.take(path, digest)

    def picture(self, reference: str) -> bytes:
        return self._sources.read(reference)

    def result_file(self, job_id: str, name: str) -> Path:
        return self._results.path(job_id, name)

    def has_result(self, job_id: str, name: str) -> bool:
        return self.result_file(job_id, name).is_file()

    def results_size(self) -> int:
        return size_of(self.data / "results")

    def takes_pictures(self) -> bool:
        return takes_files(self.data)

    def lay_out(self, job: Job) -> Path:
        return self.result_file(job.id, "0.png").parent

    def clear_away(self, job_id: str) -> None:
        """Everything stays where it is."""

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

    # -- inside --------------------------------------------------------------------------------------------------

    @contextmanager
    def _kept(self, job_id: str, names: Collection[str]) -> Iterator[Sequence[KeptFile]]:
        """Files of a job that are durable, while a row is written that names them."""
        yield self._results.kept(job_id, names)

    def _told(self, connection: Connection, job_id: str, name: str, data: Json, at: float | None = None) -> JobEvent:
        """An event, added within the transaction of the change that it tells of."""
        event = rows.add_event(connection, job_id, name, data, time.time() if at is None else at)
        rows.thin(connection, job_id, self._limits.events_per_job)
        connection.announce(name, job_id)
        return event

    def _show(self, connection: Connection, event: JobEvent, picture: bytes) -> None:
        """Keep a preview for those who follow the job elsewhere; here there is nobody."""

    def _check_room(self, connection: Connection, job: Job) -> None:
        count = "SELECT count(*), count(*) FILTER (WHERE client = ?) FROM jobs WHERE state = 'queued'"
        waiting, own = connection.execute(count, (job.client,)).fetchone()
        limits = self._limits
        if waiting < limits.waiting and own < limits.waiting_per_client:
            return
        is_own = waiting < limits.waiting
        raise NoPlace(own if is_own else waiting, is_own=is_own)

    def _records(self, where: str, *values: Any) -> list[Record]:
        with self._database.read() as connection:
            found = connection.execute(f"{rows.RECORD} {where}", values).fetchall()
        return [rows.record_of(each) for each in found]


def _events(job_id: str, found: Iterable[Row]) -> Iterator[JobEvent]:
    for row in found:
        with suppress(*rows.UNREADABLE):  # the story goes on without one that is damaged
            yield JobEvent(job=job_id, **{**dict(row), "data": json.loads(row["data"])})
