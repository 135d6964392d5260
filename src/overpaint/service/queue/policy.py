"""Whose turn it is. Pure functions: what waits, what was done lately, and the time give the answer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush

from overpaint.service.jobs import Job, Record

PATIENCE = 300.0  # seconds of waiting after which no other job, of whatever priority or client, may go before
PRIORITIES = (-10, 10)
HALF_LIFE = 600.0  # seconds in which half of what a client had is forgotten

USUAL_SECONDS = 10.0  # of a job, where none was done yet
RETRY_SECONDS = (1.0, 300.0)


def next_job(waiting: Sequence[Record], served: Mapping[str, float], now: float) -> Record | None:
    """The job whose turn it is, of those that wait in the order they were accepted; `now` is the uptime.

    First those that have waited longer than anyone should, then by priority, then the client that was served least,
    then the first come.
    """
    return min(waiting, key=lambda each: _rank(each, served, now), default=None)


def queue_order(
    waiting: Sequence[Record], served: Mapping[str, float], now: float, seconds: Callable[[Job], float]
) -> list[Record]:
    """All that wait, in the order of their turns if nothing new came and each took as long as `seconds` says.

    Each turn is the one that `next_job` gives, and costs no more than the logarithm of how many wait.
    """
    line, order = _Line(waiting, served), list[Record]()
    while len(order) < len(waiting):
        place = line.next(now)
        took = seconds(waiting[place].job)
        line.leave(place, took)
        order.append(waiting[place])
        now += took
    return order


def served_seconds(recent: Iterable[Record], now: float) -> dict[str, float]:
    """What each client has had, by the jobs that were run lately; the longer ago, the less it counts."""
    had: dict[str, float] = {}
    for record in recent:
        started = record.uptimes.started
        if started is not None:
            ended = now if record.uptimes.ended is None else record.uptimes.ended
            weight = 0.5 ** (max(0.0, now - ended) / HALF_LIFE)
            had[record.job.client] = had.get(record.job.client, 0.0) + weight * max(0.0, ended - started)
    return had


def retry_after(seconds: float) -> float:
    """When somebody who found no place is to ask again, if one is likely to be free in so many seconds."""
    least, most = RETRY_SECONDS
    return float(min(max(math.ceil(seconds), least), most))


def _rank(record: Record, served: Mapping[str, float], now: float) -> tuple[bool, int, float]:
    if _is_old(record, now):
        return (False, 0, 0.0)
    return (True, -_priority(record), served.get(record.job.client, 0.0))


def _is_old(record: Record, now: float) -> bool:
    return now - record.uptimes.accepted > PATIENCE


def _priority(record: Record) -> int:
    least, most = PRIORITIES
    return min(max(record.job.priority, least), most)


class _Line:
    """What waits, by places in the order of acceptance. A turn changes one client's share, and who is old by now."""

    def __init__(self, waiting: Sequence[Record], served: Mapping[str, float]) -> None:
        self._waiting, self._had = waiting, defaultdict[str, float](float, served)
        self._left = set(range(len(waiting)))
        self._young = sorted(self._left, key=lambda place: -waiting[place].uptimes.accepted)  # the oldest last
        self._old: list[int] = []  # a heap
        self._by_client = defaultdict[str, list[int]](list)  # the first in turn last
        for place in sorted(self._left, key=lambda place: (_priority(waiting[place]), -place)):
            self._by_client[waiting[place].job.client].append(place)
        self._firsts: list[tuple[int, float, int]] = []  # a heap of each client's first, and of what was that once
        for client in self._by_client:
            self._line_up(client)

    def next(self, now: float) -> int:
        while self._young and _is_old(self._waiting[self._young[-1]], now):
            heappush(self._old, self._young.pop())
        while self._old:
            place = heappop(self._old)
            if place in self._left:
                return place
        while True:
            _, had, place = heappop(self._firsts)
            if place in self._left and had == self._had[self._waiting[place].job.client]:
                return place

    def leave(self, place: int, seconds: float) -> None:
        """It has had its turn, which took so long."""
        client = self._waiting[place].job.client
        self._left.remove(place)
        self._had[client] += seconds
        self._line_up(client)

    def _line_up(self, client: str) -> None:
        places = self._by_client[client]
        while places and places[-1] not in self._left:
            places.pop()
        if places:
            first = places[-1]
            heappush(self._firsts, (-_priority(self._waiting[first]), self._had[client], first))
