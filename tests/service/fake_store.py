"""A store that keeps everything in memory but the pictures: the same promises to routes, none to crashes."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from overpaint.errors import RequestError
from overpaint.service.jobs import (
    PICTURE_REFERENCE,
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
    Uptimes,
)
from overpaint.service.ports import ClaimLost, Conflict, Full
from overpaint.service.store.job_rows import end_data, painted_data
from overpaint.service.store.room import size_of


@dataclass
class FakeStore:
    """Jobs in a dict, in the order they were accepted."""

    data: Path
    most_waiting: int = 64
    jobs: dict[str, Record] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    told: dict[str, list[JobEvent]] = field(default_factory=dict)
    done: dict[str, list[DoneBatch]] = field(default_factory=dict)
    leases: dict[str, tuple[str, float]] = field(default_factory=dict)  # by job: whose, and until when
    fences: Counter[str] = field(default_factory=Counter)
    closed: bool = False

    def uptime(self) -> float:
        return time.monotonic()

    def accept(self, job: Job) -> JobChange:
        known = next((each for each in self.jobs.values() if _same_name(each.job, job)), None)
        if known is not None:
            if known.job.fingerprint() != job.fingerprint():
                raise Conflict(f"id={job.id!r}: this name stands for another job already, give a new one")
            return JobChange(record=known)
        if len(self.waiting()) >= self.most_waiting:
            raise Full(f"{self.most_waiting} jobs wait already: come back later", retry_after=7.0)
        record = self._put(Record(job=job, uptimes=Uptimes(accepted=self.uptime())))
        return JobChange(record=record, event=self._told(job.id, "queued", {"kind": job.kind}))

    def get(self, job_id: str) -> Record | None:
        return self.jobs.get(job_id)

    def records(
        self, *, states: Iterable[JobState] = (), client: str | None = None, limit: int = 100
    ) -> Sequence[Record]:
        wanted = set(states) or set(JobState)
        newest_first = reversed(self.jobs.values())
        found = [each for each in newest_first if each.state in wanted and client in (None, each.job.client)]
        return found[:limit]

    def counts(self) -> dict[JobState, int]:
        return dict(Counter(each.state for each in self.jobs.values()))

    def waiting(self) -> Sequence[Record]:
        return [each for each in self.jobs.values() if each.state is JobState.QUEUED]

    def claim(self, job_id: str, worker: str, lease_seconds: float, *, at: float | None = None) -> Claim | None:
        record, now = self.jobs[job_id], self.uptime()
        whose, until = self.leases.get(job_id, (worker, now))
        if record.state.is_end or (record.state is JobState.RUNNING and whose != worker and until > now):
            return None
        self.leases[job_id] = (worker, now + lease_seconds)
        self.fences[job_id] += 1
        changes: dict[str, Any] = {"started": time.time() if at is None else at, "attempts": record.attempts + 1}
        changes["uptimes"] = replace(record.uptimes, started=now)
        record = self._put(replace(record, state=JobState.RUNNING, **changes))
        return Claim(record=record, worker=worker, fence=self.fences[job_id])

    def renew(self, claim: Claim, lease_seconds: float) -> bool:
        job_id = claim.record.id
        if self.fences[job_id] != claim.fence or self.jobs[job_id].state is not JobState.RUNNING:
            return False
        self.leases[job_id] = (claim.worker, self.uptime() + lease_seconds)
        return True

    def progress(self, live: Live, *, fence: int | None = None) -> JobEvent | None:
        self._check_fence(live.job, fence)
        if self.jobs[live.job].state is not JobState.RUNNING:
            return None
        self._put(replace(self.jobs[live.job], step=live.step, steps=live.steps, images_total=live.images))
        data = {name: getattr(live, name) for name in ("step", "steps", "batch", "batches", "images")}
        return self._told(live.job, "progress", data)

    def keep_batch(self, job_id: str, batch: DoneBatch, *, fence: int | None = None) -> JobEvent:
        self._check_fence(job_id, fence)
        self.done.setdefault(job_id, []).append(batch)
        return self._told(job_id, "painted", painted_data(batch))

    def batches(self, job_id: str) -> Sequence[DoneBatch]:
        return self.done.get(job_id, [])

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
        record = self.jobs[job_id]
        if record.state.is_end or record.state in unless:
            return JobChange(record=record)
        self._check_fence(job_id, fence)
        if live is not None and live.steps:
            record = replace(record, step=live.step, steps=live.steps, images_total=live.images)
        is_whole = state is JobState.FINISHED and not (result and result.stopped)
        step = record.steps if is_whole else record.step
        told: dict[str, Any] = {"ended": at, "uptimes": replace(record.uptimes, ended=self.uptime())}
        ended = self._put(replace(record, state=state, step=step, result=result or record.result, error=error, **told))
        return JobChange(record=ended, event=self._told(job_id, state.value, end_data(ended)))

    def requeue(self, job_id: str, *, fence: int | None = None) -> Record:
        self._check_fence(job_id, fence)
        return self._put(replace(self.jobs[job_id], state=JobState.QUEUED))

    def recover(self) -> Sequence[Record]:
        running = [each.id for each in self.jobs.values() if each.state is JobState.RUNNING]
        return [self.requeue(each) for each in running]

    def add_event(
        self, job_id: str, name: Any, data: Json, at: float, *, fence: int | None = None, picture: bytes | None = None
    ) -> JobEvent:
        self._check_fence(job_id, fence)
        known = self.told.setdefault(job_id, [])
        known.append(JobEvent(job=job_id, number=len(known) + 1, name=name, data=data, at=at))
        return known[-1]

    def events_after(self, job_id: str, number: int) -> Sequence[JobEvent]:
        return self.told.get(job_id, [])[number:]

    def expire(self, *, keep_seconds: float, keep_bytes: int) -> Sequence[str]:
        now = self.uptime()
        ended = [each for each in self.jobs.values() if each.uptimes.ended is not None]
        old = [each for each in ended if (each.uptimes.ended or 0.0) + keep_seconds < now]
        for each in old:
            for picture in each.result.pictures:
                (self.data / picture.file).unlink(missing_ok=True)
            self._put(replace(each, gone=True))
        return [each.id for each in old]

    def pin(self, job_id: str, pinned: bool) -> Record:
        record = self.jobs[job_id]
        return self._put(replace(record, pinned=pinned and not record.gone))

    def pinned_bytes(self) -> int:
        return sum(each.bytes for each in self.jobs.values() if each.pinned)

    def delete(self, job_id: str) -> Record:
        record = self.jobs[job_id]
        return self._put(replace(record, gone=True, pinned=False, bytes=0)) if record.state.is_end else record

    def option(self, name: str) -> Any:
        return self.options.get(name)

    def set_option(self, name: str, value: Any) -> None:
        self.options[name] = value

    def put_picture(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self.data / "inputs" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return PICTURE_REFERENCE + digest

    @property
    def incoming(self) -> Path:
        return self.data / "inputs" / "incoming"

    def take_picture(self, path: Path, digest: str) -> str:
        reference = self.put_picture(path.read_bytes())
        path.unlink()
        return reference

    def picture(self, reference: str) -> bytes:
        digest = reference.removeprefix(PICTURE_REFERENCE)
        path = self.data / "inputs" / digest[:2] / digest
        if len(digest) != 64 or not path.is_file():
            raise RequestError("picture", reference, "upload it first")
        return path.read_bytes()

    def has_result(self, job_id: str, name: str) -> bool:
        return self.result_file(job_id, name).is_file()

    def results_size(self) -> int:
        return size_of(self.data / "results")

    def takes_pictures(self) -> bool:
        return True

    def lay_out(self, job: Job) -> Path:
        return self.result_file(job.id, "0.png").parent

    def clear_away(self, job_id: str) -> None:
        """Everything stays where it is."""

    def result_file(self, job_id: str, name: str) -> Path:
        if not (_is_plain(job_id) and _is_plain(name)):
            raise RequestError("name", name, "give a file of this job")
        return self.data / "results" / job_id / name

    def result_bytes(self, job_id: str, name: str) -> bytes:
        return self.result_file(job_id, name).read_bytes()

    def trouble(self) -> str | None:
        return None

    def close(self) -> None:
        self.closed = True

    def _check_fence(self, job_id: str, fence: int | None) -> None:
        if fence is not None and (self.fences[job_id] != fence or self.jobs[job_id].state is not JobState.RUNNING):
            raise ClaimLost(f"job {job_id}: another worker has it")

    def _told(self, job_id: str, name: str, data: Json) -> JobEvent:
        return self.add_event(job_id, name, data, time.time())

    def _put(self, record: Record) -> Record:
        self.jobs[record.id] = record
        return record


def _same_name(one: Job, other: Job) -> bool:
    return one.id == other.id or (one.key is not None and (one.client, one.key) == (other.client, other.key))


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and all(each.isalnum() or each in "-_." for each in name)
