"""The event loop's way to the store: one call after another, on one thread, and whoever follows a job hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from overpaint.errors import SaveError
from overpaint.service.jobs import JobEvent, JobState, Record
from overpaint.service.ports import Full, Stopping, Store
from overpaint.service.queue.event_feed import ENDS, EventFeed
from overpaint.service.queue.waiting_jobs import LATELY

REFUSALS = (SaveError, OSError)  # what a disk says no with

_T = TypeVar("_T")


class StoreThread:
    """Calls of the store, in the order they are made. What is read here sees everything that was written before."""

    def __init__(self, store: Store) -> None:
        self.store, self.feed = store, EventFeed()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.closed = False
        self.refusals = 0  # of the disk, one after another

    async def call(self, what: Callable[..., _T], *values: Any) -> _T:
        """Have something read or written."""
        if self.closed:
            raise Stopping("the server is stopping: ask again when it is back", retry_after=10.0)
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: what(*values))

    async def change(self, what: Callable[..., _T], *values: Any) -> _T:
        """Have something written down; whether the disk took it is remembered."""
        try:
            done = await self.call(what, *values)
        except REFUSALS:
            self.refusals += 1
            raise
        self.refusals = 0
        return done

    async def tell(self, what: Callable[..., JobEvent | None], *values: Any, picture: bytes | None = None) -> None:
        """Have something written down that is an event, and hand it to those who follow the job."""
        event = await self.change(what, *values)
        if event is not None:
            self.feed.publish(event if picture is None else replace(event, picture=picture))

    async def story(self, job_id: str, after: int = 0) -> AsyncGenerator[JobEvent, None]:
        """A job's events from one on, to its end."""
        is_new = True
        with suppress(Full), self.feed.followed(job_id) as feed:  # full: the desk was closed meanwhile
            while not self.closed:
                changed, fresh = feed.changed, feed.after(after)
                if fresh is None or (is_new and not fresh):
                    fresh, is_new = await self.call(rest_of, self.store, job_id, after), False
                    if fresh is None:
                        return
                    fresh = feed.as_told(fresh)
                for event in fresh:
                    after = event.number
                    yield event
                    if event.name in ENDS:
                        return
                if not fresh:
                    await changed.wait()

    async def close(self) -> None:
        """Write what is under way; whoever follows a job is let go."""
        self.closed = True
        self.feed.let_go()
        await asyncio.to_thread(self._thread.shutdown)


def recovered(store: Store) -> tuple[Sequence[Record], Sequence[Record]]:
    """Everything that waits, what a crash interrupted included; and the jobs that were done last."""
    store.recover()
    done = store.records(states=[each for each in JobState if each.is_end], limit=LATELY)
    return store.waiting(), list(reversed(done))


def rest_of(store: Store, job_id: str, after: int) -> Sequence[JobEvent] | None:
    """What is told of a job after an event; None if nothing is and nothing will be."""
    record = store.get(job_id)
    fresh = store.events_after(job_id, after)
    return None if not fresh and (record is None or record.state.is_end) else fresh
