"""The jobs that wait, in memory: whose turn it is, how many come before, how long it will take."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from dataclasses import replace

from overpaint.service.jobs import Job, JobResult, JobState, Live, Record
from overpaint.service.limits import Limits
from overpaint.service.queue.ledger import LATELY
from overpaint.service.queue.policy import USUAL_SECONDS, next_job, queue_order, served_seconds

_WEIGHT = 0.3  # of the newest job
_PIXELS = 512 * 512  # where a request names no size
_ORDER_SECONDS = 0.5  # for which an order that was found is good


class Turns:
    """What waits, and what is known of earlier jobs."""

    def __init__(self, limits: Limits) -> None:
        self._queue_deadline = limits.queue_deadline
        self._waiting: dict[str, Job] = {}  # in the order they were accepted
        self._had_one: set[str] = set()  # of those: they were begun before, and no deadline of waiting counts
        self._done: deque[Record] = deque(maxlen=LATELY)
        self._rate: float | None = None  # seconds for a unit of work
        self._order: tuple[float, list[Job]] | None = None

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def add(self, job: Job, *, had_one: bool = False) -> None:
        if had_one:  # it was accepted before the others
            self._had_one.add(job.id)
            self._waiting = {job.id: job, **self._waiting}
        else:
            self._waiting[job.id] = job
        self._order = None

    def drop(self, job_id: str) -> None:
        self._had_one.discard(job_id)
        if self._waiting.pop(job_id, None) is not None:
            self._order = None

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
        self._order = None

    def position(self, job_id: str) -> int | None:
        """How many of those that wait come before it."""
        return next((i for i, each in enumerate(self._ordered()) if each.id == job_id), None)

    def seconds_left(self, job: Job, live: Live | None) -> float | None:
        """Of a running job."""
        elapsed = max(0.0, time.time() - live.since) if live is not None else 0.0
        if live is not None and live.step:
            return elapsed * max(0, live.steps - live.step) / live.step
        return None if self._rate is None else max(0.0, work_of(job) * self._rate - elapsed)

    def seconds_until_done(self, job_id: str, running: Job | None, live: Live | None) -> float | None:
        """Of a waiting job; None where nothing tells."""
        position = self.position(job_id)
        left = 0.0 if running is None else self.seconds_left(running, live)
        if position is None or left is None or self._rate is None:
            return None
        return left + sum(work_of(each) * self._rate for each in self._ordered()[: position + 1])

    def _ordered(self) -> list[Job]:
        now = time.time()
        if self._order is None or now > self._order[0]:
            durations = [each.ended - each.started for each in self._done if each.ended and each.started]
            seconds = statistics.median(durations) if durations else USUAL_SECONDS
            served = served_seconds(self._done, now)
            order = queue_order(list(self._waiting.values()), served, now, seconds)
            self._order = (now + _ORDER_SECONDS, order)
        return self._order[1]

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
