"""`SharedDesk`: the desk of one web process of many. All that it knows is in the store; what is here is a look at it.

Any of them may accept a job, and any may be asked for it. Whose turn it is, what runs, and who has workers is read from
the store whenever it says that something has happened, and every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from overpaint.events import Stop
from overpaint.service.config import ServeConfig
from overpaint.service.jobs import JobChange, JobError, JobEvent, JobState, Live, Record, WorkerStatus
from overpaint.service.logs import LOGGER, line
from overpaint.service.queue.entrance import JobEntrance
from overpaint.service.queue.event_feed import ENDS
from overpaint.service.queue.shared_questions import SharedQuestions
from overpaint.service.queue.store_thread import REFUSALS, StoreThread
from overpaint.service.queue.waiting_jobs import WaitingJobs, WorkerNow
from overpaint.service.shared_ports import HostNow, SharedStore, Standings
from overpaint.service.workers.examiner import Examiner

CANCEL_PATIENCE = 2.0  # seconds in which a step should be over
CANCEL_TRIES = 3
LOOKING = 5.0  # seconds after which the store is looked at, if it said nothing by itself
_SHORTEST = 0.1  # seconds between two looks
_EXPIRING = 30.0

log = logging.getLogger(LOGGER)


class SharedDesk:
    """Belongs to one event loop. It has no workers: they are elsewhere."""

    def __init__(self, store: SharedStore, config: ServeConfig) -> None:
        self._limits, self._shared = config.limits, store
        self._thread = StoreThread(store)
        self._turns = WaitingJobs(config.limits, store.uptime, self._workers_now)
        self._entrance = JobEntrance(self._thread, self._turns, self._place)
        self.submit = self._entrance.submit  # which is the same at every desk
        self._questions = SharedQuestions(self._thread, store, lambda: self._hosts)
        self._examiner = Examiner(config.settings.text_encoder_files)
        self._running: dict[str, Live] = {}  # by job, the longest first
        self._records: dict[str, Record] = {}  # of what waits and runs
        self._fresh: set[str] = set()  # that were accepted here since the last look began
        self._hosts: Sequence[HostNow] = ()
        self._ended_after = 0.0
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stop_listening: Callable[[], None] = lambda: None

    @property
    def store(self) -> SharedStore:
        return self._shared

    # -- its life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await self._thread.call(self._shared.recover)
        await self._look()
        self._tasks = [asyncio.create_task(each) for each in (self._keep_looking(), self._keep_house())]

        def heard(what: str, job_id: str) -> None:
            with suppress(RuntimeError):  # the loop may be over
                loop.call_soon_threadsafe(self._hear, what, job_id)

        self._stop_listening = self._shared.listen(heard)

    async def drain(self, seconds: float) -> None:
        """Take no more jobs. What was accepted is others' to do."""
        self._entrance.is_closed = True

    async def close(self) -> None:
        await self.drain(0)
        await asyncio.to_thread(self._stop_listening)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, self._entrance.settled(), return_exceptions=True)
        await self._examiner.close()
        await self._thread.close()

    async def unfit(self) -> JobError | None:
        """Its workers are no affair of this process."""
        return None

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _place(self, accepted: JobChange) -> None:
        record = accepted.record
        if record.state is JobState.QUEUED and record.id not in self._turns:
            self._fresh.add(record.id)
            self._records[record.id] = record
            self._turns.add(record, had_one=record.attempts > 0)

    async def get(self, job_id: str) -> Record | None:
        return await self._thread.call(self._shared.get, job_id)

    async def wait(self, job_id: str, seconds: float | None = None) -> Record:
        until = None if seconds is None else time.monotonic() + seconds
        with self._thread.feed.followed(job_id) as feed:
            while not (record := await self._known(job_id)).state.is_end:
                left = LOOKING if until is None else min(LOOKING, until - time.monotonic())
                if left <= 0 or self._thread.closed:
                    break
                with suppress(asyncio.TimeoutError):  # a word may get lost; then it is looked up
                    await asyncio.wait_for(feed.ended.wait(), left)
        return record

    async def cancel(self, job_id: str) -> Record:
        end, cancelled, begun = self._shared.end, JobState.CANCELLED, (JobState.RUNNING,)
        record = await self._known(job_id)
        for _ in range(CANCEL_TRIES):
            change = await self._thread.change(lambda: end(job_id, cancelled, time.time(), unless=begun))
            record = change.record
            if record.state.is_end:
                self._over(job_id)
                break
            if await self._thread.change(self._shared.ask_to_stop, job_id, Stop.CANCEL):
                return await self.wait(job_id, CANCEL_PATIENCE)
            # Between the two it was put back.
        return record

    async def finish_early(self, job_id: str | None = None) -> None:
        await self._ask_to_stop(job_id, Stop.FINISH_EARLY)

    async def skip(self, job_id: str | None = None) -> None:
        await self._ask_to_stop(job_id, Stop.SKIP)

    async def _ask_to_stop(self, job_id: str | None, how: Stop) -> None:
        job_id = job_id or next(iter(self._running), None)
        if job_id is not None:
            await self._thread.change(self._shared.ask_to_stop, job_id, how)

    def events(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        return self._thread.story(job_id, after)

    def position(self, job_id: str) -> int | None:
        return 0 if job_id in self._running else self._turns.position(job_id)

    def eta(self, job_id: str) -> float | None:
        if job_id not in self._running:
            return self._turns.seconds_until_done(job_id)
        return self._turns.seconds_left(self._records[job_id].job, self._running[job_id])

    def running(self, job_id: str | None = None) -> Live | None:
        return next(iter(self._running.values()), None) if job_id is None else self._running.get(job_id)

    def all_running(self) -> Sequence[Live]:
        return list(self._running.values())

    # -- workers -------------------------------------------------------------------------------------------------

    def state(self) -> str:
        if self._entrance.is_closed or any(each.done() for each in self._tasks):
            return "UNHEALTHY"
        states = {each["state"] for host in self._hosts for each in host.workers}
        return next((each for each in ("READY", "BUSY", "STARTING", "UNHEALTHY") if each in states), "STARTING")

    def workers(self) -> Sequence[WorkerStatus]:
        told = ((host.name, each) for host in self._hosts for each in host.workers)
        return [_status(host, each) for host, each in told]

    async def workers_in_full(self) -> Sequence[WorkerStatus]:
        return self.workers()

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        if what == "recognise":
            return await self._examiner.recognise(values or {})
        return await self._questions.ask(what, values or {})

    # -- what goes on everywhere ---------------------------------------------------------------------------------

    def _hear(self, what: str, job_id: str) -> None:
        if what == "answer":
            self._questions.news.set()
            return
        if what not in ("stop", "question"):
            self._thread.feed.nudge(job_id or None, is_over=what in ENDS)
        self._news.set()

    async def _keep_looking(self) -> None:
        while True:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), LOOKING)
            if not self._news.is_set():  # a word may get lost
                self._thread.feed.nudge()
            self._news.clear()
            await self._quietly(self._look())
            await asyncio.sleep(_SHORTEST)

    async def _look(self) -> None:
        self._fresh.clear()
        now = await self._thread.call(self._shared.standings, self._ended_after)
        active = [*now.waiting, *(job_id for job_id, _, _ in now.running)]
        unknown = [each for each in active if each not in self._records]
        if unknown:
            found = await self._thread.call(self._shared.records_of, unknown)
            self._records |= {each.id: each for each in found}
        running = {job_id: await self._with_preview(live) for job_id, _, live in now.running}
        self._take_in(now, running)

    def _take_in(self, now: Standings, running: Mapping[str, Live]) -> None:
        """All at once, between two looks of others."""
        self._ended_after = max((each.uptimes.ended or 0.0 for each in now.done), default=self._ended_after)
        self._turns.learn(*now.done)
        self._hosts = now.hosts
        self._running = {job_id: live for job_id, live in running.items() if job_id in self._records}
        waits = self._fresh.union(now.waiting)
        for job_id in [each for each in self._records if each not in waits]:
            self._turns.drop(job_id)
            if job_id not in self._running:
                del self._records[job_id]
        for job_id in now.waiting:
            if job_id in self._records and job_id not in self._turns:
                record = self._records[job_id]
                self._turns.add(record, had_one=record.attempts > 0)
        self._turns.arrange(now.waiting)

    async def _with_preview(self, live: Live) -> Live:
        before = self._running.get(live.job)
        if before is not None and before.step == live.step:
            return replace(live, preview=before.preview)
        return replace(live, preview=await self._thread.call(self._shared.preview_of, live.job))

    def _over(self, job_id: str) -> None:
        self._fresh.discard(job_id)
        self._turns.drop(job_id)
        self._records.pop(job_id, None)
        self._running.pop(job_id, None)
        self._thread.feed.nudge(job_id, is_over=True)

    def _workers_now(self) -> list[WorkerNow]:
        if not self._hosts:  # one will come, it is to be hoped
            return [WorkerNow()]
        told = ((host.name, each) for host in self._hosts for each in host.workers)
        return [
            WorkerNow(
                name=f"{host}-{each['id']}",
                is_ready=each["takes_jobs"],
                models=frozenset(each["models"]),
                running=tuple((self._records[job].job, self._running[job]) for job in each["jobs"] if self._runs(job)),
                slots=each["slots"],
            )
            for host, each in told
        ]

    def _runs(self, job_id: str) -> bool:
        return job_id in self._running and job_id in self._records

    # -- the house -----------------------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        """Delete what was kept long enough, put back what nobody runs any more, fail what has waited too long."""
        expired = time.monotonic() - _EXPIRING
        while True:
            await self._quietly(self._thread.call(self._shared.tick))
            await self._quietly(self._fail_late())
            if time.monotonic() - expired >= _EXPIRING:
                expired = time.monotonic()
                await self._quietly(self._expire())
            await asyncio.sleep(LOOKING)

    async def _fail_late(self) -> None:
        error = JobError(code="deadline", message="the job waited too long for its turn; send it again later")
        for job_id in self._turns.late():
            await self._thread.change(self._failed, job_id, error)
            self._over(job_id)

    def _failed(self, job_id: str, error: JobError) -> None:
        self._shared.end(job_id, JobState.FAILED, time.time(), error=error, unless=(JobState.RUNNING,))

    async def _expire(self) -> None:
        limits, expire = self._limits, self._shared.expire
        await self._thread.call(self._shared.recover)
        gone = await self._thread.call(
            lambda: expire(keep_seconds=limits.result_seconds, keep_bytes=limits.result_bytes)
        )
        if gone:
            log.info(line("expired", jobs=len(gone)))

    async def _quietly(self, what: Any) -> None:
        """One thing that fails keeps the others from nothing."""
        try:
            await what
        except REFUSALS as error:
            log.warning(line("store-away", error=error))
        except Exception:
            log.exception(line("tending-failed"))

    async def _known(self, job_id: str) -> Record:
        record = await self.get(job_id)
        if record is None:
            raise KeyError(job_id)
        return record


def _status(host: str, told: Mapping[str, Any]) -> WorkerStatus:
    names = ("device", "state", "model", "slots", "deaths", "switches", "memory")
    same = {name: told[name] for name in names}
    return WorkerStatus(id=f"{host}-{told['id']}", jobs=tuple(told["jobs"]), **same)
