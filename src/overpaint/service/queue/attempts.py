"""One attempt to have a job done by the worker: what is heard of it, and what becomes of the job."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from overpaint.events import Stop
from overpaint.service.jobs import (
    Claim,
    DoneBatch,
    JobChange,
    JobError,
    JobResult,
    JobState,
    Json,
    Live,
    Record,
    result_of_batches,
)
from overpaint.service.limits import Limits
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import ClaimLost, PicturesRefused, Store
from overpaint.service.queue.store_thread import REFUSALS, StoreThread
from overpaint.service.store.forms import batch_of, error_of, plain, result_of
from overpaint.service.wire import Message
from overpaint.service.workers.port import WorkerGone, WorkerPort

SECONDS_BETWEEN_STEPS = 0.5  # of progress that is kept and told
DEATHS = 2  # of the worker during one job, which then is not tried again
REFUSALS_TAKEN = 10  # of the disk, each of which broke the job off although there seemed to be room
DEADLINE_PATIENCE = 10.0  # seconds from a job's deadline until the worker is killed for it
MOST_ATTEMPTS = 25  # whatever broke them off: a job that takes the whole machine down must not do so for ever

UNWRITTEN = JobError(code="save", message="what was painted could not be written down; see the server's log")

log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Outcome:
    """What becomes of a job. If it is queued again, it goes on from its finished batches."""

    state: JobState
    result: JobResult = field(default_factory=JobResult)
    error: JobError | None = None


def unkept(error: Exception) -> JobError:
    """What is said of a job whose pictures cannot be kept: of this machine's disk, only the log tells more."""
    if isinstance(error, PicturesRefused):
        return JobError(code="save", message=f"its pictures could not be read or kept: {error}")
    return UNWRITTEN


def ended(store: Store, job_id: str, outcome: Outcome, live: Live, fence: int | None) -> JobChange:
    """Write an outcome down that is an end. Runs on the thread of the store."""
    result, error = outcome.result, outcome.error
    change = store.end(job_id, outcome.state, time.time(), result=result, error=error, live=live, fence=fence)
    # NOTE: a disk may say no to what it took all the same, and then it had ended the time before.
    return change if change.event else replace(change, event=store.events_after(job_id, 0)[-1])


class Attempt:
    """A job given to a worker. `before` is the attempt before it, if a worker died of that one.

    `is_patient`: should the worker be gone, its next process is waited for, since there is no other worker.
    """

    def __init__(
        self,
        record: Record,
        thread: StoreThread,
        worker: WorkerPort,
        limits: Limits,
        before: Attempt | None = None,
        *,
        loads: bool = False,
        is_patient: bool = True,
    ) -> None:
        self.record, self.job = record, record.job  # as it waited
        self.sent = record.job  # as the worker gets it
        self.worker, self._thread, self._limits = worker, thread, limits
        self.claim: Claim | None = None  # as soon as it is written down
        self.is_lost = False  # another worker has the job by now
        self.load_seconds: float | None = None  # what reading another checkpoint took, if that was needed
        self._loads, self._is_patient = loads, is_patient
        begun = thread.store.uptime()
        self.live = Live(job=record.id, client=record.job.client, since=time.time(), begun_at=begun)
        self.cancelled = False  # somebody wants it to end at once
        self.overdue = False
        self.interrupted = False  # the server ends; the job is for its next start
        self.was_refused = False  # by the disk, which so broke it off
        self.refusals: int = 0 if before is None else before.refusals  # of that kind, with this one
        self._called_off = asyncio.Event()  # for one of these reasons
        self._early: bool = before is not None and before._early  # it is to end with what it has
        self.deaths: int = 0 if before is None else before.deaths  # of workers that had begun with this job
        self._taken_at = 0.0
        self._kept: set[int] = set()
        self._was_taken = False  # the worker has begun with it, and may die of it
        self._is_laid_out = False
        self._unkept: PicturesRefused | None = None  # why what was painted is not in the store
        self._told = False  # its "started" is out
        self._next_step = 0.0  # when progress is kept again
        self._timers: tuple[asyncio.TimerHandle, ...] = ()

    def stop(self, how: Stop) -> None:
        """Have it end; said again when the worker has begun, if it has not yet."""
        if how is Stop.CANCEL:
            self.cancelled = True
            self._called_off.set()
        self._early = self._early or how is Stop.FINISH_EARLY
        self.worker.stop(self.job.id, how)

    def expect_end(self) -> None:
        """Its time begins: when it is handed over, for a worker may never begin with it, and anew when it is begun."""
        self.forget_end()
        later = asyncio.get_running_loop().call_later
        kill_at = self.seconds + DEADLINE_PATIENCE
        self._timers = (later(self.seconds, self._run_out), later(kill_at, lambda: self.worker.kill(self.job.id)))

    def forget_end(self) -> None:
        for each in self._timers:
            each.cancel()

    def _run_out(self) -> None:
        """Its time is over."""
        self.overdue = True
        self._called_off.set()
        self.worker.stop(self.job.id, Stop.CANCEL)

    def lose(self) -> None:
        """Another worker has the job: whatever this one does is for nothing."""
        self.is_lost = True
        self._called_off.set()
        self.worker.stop(self.job.id, Stop.CANCEL)

    def clear_away(self) -> None:
        """It does not go on here: what was laid out for it is not needed any more."""
        if self._is_laid_out:
            self._is_laid_out = False
            self._thread.store.clear_away(self.job.id)

    def interrupt(self) -> None:
        """The server ends, and the worker with it."""
        self.interrupted = True
        self._called_off.set()

    def refused(self, error: JobError = UNWRITTEN) -> Outcome:
        """The disk took nothing of it: it goes on when there is room, unless that was so too often."""
        self.was_refused = True
        self.refusals += 1
        if self.refusals < REFUSALS_TAKEN:
            return Outcome(JobState.QUEUED)
        return Outcome(JobState.FAILED, error=error)

    @property
    def seconds(self) -> float:
        """How long it may run."""
        return self.job.run_seconds or self._limits.run_deadline

    @property
    def is_begun(self) -> bool:
        """Whether that was written down."""
        return self.claim is not None

    @property
    def fence(self) -> int | None:
        return None if self.claim is None else self.claim.fence

    async def run(self, batches: Sequence[DoneBatch]) -> Outcome:
        """It is claimed, and so much was finished of it before."""
        assert self.claim is not None
        attempt = self.claim.record.attempts
        if attempt > MOST_ATTEMPTS:
            said = f"it was begun {MOST_ATTEMPTS} times, and each time the worker or the whole server ended"
            return Outcome(JobState.FAILED, result_of_batches(batches), JobError(code="crashed", message=said))
        self._kept = {each.number for each in batches}
        if self._is_patient:
            await _first_of(self.worker.prepared(), self._called_off.wait())
        if self._called_off.is_set() or not self.worker.is_prepared:
            return await self._without_word(None)
        self._is_laid_out = True
        folder = await asyncio.to_thread(self._thread.store.lay_out, self.job)
        if self._called_off.is_set() or not self.worker.is_prepared:
            return await self._without_word(None)
        message = {"job": plain(self.sent), "done": plain(batches), "folder": str(folder)}
        try:
            async with aclosing(self.worker.work(message)) as heard:
                async for each in heard:
                    if each["type"] == "ended":
                        return self._outcome_of(each)
                    if not self.is_lost and self._unkept is None:
                        await self._hear_under_claim(each, attempt)
        except WorkerGone as gone:
            return await self._without_word(gone)
        return await self._without_word(None)

    def _outcome_of(self, last: Message) -> Outcome:
        """By the worker's last word."""
        if self._unkept is not None and not (self.cancelled or self.overdue):
            return self.refused(unkept(self._unkept))
        if last.get("refused") and not (self.cancelled or self.overdue):
            again = self.refused()
            if again.state is JobState.QUEUED:
                return again
        state, error = JobState(last["state"]), error_of(last["error"])
        if self.overdue and state is JobState.CANCELLED and not self.cancelled:
            state, error = JobState.FAILED, self._too_late()
        return Outcome(state, result_of(last["result"]), error)

    async def _hear_under_claim(self, message: Message, attempt: int) -> None:
        try:
            await self._hear(message, attempt)
        except ClaimLost:
            self.lose()
        except PicturesRefused as error:  # its worker is not to blame, and keeps its models in memory
            log.warning(line("put-off", job=self.job.id, error=error))
            self._unkept = error
            self.worker.stop(self.job.id, Stop.CANCEL)

    async def _hear(self, message: Message, attempt: int) -> None:
        thread, job_id, kind = self._thread, self.job.id, message["type"]
        if kind == "taken":
            self._was_taken, self._taken_at = True, time.monotonic()
            if self.cancelled or self.overdue or self._early:
                self.worker.stop(job_id, Stop.CANCEL if self.cancelled or self.overdue else Stop.FINISH_EARLY)
        elif kind == "started" and not self._told:
            await self._hear_started(message, attempt)
        elif kind == "progress":
            self.live = _further(self.live, message, thread.store.uptime())
            if self._loads and self.load_seconds is None:
                self.load_seconds = time.monotonic() - self._taken_at
            await self._keep_step()
        elif kind == "preview":
            self.live = replace(self.live, preview=base64.b64decode(message["png"]))
            data = {"step": message["step"], "steps": self.live.steps}
            with suppress(*REFUSALS):  # it passes anyway
                await self._tell("preview", data, picture=self.live.preview)
        elif kind == "painted":
            batch = batch_of(message["batch"])
            if batch.number not in self._kept:  # what a worker paints again is the same
                self._kept.add(batch.number)
                await thread.tell(lambda: thread.store.keep_batch(job_id, batch, fence=self.fence))

    async def _hear_started(self, message: Message, attempt: int) -> None:
        self._told = True
        if not self.overdue:
            self.expect_end()
        extent = {"images": message["images"], "batches": message["batches"]}
        self.live = replace(self.live, **extent)
        data = {**extent, "attempt": attempt, "warnings": message["warnings"], "crop": message.get("crop")}
        await self._tell("started", data)
        log.info(line("started", job=self.job.id, images=message["images"], attempt=attempt))

    async def _tell(self, name: str, data: Json, *, picture: bytes | None = None) -> None:
        add, at = self._thread.store.add_event, time.time()
        fence = self.fence
        await self._thread.tell(lambda: add(self.job.id, name, data, at, fence=fence, picture=picture), picture=picture)

    async def _keep_step(self) -> None:
        if time.monotonic() >= self._next_step:
            self._next_step = time.monotonic() + SECONDS_BETWEEN_STEPS
            with suppress(*REFUSALS):
                await self._thread.tell(lambda: self._thread.store.progress(self.live, fence=self.fence))

    async def _without_word(self, gone: WorkerGone | None) -> Outcome:
        """What becomes of a job whose worker is gone."""
        state, error = self._judged(gone)
        if state is JobState.QUEUED:
            return Outcome(state)
        batches = await self._thread.call(self._thread.store.batches, self.job.id)
        return Outcome(state, result_of_batches(batches), error)

    def _judged(self, gone: WorkerGone | None) -> tuple[JobState, JobError | None]:
        if self.cancelled:
            return JobState.CANCELLED, None
        if self.overdue:
            return JobState.FAILED, self._too_late()
        is_to_blame = gone is not None and self._was_taken and gone.culprit in (None, self.job.id)
        if self.interrupted or gone is None or not is_to_blame:  # it died of something else
            return JobState.QUEUED, None
        self.deaths += 1
        if gone.hung and (gone.jobs == 1 or self.deaths >= DEATHS):  # of several, each is tried once more, alone
            message = f"the worker made no step for {self._limits.watchdog:g} s and was ended; ask for less at once"
            return JobState.FAILED, JobError(code="hung", message=message)
        if self.deaths >= DEATHS:
            message = f"the worker died {self.deaths} times during this job; the last time {gone}"
            return JobState.FAILED, JobError(code="crashed", message=message)
        return JobState.QUEUED, None

    def _too_late(self) -> JobError:
        return JobError(code="deadline", message=f"the job ran longer than {self.seconds:g} s; ask for less at once")


def _further(live: Live, message: Message, now: float) -> Live:
    """The running job after another step."""
    told = {name: message[name] for name in ("step", "steps", "batch")}
    first = {} if live.first_at else {"first_step": message["step"], "first_at": now}
    return replace(live, **told, **first, step_at=now)


async def _first_of(*awaited: Coroutine[Any, Any, Any]) -> None:
    """Until one of these is over; the others are not waited for."""
    tasks = [asyncio.ensure_future(each) for each in awaited]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in tasks:
            each.cancel()
