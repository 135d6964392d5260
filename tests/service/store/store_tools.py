"""Jobs and results as tests of the store need them."""

from __future__ import annotations

from typing import Any

from overpaint.service.jobs import Job, JobResult, JobState, ResultPicture
from overpaint.service.store.sqlite_store import JobStore


class Clock:
    """An uptime that goes where a test wants it."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def job(name: str = "a", **changes: Any) -> Job:
    return Job(**{"id": name, "kind": "paint", "request": {"seed": 1}, "settings": {"eta": 0.5}, **changes})


def painted(store: JobStore, job_id: str, number: int, data: bytes = b"png") -> ResultPicture:
    path = store.result_file(job_id, f"{number}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return ResultPicture(number=number, file=path.name, infotext="text", seed=7, width=8, height=8)


def finished(store: JobStore, name: str, at: float, data: bytes = b"png") -> None:
    """A job that has ended at this moment, which is also that of the store's clock if a test has set it."""
    if isinstance(store._uptime, Clock):
        store._uptime.now = at
    store.accept(job(name, client=name))
    store.claim(name, "w", 60.0, at=at - 1)
    store.end(name, JobState.FINISHED, at, result=JobResult(pictures=(painted(store, name, 0, data),)))
