"""Whose turn it is. Pure functions: what waits, what was done lately, and the time give the answer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from overpaint.service.jobs import Job, Record

PATIENCE = 300.0  # seconds of waiting after which no other job, of whatever priority or client, may go before
PRIORITIES = (-10, 10)
HALF_LIFE = 600.0  # seconds in which half of what a client had is forgotten

USUAL_SECONDS = 10.0  # of a job, where none was done yet
RETRY_SECONDS = (1.0, 300.0)


def next_job(waiting: Sequence[Job], served: Mapping[str, float], now: float) -> Job | None:
    """The job whose turn it is, of those that wait in the order they were accepted.

    First those that have waited longer than anyone should, then by priority, then the client that was served least,
    then the first come.
    """
    return min(waiting, key=lambda job: _rank(job, served, now), default=None)


def queue_order(waiting: Sequence[Job], served: Mapping[str, float], now: float, seconds: float) -> list[Job]:
    """All that wait, in the order of their turns if nothing new came and each took so many seconds."""
    left, had, order = list(waiting), dict(served), list[Job]()
    while (job := next_job(left, had, now)) is not None:
        left.remove(job)
        order.append(job)
        had[job.client] = had.get(job.client, 0.0) + seconds
        now += seconds
    return order


def served_seconds(recent: Iterable[Record], now: float) -> dict[str, float]:
    """What each client has had, by the jobs that were run lately; the longer ago, the less it counts."""
    had: dict[str, float] = {}
    for record in recent:
        if record.started is not None:
            ended = now if record.ended is None else record.ended
            weight = 0.5 ** (max(0.0, now - ended) / HALF_LIFE)
            had[record.job.client] = had.get(record.job.client, 0.0) + weight * max(0.0, ended - record.started)
    return had


def retry_after(durations: Sequence[float]) -> float:
    """Seconds until a place in a full queue is likely to be free: when the next of such jobs is done."""
    least, most = RETRY_SECONDS
    return float(min(max(math.ceil(statistics.median(durations or [USUAL_SECONDS])), least), most))


def _rank(job: Job, served: Mapping[str, float], now: float) -> tuple[bool, int, float]:
    if now - job.created > PATIENCE:
        return (False, 0, 0.0)
    least, most = PRIORITIES
    return (True, -min(max(job.priority, least), most), served.get(job.client, 0.0))
