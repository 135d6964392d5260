"""Jobs of the native API: handed in, looked at, waited for, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import (
    BODY,
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
from overpaint.service.guard.budgets import at_work
from overpaint.service.intake.bodies import (
    CLIENT_HEADER,
    KEY_HEADER,
    client_name,
    idempotency_key,
    json_body,
    last_event,
    seconds_to_wait,
)
from overpaint.service.intake.jobs import Intake, NewJob
from overpaint.service.intake.pictures import picture_file
from overpaint.service.jobs import Job, JobState, Record
from overpaint.service.ports import Desk
from overpaint.service.problems import ApiError, job_status_of
from overpaint.service.schema import job_schema

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
    _add_submitting(routes, _Submitting(Intake(desk, config)))
    _add_looking(routes, desk)
    _add_stopping(routes, desk)
    return routes


def _add_submitting(routes: APIRouter, submitting: _Submitting) -> None:
    body = {"required": True, "content": {"application/json": {"schema": job_schema(submitting.intake.config.limits)}}}

    @routes.post(
        "",
        status_code=202,
        responses=_ACCEPTED,
        openapi_extra={"requestBody": body, "parameters": [*_HEADERS, KEY_HEADER]},
    )
    async def submit(request: Request, images: Form = "url") -> Response:
        """Hand in a job: the fields of a request, its pictures as base64, data URLs or uploads."""
        return await submitting.answer(request, None, images)

    @routes.put(
        "/{job_id}",
        status_code=202,
        responses=_ACCEPTED,
        openapi_extra={"requestBody": body, "parameters": _HEADERS},
    )
    async def submit_as(request: Request, job_id: NewId, images: Form = "url") -> Response:
        """Hand in a job under an id of your own; sent twice, it is one job."""
        return await submitting.answer(request, job_id, images)


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
            raise ApiError("no_preview", f"id={job_id!r}: there is no preview of it now; come again later", "id")
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
_MEDIA_TYPES = tuple(f"image/{kind}" for kind in ("png", "jpeg", "webp", "avif", "tiff", "heic"))
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": dict.fromkeys(_MEDIA_TYPES, _BYTES), "description": "The file."},
    304: {"description": "It is the one that you have."},
}
_PREVIEW: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": _BYTES}, "description": "The preview."}}


async def _image(desk: Desk, record: Record, number: int, known_tags: str) -> Response:
    made = await asyncio.to_thread(pictures_of, record, desk)
    found = next((each for each in made if each.number == number), None)
    if found is None:
        raise ApiError("not_found", f"number={number}: the job has no such picture", "number")
    tag = f'"{record.id}-{number}"'  # what is finished never changes
    headers = {"ETag": tag, "Cache-Control": "private, max-age=3600, immutable"}
    if not record.gone and tag in known_tags:
        return Response(status_code=304, headers=headers)
    data = await asyncio.to_thread(picture_file, record, found, desk.store)
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
            raise ApiError("not_running", f"id={job_id!r}: it is not running yet; cancel it instead", "id")
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
        raise ApiError("over", f"id={record.id!r}: the job is {record.state.value} already", "id")


def _check_same(kept: Job, asked: Job) -> None:
    """What is sent twice is one job, so the second time may not ask for it to be treated otherwise."""
    for name in ("priority", "run_seconds"):
        before, now = getattr(kept, name), getattr(asked, name)
        if before != now:
            said = f"{name}={now!r}: job {kept.id} was handed in with {before!r}, which stays; send that, or another id"
            raise ApiError("conflict", said, name)


@dataclass(frozen=True)
class _Submitting:
    """Our own words: a body is a request with what is said about the job, headers say who sends it and who waits."""

    intake: Intake

    async def answer(self, request: Request, job_id: str | None, form: str) -> Response:
        """202 at once, or the outcome for those who wait."""
        desk, limits = self.intake.desk, self.intake.config.limits
        seconds, key = seconds_to_wait(request, limits.queue_deadline + limits.run_deadline), idempotency_key(request)
        job = await at_work(self.intake.judged, await self._read(request, job_id, key))
        record = await self.intake.handed_in(job)
        _check_same(record.job, job)
        headers = {"Location": f"/v1/jobs/{record.id}"}
        if seconds is not None:
            headers["Preference-Applied"] = "wait"
            may_return = job_id is not None or key is not None
            record = await self.intake.ended(record, request, seconds, may_return=may_return)
        elif not record.state.is_end:
            record = await desk.get(record.id) or record
            return _said(202, await job_details(record, desk), headers)
        details = await job_details(record, desk, as_base64=form == "base64" and not record.gone)
        if record.error is not None and seconds is not None:
            return _failed(details, error_body(record.error), headers)
        return _said(200 if record.state.is_end else 202, details, headers)

    async def _read(self, request: Request, job_id: str | None, key: str | None) -> NewJob:
        return NewJob(
            values=await json_body(request),
            settings=self.intake.config.settings,
            origin="v1",
            client=client_name(request),
            id=job_id,
            key=key,
        )


def _said(status: int, details: JobDetails, headers: Mapping[str, str]) -> Response:
    return JSONResponse(details.model_dump(mode="json"), status, headers)


def _failed(details: JobDetails, error: ErrorBody | None, headers: Mapping[str, str]) -> Response:
    assert error is not None
    status = job_status_of(error.code)
    body = FailedJob(error=refusal_body(status, error.code, error.message, error.field), job=details)
    return JSONResponse(body.model_dump(mode="json"), status, headers)
