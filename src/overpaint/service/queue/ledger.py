"""What the desk writes down: transactions of the store that belong together. All of it runs on one thread.

A crash may come between any two of them. So each begins by looking at what is there, and mends what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from overpaint.service.jobs import DoneBatch, Job, JobError, JobEvent, JobResult, JobState, Json, Record
from overpaint.service.ports import Full, Store
from overpaint.service.queue.stories import ENDS, Stories
from overpaint.service.storage.forms import plain

LATELY = 100  # jobs that tell who was served, and how long jobs take

_T = TypeVar("_T")


@dataclass(frozen=True)
class Begun:
    """A job that was set running, with what was finished of it before."""

    record: Record
    batches: tuple[DoneBatch, ...]
    events: tuple[JobEvent, ...]  # those that had not been told


class Ledger:
    """The store, with the events that go with each change."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def recover(self) -> tuple[list[Record], list[Record]]:
        """Everything that waits, what a crash interrupted included; and the jobs that were done last."""
        self._store.recover()
        waiting = list(self._store.waiting())
        for each in waiting:
            self._tell_queued(each)
        done = self._store.records(states=[each for each in JobState if each.is_end], limit=LATELY)
        return waiting, list(reversed(done))

    def accept(self, job: Job) -> tuple[Record, JobEvent | None]:
        """The job's record; the event is None if it had been accepted before."""
        record = self._store.accept(job if job.created else replace(job, created=time.time()))
        return record, self._tell_queued(record)

    def start(self, job_id: str) -> Begun | None:
        """None if it does not wait any more."""
        record = self._store.start(job_id, time.time())
        if record is None:
            return None
        batches = tuple(self._store.batches(job_id))
        told = {each.data.get("batch") for each in self._store.events_after(job_id, 0) if each.name == "painted"}
        missed = (each for each in batches if each.number not in told)
        return Begun(record, batches, tuple(self._event(job_id, "painted", painted_data(each)) for each in missed))

    def step(self, job_id: str, data: dict[str, Any]) -> JobEvent:
        self._store.progress(job_id, data["step"], data["steps"], data["images"])
        return self._event(job_id, "progress", data)

    def keep(self, job_id: str, batch: DoneBatch) -> JobEvent:
        self._store.keep_batch(job_id, batch)
        return self._event(job_id, "painted", painted_data(batch))

    def tell(self, job_id: str, name: str, data: Json) -> JobEvent:
        return self._event(job_id, name, data)

    def end(
        self, job_id: str, state: JobState, *, result: JobResult | None = None, error: JobError | None = None
    ) -> tuple[Record, JobEvent]:
        record = self._store.end(job_id, state, time.time(), result=result, error=error)
        return record, self._tell_end(record)

    def end_waiting(
        self, job_id: str, state: JobState, error: JobError | None = None
    ) -> tuple[Record | None, JobEvent | None]:
        """End a job that nobody has begun; any other is left as it is, and the event is None."""
        record = self._store.get(job_id)
        if record is None or record.state is not JobState.QUEUED:
            return record, None
        return self.end(job_id, state, error=error)

    def rest(self, job_id: str, after: int) -> Sequence[JobEvent] | None:
        """What is told of a job after an event; None if nothing is and nothing will be.

        If a crash kept the last event of a job from being told, it is told now.
        """
        record = self._store.get(job_id)
        if record is None:
            return None
        fresh = self._store.events_after(job_id, after)
        if fresh or not record.state.is_end:
            return fresh
        is_told = any(each.name in ENDS for each in self._store.events_after(job_id, 0))
        return None if is_told else [self._tell_end(record)]

    def _tell_queued(self, record: Record) -> JobEvent | None:
        if record.state is not JobState.QUEUED or self._store.events_after(record.id, 0):
            return None
        return self._event(record.id, "queued", {"kind": record.job.kind})

    def _tell_end(self, record: Record) -> JobEvent:
        data: dict[str, Any] = {"images": len(record.result.pictures), "stopped": record.result.stopped}
        if record.error is not None:
            data["error"] = plain(record.error)
        return self._event(record.id, record.state.value, data)

    def _event(self, job_id: str, name: str, data: Json) -> JobEvent:
        return self._store.add_event(job_id, name, data, time.time())


class Clerk:
    """The event loop's way to the ledger: one thing after another, and whoever follows a job hears of it."""

    def __init__(self, store: Store) -> None:
        self.store, self.ledger, self.stories = store, Ledger(store), Stories()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.closed = False

    async def write(self, what: Callable[..., _T], *values: Any) -> _T:
        """Have something done on the thread that writes; reading there, too, sees all that was written before."""
        if self.closed:
            raise Full("the server is stopping: ask again when it is back", retry_after=10.0)
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: what(*values))

    async def tell(self, job_id: str, name: str, data: Json) -> None:
        self.stories.publish(await self.write(self.ledger.tell, job_id, name, data))

    async def close(self) -> None:
        """Write what is under way; whoever follows a job is let go."""
        self.closed = True
        self.stories.let_go()
        await asyncio.to_thread(self._thread.shutdown)


def painted_data(batch: DoneBatch) -> dict[str, Any]:
    """What is told of a finished batch: its pictures by name, without their texts."""
    names = ("number", "file", "kind", "seed", "width", "height")
    pictures: Sequence[dict[str, Any]] = [{name: getattr(each, name) for name in names} for each in batch.pictures]
    return {"batch": batch.number, "complete": batch.complete, "pictures": pictures}
