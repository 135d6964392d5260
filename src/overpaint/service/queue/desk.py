"""`LocalDesk`: jobs are handed in here, and are heard of. What has them done, the runner, takes them from the store.

One event loop owns a desk. What is written down goes through one thread, in the order it happened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from overpaint.events import Stop
from overpaint.service.config import ServeConfig
from overpaint.service.jobs import JobChange, JobError, JobEvent, JobState, Live, Record, WorkerStatus
from overpaint.service.known_models import served_checkpoint
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import Store
from overpaint.service.queue.entrance import JobEntrance
from overpaint.service.queue.runner import Runner
from overpaint.service.queue.store_thread import StoreThread, recovered
from overpaint.service.workers.examiner import Examiner
from overpaint.service.workers.pool import WorkerPool, local_workers
from overpaint.service.workers.worker_process import COMMAND

CANCEL_PATIENCE = 2.0  # seconds in which a step should be over
CANCEL_TRIES = 3
_EXPIRING = 30.0

log = logging.getLogger(LOGGER)


class LocalDesk:
    """The desk of one server: a store, and a runner with workers of this machine."""

    def __init__(self, store: Store, config: ServeConfig, *, command: Sequence[str] = COMMAND) -> None:
        self._limits = config.limits
        self._thread = StoreThread(store)
        pool = WorkerPool(local_workers(config, command), str(served_checkpoint(config)))
        self._runner = Runner(self._thread, pool, config.limits)
        self._entrance = JobEntrance(self._thread, self._runner.turns, self._take_in)
        self.submit = self._entrance.submit  # which is the same at every desk
        self._examiner = Examiner(config.settings.text_encoder_files)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def store(self) -> Store:
        return self._thread.store

    # -- its life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what waits, and start the workers. Returns before they are ready."""
        waiting, done = await self._thread.call(recovered, self.store)
        if waiting:
            log.info(line("recovered", jobs=len(waiting)))
        self._runner.start(waiting, done)
        self._tasks = [asyncio.create_task(self._keep_house())]

    async def drain(self, seconds: float) -> None:
        """Take no more jobs; those that run may end within that time, else they wait for the next start."""
        self._entrance.is_closed = True
        await self._runner.drain(seconds)

    async def close(self) -> None:
        """End the workers and everything that goes on here. The store stays open."""
        await self.drain(0)
        for task in self._tasks:
            task.cancel()
        await self._runner.close()
        await asyncio.gather(*self._tasks, self._entrance.settled(), return_exceptions=True)
        await self._examiner.close()
        await self._thread.close()

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _take_in(self, accepted: JobChange) -> None:
        if accepted.event is not None:
            self._thread.feed.publish(accepted.event)
            self._runner.take_in(accepted.record)

    async def get(self, job_id: str) -> Record | None:
        record = await self._thread.call(self.store.get, job_id)
        if record is not None and record.state is JobState.RUNNING:
            if job_id in self._runner.turns:  # which could not be written down
                return replace(record, state=JobState.QUEUED)
            live = self.running(job_id)
            if live is not None and live.steps:
                return replace(record, step=live.step, steps=live.steps, images_total=live.images)
        return record

    async def wait(self, job_id: str, seconds: float | None = None) -> Record:
        with self._thread.feed.followed(job_id) as feed:
            record = await self._known(job_id)
            if not record.state.is_end:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(feed.ended.wait(), seconds)
                record = await self._known(job_id)
        return record

    async def cancel(self, job_id: str) -> Record:
        record: Record | None = None
        for _ in range(CANCEL_TRIES):
            if self._runner.stop(job_id, Stop.CANCEL):
                return await self.wait(job_id, CANCEL_PATIENCE)
            record = await self._runner.end_waiting(job_id, JobState.CANCELLED)
            if record.state.is_end:
                break
            # While that was looked up it was taken up or, its worker being dead, put back.
        assert record is not None
        return record

    async def finish_early(self, job_id: str | None = None) -> None:
        self._stop(job_id, Stop.FINISH_EARLY)

    async def skip(self, job_id: str | None = None) -> None:
        self._stop(job_id, Stop.SKIP)

    def _stop(self, job_id: str | None, how: Stop) -> None:
        if job_id is None:
            job_id = next((each.job for each in self._runner.live()), None)
        if job_id is not None:
            self._runner.stop(job_id, how)

    def events(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        return self._thread.story(job_id, after)

    def position(self, job_id: str) -> int | None:
        return 0 if self.running(job_id) is not None else self._runner.turns.position(job_id)

    def eta(self, job_id: str) -> float | None:
        if self.running(job_id) is None:
            return self._runner.turns.seconds_until_done(job_id)
        return self._runner.seconds_left(job_id)

    def running(self, job_id: str | None = None) -> Live | None:
        if job_id is None:
            return next(iter(self._runner.live()), None)
        return self._runner.live_of(job_id)

    def all_running(self) -> Sequence[Live]:
        return self._runner.live()

    # -- workers -------------------------------------------------------------------------------------------------

    def state(self) -> str:
        return "UNHEALTHY" if any(each.done() for each in self._tasks) else self._runner.state

    def workers(self) -> Sequence[WorkerStatus]:
        return self._runner.statuses()

    async def workers_in_full(self) -> Sequence[WorkerStatus]:
        memory = await self._runner.pool.memory()
        return self._runner.statuses(memory)

    @property
    def can_write(self) -> bool:
        """Whether the disk took what was last to be written down of a job."""
        return self._runner.can_write

    async def unfit(self) -> JobError | None:
        """Why a worker cannot paint at all, as soon as that is known of any; None once all can."""
        return await self._runner.pool.unfit()

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        if what == "recognise":
            return await self._examiner.recognise(values or {})
        return await self._runner.pool.ask(what, values)

    # -- inside --------------------------------------------------------------------------------------------------

    async def _known(self, job_id: str) -> Record:
        record = await self.get(job_id)
        if record is None:
            raise KeyError(job_id)
        return record

    async def _keep_house(self) -> None:
        """Delete what was kept long enough."""
        while True:
            await self._runner.quietly(self._expire)
            await asyncio.sleep(_EXPIRING)

    async def _expire(self) -> None:
        limits, expire = self._limits, self.store.expire
        gone = await self._thread.call(
            lambda: expire(keep_seconds=limits.result_seconds, keep_bytes=limits.result_bytes)
        )
        if gone:
            log.info(line("expired", jobs=len(gone)))
