"""`LocalDesk`: jobs are handed in here, wait, are given to the worker one after another, and are heard of.

One event loop owns a desk. What is written down goes through one thread, in the order it happened.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from overpaint.events import Stop
from overpaint.service.config import ServeConfig
from overpaint.service.jobs import Job, JobChange, JobError, JobEvent, JobState, Live, Record
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import Full, NoPlace, Stopping, Store
from overpaint.service.queue.attempts import UNWRITTEN, Attempt, Outcome, ended
from overpaint.service.queue.event_feed import ENDS
from overpaint.service.queue.policy import retry_after
from overpaint.service.queue.store_thread import REFUSALS, StoreThread, recovered, rest_of
from overpaint.service.queue.unsaved_endings import UnsavedEndings
from overpaint.service.queue.waiting_jobs import WaitingJobs
from overpaint.service.store.room import takes_files
from overpaint.service.workers.examiner import Examiner
from overpaint.service.workers.worker_process import COMMAND, WorkerProcess

CANCEL_PATIENCE = 2.0  # seconds in which a step should be over
CANCEL_TRIES = 3
DEADLINE_PATIENCE = 10.0  # seconds from a job's deadline until the worker is killed for it
REQUEUE_PATIENCE = 5.0  # seconds to write down that a job is to go on; else that is found out at the next start
_TENDING = 0.5
_EXPIRING = 30.0
_PAUSES = (0.5, 1.0, 2.0, 5.0)  # seconds until a disk that refused is asked again

log = logging.getLogger(LOGGER)


class LocalDesk:
    """The desk of one server: a store, and one worker."""

    def __init__(self, store: Store, config: ServeConfig, *, command: Sequence[str] = COMMAND) -> None:
        self._limits = config.limits
        self._thread, self._worker = StoreThread(store), WorkerProcess(config, command=command)
        self._examiner = Examiner(config.settings.text_encoder_files)
        self._turns = WaitingJobs(config.limits, store.uptime, self._now)
        self._running: Attempt | None = None
        self._before: dict[str, Attempt] = {}  # of jobs that the worker died of and that wait again
        self._unsaved = UnsavedEndings(self._end, self._has_room)
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._is_short = False  # of room on the disk, which broke a job off
        self._tasks: list[asyncio.Task[None]] = []
        self._submitting: set[asyncio.Task[Record]] = set()

    @property
    def store(self) -> Store:
        return self._thread.store

    # -- its life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what waits, and start a worker. Returns before that one is ready."""
        waiting, done = await self._thread.call(recovered, self.store)
        self._turns.learn(*done)
        for record in sorted(waiting, key=lambda each: not each.attempts):  # what was begun comes before its equals
            self._turns.add(record, had_one=record.attempts > 0)
        if waiting:
            log.info(line("recovered", jobs=len(waiting)))
        self._worker.open()
        self._tasks = [asyncio.create_task(each) for each in (self._serve(), self._tend())]

    async def drain(self, seconds: float) -> None:
        """Take no more jobs; the running one may end within that time, else it waits for the next start."""
        self._closing = True
        self._wake.set()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._rest(), seconds)
        if self._running is not None:
            self._running.interrupt()
            await self._worker.close()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._rest(), REQUEUE_PATIENCE)

    async def close(self) -> None:
        """End the worker and everything that goes on here. The store stays open."""
        await self.drain(0)
        with suppress(Exception):
            await self._unsaved.save()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._submitting, return_exceptions=True)
        await self._examiner.close()
        await self._worker.close()
        await self._thread.close()

    async def _rest(self) -> None:
        while self._running is not None:
            self._idle.clear()
            await self._idle.wait()

    # -- what routes ask -----------------------------------------------------------------------------------------

    async def submit(self, job: Job) -> Record:
        if self._closing:
            raise Stopping("the server is stopping: send the job again when it is back", retry_after=10.0)
        # NOTE: a client that goes away cancels this call; a job that was accepted must get its place all the same.
        task = asyncio.create_task(self._accept(job))
        self._submitting.add(task)
        task.add_done_callback(self._submitting.discard)
        return await asyncio.shield(task)

    async def _accept(self, job: Job) -> Record:
        try:
            found = await self._thread.call(self.store.accept, job)
        except NoPlace as full:
            seconds = self._turns.seconds_until_place(job.client if full.is_own else None)
            raise NoPlace(full.waiting, retry_after(seconds), is_own=full.is_own) from None
        record = found.record
        if found.event is not None:
            self._thread.feed.publish(found.event)
            self._turns.add(record)
            log.info(line("queued", job=record.id, kind=record.job.kind, origin=record.job.origin))
            self._wake.set()
        return record

    async def get(self, job_id: str) -> Record | None:
        record = await self._thread.call(self.store.get, job_id)
        if record is not None and record.state is JobState.RUNNING:
            if job_id in self._turns:  # which could not be written down
                return replace(record, state=JobState.QUEUED)
            live = self._live(job_id)
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
            running = self._running
            if running is not None and running.job.id == job_id:
                running.stop(Stop.CANCEL)
                return await self.wait(job_id, CANCEL_PATIENCE)
            record = await self._end_waiting(job_id, JobState.CANCELLED)
            if record.state.is_end:
                break
            # While that was looked up it was taken up or, its worker being dead, put back.
        assert record is not None
        return record

    async def finish_early(self, job_id: str | None = None) -> None:
        if self._running is not None and job_id in (None, self._running.job.id):
            self._running.stop(Stop.FINISH_EARLY)

    async def skip(self) -> None:
        if self._running is not None:
            self._running.stop(Stop.SKIP)

    async def events(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        thread, is_new = self._thread, True
        with suppress(Full), thread.feed.followed(job_id) as feed:  # full: the desk was closed meanwhile
            while not thread.closed:
                changed, fresh = feed.changed, feed.after(after)
                if fresh is None or (is_new and not fresh):
                    fresh, is_new = await thread.call(rest_of, self.store, job_id, after), False
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

    def position(self, job_id: str) -> int | None:
        return 0 if self._live(job_id) is not None else self._turns.position(job_id)

    def eta(self, job_id: str) -> float | None:
        live = self._live(job_id)
        if live is None or self._running is None:
            return self._turns.seconds_until_done(job_id)
        return self._turns.seconds_left(self._running.job, live)

    def running(self) -> Live | None:
        return None if self._running is None else self._running.live

    def state(self) -> str:
        if self._closing or any(each.done() for each in self._tasks):
            return "UNHEALTHY"
        state = self._worker.state
        if state in ("READY", "BUSY") and not self.can_write:
            return "UNHEALTHY"
        return "BUSY" if state == "READY" and self._running is not None else state

    @property
    def can_write(self) -> bool:
        """Whether the disk took what was last to be written down of a job. If not, that is tried again and again."""
        return not (self._thread.refusals or self._is_short)

    async def unfit(self) -> JobError | None:
        """Why the first worker cannot paint at all, as soon as that is known; None once it can."""
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._worker.prepared(), _TENDING)
                return self._worker.unfit
            if self._worker.state == "UNHEALTHY":
                return JobError(
                    code="crashed", message="the worker ended each time it was started: the lines above say why"
                )

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        if what == "recognise":
            return await self._examiner.recognise(values or {})
        return await self._worker.ask(what, values)

    # -- one job after another -----------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while not self._closing:
            await self._worker.prepared()
            self._wake.clear()
            record = None if self._closing else self._turns.take()
            if record is not None:
                await self._work(record)
                await self._until_disk()
            elif not self._closing:
                await self._wake.wait()

    async def _until_disk(self) -> None:
        """Give a disk that refused something a moment, and one that broke a job off until there is room."""
        tries = max(0, self._thread.refusals - 1)
        while not (self.can_write or self._closing):
            self._wake.clear()
            with suppress(asyncio.TimeoutError):  # or until it took a new job
                await asyncio.wait_for(self._wake.wait(), _PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1
            if not self._is_short:
                return
            self._is_short = not await self._has_room()

    async def _has_room(self) -> bool:
        return await asyncio.to_thread(takes_files, self.store.data)

    async def _work(self, record: Record) -> None:
        loop = asyncio.get_running_loop()
        before = self._before.pop(record.id, None)
        running = self._running = Attempt(record, self._thread, self._worker, self._limits, before)
        timers = [loop.call_later(running.seconds, running.run_out)]
        timers.append(loop.call_later(running.seconds + DEADLINE_PATIENCE, self._worker.kill))
        try:
            await self._attempt(running)
        finally:
            for each in timers:
                each.cancel()
            self._running = None
            self._idle.set()

    async def _attempt(self, running: Attempt) -> None:
        job = running.job
        try:
            # Nobody else has it: where it is said to run, the end of an attempt could not be written down.
            record = await self._thread.change(lambda: self.store.start(job.id, time.time(), again=True))
            if record is None:
                return
            outcome = await running.run(record, await self._thread.call(self.store.batches, job.id))
        except Exception as error:
            if isinstance(error, REFUSALS):
                log.warning(line("put-off", job=job.id, error=error))
                outcome = running.refused() if running.is_begun else Outcome(JobState.QUEUED)
            else:
                log.exception(line("desk-failed", job=job.id))
                outcome = Outcome(JobState.FAILED, error=UNWRITTEN)
        if outcome.state is JobState.QUEUED:
            await self._put_back(running)
        else:
            await self._conclude(running, outcome)

    async def _put_back(self, running: Attempt) -> None:
        job = running.job
        self._is_short = self._is_short or running.was_refused
        if running.is_begun:
            reason = "drain" if running.interrupted else "disk" if running.was_refused else "worker-ended"
            log.warning(line("requeued", job=job.id, reason=reason))
            with suppress(*REFUSALS):  # where it waits counts, not what is written; see `_attempt`
                await self._thread.change(self.store.requeue, job.id)
        self._before[job.id] = running
        self._turns.put_back(running.record, had_one=running.is_begun)
        if running.cancelled:  # while that was written down, or could not be
            try:
                await self._end_waiting(job.id, JobState.CANCELLED)
            except REFUSALS:
                self._add_unsaved(running, Outcome(JobState.CANCELLED), is_refused=True)

    async def _conclude(self, running: Attempt, outcome: Outcome) -> None:
        try:
            await self._end(running.job.id, outcome, running.live)
        except Exception as error:
            log.exception(line("not-ended", job=running.job.id))
            self._add_unsaved(running, outcome, is_refused=isinstance(error, REFUSALS))

    def _add_unsaved(self, running: Attempt, outcome: Outcome, *, is_refused: bool) -> None:
        self._turns.drop(running.job.id)
        self._before.pop(running.job.id, None)
        self._unsaved.add(running.job.id, outcome, running.live, is_refused=is_refused)

    async def _end(self, job_id: str, outcome: Outcome, live: Live) -> None:
        change = await self._thread.change(ended, self.store, job_id, outcome, live)
        if self._live(job_id) is not None:
            self._running = None
        self._over(change)

    async def _end_waiting(self, job_id: str, state: JobState, error: JobError | None = None) -> Record:
        """End a job that nobody has begun, and give its record whether that was so or not."""
        begun = () if job_id in self._turns else (JobState.RUNNING,)  # what waits here waits, whatever is written down
        change = await self._thread.change(
            lambda: self.store.end(job_id, state, time.time(), error=error, unless=begun)
        )
        if change.event is not None:
            self._over(change)
        return change.record

    def _over(self, change: JobChange) -> None:
        """A job has ended."""
        record = change.record
        self._turns.drop(record.id)
        self._turns.learn(record)
        self._before.pop(record.id, None)
        self._unsaved.drop(record.id)
        error = record.error
        started, ended = record.uptimes.started, record.uptimes.ended
        seconds = None if started is None or ended is None else ended - started
        log.info(line(record.state.value, job=record.id, seconds=seconds, code=error.code if error else None))
        if change.event is not None:
            self._thread.feed.publish(change.event)

    async def _known(self, job_id: str) -> Record:
        record = await self.get(job_id)
        if record is None:
            raise KeyError(job_id)
        return record

    def _now(self) -> tuple[Job, Live] | None:
        return None if self._running is None else (self._running.job, self._running.live)

    def _live(self, job_id: str) -> Live | None:
        running = self._running
        return running.live if running is not None and running.job.id == job_id else None

    # -- time ----------------------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        """Fail what has waited too long, and delete what was kept long enough."""
        next_expiry = 0.0
        while True:
            await self._quietly(self._unsaved.save)
            await self._quietly(self._fail_late)
            if time.monotonic() >= next_expiry:
                next_expiry = time.monotonic() + _EXPIRING
                await self._quietly(self._expire)
            await asyncio.sleep(_TENDING)

    async def _quietly(self, what: Callable[[], Awaitable[None]]) -> None:
        """One thing that fails keeps the others from nothing; of a disk that refuses everything it was said before."""
        is_known = not self.can_write
        try:
            await what()
        except Exception as error:
            if not (is_known and isinstance(error, REFUSALS)):
                log.exception(line("tending-failed"))

    async def _fail_late(self) -> None:
        for job_id in self._turns.late():
            error = JobError(code="deadline", message="the job waited too long for its turn; send it again later")
            await self._end_waiting(job_id, JobState.FAILED, error)

    async def _expire(self) -> None:
        limits, expire = self._limits, self.store.expire
        gone = await self._thread.call(
            lambda: expire(keep_seconds=limits.result_seconds, keep_bytes=limits.result_bytes)
        )
        if gone:
            log.info(line("expired", jobs=len(gone)))
