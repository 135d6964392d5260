"""The runner: takes what waits in the store, has workers do it, and writes down what came of it.

It knows nothing of clients. A job is claimed in the store before a worker gets it, and each attempt writes under its
claim; so another runner on the same store would take nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from overpaint.events import Stop
from overpaint.service.jobs import JobChange, JobError, JobState, Json, Live, Record, WorkerStatus
from overpaint.service.limits import Limits
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import ClaimLost
from overpaint.service.queue.attempts import UNWRITTEN, Attempt, Outcome, ended, unkept
from overpaint.service.queue.store_thread import REFUSALS, StoreThread
from overpaint.service.queue.unsaved_endings import UnsavedEndings
from overpaint.service.queue.waiting_jobs import WaitingJobs, WorkerNow
from overpaint.service.workers.pool import WorkerPool

LEASE = 30.0  # seconds for which a job is claimed; renewed three times as often
REQUEUE_PATIENCE = 5.0  # seconds to write down that a job is to go on; else that is found out at the next start
_TENDING = 0.5
_PAUSES = (0.5, 1.0, 2.0, 5.0)  # seconds until a disk that refused is asked again

log = logging.getLogger(LOGGER)


class Runner:
    """Has jobs done by a pool of workers. Belongs to one event loop."""

    def __init__(self, thread: StoreThread, pool: WorkerPool, limits: Limits) -> None:
        self._thread, self.pool, self._limits = thread, pool, limits
        self.name = uuid.uuid4().hex[:12]  # whose claims these are; anew with each server
        self.turns = WaitingJobs(limits, thread.store.uptime, self._workers)
        self._running: dict[str, Attempt] = {}  # by job, the longest first
        self._tasks_of_jobs: set[asyncio.Task[None]] = set()
        self._before: dict[str, Attempt] = {}  # of jobs that a worker died of and that wait again
        self._unsaved = UnsavedEndings(self._end, self._has_room)
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._is_short = False  # of room on the disk, which broke a job off
        self._tasks: list[asyncio.Task[None]] = []

    # -- its life ------------------------------------------------------------------------------------------------

    def start(self, waiting: Sequence[Record], done: Sequence[Record]) -> None:
        """Take up what waits, and start the workers. Returns before they are ready."""
        self.turns.learn(*done)
        for record in sorted(waiting, key=lambda each: not each.attempts):  # what was begun comes before its equals
            self.turns.add(record, had_one=record.attempts > 0)
        self.pool.open(self._rouse)
        self._tasks = [asyncio.create_task(each) for each in (self._serve(), self._tend(), self._renew())]

    async def drain(self, seconds: float) -> None:
        """Begin no more jobs; those that run may end within that time, else they wait for the next start."""
        self._closing = True
        self._wake.set()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._rest(), seconds)
        if self._running:
            for each in list(self._running.values()):
                each.interrupt()
            await self.pool.close()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._rest(), REQUEUE_PATIENCE)

    async def close(self) -> None:
        """End the workers and everything that goes on here."""
        with suppress(Exception):
            await self._unsaved.save()
        tasks = [*self._tasks, *self._tasks_of_jobs]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.pool.close()

    async def _rest(self) -> None:
        while self._running:
            self._idle.clear()
            await self._idle.wait()

    # -- what it is told and asked -------------------------------------------------------------------------------

    def take_in(self, record: Record) -> None:
        """A job was accepted."""
        self.turns.add(record)
        self._wake.set()

    def stop(self, job_id: str, how: Stop) -> bool:
        """Have a running job end; False if it does not run here."""
        running = self._running.get(job_id)
        if running is None:
            return False
        running.stop(how)
        return True

    def live(self) -> Sequence[Live]:
        """What runs, the longest first."""
        return [each.live for each in self._running.values()]

    def live_of(self, job_id: str) -> Live | None:
        running = self._running.get(job_id)
        return None if running is None else running.live

    def seconds_left(self, job_id: str) -> float | None:
        running = self._running.get(job_id)
        return None if running is None else self.turns.seconds_left(running.job, running.live)

    def statuses(self, memory: Sequence[Json | None] = ()) -> list[WorkerStatus]:
        by_worker: dict[str, list[str]] = {}
        for job_id, each in self._running.items():
            by_worker.setdefault(each.worker.name, []).append(job_id)
        return self.pool.statuses(by_worker, memory)

    @property
    def state(self) -> str:
        """STARTING, READY, BUSY or UNHEALTHY."""
        if self._closing or any(each.done() for each in self._tasks):
            return "UNHEALTHY"
        state = self.pool.state
        if state in ("READY", "BUSY") and not self.can_write:
            return "UNHEALTHY"
        is_full = len({each.worker.name for each in self._running.values()}) >= len(self.pool.workers)
        return "BUSY" if state == "READY" and is_full else state

    @property
    def can_write(self) -> bool:
        """Whether the disk took what was last to be written down of a job. If not, that is tried again and again."""
        return not (self._thread.refusals or self._is_short)

    async def end_waiting(self, job_id: str, state: JobState, error: JobError | None = None) -> Record:
        """End a job that nobody has begun, and give its record whether that was so or not."""
        begun = () if job_id in self.turns else (JobState.RUNNING,)  # what waits here waits, whatever is written down
        store = self._thread.store
        change = await self._thread.change(lambda: store.end(job_id, state, time.time(), error=error, unless=begun))
        if change.event is not None:
            self._over(change)
        return change.record

    # -- whose turn it is ----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while not self._closing:
            self._wake.clear()
            await self._until_disk()
            running = None if self._closing else self._next()
            if running is not None:
                await self._begin(running)
            elif not self._closing:
                with suppress(asyncio.TimeoutError):  # by then a job may have waited for a worker for long enough
                    await asyncio.wait_for(self._wake.wait(), _TENDING if len(self.turns) else None)

    def _next(self) -> Attempt | None:
        """The next job, on its way to its worker."""
        turn = self.turns.take()
        if turn is None:
            return None
        record, worker = turn.record, self.pool.named(turn.place)
        before, loads = self._before.pop(record.id, None), self.pool.give(worker, record.job)
        is_patient = len(self.pool.workers) == 1
        running = Attempt(record, self._thread, worker, self._limits, before, loads=loads, is_patient=is_patient)
        self._running[record.id] = running
        return running

    async def _begin(self, running: Attempt) -> None:
        """Claim it, one after another, so that a disk that refuses is asked no more often than it has to be."""
        store, job_id = self._thread.store, running.job.id
        running.expect_end()
        try:
            running.claim = await self._thread.change(store.claim, job_id, self.name, LEASE)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await self._conclude(running, self._of_error(running, error))
            self._let_go(running)
            return
        task = asyncio.create_task(self._work(running))
        self._tasks_of_jobs.add(task)
        task.add_done_callback(self._tasks_of_jobs.discard)

    async def _work(self, running: Attempt) -> None:
        try:
            if running.claim is None:  # somebody else was first
                return
            try:
                batches = await self._thread.call(self._thread.store.batches, running.job.id)
                outcome = await running.run(batches)
            except Exception as error:
                outcome = self._of_error(running, error)
            await self._conclude(running, outcome)
        finally:
            self._let_go(running)

    def _let_go(self, running: Attempt) -> None:
        running.forget_end()
        if running.load_seconds is not None:
            self.turns.learn_load(running.load_seconds)
        if self._running.get(running.job.id) is running:
            del self._running[running.job.id]
        self.turns.changed()
        self._idle.set()
        self._wake.set()

    def _of_error(self, running: Attempt, error: Exception) -> Outcome:
        if isinstance(error, REFUSALS):
            log.warning(line("put-off", job=running.job.id, error=error))
            return running.refused(unkept(error)) if running.is_begun else Outcome(JobState.QUEUED)
        log.error(line("desk-failed", job=running.job.id), exc_info=error)
        return Outcome(JobState.FAILED, error=UNWRITTEN)

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
        return await asyncio.to_thread(self._thread.store.takes_pictures)

    # -- what came of it -----------------------------------------------------------------------------------------

    async def _conclude(self, running: Attempt, outcome: Outcome) -> None:
        job_id = running.job.id
        if running.is_lost:
            running.clear_away()
            log.warning(line("claim-lost", job=job_id))
        elif outcome.state is JobState.QUEUED:
            await self._put_back(running)
        else:
            try:
                await self._end(job_id, outcome, running.live, running.fence)
            except ClaimLost:
                running.clear_away()
                log.warning(line("claim-lost", job=job_id))
            except Exception as error:
                log.exception(line("not-ended", job=job_id))
                self._add_unsaved(running, outcome, is_refused=isinstance(error, REFUSALS))

    async def _put_back(self, running: Attempt) -> None:
        job = running.job
        running.clear_away()
        self._is_short = self._is_short or running.was_refused
        if running.is_begun:
            reason = "drain" if running.interrupted else "disk" if running.was_refused else "worker-ended"
            log.warning(line("requeued", job=job.id, reason=reason))
            try:
                await self._thread.change(lambda: self._thread.store.requeue(job.id, fence=running.fence))
            except ClaimLost:
                log.warning(line("claim-lost", job=job.id))
                return
            except REFUSALS:  # where it waits counts, not what is written: this runner may claim it all the same
                pass
        self._before[job.id] = running
        self.turns.put_back(running.record, had_one=running.is_begun, alone=running.deaths > 0)
        if running.cancelled:  # while that was written down, or could not be
            try:
                await self.end_waiting(job.id, JobState.CANCELLED)
            except REFUSALS:
                self._add_unsaved(running, Outcome(JobState.CANCELLED), is_refused=True)

    def _add_unsaved(self, running: Attempt, outcome: Outcome, *, is_refused: bool) -> None:
        self.turns.drop(running.job.id)
        self._before.pop(running.job.id, None)
        self._unsaved.add(running.job.id, outcome, running.live, running.fence, is_refused=is_refused)

    async def _end(self, job_id: str, outcome: Outcome, live: Live, fence: int | None) -> None:
        change = await self._thread.change(ended, self._thread.store, job_id, outcome, live, fence)
        self._thread.store.clear_away(job_id)  # not before: what is kept now may have lain there alone
        self._running.pop(job_id, None)
        self._over(change)

    def _over(self, change: JobChange) -> None:
        """A job has ended."""
        record = change.record
        self.turns.drop(record.id)
        self.turns.learn(record)
        self._before.pop(record.id, None)
        self._unsaved.drop(record.id)
        error = record.error
        started, over = record.uptimes.started, record.uptimes.ended
        seconds = None if started is None or over is None else over - started
        log.info(line(record.state.value, job=record.id, seconds=seconds, code=error.code if error else None))
        if change.event is not None:
            self._thread.feed.publish(change.event)

    # -- time ----------------------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        """Write down what the disk refused, and fail what has waited too long."""
        while True:
            await self.quietly(self._unsaved.save)
            await self.quietly(self._fail_late)
            await asyncio.sleep(_TENDING)

    async def _renew(self) -> None:
        """Keep the leases of what runs."""
        while True:
            await asyncio.sleep(LEASE / 3)
            for running in list(self._running.values()):
                await self.quietly(lambda running=running: self._renew_one(running))  # type: ignore[misc]

    async def _renew_one(self, running: Attempt) -> None:
        claim = running.claim
        if claim is None or await self._thread.change(self._thread.store.renew, claim, LEASE):
            return
        if self._running.get(running.job.id) is running:  # it has not ended meanwhile
            running.lose()

    async def quietly(self, what: Callable[[], Awaitable[None]]) -> None:
        """One thing that fails keeps the others from nothing; of a disk that refuses everything it was said before."""
        is_known = not self.can_write
        try:
            await what()
        except Exception as error:
            if not (is_known and isinstance(error, REFUSALS)):
                log.exception(line("tending-failed"))

    async def _fail_late(self) -> None:
        for job_id in self.turns.late():
            error = JobError(code="deadline", message="the job waited too long for its turn; send it again later")
            await self.end_waiting(job_id, JobState.FAILED, error)

    def _rouse(self) -> None:
        """A worker got ready, or is gone."""
        self.turns.changed()
        self._wake.set()

    def _workers(self) -> list[WorkerNow]:
        running: dict[str, list[Attempt]] = {}
        for each in self._running.values():
            running.setdefault(each.worker.name, []).append(each)
        return [
            WorkerNow(
                name=each.name,
                is_ready=self.pool.takes_jobs(each),
                models=self.pool.models(each),
                running=tuple((one.job, one.live) for one in running.get(each.name, ())),
                slots=each.slots,
            )
            for each in self.pool.workers
        ]
