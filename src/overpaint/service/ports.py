"""What the parts of the service know of each other: who keeps jobs, and who has them done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from overpaint.errors import OverpaintError, PictureError, SaveError
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
    WorkerStatus,
)


class Store(Protocol):
    """Jobs on disk. Every call is one transaction: it has happened, whole and durable, when it returns. A change
    and the event that tells of it are in the same one, so no crash comes between them.

    Any thread may call. An unknown job is a `KeyError` where a record is wanted, a disk that refuses a `SaveError`.
    """

    data: Path

    def uptime(self) -> float:
        """Seconds for which servers have worked on this folder, all together. Ages and deadlines are counted in them:
        neither an outage nor a clock that is set makes anything old."""
        ...

    def accept(self, job: Job) -> JobChange:
        """Keep a new job, with its "queued". The same id, or the client's same key, with the same fingerprint gives the
        record that is there already; with another one `Conflict` is raised. A full queue raises `Full`; a picture that
        the request names and that is not kept, `RequestError`."""
        ...

    def get(self, job_id: str) -> Record | None: ...
    def records(
        self, *, states: Iterable[JobState] = (), client: str | None = None, limit: int = 100
    ) -> Sequence[Record]:
        """The newest first."""
        ...

    def counts(self) -> Mapping[JobState, int]:
        """How many jobs are known in each state that there are any in."""
        ...

    def waiting(self) -> Sequence[Record]:
        """Queued jobs in the order they were accepted."""
        ...

    def claim(self, job_id: str, worker: str, lease_seconds: float, *, at: float | None = None) -> Claim | None:
        """A job set running, for a worker, for so long in the uptime. None if it has ended or another worker has it.
        What this worker has already, or another one had until its lease ran out, can be claimed again: the claim before
        is void then. `at`: the time of day, if it is another one."""
        ...

    def renew(self, claim: Claim, lease_seconds: float) -> bool:
        """Have it for so long from now on; False if the claim is void, or the job has ended."""
        ...

    def progress(self, live: Live, *, fence: int | None = None) -> JobEvent | None:
        """How far a job has come, with its "progress"; None if it is not running.

        With the fence of a claim that is void this writes nothing and raises `ClaimLost`, as do all the next ones."""
        ...

    def keep_batch(self, job_id: str, batch: DoneBatch, *, fence: int | None = None) -> JobEvent:
        """Remember a batch whose files are written, with its "painted"; `SaveError` if one is not there. It takes the
        place of one with the same number."""
        ...

    def batches(self, job_id: str) -> Sequence[DoneBatch]: ...
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
        """The end of a job, with the event of that name. The first end counts: a job that has ended stays as it is, and
        so does one in a state of `unless`. The result's files are there. `live`: how far it came."""
        ...

    def requeue(self, job_id: str, *, fence: int | None = None) -> Record:
        """Running back to queued, its place and finished batches kept; `attempts` counts on. Others stay."""
        ...

    def recover(self) -> Sequence[Record]:
        """After a crash: what was running is queued again, torn batches are undone, leftovers deleted. Returns the jobs
        that were running. To be called before a worker starts."""
        ...

    def add_event(
        self, job_id: str, name: str, data: Json, at: float, *, fence: int | None = None, picture: bytes | None = None
    ) -> JobEvent:
        """An event that comes without a change of the job. Its picture is for those who follow the job elsewhere."""
        ...

    def events_after(self, job_id: str, number: int) -> Sequence[JobEvent]:
        """In order. Beyond the limit, "progress" and "preview" are thinned out: numbers may be left out, none is used
        twice. What a job that has ended is told with is always its end."""
        ...

    def expire(self, *, keep_seconds: float, keep_bytes: int) -> Sequence[str]:
        """Delete results that were kept long enough, and sources that no job needs; records stay, marked as gone. The
        seconds are those of the uptime."""
        ...

    def pin(self, job_id: str, pinned: bool) -> Record:
        """Results that are pinned never get old, and count for nothing in what is too much. What is gone stays gone."""
        ...

    def pinned_bytes(self) -> int:
        """What pinned results take, all together."""
        ...

    def delete(self, job_id: str) -> Record:
        """The results of a job that has ended are deleted now, pinned or not; the record stays, marked as gone."""
        ...

    def option(self, name: str) -> Any: ...
    def set_option(self, name: str, value: Any) -> None: ...
    def put_picture(self, data: bytes) -> str:
        """Keep a source under its SHA-256 and return the reference that stands for it in a request."""
        ...

    @property
    def incoming(self) -> Path:
        """The folder for pictures that a process of ours writes before they are kept."""
        ...

    def take_picture(self, path: Path, digest: str) -> str:
        """The same as `put_picture` for a file of `incoming`, which is synced and has this SHA-256."""
        ...

    def picture(self, reference: str) -> bytes: ...
    def result_file(self, job_id: str, name: str) -> Path:
        """Where a worker of this machine is to write a result's file; a name that would lead elsewhere is refused."""
        ...

    def has_result(self, job_id: str, name: str) -> bool:
        """Whether there is such a file, one that lies beside a result included."""
        ...

    def results_size(self) -> int:
        """The bytes of all results."""
        ...

    def takes_pictures(self) -> bool:
        """Whether results can be written and kept now; it is tried. Blocks: call it in a thread."""
        ...

    def lay_out(self, job: Job) -> Path:
        """Have on the disk of this machine what a worker needs for a job: its sources, and what is finished of it. The
        folder where it writes its results. Blocks: call it in a thread."""
        ...

    def clear_away(self, job_id: str) -> None:
        """What was laid out is not needed here any more; what is kept stays kept."""
        ...

    def result_bytes(self, job_id: str, name: str) -> bytes:
        """A result's file, if it is the one that was kept; else it is set aside and `Damaged` raised."""
        ...

    def trouble(self) -> str | None:
        """Why nothing can be read here now; None if all is well."""
        ...

    def close(self) -> None: ...


class Desk(Protocol):
    """Where jobs are handed in and asked for: the one thing that routes know."""

    async def submit(self, job: Job) -> Record:
        """Accept a job durably, or raise `Full` or `Conflict`; its "queued" event is out when this returns."""
        ...

    async def get(self, job_id: str) -> Record | None: ...
    async def wait(self, job_id: str, seconds: float | None = None) -> Record:
        """Until the job has ended, or the time is up; then the record as it is."""
        ...

    async def cancel(self, job_id: str) -> Record: ...
    async def finish_early(self, job_id: str | None = None) -> None:
        """A running job ends with what it has: that of the id, or the one that runs longest."""
        ...

    async def skip(self, job_id: str | None = None) -> None: ...
    def events(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        """The job's story from an event on, kept events first, until its end."""
        ...

    def position(self, job_id: str) -> int | None:
        """How many jobs come before it; 0 is next or running, None is over."""
        ...

    def eta(self, job_id: str) -> float | None:
        """Seconds until it is done, as far as earlier jobs tell."""
        ...

    def running(self, job_id: str | None = None) -> Live | None:
        """This job as of now, if it runs; without an id the one that runs longest."""
        ...

    def all_running(self) -> Sequence[Live]:
        """What runs, the longest first."""
        ...

    def state(self) -> str:
        """STARTING, READY, BUSY or UNHEALTHY: READY if any worker is."""
        ...

    def workers(self) -> Sequence[WorkerStatus]:
        """Each as of now; what it takes of the memory is not asked for."""
        ...

    async def workers_in_full(self) -> Sequence[WorkerStatus]:
        """The same with the memory of those that say so soon."""
        ...

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        """A question to workers between jobs: "load", "unload", "memory", "embeddings"."""
        ...

    @property
    def store(self) -> Store: ...


class ClaimLost(OverpaintError):  # noqa: N818 (what has happened to the claim)
    """Another worker has the job by now; what this one has to say of it does not count."""


class Damaged(OverpaintError):  # noqa: N818 (answered with 410)
    """What was kept is not what it was."""


class PicturesRefused(SaveError):  # noqa: N818 (as a disk does)
    """The object store of the pictures did not do what it was asked to. May be told to clients."""


class TooLarge(PictureError):  # noqa: N818 (answered with 413)
    """More bytes than a picture may have."""


class Conflict(OverpaintError):  # noqa: N818 (answered with 409)
    """The id or idempotency key stands for another request already."""


class Full(OverpaintError):  # noqa: N818 (answered with 429)
    """The queue, or the client's share of it, is full; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoPlace(Full):
    """So many jobs wait already: everybody's, or the client's own."""

    def __init__(self, waiting: int, retry_after: float = 10.0, *, is_own: bool) -> None:
        whose = f"{waiting} of your jobs" if is_own else f"{waiting} jobs"
        super().__init__(f"{whose} wait already, which is the limit: try again in {retry_after:.0f} s", retry_after)
        self.waiting, self.is_own = waiting, is_own


class Stopping(Full):
    """The server takes nothing any more, because it is on its way out (answered with 503)."""
