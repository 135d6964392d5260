"""The runner of a host that works on a store together with others: what is next, the store says.

A claim is renewed by heartbeats. Should they stop, others may take the job when its lease has run out; should this host
go on with it all the same, nothing that it writes counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from overpaint.events import Stop
from overpaint.service.jobs import Claim, Job, JobState
from overpaint.service.limits import Limits
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import ClaimLost
from overpaint.service.queue.attempts import Attempt
from overpaint.service.queue.heartbeats import Heartbeats, HostLook
from overpaint.service.queue.runner import LEASE, Runner
from overpaint.service.queue.store_thread import REFUSALS, StoreThread
from overpaint.service.shared_ports import Heartbeat, HostNow, SharedStore, WantedJob
from overpaint.service.store.forms import plain
from overpaint.service.workers.pool import WorkerPool
from overpaint.service.workers.port import WorkerPort, WorkerRefused
from overpaint.service.worn_models import worn_name

POLL = 2.0  # seconds after which the store is asked, if it said nothing by itself
_LOOKING = 0.5
_WAKING = (JobState.QUEUED.value, "")  # words of the store after which there may be something to do

log = logging.getLogger(LOGGER)


class SharedRunner(Runner):
    """`known`: the checkpoints that this host can read, by the names of the policy; None: all. `localised` makes a job
    one of this machine, whose folders are its own."""

    def __init__(
        self,
        thread: StoreThread,
        store: SharedStore,
        pool: WorkerPool,
        limits: Limits,
        *,
        name: str,
        known: Callable[[], Collection[str] | None],
        localised: Callable[[Job], Job],
        lease: float = LEASE,
    ) -> None:
        super().__init__(thread, pool, limits)
        self.name, self._shared, self._lease = name, store, lease
        self._known, self._localised = known, localised
        self._beats: Heartbeats | None = None
        self._answering: set[int] = set()
        self._answers: set[asyncio.Task[None]] = set()

    def hear(self, what: str, job_id: str) -> None:
        """A word of the store."""
        if what in _WAKING:
            self._wake.set()
        elif self._beats is not None and (what == "question" or (what == "stop" and job_id in self._running)):
            self._beats.soon()

    @property
    def state(self) -> str:
        is_mute = self._beats is not None and not self._beats.is_alive and not self._closing
        return "UNHEALTHY" if is_mute else super().state

    # -- whose turn it is ----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while not self._closing:
            self._wake.clear()
            await self._until_disk()
            is_begun = False
            if not self._closing:
                with suppress(*REFUSALS):  # which is remembered, and waited for
                    is_begun = await self._begin_next()
            if not is_begun and not self._closing:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL)

    async def _begin_next(self) -> bool:
        """Whether there was a job that a worker here could begin."""
        for only_loaded in (True, False) if len(self.pool.workers) > 1 else (False,):
            for worker in self.pool.workers:
                wanted = self._wanted(worker, only_loaded=only_loaded)
                claim = None
                if wanted is not None:
                    claim = await self._thread.change(self._shared.claim_next, wanted)
                if claim is not None:
                    self._take(worker, claim)
                    return True
        return False

    def _wanted(self, worker: WorkerPort, *, only_loaded: bool) -> WantedJob | None:
        """What a worker can do beside what it does; None if that is nothing."""
        mine = [each for each in self._running.values() if each.worker is worker]
        if not self.pool.takes_jobs(worker) or len(mine) >= worker.slots:
            return None
        worn = {None if each.deaths else worn_name(each.job) for each in mine}
        if len(worn) > 1 or None in worn:
            return None
        return WantedJob(
            host=self.name,
            lease_seconds=self._lease,
            models=self.pool.models(worker),
            known=self._known(),
            worn=next(iter(worn), None),
            only_loaded=only_loaded,
        )

    def _take(self, worker: WorkerPort, claim: Claim) -> None:
        # NOTE: what a model wears is compared by the folders of whoever accepted the job, as the store does.
        record = claim.record
        loads = self.pool.give(worker, record.job)
        running = Attempt(record, self._thread, worker, self._limits, None, loads=loads, is_patient=False)
        running.sent = self._localised(record.job)
        running.claim, running.deaths, running.refusals = claim, claim.deaths, claim.refusals
        if claim.stop is not None:
            running.stop(Stop(claim.stop))
        self._running[record.id] = running
        self._show()
        running.expect_end()
        task = asyncio.create_task(self._work(running))
        self._tasks_of_jobs.add(task)
        task.add_done_callback(self._tasks_of_jobs.discard)

    async def _put_back(self, running: Attempt) -> None:
        running.clear_away()
        self._is_short = self._is_short or running.was_refused
        job_id, fence = running.job.id, running.fence
        counts = {"deaths": running.deaths, "refusals": running.refusals}
        assert fence is not None
        reason = "drain" if running.interrupted else "disk" if running.was_refused else "worker-ended"
        log.warning(line("requeued", job=job_id, reason=reason))
        try:
            await self._thread.change(lambda: self._shared.put_back(job_id, fence=fence, **counts))
        except ClaimLost:
            log.warning(line("claim-lost", job=job_id))
            return
        except REFUSALS:  # its lease runs out, and then it is there for all
            return
        if running.cancelled:
            await self.quietly(lambda: self._cancel_waiting(job_id))

    async def _cancel_waiting(self, job_id: str) -> None:
        await self.end_waiting(job_id, JobState.CANCELLED)

    # -- heartbeats ----------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()

        def heard(beat: Heartbeat, look: HostLook) -> None:
            with suppress(RuntimeError):  # the loop may be over
                loop.call_soon_threadsafe(self._heard, beat, look)

        self._beats = Heartbeats(self._shared, self._lease, self._host(), heard)
        try:
            while True:
                self._show()
                await asyncio.sleep(_LOOKING)
        finally:
            await asyncio.to_thread(self._beats.stop)
            with suppress(*REFUSALS):
                await asyncio.to_thread(self._shared.leave, self.name)

    def _show(self) -> None:
        if self._beats is not None:
            claims = {job_id: each.fence for job_id, each in self._running.items() if each.fence is not None}
            self._beats.look(self._host(), claims)

    def _host(self) -> HostNow:
        told = zip(self.pool.workers, self.statuses(), strict=True)
        return HostNow(name=self.name, workers=[self._as_told(worker, plain(status)) for worker, status in told])

    def _as_told(self, worker: WorkerPort, status: Mapping[str, Any]) -> Mapping[str, Any]:
        takes_jobs = self.pool.takes_jobs(worker) and not self._closing
        models = sorted(self.pool.models(worker))
        return {**status, "models": models, "takes_jobs": takes_jobs, "is_idle": takes_jobs and not status["jobs"]}

    def _heard(self, beat: Heartbeat, look: HostLook) -> None:
        for job_id in beat.lost:
            running = self._running.get(job_id)
            if running is not None and running.fence == look.claims[job_id]:
                running.lose()
        for job_id, how in beat.stops.items():
            if (running := self._running.get(job_id)) is not None:
                running.stop(how)
        for number, question in beat.questions.items():
            if number not in self._answering:
                self._answering.add(number)
                task = asyncio.create_task(self._answer(number, question))
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)

    async def _answer(self, number: int, question: Mapping[str, Any]) -> None:
        try:
            told: dict[str, Any] = {"value": await self.pool.ask(question["what"], question["values"])}
        except WorkerRefused as refused:
            told = {"error": plain(refused.error)}
        except Exception as error:
            told = {"gone": str(error)}
        await self.quietly(lambda: self._thread.change(self._shared.answer, number, told))
        self._answering.discard(number)
