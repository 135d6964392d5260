"""The jobs that wait, in memory: whose turn it is, how many come before, how long it will take."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile

from overpaint.service.jobs import Job, JobResult, JobState, Live, Record, Uptimes
from overpaint.service.limits import Limits
from overpaint.service.queue.estimates import Experience
from overpaint.service.queue.policy import USUAL_SECONDS, next_job, queue_order, served_seconds

LATELY = 100  # jobs that tell who was served, and how long jobs take
_FORESIGHT_SECONDS = 0.5  # for which what was foreseen is believed, if nothing else changed


@dataclass(frozen=True)
class Foresight:
    """The turns as they will come, if nothing new comes."""

    until: float  # when it is to be looked at again
    places: Mapping[str, int]  # how many of those that wait come before a job
    starts: Sequence[float]  # by place: seconds from the end of the running job until this one's turn
    known: int  # how many of the first places stand on experience
    clients: Sequence[str]  # by place


class WaitingJobs:
    """What waits, and what is known of earlier jobs. WaitingJobs and what is foretold of them come from one policy.

    `uptime` is the store's, and `running` is asked what runs now.
    """

    def __init__(
        self,
        limits: Limits,
        uptime: Callable[[], float],
        running: Callable[[], tuple[Job, Live] | None] = lambda: None,
    ) -> None:
        self._queue_deadline, self._uptime, self._running = limits.queue_deadline, uptime, running
        self._waiting: dict[str, Record] = {}  # in the order they were accepted
        self._had_one: set[str] = set()  # of those: they were begun before, and no deadline of waiting counts
        self._done: deque[Record] = deque(maxlen=LATELY)
        self._experience = Experience()
        self._foresight: Foresight | None = None  # None: something has changed

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def add(self, record: Record, *, had_one: bool = False) -> None:
        self._waiting[record.id] = record
        if had_one:
            self._had_one.add(record.id)
        self._foresight = None

    def put_back(self, record: Record, *, had_one: bool = True) -> None:
        """It was taken, and goes on later: before its equals."""
        self._waiting = {record.id: record, **self._waiting}
        if had_one:
            self._had_one.add(record.id)
        self._foresight = None

    def drop(self, job_id: str) -> None:
        self._had_one.discard(job_id)
        self._waiting.pop(job_id, None)
        self._foresight = None

    def take(self) -> Record | None:
        """The next job, which waits no longer."""
        now = self._uptime()
        record = next_job(list(self._waiting.values()), served_seconds(self._done, now), now)
        if record is not None:
            self.drop(record.id)
        return record

    def late(self) -> list[str]:
        """Those that have waited longer than they may."""
        now = self._uptime()
        return [each.id for each in self._waiting.values() if now > self._deadline(each)]

    def learn(self, *records: Record) -> None:
        """Jobs that have ended, in that order."""
        for record in records:
            if record.uptimes.started is None or record.uptimes.ended is None:
                continue
            self._done.append(replace(record, result=JobResult()))  # which may be large
            self._experience.learn(record)
        self._foresight = None

    def position(self, job_id: str) -> int | None:
        """How many of those that wait come before it."""
        return self._foreseen().places.get(job_id)

    def seconds_left(self, job: Job, live: Live) -> float | None:
        """Of a running job."""
        return self._experience.seconds_left(job, live, self._uptime())

    def seconds_until_done(self, job_id: str) -> float | None:
        """Of a waiting job; None where nothing tells of it, or of one that comes before it."""
        running, foreseen = self._running(), self._foreseen()
        place = foreseen.places.get(job_id)
        left = 0.0 if running is None else self.seconds_left(*running)
        if place is None or left is None or place >= foreseen.known:
            return None
        return left + foreseen.starts[place + 1]

    def seconds_until_place(self, client: str | None = None) -> float:
        """Until one that waits is taken up, of this client or of any; of what nothing tells, the usual is believed."""
        running, foreseen = self._running(), self._foreseen()
        left = USUAL_SECONDS if running is None else self.seconds_left(*running)
        own = (place for place, each in enumerate(foreseen.clients) if client in (None, each))
        return (USUAL_SECONDS if left is None else left) + foreseen.starts[next(own, 0)]

    def _foreseen(self) -> Foresight:
        now = self._uptime()
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
            done.append(Record(job=job, state=JobState.RUNNING, uptimes=Uptimes(started=live.begun_at)))
        order = queue_order(list(self._waiting.values()), served_seconds(done, start), start, self._seconds)
        places = {each.id: place for place, each in enumerate(order)}
        known = sum(1 for _ in takewhile(lambda each: self._experience.seconds(each.job) is not None, order))
        starts = list(accumulate((self._seconds(each.job) for each in order), initial=0.0))
        clients = [each.job.client for each in order]
        return Foresight(now + _FORESIGHT_SECONDS, places, starts, known, clients)

    def _seconds(self, job: Job) -> float:
        """How long it is likely to take."""
        seconds = self._experience.seconds(job)
        return USUAL_SECONDS if seconds is None else seconds

    def _deadline(self, record: Record) -> float:
        if record.id in self._had_one:
            return math.inf
        given = record.job.queue_seconds
        return record.uptimes.accepted + (self._queue_deadline if given is None else given)
