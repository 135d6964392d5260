"""What a store offers that several machines work on, besides what every store does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from overpaint.events import Stop
from overpaint.service.jobs import Claim, Live, Record
from overpaint.service.ports import Store


@dataclass(frozen=True, kw_only=True)
class WantedJob:
    """What a worker that has time can do."""

    host: str  # whose claim it is
    lease_seconds: float
    models: Collection[str] = ()  # in the worker's memory
    known: Collection[str] | None = None  # that it can read; None: all
    worn: str | None = None  # it does a job that shares a model, and takes only its like along
    only_loaded: bool = False  # no job for which another checkpoint has to be read


@dataclass(frozen=True, kw_only=True)
class HostNow:
    """Who has jobs done on one machine, as it told last."""

    name: str
    workers: Sequence[Mapping[str, Any]]  # each a `WorkerStatus`, with "models" and "takes_jobs"


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What whoever runs jobs is told when it says that it lives."""

    lost: Collection[str]  # jobs whose claims are void
    stops: Mapping[str, Stop]  # what somebody wants of the others
    questions: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Standings:
    """What goes on everywhere, as far as somebody who answers needs to know it."""

    waiting: Sequence[str]  # ids, in the order they were accepted; what was begun before comes first
    running: Sequence[tuple[str, str, Live]]  # id, host, how far it has come: the longest first
    hosts: Sequence[HostNow]
    done: Sequence[Record]  # that ended since the last look, in that order


class SharedStore(Store, Protocol):
    """Nothing is kept in the memory of who asks: any number of processes on any machines do the same. Leases run by the
    clock of the store alone."""

    def claim_next(self, wanted: WantedJob) -> Claim | None:
        """The job whose turn it is among those that the worker can do, set running; None if there is none.

        Each goes to one who asks, however many ask at once. One whose lease has run out is there for all again.
        """
        ...

    def ask_to_stop(self, job_id: str, how: Stop) -> bool:
        """Have whoever runs it told; False if it does not run."""
        ...

    def put_back(self, job_id: str, *, fence: int, deaths: int, refusals: int = 0) -> Record:
        """`requeue`, with how many workers died of it so far, and how often what they made could not be kept."""
        ...

    def beat(self, host: HostNow, claims: Mapping[str, int], lease_seconds: float) -> Heartbeat:
        """The host lives, and has these jobs, by id and fence, for so long from now on."""
        ...

    def leave(self, host: str) -> None:
        """The host has no workers any more."""
        ...

    def standings(self, ended_after: float) -> Standings: ...
    def records_of(self, job_ids: Collection[str]) -> Sequence[Record]: ...
    def preview_of(self, job_id: str) -> bytes | None:
        """The latest one of a running job."""
        ...

    def ask_hosts(self, question: Mapping[str, Any], hosts: Collection[str]) -> Mapping[str, int]:
        """Numbers of the question, by host."""
        ...

    def answer(self, number: int, answer: Mapping[str, Any]) -> None: ...
    def answers(self, numbers: Collection[int]) -> Mapping[int, Mapping[str, Any]]:
        """Those that are there; a question that is gone with its host has an empty one."""
        ...

    def tick(self) -> None:
        """Let time pass. To be called every few seconds by everybody who works on it."""
        ...

    def listen(self, hear: Callable[[str, str], None]) -> Callable[[], None]:
        """Have a thread tell what happens, as a word and a job's id, until what is returned is called. ("", "") says
        that something may have been missed. A word is a hint that may not come: the tables say what is so."""
        ...
