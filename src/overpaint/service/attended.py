"""The desk as the routes of a started server see it: while the server stops, it takes nothing any more and says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from overpaint.service.jobs import Job, JobEvent, Live, Record
from overpaint.service.ports import Desk, Full, Stopping, Store


class Attended:
    """A desk, and whether its server is on its way out."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.is_stopping = False

    @property
    def store(self) -> Store:
        return self._desk.store

    async def submit(self, job: Job) -> Record:
        with self._told_apart():
            if self.is_stopping:
                raise Full("the server is stopping: send the job again when it is back", retry_after=10.0)
            return await self._desk.submit(job)

    async def get(self, job_id: str) -> Record | None:
        with self._told_apart():
            return await self._desk.get(job_id)

    async def wait(self, job_id: str, seconds: float | None = None) -> Record:
        with self._told_apart():
            return await self._desk.wait(job_id, seconds)

    async def cancel(self, job_id: str) -> Record:
        with self._told_apart():
            return await self._desk.cancel(job_id)

    async def finish_early(self, job_id: str | None = None) -> None:
        await self._desk.finish_early(job_id)

    async def skip(self) -> None:
        await self._desk.skip()

    def events(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        return self._desk.events(job_id, after)

    def position(self, job_id: str) -> int | None:
        return self._desk.position(job_id)

    def eta(self, job_id: str) -> float | None:
        return self._desk.eta(job_id)

    def running(self) -> Live | None:
        return self._desk.running()

    def state(self) -> str:
        return "UNHEALTHY" if self.is_stopping else self._desk.state()

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        return await self._desk.ask(what, values)

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """A queue that is full has room again soon; a server that stops has none."""
        try:
            yield
        except Full as error:
            if not self.is_stopping:
                raise
            raise Stopping(str(error), error.retry_after) from error
