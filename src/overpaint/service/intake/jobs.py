"""From what a door understood to a job that has ended: judge -> `Job` -> hand in -> wait.

A door gives a request in our own words and says who sent it. Everything that is decided about it is decided here.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import Request

from overpaint.errors import RequestError
from overpaint.service.config import ServeConfig
from overpaint.service.guard.budgets import forget_body
from overpaint.service.jobs import Job, Json, Origin, Record
from overpaint.service.known_models import KnownModels
from overpaint.service.ports import Desk
from overpaint.service.problems import ClientGone
from overpaint.service.request_limits import job_settings
from overpaint.service.requests import kind_of, reader_for, stored_request
from overpaint.service.schema import ENVELOPE_FIELDS, PRIORITIES
from overpaint.settings import Settings


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A request in our own words, not judged yet. Its pictures are bytes, texts or names of uploads."""

    values: Json = field(repr=False)  # fields of a request, and of what is said about the job itself
    settings: Settings  # that it starts from
    origin: Origin
    client: str
    id: str | None = None  # that the client gave it
    key: str | None = None
    checkpoint: str | None = None  # that the door chose; None: the request says so itself
    task: str | None = None  # see `Job`


@dataclass(frozen=True)
class Intake:
    """The one way in of a server."""

    desk: Desk
    config: ServeConfig

    def judged(self, new: NewJob) -> Job:
        """The job, its pictures in the store. It decodes and may fetch: call it in a thread."""
        limits, now = self.config.limits, time.time()
        fields = {name: value for name, value in new.values.items() if name not in ENVELOPE_FIELDS}
        envelope = _envelope(new.values, limits.queue_deadline, limits.run_deadline)
        settings = job_settings(new.settings, limits)
        read = reader_for(self.config)
        stored = stored_request(fields, self.desk.store, limits, settings=settings, read=read, rng=_random(new))
        if new.checkpoint is not None:
            stored = {**stored, "checkpoint": new.checkpoint}
        elif stored.get("checkpoint") is not None:
            KnownModels.of(self.config).named("checkpoint", stored["checkpoint"])
        return Job(
            id=new.id or uuid.uuid4().hex,
            kind=kind_of(stored),
            request=stored,
            settings=settings.to_json(),
            origin=new.origin,
            client=new.client,
            priority=int(envelope["priority"]),
            key=new.key,
            created=now,
            queue_seconds=envelope["queue_seconds"],
            run_seconds=envelope["run_seconds"],
            task=new.task,
        )

    async def handed_in(self, job: Job) -> Record:
        """The job as it was accepted, on disk. Its request's body is forgotten."""
        forget_body()
        return await self.desk.submit(job)

    async def ended(
        self, record: Record, request: Request, seconds: float | None = None, *, may_return: bool = False
    ) -> Record:
        """The job at its end, or as it is when the time is up.

        A client that goes away takes its job along, unless it may return and ask for it; then `ClientGone` is raised.
        """
        waiting = asyncio.ensure_future(self.desk.wait(record.id, seconds))
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
        finally:
            waiting.cancel()
            leaving.cancel()
        if not may_return:
            await self.let_go(record.id)
        raise ClientGone

    async def let_go(self, job_id: str) -> None:
        """Nobody waits for it any more: what does not end soon is cancelled."""
        record = await self.desk.wait(job_id, self.config.limits.disconnect_grace)
        if not record.state.is_end:
            await self.desk.cancel(job_id)


async def _left(request: Request) -> None:
    """Until the client hangs up. Its body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _random(new: NewJob) -> random.Random | None:
    """What is sent again under one name shall be the same request, so its unknown seeds follow from the name."""
    name = new.id or (None if new.key is None else f"{new.client} {new.key}")
    return None if name is None else random.Random(name)


def _envelope(values: Mapping[str, object], queue_seconds: float, run_seconds: float) -> dict[str, float]:
    """What is said about the job itself, beside the request."""
    priority = values.get("priority", 0)
    if isinstance(priority, float) and priority.is_integer():
        priority = int(priority)
    if isinstance(priority, bool) or not isinstance(priority, int) or not PRIORITIES[0] <= priority <= PRIORITIES[1]:
        raise RequestError("priority", priority, f"give a whole number from {PRIORITIES[0]} to {PRIORITIES[1]}")
    longest = {"queue_seconds": queue_seconds, "run_seconds": run_seconds}
    found: dict[str, float] = {"priority": priority}
    for name, most in longest.items():
        value = values.get(name, most)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise RequestError(name, value, f"give a number of seconds above 0, at most {most:g}")
        found[name] = float(value)
    return found
