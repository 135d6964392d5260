"""The tables in the house's words: what is read and written within one transaction of the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from overpaint.errors import RequestError
from overpaint.service.jobs import DoneBatch, Job, JobError, JobEvent, JobResult, JobState, Json, Live, Record, Uptimes
from overpaint.service.ports import ClaimLost, Conflict
from overpaint.service.store.forms import batch_of, error_of, job_of, plain, result_of
from overpaint.service.store.result_files import KeptFile
from overpaint.service.store.tables import Connection, Row

DAMAGED = JobError(code="damaged", message="what was kept of this job is damaged; send it again")
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)  # what damaged JSON leads to
RECORD = (
    "SELECT id, client, key, fingerprint, job, state, started, ended, attempts, step, steps, images_total, result, "
    "error, gone, pinned, accepted_at, started_at, ended_at, "
    "(SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM files WHERE job = jobs.number) AS bytes FROM jobs"
)
ENDS = tuple(each.value for each in JobState if each.is_end)  # the last event of a job has the name of its state
PASSING = ("progress", "preview")  # events that may be thinned out: what they told is over soon
FORGOTTEN_BEYOND = 10_000  # records of jobs whose results are gone

_AS_THEY_ARE = ("started", "ended", "attempts", "step", "steps", "images_total", "bytes")


def record_of(row: Row) -> Record:
    """What is kept of a job. Of one whose row is damaged that is what is left of it, and it has failed."""
    try:
        return _whole(row)
    except UNREADABLE:
        return _left_of(row)


def _whole(row: Row) -> Record:
    result, error, state = row["result"], row["error"], JobState(row["state"])
    job = job_of(json.loads(row["job"]))
    if not state.is_end and job.fingerprint() != row["fingerprint"]:
        raise ValueError("another request than was accepted")
    return Record(
        job=job,
        state=state,
        result=JobResult() if result is None else result_of(json.loads(result)),
        error=None if error is None else error_of(json.loads(error)),
        gone=bool(row["gone"]),
        pinned=bool(row["pinned"]),
        uptimes=Uptimes(accepted=row["accepted_at"], started=row["started_at"], ended=row["ended_at"]),
        **{name: row[name] for name in _AS_THEY_ARE},
    )


def _left_of(row: Row) -> Record:
    job = Job(id=row["id"], kind="paint", request={}, settings={}, client=row["client"], key=row["key"])
    uptimes = Uptimes(accepted=row["accepted_at"], started=row["started_at"], ended=row["ended_at"])
    told = {name: row[name] for name in _AS_THEY_ARE}
    return Record(job=job, state=JobState.FAILED, error=DAMAGED, gone=bool(row["gone"]), uptimes=uptimes, **told)


def is_readable(row: Row) -> bool:
    try:
        _whole(row)
    except UNREADABLE:
        return False
    return True


def is_given_up(row: Row) -> bool:
    """Damage that was found before, and of which whoever asks is told."""
    return bool(row["state"] == JobState.FAILED.value and row["error"] == text_of(DAMAGED))


def found(connection: Connection, job_id: str) -> Record:
    row = connection.execute(f"{RECORD} WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise KeyError(job_id)
    return record_of(row)


def state_of(connection: Connection, job_id: str) -> JobState:
    """To be changed within the same transaction."""
    row = connection.execute(f"SELECT state FROM jobs WHERE id = ?{connection.locking}", (job_id,)).fetchone()
    if row is None:
        raise KeyError(job_id)
    return JobState(row["state"])


def already_accepted(connection: Connection, job: Job) -> Record | None:
    """The record of the same job; another job under its id or key is a conflict."""
    if other := connection.execute(
        "SELECT id FROM jobs WHERE lower(id) = lower(?) AND id <> ?", (job.id, job.id)
    ).fetchone():
        raise Conflict(f"id={job.id!r}: it differs from {other['id']!r} in capitals only; choose another")
    same = {
        f"id={job.id!r}": ("id = ?", (job.id,)),
        f"idempotency key={job.key!r}": ("client = ? AND key = ?", (job.client, job.key)),
    }
    known = None
    for name, (where, values) in same.items():
        row = connection.execute(f"SELECT id, fingerprint FROM jobs WHERE {where}", values).fetchone()
        if row is not None and row["fingerprint"] != job.fingerprint():
            raise Conflict(f"{name}: it stands for another job already; send this one under a new name")
        known = known or row
    return None if known is None else found(connection, known["id"])


def add_job(
    connection: Connection, job: Job, references: Iterable[str], uptime: float, more: Mapping[str, Any]
) -> Record:
    """`more`: columns that only this database has."""
    values = {"id": job.id, "client": job.client, "key": job.key, "fingerprint": job.fingerprint(), **more}
    values |= {"job": text_of(job), "accepted_at": uptime}
    places = ", ".join(f":{name}" for name in values)
    added = f"INSERT INTO jobs ({', '.join(values)}) VALUES ({places}) RETURNING number"
    number = connection.execute(added, values).fetchone()[0]
    connection.executemany("INSERT INTO sources VALUES (?, ?)", [(number, each) for each in references])
    return found(connection, job.id)


def number_of(connection: Connection, job_id: str) -> int:
    """Of a job that may still get files."""
    row = connection.execute(f"SELECT number, gone FROM jobs WHERE id = ?{connection.locking}", (job_id,)).fetchone()
    if row is None:
        raise KeyError(job_id)
    if row["gone"]:
        raise RequestError("job", job_id, "its results were deleted; submit it again under a new name")
    return int(row["number"])


def keep_files(connection: Connection, number: int, files: Iterable[KeptFile]) -> None:
    for each in files:
        values = {"job": number, **{name: value for name, value in vars(each).items() if value != ""}}
        changed = ", ".join(f"{name} = excluded.{name}" for name in values if name not in ("job", "name"))
        added = f"INSERT INTO files ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})"
        connection.execute(f"{added} ON CONFLICT (job, name) DO UPDATE SET {changed}", values)


def keep_batch(connection: Connection, number: int, batch: DoneBatch) -> None:
    change = "ON CONFLICT (job, number) DO UPDATE SET batch = excluded.batch"
    connection.execute(f"INSERT INTO batches VALUES (?, ?, ?) {change}", (number, batch.number, text_of(batch)))


def drop_batch(connection: Connection, number: int, place: int, batch: DoneBatch | None) -> None:
    """It is painted again: neither it nor its files count any more."""
    connection.execute("DELETE FROM batches WHERE job = ? AND number = ?", (number, place))
    files = [(number, each.file) for each in (batch.pictures if batch else ())]
    connection.executemany("DELETE FROM files WHERE job = ? AND name = ?", files)


def batches_of(connection: Connection, number: int) -> Iterator[tuple[int, DoneBatch | None]]:
    """By their numbers; None is one whose row is damaged."""
    query = "SELECT number, batch FROM batches WHERE job = ? ORDER BY number"
    for row in connection.execute(query, (number,)).fetchall():
        yield row["number"], _batch_in(row["batch"])


def _batch_in(text: str) -> DoneBatch | None:
    try:
        return batch_of(json.loads(text))
    except UNREADABLE:
        return None


def add_sources(connection: Connection, job_id: str, references: Iterable[str]) -> None:
    added = "INSERT OR IGNORE INTO sources SELECT number, ? FROM jobs WHERE id = ?"
    connection.executemany(added, [(each, job_id) for each in references])


def give_up(connection: Connection, job_id: str, at: float, uptime: float) -> None:
    change = "SET state = 'failed', ended = ?, ended_at = ?, result = NULL, error = ? WHERE id = ?"
    connection.execute(f"UPDATE jobs {change}", (at, uptime, text_of(DAMAGED), job_id))
    add_event(connection, job_id, JobState.FAILED.value, end_data(found(connection, job_id)), at)


def add_lost(connection: Connection, number: int, job_id: str) -> None:
    """A job of which only the name is left: who asks for it is told so."""
    names = "number, id, client, fingerprint, job, state, ended, ended_at, error"
    values = (number, job_id, "", "", "{}", JobState.FAILED.value, 0.0, 0.0, text_of(DAMAGED))
    connection.execute(f"INSERT OR IGNORE INTO jobs ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def set_progress(connection: Connection, live: Live, more: Mapping[str, Any]) -> bool:
    """How far a running job has come; False if it is not running. `more`: columns that only this database has."""
    values = {"step": live.step, "steps": live.steps, "images_total": live.images, **more}
    change = ", ".join(f"{name} = :{name}" for name in values)
    where = "WHERE id = :id AND state = 'running'"
    return bool(connection.execute(f"UPDATE jobs SET {change} {where}", {**values, "id": live.job}).rowcount)


def claim(connection: Connection, job_id: str, worker: str, at: float, uptime: float, lease: float) -> int | None:
    """Set a job running for a worker; the fence of that, or None where another worker has it, or it has ended."""
    is_free = "state = 'queued' OR (state = 'running' AND (worker IS NULL OR worker = :worker OR lease <= :uptime))"
    change = (
        "SET state = 'running', started = :at, started_at = :uptime, attempts = attempts + 1, worker = :worker, "
        f"lease = :lease, fence = fence + 1 WHERE id = :id AND ({is_free})"
    )
    values = {"id": job_id, "worker": worker, "at": at, "uptime": uptime, "lease": uptime + lease}
    row = connection.execute(f"UPDATE jobs {change} RETURNING fence", values).fetchone()
    return None if row is None else int(row["fence"])


def renew(connection: Connection, job_id: str, fence: int, lease: float) -> bool:
    change = "SET lease = ? WHERE id = ? AND fence = ? AND state = 'running'"
    return bool(connection.execute(f"UPDATE jobs {change}", (lease, job_id, fence)).rowcount)


def check_fence(connection: Connection, job_id: str, fence: int | None) -> None:
    """Of who writes under a claim: that it still holds."""
    if fence is None:
        return
    row = connection.execute(f"SELECT fence, state FROM jobs WHERE id = ?{connection.locking}", (job_id,)).fetchone()
    if row is None or row["fence"] != fence or row["state"] != JobState.RUNNING.value:
        raise ClaimLost(f"job {job_id}: another worker has it, or it has ended; this attempt is over")


def requeue(connection: Connection, job_ids: Iterable[str]) -> None:
    change = (
        "SET state = 'queued', started = NULL, started_at = NULL, worker = NULL, lease = NULL "
        "WHERE id = ? AND state = 'running'"
    )
    connection.executemany(f"UPDATE jobs {change}", [(each,) for each in job_ids])


def add_event(connection: Connection, job_id: str, name: str, data: Json, at: float) -> JobEvent:
    text = json.dumps(plain(data))
    counted = "UPDATE jobs SET last_event = last_event + 1, events = events + 1 WHERE id = ?"
    row = connection.execute(f"{counted} RETURNING number, last_event", (job_id,)).fetchone()
    if row is None:
        raise KeyError(job_id)
    connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (row["number"], row["last_event"], name, text, at))
    return JobEvent(job=job_id, number=row["last_event"], name=cast(Any, name), data=json.loads(text), at=at)


def end_data(record: Record) -> Json:
    """What the last event of a job tells."""
    data: dict[str, Any] = {"images": len(record.result.pictures), "stopped": record.result.stopped}
    return data if record.error is None else {**data, "error": plain(record.error)}


def painted_data(batch: DoneBatch) -> Json:
    """What the event of a finished batch tells: its pictures by name, without their texts."""
    names = ("number", "file", "kind", "seed", "width", "height")
    pictures = [{name: getattr(each, name) for name in names} for each in batch.pictures]
    return {"batch": batch.number, "complete": batch.complete, "pictures": pictures}


def untold_end(connection: Connection, job_id: str) -> JobEvent | None:
    """The end of a job that has ended, and whose last event cannot be read (any more)."""
    row = connection.execute("SELECT number, last_event, ended FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None or row["ended"] is None:
        return None
    ends = connection.execute(f"SELECT data FROM events WHERE job = ? AND name IN {ENDS}", (row["number"],)).fetchall()
    if any(_is_json(each["data"]) for each in ends):
        return None
    record = found(connection, job_id)
    name, at = cast(Any, record.state.value), row["ended"]
    return JobEvent(job=job_id, number=row["last_event"] + 1, name=name, data=end_data(record), at=at)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except UNREADABLE:
        return False
    return True


def thin(connection: Connection, job_id: str, most: int) -> None:
    """Of more events than that drop every other passing one; the newest stays, unless there is no other."""
    number, count = connection.execute("SELECT number, events FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if count <= most:
        return
    connection.execute(
        f"""DELETE FROM events WHERE job = ? AND number IN (
            SELECT number FROM (
                SELECT number, count(*) OVER () AS passing, row_number() OVER (ORDER BY number DESC) AS place
                FROM events WHERE job = ? AND name IN {PASSING}
            ) AS passed WHERE place % 2 = 0 OR passing = 1
        )""",
        (number, number),
    )
    connection.execute(
        "UPDATE jobs SET events = (SELECT count(*) FROM events WHERE job = jobs.number) WHERE number = ?", (number,)
    )


def too_old(connection: Connection, uptime: float, keep_seconds: float, keep_bytes: int) -> Sequence[tuple[int, str]]:
    """Ended jobs whose time is up, and the oldest of what is too much: their numbers and ids. None that is pinned."""
    size = "(SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM files WHERE job = jobs.number)"
    query = (
        f"SELECT number, id, ended_at, {size} AS bytes FROM jobs WHERE gone = 0 AND pinned = 0 AND ended IS NOT NULL"
    )
    rows = connection.execute(f"{query} ORDER BY ended_at, ended, number").fetchall()
    excess = sum(each["bytes"] for each in rows) - keep_bytes
    old = []
    for row in rows:
        if uptime - row["ended_at"] > keep_seconds or (excess > 0 and row["bytes"]):
            old.append((row["number"], row["id"]))
            excess -= row["bytes"]
    return old


def let_go(connection: Connection, numbers: Iterable[int]) -> None:
    """Of jobs whose results go, only the record and the lasting events stay."""
    jobs = [(each,) for each in numbers]
    connection.executemany("UPDATE jobs SET gone = 1, pinned = 0 WHERE number = ?", jobs)
    connection.executemany(f"DELETE FROM events WHERE job = ? AND name IN {PASSING}", jobs)
    for table in ("batches", "files", "sources"):
        connection.executemany(f"DELETE FROM {table} WHERE job = ?", jobs)


def forget(connection: Connection) -> None:
    oldest = "SELECT number FROM jobs WHERE gone = 1 ORDER BY number DESC LIMIT 1 OFFSET ?"
    connection.execute(f"DELETE FROM jobs WHERE gone = 1 AND number <= ({oldest})", (FORGOTTEN_BEYOND,))


def text_of(value: Any) -> str | None:
    return None if value is None else json.dumps(plain(value))


def set_option(connection: Connection, name: str, value: Any) -> None:
    change = "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    connection.execute(f"INSERT INTO options VALUES (?, ?) {change}", (name, json.dumps(plain(value))))
