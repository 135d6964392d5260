"""Whose turn it is, and where. Pure functions: what waits, what was done lately, the workers and the time decide.

A checkpoint takes seconds to read, and small jobs take less than that. So a job goes to a worker that has its
checkpoint in memory, also if it has to wait a little for it, as long as it is done sooner than by a worker that has to
read it first, and whose own checkpoint would have to be read again for others that wait. Whoever has waited beyond
PATIENCE takes the first worker there is.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from overpaint.service.job_models import HALF_LIFE, OWN_MODEL, PATIENCE, model_of
from overpaint.service.jobs import Job, Record
from overpaint.service.worn_models import worn_by

PRIORITIES = (-10, 10)
USUAL_LOAD = 10.0  # of reading a checkpoint, where none was read yet
RETRY_SECONDS = (1.0, 300.0)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A worker, as far as it matters to who goes where."""

    name: str = ""
    models: frozenset[str] = frozenset({OWN_MODEL})  # in its memory, by the names that `model_of` gives
    jobs: tuple[Job, ...] = ()  # that it does
    seconds: float = 0.0  # until it has done them
    is_known: bool = True  # whether earlier jobs tell that
    slots: int = 1  # jobs that it takes at once, if they share a model


@dataclass(frozen=True)
class Turn:
    """A job, where it is done, and from when to when in the uptime, if each takes as long as is thought."""

    record: Record
    place: str
    start: float
    end: float
    is_known: bool  # whether earlier jobs tell when it ends


def turns(
    waiting: Sequence[Record],
    served: Mapping[str, float],
    now: float,
    seconds: Callable[[Job], tuple[float, bool]],
    places: Sequence[Place],
    *,
    load_seconds: float = USUAL_LOAD,
    alone: Collection[str] = (),
) -> Iterator[Turn]:
    """All that wait, in the order of their turns, if nothing new came. Of each job `seconds` says how long it takes,
    and whether that is known. Only what begins at `now` is for certain; of the rest the turn is foretold.

    A job for which it is better to wait for a busy worker keeps that worker: no later one is taken along there. Jobs of
    the ids in `alone` are taken along nowhere.
    """
    line, benches = _Line(waiting, served), [_Bench(each, now, alone) for each in places]
    are_shared = any(each.slots > 1 for each in places)
    wanted = Counter(model_of(each.job) for each in waiting)
    for _ in waiting if benches else ():
        now = max(now, min(each.opens for each in benches))
        place = line.next(now)
        record = waiting[place]
        took, is_known = seconds(record.job)
        line.leave(place, took)
        job = _Asked(record, model_of(record.job), _wears(record.job, alone) if are_shared else None)
        wanted[job.model] -= 1
        bench = _best(benches, job, now, load_seconds, wanted)
        start = bench.start(job, now)
        end = start + took + bench.load(job.model, load_seconds)
        bench.take(job, start, end, is_known)
        yield Turn(record, bench.name, start, end, bench.is_known)


def shares_model(one: Job, other: Job) -> bool:
    """Whether two jobs can be painted side by side with nothing swapped between: the same checkpoint, VAE and adapters.

    Only equal words are taken for the same; a name and its alias are two.
    """
    worn = _wears(one)
    return worn is not None and worn == _wears(other)


def _wears(job: Job, alone: Collection[str] = ()) -> Hashable:
    """Equal for jobs that share a model; None if it shares it with nobody."""
    return None if job.id in alone else worn_by(job)


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


def rank(record: Record, served: Mapping[str, float], now: float) -> tuple[bool, int, float]:
    """The lowest is next, and the first come of equals: those that have waited longer than anyone should, then by
    priority, then the client that was served least."""
    if _is_old(record, now):
        return (False, 0, 0.0)
    return (True, -_priority(record), served.get(record.job.client, 0.0))


def _is_old(record: Record, now: float) -> bool:
    return now - record.uptimes.accepted > PATIENCE


def _priority(record: Record) -> int:
    least, most = PRIORITIES
    return min(max(record.job.priority, least), most)


@dataclass(frozen=True)
class _Asked:
    """A job that waits, with what it asks of a worker."""

    record: Record
    model: str | None
    worn: Hashable


def _best(
    benches: Sequence[_Bench], job: _Asked, now: float, load_seconds: float, wanted: Mapping[str | None, int]
) -> _Bench:
    """Where a job is done soonest. Of equals one that does nothing else, and whose model fewest others want."""

    def cost(bench: _Bench) -> tuple[float, float, bool, int]:
        start, load = bench.start(job, now), bench.load(job.model, load_seconds)
        displaced = sum(wanted.get(each, 0) for each in bench.models) if load else 0
        reading = 2 * load if displaced else load  # this one and, for others, the one that is there
        return (start if _is_old(job.record, start) else start + reading, load, bench.takes_along(job), displaced)

    return min(benches, key=cost)


class _Bench:
    """A worker as it will be after the turns so far."""

    def __init__(self, place: Place, now: float, alone: Collection[str]) -> None:
        self.name, self.models, self.is_known = place.name, place.models, place.is_known
        self._jobs, self._slots = len(place.jobs), place.slots
        worn = {_wears(each, alone) for each in place.jobs} if place.slots > 1 else set()
        self._worn = worn.pop() if len(worn) == 1 else None
        self._since = now  # when the jobs began that it has, as far as others may still be taken along
        self._free = now + (place.seconds if place.jobs else 0.0)

    @property
    def opens(self) -> float:
        """When it may take another job."""
        return self._since if 0 < self._jobs < self._slots else self._free

    def takes_along(self, job: _Asked) -> bool:
        """Whether it does a job together with those it has."""
        return 0 < self._jobs < self._slots and job.worn is not None and job.worn == self._worn

    def start(self, job: _Asked, now: float) -> float:
        return max(now, self._since if self.takes_along(job) else self._free)

    def load(self, model: str | None, seconds: float) -> float:
        """How long it reads a model."""
        return 0.0 if model is None or model in self.models else seconds

    def take(self, job: _Asked, start: float, end: float, is_known: bool) -> None:
        if self.takes_along(job):
            self._jobs += 1
        else:
            self._jobs, self._worn, self._since = 1, job.worn, start
        self._free, self.is_known = max(self._free, end), self.is_known and is_known
        if job.model is not None and job.model not in self.models:
            self.models = frozenset({job.model})


class _Line:
    """What waits, by places in the order of acceptance. A turn changes one client's share, and who is old by now.

    Heaps, since sorting anew for each turn would cost the square of how many wait: `--limit waiting=2000` is allowed,
    and the order is asked for whenever a client looks at its job.
    """

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
