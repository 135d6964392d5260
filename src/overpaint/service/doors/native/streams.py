"""The stories of several jobs on one connection: browsers have few, and each job's own stream takes one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from overpaint.errors import RequestError
from overpaint.service.doors.native.answers import NativeRoute, errors
from overpaint.service.doors.native.events import RETRY, is_told, sse
from overpaint.service.doors.native.jobs import known
from overpaint.service.intake.following import HEARTBEAT
from overpaint.service.ports import Desk

MOST = 64  # jobs on one connection
_PLACE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:\.(\d{1,15}))?")
_NUMBER = re.compile(r"^id: (\d+)\n", re.MULTILINE)
_WAITING = 64  # blocks that are read ahead of a slow client, over all jobs

_ABOUT = (
    "The events of the named jobs as they come, each as a job's own stream tells it. The id of an event is the place "
    "in all of them, such as `one.4,two.9`: as `Last-Event-ID` or as `jobs` it goes on from there."
)


def stream_routes(desk: Desk) -> APIRouter:
    """GET /v1/events."""
    routes = APIRouter(route_class=NativeRoute)

    @routes.get(
        "/v1/events",
        tags=["jobs"],
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": _ABOUT},
            204: {"description": "All of them are over, and nothing came after those events."},
            **errors(400, 404, 422),
        },
    )
    async def all_events(
        request: Request,
        jobs: Annotated[str, Query(max_length=8192, description="Ids, each with `.` and its last event, if any.")],
        previews: Annotated[Literal["url", "data"], Query()] = "url",
    ) -> Response:
        """The stories of several jobs on one connection."""
        places = _places(request.headers.get("last-event-id") or jobs)
        open_ones = {}
        for job_id, after in places.items():
            record = await known(desk, job_id)
            if not (after and record.state.is_end and await asyncio.to_thread(is_told, desk, job_id, after)):
                open_ones[job_id] = after
        if not open_ones:
            return Response(status_code=204)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stories = merged(desk, places, open_ones, previews=previews)
        return StreamingResponse(stories, media_type="text/event-stream", headers=headers)

    return routes


def _places(text: str) -> dict[str, int]:
    found = [_PLACE.fullmatch(each.strip()) for each in text.split(",") if each.strip()]
    if not found or len(found) > MOST or None in found:
        raise RequestError("jobs", text[:80], f"give 1 to {MOST} ids, such as one,two.9")
    return {each[1]: int(each[2] or 0) for each in found if each is not None}


async def merged(
    desk: Desk, places: dict[str, int], open_ones: dict[str, int], *, previews: str, beat: float = HEARTBEAT
) -> AsyncIterator[str]:
    """Blocks of all stories in the order they come, until the last one ends."""
    blocks: asyncio.Queue[tuple[str, str]] = asyncio.Queue(_WAITING)
    told = dict(places)

    async def follow(job_id: str, after: int) -> None:
        async for block in sse(desk, job_id, after, previews=previews, beat=1e9):
            if _NUMBER.search(block):
                await blocks.put((job_id, block))

    followers = [asyncio.create_task(follow(*each)) for each in open_ones.items()]
    ended = asyncio.ensure_future(asyncio.gather(*followers))
    yield f"retry: {RETRY}\n\n"
    try:
        while not (ended.done() and blocks.empty()):
            waiting = asyncio.ensure_future(blocks.get())
            both: set[asyncio.Future[Any]] = {waiting, ended}
            await asyncio.wait(both, timeout=beat, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                if not ended.done():
                    yield ": still here\n\n"
                continue
            job_id, block = waiting.result()
            number = _NUMBER.search(block)
            assert number is not None
            told[job_id] = int(number[1])
            place = ",".join(f"{name}.{last}" for name, last in told.items())
            yield _NUMBER.sub(f"id: {place}\n", block, count=1)
        ended.result()
    finally:
        for each in followers:
            each.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*followers, return_exceptions=True)
        with suppress(asyncio.CancelledError, Exception):
            await ended
