"""OpenAI's Images API: edits, generations, variations. An edit with a mask is a real inpaint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from overpaint.errors import OverpaintError, RequestError
from overpaint.models.what_is import sees_pictures
from overpaint.service.config import ServeConfig
from overpaint.service.document import answer_of
from overpaint.service.doors.openai.answers import (
    NO_USAGE,
    OpenAIError,
    OpenAIPictures,
    failure,
    ignored_header,
    packed,
    pictures_answer,
    refusal,
    stream_event,
    stream_failure,
)
from overpaint.service.doors.openai.requests import ImagesRequest, body_schema, model_name, read_images_request
from overpaint.service.doors.openai.sources import ImagesBody, is_json, json_schema, pixels_of, read_json
from overpaint.service.guard.budgets import at_work, file_apart
from overpaint.service.guard.signed_urls import signed
from overpaint.service.intake.bodies import CLIENT_HEADER, KEY_HEADER, client_name, idempotency_key, json_body
from overpaint.service.intake.following import followed
from overpaint.service.intake.jobs import Intake, NewJob
from overpaint.service.intake.pictures import picture_file, url_of
from overpaint.service.jobs import Job, JobError, JobEvent, JobState, Json, Record
from overpaint.service.known_models import KnownModels
from overpaint.service.ports import Desk
from overpaint.service.problems import ApiError
from overpaint.service.schema import Schema, named
from overpaint.settings import Settings

_MOST_FIELDS = 200
_STOPPING = JobError(code="stopping", message="the server is stopping; send the request again when it is back")

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": OpenAIPictures, "description": "The pictures; with `stream` they come as server-sent events."},
    **{
        status: {**answer_of(OpenAIError), "description": "An error in OpenAI's shape."}
        for status in (400, 401, 403, 404, 409, 413, 415, 429, 499, 500, 503, 504)
    },
}

Reader = Callable[[Request], Awaitable[ImagesRequest]]


def router(desk: Desk, config: ServeConfig) -> APIRouter:
    """The three ways to a picture; /v1/models is the native API's, which answers in both shapes."""
    routes = APIRouter(prefix="/v1/images", tags=["openai"])
    api, limits = _ImagesApi(Intake(desk, config)), config.limits

    def body(**content: Schema) -> dict[str, Any]:
        media_types = {"form": "multipart/form-data", "json": "application/json"}
        shown = {media_types[name]: {"schema": schema} for name, schema in content.items()}
        return {"requestBody": {"required": True, "content": shown}, "parameters": [CLIENT_HEADER, KEY_HEADER]}

    def pictures(name: str, mask: bool) -> dict[str, Any]:
        form, json = body_schema(limits, picture=True, mask=mask), json_schema(limits, mask=mask)
        return body(form=named(f"{name}Form", form), json=named(name, json))

    text = body(json=named("ImageGeneration", body_schema(limits, picture=False)))

    @routes.post("/generations", responses=_ANSWERS, openapi_extra=text)
    async def generations(request: Request) -> Response:
        """A picture from a text."""
        return await api.answer(request, "image_generation", api.generation)

    @routes.post("/edits", responses=_ANSWERS, openapi_extra=pictures("ImageEdit", mask=True))
    async def edits(request: Request) -> Response:
        """Paint over pictures, or over the part of them that a mask shows. In JSON, pictures are named by URL."""
        return await api.answer(request, "image_edit", api.edit)

    @routes.post("/variations", responses=_ANSWERS, openapi_extra=pictures("ImageVariation", mask=False))
    async def variations(request: Request) -> Response:
        """Other pictures like this one."""
        return await api.answer(request, "image_edit", api.variation)

    return routes


class _ImagesApi:
    def __init__(self, intake: Intake) -> None:
        self._intake, self._desk, self._config = intake, intake.desk, intake.config

    async def answer(self, request: Request, event: str, read: Reader) -> Response:
        """Read, hand in, wait; every failure becomes OpenAI's error object."""
        try:
            wanted, job = await self._read(request, read)
            record = await self._intake.handed_in(job)
            if wanted.stream:
                story = self._stream(record, wanted, event)
                return _Stream(story, ignored_header(wanted), lambda: self._intake.let_go(record.id))
            record = await self._intake.ended(record, request)
            if record.state is not JobState.FINISHED:
                return failure(record.error)
            data = await at_work(self._data, record, wanted, _base_of(request))
            return pictures_answer(record, data, wanted)
        except (OverpaintError, HTTPException) as error:
            return refusal(error)

    async def _read(self, request: Request, read: Reader) -> tuple[ImagesRequest, Job]:
        """The job, and how it is to be answered; the pictures are in the store, and nowhere else any more."""
        wanted = await read(request)
        job = await at_work(self._job, request, wanted)
        return replace(wanted, values={}), job

    # -- what is asked -------------------------------------------------------------------------------------------

    async def generation(self, request: Request) -> ImagesRequest:
        given = await json_body(request)
        if not given.get("prompt"):
            raise RequestError("prompt", given.get("prompt"), "say what the picture should show")
        return read_images_request(given)

    async def edit(self, request: Request) -> ImagesRequest:
        found = await self._asked(request)
        return await at_work(lambda: found.wanted(as_one=self._sees_pictures(model_name(found.fields.get("model")))))

    async def variation(self, request: Request) -> ImagesRequest:
        """Of the whole picture, whatever is transparent in it."""
        found = await self._asked(request)
        if found.mask is not None:
            raise RequestError("mask", "a file", "variations have none; use /v1/images/edits")
        wanted = await at_work(found.wanted)
        values = {name: each for name, each in wanted.values.items() if name not in ("mask", "masked_content")}
        return replace(wanted, values={**values, "images": list(found.pictures)})

    async def _asked(self, request: Request) -> ImagesBody:
        """A form with files, or JSON with URLs."""
        if not is_json(request.headers.get("content-type", "")):
            return await self._form(request)
        return await at_work(read_json, await json_body(request), self._config)

    async def _form(self, request: Request) -> ImagesBody:
        """The fields of a form, its pictures and its mask, which are fit to be decoded."""
        limits = self._config.limits
        fields: dict[str, str] = {}
        files: dict[str, list[bytes]] = {"image": [], "mask": []}
        found: list[tuple[str, bytes]] = []
        bounds = {"max_files": limits.pictures + 1, "max_fields": _MOST_FIELDS, "max_part_size": limits.body_bytes}
        async with request.form(**bounds) as form:
            for name, value in form.multi_items():
                kind = name.removesuffix("[]")
                if not isinstance(value, UploadFile):
                    fields[name] = value
                elif kind not in files:
                    raise RequestError(name, value.filename, "files belong into image, image[] and mask")
                elif data := await value.read():
                    files[kind].append(data)
                    found.append((name, data))
        pixels = await at_work(pixels_of, found, limits)
        for _, data in found:
            await at_work(file_apart, [data])
        return ImagesBody(fields, tuple(files["image"]), files["mask"][-1] if files["mask"] else None, pixels)

    def _job(self, request: Request, wanted: ImagesRequest) -> Job:
        new = NewJob(
            values={**wanted.values, **self._checkpoint(wanted.model)},
            settings=_with_previews(self._config.settings, wanted),
            origin="openai",
            client=client_name(request),
            key=idempotency_key(request),
        )
        return self._intake.judged(new)

    def _sees_pictures(self, name: str | None) -> bool:
        """Whether the model that is asked for looks at several pictures to paint one."""
        models = KnownModels.of(self._config)
        if name is None:
            return sees_pictures(models.served)
        known = models.checkpoint(name)  # one that is not known is refused later
        return known is not None and sees_pictures(known.path)

    def _checkpoint(self, name: str | None) -> dict[str, str]:
        if name is None:
            return {}
        models = KnownModels.of(self._config)
        return {} if models.named("model", name).path == models.served else {"checkpoint": name}

    # -- what is answered ----------------------------------------------------------------------------------------

    async def _stream(self, record: Record, wanted: ImagesRequest, event: str) -> AsyncIterator[str]:
        """Looks at the picture while it is painted, as many as were asked for, then the pictures."""
        shown = 0
        async for happened in followed(self._desk, record.id):
            if happened is None:
                yield ": still here\n\n"
                continue
            if happened.picture is None or not _is_due(happened, shown, wanted.partials):
                continue
            size = None if record.job.request.get("only_masked") else wanted.size  # previews show the pass alone
            partial = await at_work(packed, happened.picture, wanted, size)
            yield stream_event(
                f"{event}.partial_image", {"b64_json": partial, "partial_image_index": shown}, record, wanted
            )
            shown += 1
        record = await self._desk.get(record.id) or record
        if record.state is not JobState.FINISHED:
            yield stream_failure(record.error if record.state.is_end else _STOPPING)
            return
        for each in record.result.pictures:
            if each.kind == "picture":
                data = await at_work(lambda: packed(picture_file(record, each, self._desk.store), wanted))  # noqa: B023
                told = {"b64_json": data, "size": f"{each.width}x{each.height}", "usage": NO_USAGE}
                yield stream_event(f"{event}.completed", told, record, wanted)

    def _data(self, record: Record, wanted: ImagesRequest, base: str) -> list[dict[str, str]]:
        if record.gone:
            raise ApiError("gone", "the pictures were kept long enough and are deleted; ask again")
        pictures = [each for each in record.result.pictures if each.kind == "picture"]
        if wanted.as_url:
            return [{"url": base + signed(url_of(record, each), self._config.token)} for each in pictures]
        return [{"b64_json": packed(picture_file(record, each, self._desk.store), wanted)} for each in pictures]


class _Stream(StreamingResponse):
    """Server-sent events; somebody is told of a client that does not stay to the end."""

    def __init__(self, story: AsyncIterator[str], headers: Json, left: Callable[[], Awaitable[object]]) -> None:
        fixed = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(story, headers={**fixed, **headers}, media_type="text/event-stream")
        self._left, self._is_told = left, False

    async def stream_response(self, send: Send) -> None:
        await super().stream_response(send)
        self._is_told = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            await super().__call__(scope, receive, send)
        if not self._is_told:
            await self._left()


def _base_of(request: Request) -> str:
    """The server as the client calls it. Only a proxy knows whether that is by https; it is the client's own URL."""
    is_https = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower() == "https"
    return str(request.base_url.replace(scheme="https") if is_https else request.base_url).rstrip("/")


def _is_due(preview: JobEvent, shown: int, partials: int) -> bool:
    """Whether it is time for the next look: they are spread evenly over the job."""
    step, steps = preview.data["step"], preview.data["steps"]
    return shown < partials and bool(step * (partials + 1) >= steps * (shown + 1))


def _with_previews(settings: Settings, wanted: ImagesRequest) -> Settings:
    """Previews of every step, of which the worker sends some, for the partial pictures; they change no picture."""
    if not (wanted.stream and wanted.partials):
        return settings
    return settings.with_changes({"live_previews_enable": True, "show_progress_every_n_steps": 1})
