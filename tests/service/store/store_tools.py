"""Jobs and results as tests of the store need them."""

from __future__ import annotations

from typing import Any, Protocol

from overpaint.service.jobs import Job, JobResult, JobState, ResultPicture
from overpaint.service.limits import Limits
from overpaint.service.store.store_on_tables import StoreOnTables


class Clock:
    """An uptime that goes where a test wants it."""

    def __init__(self, now: float = 0.0) -> None:
        self._now, self._other = now, None

    _other: Clock | None

    def follow(self, other: Clock) -> None:
        """Be the same as another one from now on."""
        self._other = other

    @property
    def now(self) -> float:
        return self._now if self._other is None else self._other.now

    @now.setter
    def now(self, seconds: float) -> None:
        if self._other is None:
            self._now = seconds
        else:
            self._other.now = seconds

    def __call__(self) -> float:
        return self.now


class Stores(Protocol):
    """A place where stores of one kind are opened; what is open at the end is closed."""

    def open(self, limits: Limits | None = None, *, clock: Clock | None = None) -> StoreOnTables: ...
    def close(self) -> None: ...


def job(name: str = "a", **changes: Any) -> Job:
    return Job(**{"id": name, "kind": "paint", "request": {"seed": 1}, "settings": {"eta": 0.5}, **changes})


def painted(store: StoreOnTables, job_id: str, number: int, data: bytes = b"png") -> ResultPicture:
    path = store.result_file(job_id, f"{number}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return ResultPicture(number=number, file=path.name, infotext="text", seed=7, width=8, height=8)


def finished(store: StoreOnTables, name: str, at: float, data: bytes = b"png") -> None:
    """A job that has ended at this moment, which is also that of the store's clock if a test has set it."""
    clock = getattr(store, "_uptime", store.uptime)
    if isinstance(clock, Clock):
        clock.now = at
    store.accept(job(name, client=name))
    store.claim(name, "w", 60.0, at=at - 1)
    store.end(name, JobState.FINISHED, at, result=JobResult(pictures=(painted(store, name, 0, data),)))
