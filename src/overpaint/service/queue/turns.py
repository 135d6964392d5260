"""The jobs that wait, in memory: whose turn it is, how many come before, how long it will take."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from overpaint.service.jobs import Job, JobResult, JobState, Live, Record
from overpaint.service.limits import Limits
from overpaint.service.queue.ledger import LATELY
from overpaint.service.queue.policy import USUAL_SECONDS, next_job, queue_order, served_seconds

_WEIGHT = 0.3  # of the newest job
_PIXELS = 512 * 512  # where a request names no size
_FORESIGHT_SECONDS = 0.5  # for which what was foreseen is believed, if nothing else changed


@dataclass(frozen=True)
class Foresight:
    """The turns as they will come, if nothing new comes."""

    until: float  # when it is to be looked at again
    places: Mapping[str, int]  # how many of those that wait come before a job
    ends: Sequence[float]  # by place: seconds from the end of the running job until this one's


class Turns:
    """What waits, and what is known of earlier jobs. Turns and what is foretold of them come from one policy.

    `running` is asked what runs now.
    """

    def __init__(self, limits: Limits, running: Callable[[], tuple[Job, Live] | None] = lambda: None) -> None:
        self._queue_deadline, self._running = limits.queue_deadline, running
        self._waiting: dict[str, Job] = {}  # in the order they were accepted
        self._had_one: set[str] = set()  # of those: they were begun before, and no deadline of waiting counts
        self._done: deque[Record] = deque(maxlen=LATELY)
        self._rate: float | None = None  # seconds for a unit of work
        self._foresight: Foresight | None = None  # None: something has changed

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def add(self, job: Job, *, had_one: bool = False) -> None:
        self._waiting[job.id] = job
        if had_one:
            self._had_one.add(job.id)
        self._foresight = None

    def put_back(self, job: Job) -> None:
        """It was begun, and goes on later: before its equals."""
        self._waiting = {job.id: job, **self._waiting}
        self._had_one.add(job.id)
        self._foresight = None

    def drop(self, job_id: str) -> None:
        self._had_one.discard(job_id)
        self._waiting.pop(job_id, None)
        self._foresight = None

    def take(self) -> Job | None:
        """The next job, which waits no longer."""
        now = time.time()
        job = next_job(list(self._waiting.values()), served_seconds(self._done, now), now)
        if job is not None:
            self.drop(job.id)
        return job

    def late(self) -> list[str]:
        """Those that have waited longer than they may."""
        now = time.time()
        return [each.id for each in self._waiting.values() if now > self._deadline(each)]

    def learn(self, *records: Record) -> None:
        """Jobs that have ended, in that order."""
        for record in records:
            if record.started is None or record.ended is None:
                continue
            self._done.append(replace(record, result=JobResult()))  # which may be large
            if record.state is JobState.FINISHED:
                rate = (record.ended - record.started) / work_of(record.job)
                self._rate = rate if self._rate is None else self._rate + _WEIGHT * (rate - self._rate)
        self._foresight = None

    def position(self, job_id: str) -> int | None:
        """How many of those that wait come before it."""
        return self._foreseen().places.get(job_id)

    def seconds_left(self, job: Job, live: Live) -> float | None:
        """Of a running job."""
        elapsed = max(0.0, time.time() - live.since)
        if live.step:
            return elapsed * max(0, live.steps - live.step) / live.step
        return None if self._rate is None else max(0.0, work_of(job) * self._rate - elapsed)

    def seconds_until_done(self, job_id: str) -> float | None:
        """Of a waiting job; None where nothing tells."""
        running, foreseen = self._running(), self._foreseen()
        place = foreseen.places.get(job_id)
        left = 0.0 if running is None else self.seconds_left(*running)
        if place is None or left is None or self._rate is None:
            return None
        return left + foreseen.ends[place]

    def _foreseen(self) -> Foresight:
        now = time.time()
        if self._foresight is None or now > self._foresight.until:
            self._foresight = self._looked_ahead(now)
        return self._foresight

    def _looked_ahead(self, now: float) -> Foresight:
        """The next turn is taken when the running job is over, whose client will then have had all of its time."""
        running, done, start = self._running(), list(self._done), now
        if running is not None:
            job, live = running
            left = self.seconds_left(job, live)
            start += self._seconds(job) if left is None else left
            done.append(Record(job=job, state=JobState.RUNNING, started=live.since))
        order = queue_order(list(self._waiting.values()), served_seconds(done, start), start, self._seconds)
        places = {each.id: place for place, each in enumerate(order)}
        return Foresight(now + _FORESIGHT_SECONDS, places, list(accumulate(map(self._seconds, order))))

    def _seconds(self, job: Job) -> float:
        """How long it is likely to take."""
        return USUAL_SECONDS if self._rate is None else work_of(job) * self._rate

    def _deadline(self, job: Job) -> float:
        if job.id in self._had_one or not (job.queue_deadline or job.created):
            return math.inf
        return job.queue_deadline or job.created + self._queue_deadline


def work_of(job: Job) -> float:
    """A job's size, in steps of one picture of 512x512."""
    request = job.request
    if job.kind == "extras":
        return float(max(1, len(request.get("images") or ())))
    width, height = request.get("width"), request.get("height")
    pixels = width * height if width and height else _PIXELS
    images = (request.get("batch_size") or 1) * (request.get("iterations") or 1)
    strength = request.get("strength")
    share = 1.0 if strength is None else max(float(strength), 0.05)
    return float(max(1.0, (request.get("steps") or 20) * share * images) * pixels / _PIXELS)
