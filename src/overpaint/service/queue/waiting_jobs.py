"""The jobs that wait, in memory: whose turn it is and where, how many come before, how long it will take."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from overpaint.service.job_models import LEAST_LOAD, OWN_MODEL, USUAL_SECONDS
from overpaint.service.jobs import Job, JobResult, JobState, Live, Record, Uptimes
from overpaint.service.limits import Limits
from overpaint.service.queue.estimates import Experience
from overpaint.service.queue.policy import USUAL_LOAD, Place, Turn, served_seconds, turns

LATELY = 100  # jobs that tell who was served, and how long jobs take
_LOADS = 5  # of checkpoints, that tell how long one takes
_FORESIGHT_SECONDS = 0.5  # for which what was foreseen is believed, if nothing else changed


@dataclass(frozen=True, kw_only=True)
class WorkerNow:
    """A worker as of now."""

    name: str = ""
    is_ready: bool = True  # it takes jobs
    models: frozenset[str] = frozenset({OWN_MODEL})
    running: tuple[tuple[Job, Live], ...] = ()
    slots: int = 1


@dataclass(frozen=True)
class Foresight:
    """The turns as they will come, if nothing new comes."""

    until: float  # when it is to be looked at again
    turns: Sequence[Turn]
    places: Mapping[str, int]  # how many of those that wait come before a job


class WaitingJobs:
    """What waits, and what is known of earlier jobs. Turns and what is foretold of them come from one policy.

    `uptime` is the store's, and `workers` tells what goes on.
    """

    def __init__(
        self,
        limits: Limits,
        uptime: Callable[[], float],
        workers: Callable[[], Sequence[WorkerNow]] = lambda: (WorkerNow(),),
    ) -> None:
        self._queue_deadline, self._uptime, self._workers = limits.queue_deadline, uptime, workers
        self._waiting: dict[str, Record] = {}  # in the order they were accepted
        self._had_one: set[str] = set()  # of those: they were begun before, and no deadline of waiting counts
        self._alone: set[str] = set()  # jobs that may be what a worker died of, and take none along any more
        self._done: deque[Record] = deque(maxlen=LATELY)
        self._loads: deque[float] = deque(maxlen=_LOADS)
        self._experience = Experience()
        self._foresight: Foresight | None = None  # None: something has changed

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, record: Record, *, had_one: bool = False) -> None:
        self._waiting[record.id] = record
        if had_one:
            self._had_one.add(record.id)
        self._foresight = None

    def put_back(self, record: Record, *, had_one: bool = True, alone: bool = False) -> None:
        """It was taken, and goes on later: before its equals. `alone`: with no other job beside it."""
        self._waiting = {record.id: record, **self._waiting}
        if had_one:
            self._had_one.add(record.id)
        if alone:
            self._alone.add(record.id)
        self._foresight = None

    def arrange(self, order: Iterable[str]) -> None:
        """Those that wait, in the order that somebody else knows; what that one does not know comes last."""
        known = {each: self._waiting[each] for each in order if each in self._waiting}
        self._waiting = known | self._waiting
        self._foresight = None

    def drop(self, job_id: str) -> None:
        """It waits no longer."""
        self._had_one.discard(job_id)
        self._waiting.pop(job_id, None)
        self._foresight = None

    def take(self) -> Turn | None:
        """The next job that can begin now, and where; it waits no longer."""
        now, ready = self._uptime(), [each for each in self._workers() if each.is_ready]
        if not self._waiting or not any(len(each.running) < each.slots for each in ready):
            return None
        turn = next((each for each in self._turns(now, ready) if each.start <= now), None)
        if turn is not None:
            self.drop(turn.record.id)
        return turn

    def late(self) -> list[str]:
        """Those that have waited longer than they may."""
        now = self._uptime()
        return [each.id for each in self._waiting.values() if now > self._deadline(each)]

    def learn(self, *records: Record) -> None:
        """Jobs that have ended, in that order."""
        for record in records:
            self._alone.discard(record.id)
            if record.uptimes.started is None or record.uptimes.ended is None:
                continue
            self._done.append(replace(record, result=JobResult()))  # which may be large
            self._experience.learn(record)
        self._foresight = None

    def learn_load(self, seconds: float) -> None:
        """A worker has read another checkpoint."""
        self._loads.append(seconds)

    def changed(self) -> None:
        """Something begins, ends or dies among the workers."""
        self._foresight = None

    def position(self, job_id: str) -> int | None:
        """How many of those that wait come before it."""
        return self._foreseen().places.get(job_id)

    def seconds_left(self, job: Job, live: Live) -> float | None:
        """Of a running job."""
        return self._experience.seconds_left(job, live, self._uptime())

    def seconds_until_done(self, job_id: str) -> float | None:
        """Of a waiting job; None where nothing tells of it, or of one that comes before it."""
        foreseen = self._foreseen()
        place = foreseen.places.get(job_id)
        if place is None or not foreseen.turns[place].is_known:
            return None
        return foreseen.turns[place].end - self._uptime()

    def seconds_until_place(self, client: str | None = None) -> float:
        """Until one that waits is taken up, of this client or of any; of what nothing tells, the usual is believed."""
        starts = [each.start for each in self._foreseen().turns if client in (None, each.record.job.client)]
        return min(starts) - self._uptime() if starts else USUAL_SECONDS

    def _foreseen(self) -> Foresight:
        now = self._uptime()
        if self._foresight is None or now > self._foresight.until:
            workers = self._workers()
            order = list(self._turns(now, [each for each in workers if each.is_ready] or workers))
            places = {each.record.id: place for place, each in enumerate(order)}
            self._foresight = Foresight(now + _FORESIGHT_SECONDS, order, places)
        return self._foresight

    def _turns(self, now: float, workers: Sequence[WorkerNow]) -> Iterator[Turn]:
        """What runs counts for its client as if it was over, with all of its time."""
        done = list(self._done)
        for job, live in (each for worker in workers for each in worker.running):
            uptimes = Uptimes(started=live.begun_at, ended=now + self._believed(job, live, now)[0])
            done.append(Record(job=job, state=JobState.RUNNING, uptimes=uptimes))
        load = max(LEAST_LOAD, statistics.median(self._loads)) if self._loads else USUAL_LOAD
        waiting, places = list(self._waiting.values()), [self._place(each, now) for each in workers]
        served = served_seconds(done, now)
        return turns(waiting, served, now, self._seconds, places, load_seconds=load, alone=self._alone)

    def _place(self, worker: WorkerNow, now: float) -> Place:
        left = [self._believed(*each, now) for each in worker.running]
        return Place(
            name=worker.name,
            models=worker.models,
            jobs=tuple(job for job, _ in worker.running),
            seconds=max((seconds for seconds, _ in left), default=0.0),
            is_known=all(is_known for _, is_known in left),
            slots=worker.slots,
        )

    def _believed(self, job: Job, live: Live, now: float) -> tuple[float, bool]:
        """How long a running job still takes, and whether that is known. One that should be over by now is thought to
        take as long again as nothing was heard of it."""
        left = self.seconds_left(job, live)
        if left is None:
            return self._seconds(job)[0], False
        return left or max(0.0, now - max(live.step_at, live.begun_at)), True

    def _seconds(self, job: Job) -> tuple[float, bool]:
        """How long a job is likely to take, and whether that is known."""
        seconds = self._experience.seconds(job)
        return (USUAL_SECONDS, False) if seconds is None else (seconds, True)

    def _deadline(self, record: Record) -> float:
        if record.id in self._had_one:
            return math.inf
        given = record.job.queue_seconds
        return record.uptimes.accepted + (self._queue_deadline if given is None else given)
