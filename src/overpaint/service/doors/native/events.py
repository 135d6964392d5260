"""A job's story as server-sent events: numbered, so that a client that lost the connection goes on where it was."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from overpaint.service.doors.native.answers import job_details
from overpaint.service.guard.places import placeless
from overpaint.service.intake.following import HEARTBEAT, followed
from overpaint.service.jobs import JobEvent, JobState
from overpaint.service.ports import Desk

RETRY = 1000  # milliseconds after which a client is to come again

_ENDS = frozenset(each.value for each in JobState if each.is_end)


async def sse(desk: Desk, job_id: str, after: int, *, previews: str, beat: float = HEARTBEAT) -> AsyncIterator[str]:
    """The events of a job after a number, until its end."""
    yield f"retry: {RETRY}\n\n"
    async with aclosing(followed(desk, job_id, after, beat=beat)) as story:
        async for event in story:
            yield ": still here\n\n" if event is None else await _written(desk, event, previews)


def is_told(desk: Desk, job_id: str, after: int) -> bool:
    """Whether the event that ends the job's story is among those up to this number. Reads the store."""
    story = desk.store.events_after(job_id, 0)
    return bool(story) and story[-1].number <= after and story[-1].name in _ENDS


def _picture_now(desk: Desk, job_id: str) -> bytes | None:
    live = desk.running(job_id)
    return None if live is None else live.preview


async def _written(desk: Desk, event: JobEvent, previews: str) -> str:
    data: dict[str, Any] = {"job": event.job, "at": event.at, **event.data}
    if event.name == "started":
        data["warnings"] = [placeless(str(each)) for each in data.get("warnings", ())]
    if event.name == "preview":
        data["url"] = f"/v1/jobs/{event.job}/preview"
        shown = event.picture or _picture_now(desk, event.job)
        if previews == "data" and shown is not None:
            data["image"] = "data:image/png;base64," + base64.b64encode(shown).decode("ascii")
    elif event.name in _ENDS:
        if isinstance(error := data.get("error"), Mapping):
            data["error"] = {**error, "message": placeless(str(error.get("message", "")))}
        record = await desk.get(event.job)
        if record is not None:
            data["result"] = (await job_details(record, desk)).model_dump(mode="json")
    return f"id: {event.number}\nevent: {event.name}\ndata: {json.dumps(data)}\n\n"
