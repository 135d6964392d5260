"""Jobs of the native API: handed in, looked at, waited for, stopped."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from overpaint.errors import RequestError
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import (
    BODY,
    JOB_STATUS,
    ErrorBody,
    FailedJob,
    JobDetails,
    JobList,
    NativeRoute,
    error_body,
    errors,
    job_details,
    job_view,
    not_found,
    pictures_of,
    refusal_body,
)
from overpaint.service.doors.native.events import is_told, sse
from overpaint.service.doors.native.models import named_checkpoint
from overpaint.service.guard.budgets import at_work, forget_body
from overpaint.service.intake import (
    CLIENT_HEADER,
    KEY_HEADER,
    ApiError,
    client_name,
    idempotency_key,
    json_body,
    last_event,
    picture_file,
    seconds_to_wait,
)
from overpaint.service.jobs import Job, JobState, Record
from overpaint.service.known_models import KnownModels
from overpaint.service.ports import Desk
from overpaint.service.requests import job_settings, kind_of, reader_for, stored_request
from overpaint.service.schema import ENVELOPE_FIELDS, PRIORITIES, job_schema

_LOOK_EVERY = 0.5  # seconds between two looks whether a waiting client is still there

ID = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
JobId = Annotated[str, Path(max_length=64)]
NewId = Annotated[str, Path(pattern=ID)]
Form = Annotated[Literal["url", "base64"], Query(description="Whether the pictures themselves are wanted.")]

_HEADERS = [
    {
        "name": "Prefer",
        "in": "header",
        "schema": {"type": "string"},
        "description": "`wait` or `wait=30`: answer when the job is over, or that many seconds have passed.",
    },
    CLIENT_HEADER,
]
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"model": JobDetails, "description": "The job is over."},
    202: {
        "model": JobDetails,
        "description": "The job is accepted: it is on disk, and outlives this server.",
        "headers": {"Location": {"schema": {"type": "string"}}},
    },
    **errors(*BODY, 409, 422, 429),
    **{each: {"model": FailedJob, "description": "The job was waited for and failed."} for each in (500, 504)},
}


def job_routes(desk: Desk, config: ServeConfig) -> APIRouter:
    """All routes below /v1/jobs."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=NativeRoute)
    _add_submitting(routes, _Intake(desk, config))
    _add_looking(routes, desk)
    _add_stopping(routes, desk)
    return routes


def _add_submitting(routes: APIRouter, intake: _Intake) -> None:
    body = {"required": True, "content": {"application/json": {"schema": job_schema(intake.config.limits)}}}

    @routes.post(
        "",
        status_code=202,
        responses=_ACCEPTED,
        openapi_extra={"requestBody": body, "parameters": [*_HEADERS, KEY_HEADER]},
    )
    async def submit(request: Request, images: Form = "url") -> Response:
        """Hand in a job: the fields of a request, its pictures as base64, data URLs or uploads."""
        return await intake.answer(request, None, images)

    @routes.put(
        "/{job_id}",
        status_code=202,
        responses=_ACCEPTED,
        openapi_extra={"requestBody": body, "parameters": _HEADERS},
    )
    async def submit_as(request: Request, job_id: NewId, images: Form = "url") -> Response:
        """Hand in a job under an id of your own; sent twice, it is one job."""
        return await intake.answer(request, job_id, images)


def _add_looking(routes: APIRouter, desk: Desk) -> None:
    @routes.get("", responses=errors(422))
    async def jobs(
        request: Request,
        state: Annotated[list[JobState], Query()] = [],  # noqa: B006 (FastAPI copies it)
        mine: Annotated[bool, Query(description="Only those of this client.")] = False,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> JobList:
        """Jobs, the newest first."""
        client = client_name(request) if mine else None
        found = await asyncio.to_thread(partial(desk.store.records, states=state, client=client, limit=limit))
        return JobList(jobs=[await job_view(each, desk) for each in found])

    @routes.get("/{job_id}", responses=errors(404, 410, 422))
    async def job(job_id: JobId, images: Form = "url") -> JobDetails:
        """Where a job stands, and what came of it."""
        return await job_details(await known(desk, job_id), desk, as_base64=images == "base64")

    @routes.get(
        "/{job_id}/events",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": _EVENT}}, "description": _STORY},
            204: {"description": "The job is over, and nothing came after that event."},
            **errors(400, 404, 422),
        },
        openapi_extra={"parameters": [_LAST_EVENT]},
    )
    async def events(
        request: Request, job_id: JobId, previews: Annotated[Literal["url", "data"], Query()] = "url"
    ) -> Response:
        """The job's story, as it happens."""
        record, after = await known(desk, job_id), last_event(request)
        if after and record.state.is_end and await asyncio.to_thread(is_told, desk, job_id, after):
            return Response(status_code=204)  # which tells an EventSource to come no more
        story = sse(desk, job_id, after, previews=previews)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(story, media_type="text/event-stream", headers=headers)

    @routes.get("/{job_id}/images/{number}", response_class=Response, responses={**_FILE, **errors(404, 410, 422)})
    async def image(request: Request, job_id: JobId, number: Annotated[int, Path(ge=0, le=100_000)]) -> Response:
        """A finished picture as a file."""
        return await _image(desk, await known(desk, job_id), number, request.headers.get("if-none-match", ""))

    @routes.get("/{job_id}/preview", response_class=Response, responses={**_PREVIEW, **errors(404, 422)})
    async def preview(job_id: JobId) -> Response:
        """What the running job looks like now."""
        live = desk.running(job_id)
        if live is None or live.preview is None:
            await known(desk, job_id)
            raise ApiError(404, "no_preview", f"id={job_id!r}: there is no preview of it now; come again later", "id")
        return Response(live.preview, media_type="image/png", headers={"Cache-Control": "no-store"})


_STORY = (
    "Events named queued, started, progress, preview, painted, and at the end finished, failed or cancelled, each with "
    "a number as its id and JSON as its data; the last one carries the job in `result`. Comments keep the line open."
)
_EVENT = {"type": "string", "description": "Blocks of `id:`, `event:` and `data:`, each block one event."}
_LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "integer", "minimum": 0},
    "description": "Only what came after this event.",
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": dict.fromkeys(("image/png", "image/jpeg", "image/webp"), _BYTES), "description": "The file."},
    304: {"description": "It is the one that you have."},
}
_PREVIEW: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": _BYTES}, "description": "The preview."}}


async def _image(desk: Desk, record: Record, number: int, known_tags: str) -> Response:
    made = await asyncio.to_thread(pictures_of, record, desk)
    found = next((each for each in made if each.number == number), None)
    if found is None:
        raise ApiError(404, "not_found", f"number={number}: the job has no such picture", "number")
    tag = f'"{record.id}-{number}"'  # what is finished never changes
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600, immutable"}
    if not record.gone and tag in known_tags:
        return Response(status_code=304, headers=headers)
    data = await asyncio.to_thread(picture_file, record, found, desk)
    return Response(data, media_type=found.media_type, headers=headers)


def _add_stopping(routes: APIRouter, desk: Desk) -> None:
    @routes.post("/{job_id}/cancel", status_code=202, responses=errors(*BODY, 404, 409, 422))
    async def cancel(job_id: JobId) -> JobDetails:
        """End a job at once; what is finished of it stays."""
        _refuse_ended(await known(desk, job_id))
        return await job_details(await desk.cancel(job_id), desk)

    @routes.post("/{job_id}/finish", status_code=202, responses=errors(*BODY, 404, 409, 422))
    async def finish(job_id: JobId) -> JobDetails:
        """Let the running job end with what it has."""
        record = await known(desk, job_id)
        _refuse_ended(record)
        if record.state is not JobState.RUNNING:
            raise ApiError(409, "not_running", f"id={job_id!r}: it is not running yet; cancel it instead", "id")
        await desk.finish_early(job_id)
        return await job_details(record, desk)


async def known(desk: Desk, job_id: str) -> Record:
    """The job of this id."""
    record = await desk.get(job_id)
    if record is None:
        raise not_found(job_id)
    return record


def _refuse_ended(record: Record) -> None:
    if record.state.is_end:
        raise ApiError(409, "over", f"id={record.id!r}: the job is {record.state.value} already", "id")


def _check_same(kept: Job, asked: Job) -> None:
    """What is sent twice is one job, so the second time may not ask for it to be treated otherwise."""
    for name in ("priority", "run_seconds"):
        before, now = getattr(kept, name), getattr(asked, name)
        if before != now:
            said = f"{name}={now!r}: job {kept.id} was handed in with {before!r}, which stays; send that, or another id"
            raise ApiError(409, "conflict", said, name)


@dataclass(frozen=True)
class _Intake:
    """Takes jobs in."""

    desk: Desk
    config: ServeConfig

    async def answer(self, request: Request, job_id: str | None, form: str) -> Response:
        """202 at once, or the outcome for those who wait."""
        longest = self.config.limits.queue_deadline + self.config.limits.run_deadline
        seconds, key = seconds_to_wait(request, longest), idempotency_key(request)
        job = await self._read(request, job_id, key)
        record = await self.desk.submit(job)
        forget_body()
        _check_same(record.job, job)
        headers = {"Location": f"/v1/jobs/{record.id}"}
        if seconds is not None:
            headers["Preference-Applied"] = "wait"
            can_come_again = job_id is not None or key is not None
            record = await self._waited(request, record, seconds, can_come_again)
        elif not record.state.is_end:
            record = await self.desk.get(record.id) or record
            return self._said(202, await job_details(record, self.desk), headers)
        details = await job_details(record, self.desk, as_base64=form == "base64" and not record.gone)
        if record.error is not None and seconds is not None:
            return _failed(details, error_body(record.error), headers)
        return self._said(200 if record.state.is_end else 202, details, headers)

    async def _read(self, request: Request, job_id: str | None, key: str | None) -> Job:
        values = await json_body(request)
        return await at_work(self._job, values, client_name(request), job_id, key)

    def _said(self, status: int, details: JobDetails, headers: Mapping[str, str]) -> Response:
        return JSONResponse(details.model_dump(mode="json"), status, headers)

    def _job(self, values: Mapping[str, Any], client: str, job_id: str | None, key: str | None) -> Job:
        """A job, judged and with its pictures in the store."""
        limits, now = self.config.limits, time.time()
        fields = {name: value for name, value in values.items() if name not in ENVELOPE_FIELDS}
        envelope = _envelope(values, limits.queue_deadline, limits.run_deadline)
        # What is sent again under the same name shall be the same request, so its unknown seeds follow from the name.
        name = job_id or (None if key is None else f"{client} {key}")
        rng = None if name is None else random.Random(name)
        settings = job_settings(self.config.settings, limits)
        read = reader_for(self.config)
        stored = stored_request(fields, self.desk.store, limits, settings=settings, read=read, rng=rng)
        if stored.get("checkpoint") is not None:
            named_checkpoint(stored["checkpoint"], KnownModels.of(self.config))
        return Job(
            id=job_id or uuid.uuid4().hex,
            kind=kind_of(stored),
            request=stored,
            settings=settings.to_json(),
            client=client,
            priority=int(envelope["priority"]),
            key=key,
            created=now,
            queue_seconds=envelope["queue_seconds"],
            run_seconds=envelope["run_seconds"],
        )

    async def _waited(self, request: Request, record: Record, seconds: float, can_come_again: bool) -> Record:
        """Until the end or the time is up. A client that goes away takes its job along, unless it can ask again."""
        end, gone_since = time.monotonic() + seconds, None
        while not record.state.is_end and (left := end - time.monotonic()) > 0:
            record = await self.desk.wait(record.id, min(left, _LOOK_EVERY))
            if record.state.is_end or not await request.is_disconnected():
                gone_since = None
                continue
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since >= self.config.limits.disconnect_grace:
                return record if can_come_again else await self.desk.cancel(record.id)
        return record


def _envelope(values: Mapping[str, Any], queue_seconds: float, run_seconds: float) -> dict[str, float]:
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


def _failed(details: JobDetails, error: ErrorBody | None, headers: Mapping[str, str]) -> Response:
    assert error is not None
    status = JOB_STATUS.get(error.code, 500)
    body = FailedJob(error=refusal_body(status, error.code, error.message, error.field), job=details)
    return JSONResponse(body.model_dump(mode="json"), status, headers)
