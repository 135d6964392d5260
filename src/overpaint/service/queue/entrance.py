"""Jobs on their way in, for every desk: each is written down and gets its place, whether its client stays or goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from overpaint.service.jobs import Job, JobChange, Record
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import NoPlace, Stopping
from overpaint.service.queue.policy import retry_after
from overpaint.service.queue.store_thread import StoreThread
from overpaint.service.queue.waiting_jobs import WaitingJobs

log = logging.getLogger(LOGGER)


class JobEntrance:
    """Belongs to one event loop. `take_in` is told of every job that was accepted, also of one that was before."""

    def __init__(self, thread: StoreThread, turns: WaitingJobs, take_in: Callable[[JobChange], None]) -> None:
        self._thread, self._turns, self._take_in = thread, turns, take_in
        self._coming: set[asyncio.Task[Record]] = set()
        self.is_closed = False

    async def submit(self, job: Job) -> Record:
        """The job as it was accepted, on disk."""
        if self.is_closed:
            raise Stopping("the server is stopping: send the job again when it is back", retry_after=10.0)
        # NOTE: a client that goes away cancels this call; a job that was accepted must get its place all the same.
        task = asyncio.create_task(self._accept(job))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        return await asyncio.shield(task)

    async def settled(self) -> None:
        """Wait for those that are on their way."""
        await asyncio.gather(*self._coming, return_exceptions=True)

    async def _accept(self, job: Job) -> Record:
        try:
            found = await self._thread.call(self._thread.store.accept, job)
        except NoPlace as full:
            seconds = self._turns.seconds_until_place(job.client if full.is_own else None)
            raise NoPlace(full.waiting, retry_after(seconds), is_own=full.is_own) from None
        record = found.record
        if found.event is not None:
            log.info(line("queued", job=record.id, kind=record.job.kind, origin=record.job.origin))
        self._take_in(found)
        return record
