"""What the desk writes down: transactions of the store that belong together. All of it runs on one thread.

A crash may come between any two of them. So each begins by looking at what is there, and mends what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from overpaint.errors import SaveError
from overpaint.service.jobs import DoneBatch, Job, JobError, JobEvent, JobResult, JobState, Json, Live, Record
from overpaint.service.ports import Stopping, Store
from overpaint.service.queue.stories import ENDS, Stories
from overpaint.service.storage.forms import plain

LATELY = 100  # jobs that tell who was served, and how long jobs take
REFUSALS = (SaveError, OSError)  # what a disk says no with

_T = TypeVar("_T")


@dataclass(frozen=True)
class Begun:
    """A job that was set running, with what was finished of it before."""

    record: Record
    batches: tuple[DoneBatch, ...]
    events: tuple[JobEvent, ...]  # those that had not been told


@dataclass(frozen=True)
class Accepted:
    """A job's record; `is_new` says that it was not there before."""

    record: Record
    event: JobEvent | None  # if it had not been told
    is_new: bool


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

    def accept(self, job: Job) -> Accepted:
        is_known = self._store.get(job.id) is not None
        record = self._store.accept(job if job.created else replace(job, created=time.time()))
        event = None
        with suppress(*REFUSALS):  # it is accepted all the same, and this is told when it is begun
            event = self._tell_queued(record)
        return Accepted(record, event, is_new=not is_known and record.id == job.id)

    def start(self, job_id: str) -> Begun | None:
        """None if it does not wait any more. Nobody else has it: where it is said to run, an attempt before was broken
        off and that could not be written down."""
        known = self._store.get(job_id)
        if known is not None and known.state is JobState.RUNNING:
            known = self._store.requeue(job_id)
        first = None if known is None else self._tell_queued(known)
        record = self._store.start(job_id, time.time())
        if record is None:
            return None
        batches = tuple(self._store.batches(job_id))
        told = {each.data.get("batch") for each in self._store.events_after(job_id, 0) if each.name == "painted"}
        missed = (each for each in batches if each.number not in told)
        events = (self._event(job_id, "painted", painted_data(each)) for each in missed)
        return Begun(record, batches, (*((first,) if first else ()), *events))

    def step(self, job_id: str, data: dict[str, Any]) -> JobEvent:
        self._store.progress(job_id, data["step"], data["steps"], data["images"])
        return self._event(job_id, "progress", data)

    def keep(self, job_id: str, batch: DoneBatch) -> JobEvent:
        self._store.keep_batch(job_id, batch)
        return self._event(job_id, "painted", painted_data(batch))

    def tell(self, job_id: str, name: str, data: Json) -> JobEvent:
        return self._event(job_id, name, data)

    def end(
        self,
        job_id: str,
        state: JobState,
        *,
        result: JobResult | None = None,
        error: JobError | None = None,
        live: Live | None = None,
    ) -> tuple[Record, JobEvent]:
        """`live`: how far it came, if that was heard of."""
        if live is not None and live.steps:
            self._store.progress(job_id, live.step, live.steps, live.images)
        known = self._store.get(job_id)
        record = self._store.end(job_id, state, time.time(), result=result, error=error)
        told = self._told_end(job_id) if known is not None and known.state.is_end else None
        return record, told or self._tell_end(record)

    def end_waiting(
        self, job_id: str, state: JobState, error: JobError | None = None, *, waits: bool = False
    ) -> tuple[Record | None, JobEvent | None]:
        """End a job that nobody has begun, or that waits whatever is written down; any other is left as it is, and the
        event is None."""
        record = self._store.get(job_id)
        if record is None or record.state.is_end or not (waits or record.state is JobState.QUEUED):
            return record, None
        self._tell_queued(record)
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
        return None if self._told_end(job_id) else [self._tell_end(record)]

    def _tell_queued(self, record: Record) -> JobEvent | None:
        if record.state is not JobState.QUEUED or self._store.events_after(record.id, 0):
            return None
        return self._event(record.id, "queued", {"kind": record.job.kind})

    def _told_end(self, job_id: str) -> JobEvent | None:
        return next((each for each in self._store.events_after(job_id, 0) if each.name in ENDS), None)

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
        self.refusals = 0  # of the disk, one after another

    async def write(self, what: Callable[..., _T], *values: Any) -> _T:
        """Have something done on the thread that writes; reading there, too, sees all that was written before."""
        if self.closed:
            raise Stopping("the server is stopping: ask again when it is back", retry_after=10.0)
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: what(*values))

    async def change(self, what: Callable[..., _T], *values: Any) -> _T:
        """Have something written down; whether the disk took it is remembered."""
        try:
            done = await self.write(what, *values)
        except REFUSALS:
            self.refusals += 1
            raise
        self.refusals = 0
        return done

    async def tell(self, job_id: str, name: str, data: Json, *, picture: bytes | None = None) -> None:
        event = await self.change(self.ledger.tell, job_id, name, data)
        self.stories.publish(event if picture is None else replace(event, picture=picture))

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
