"""The native API: jobs and their stories, plans, uploads, and what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import BODY, NativeRoute, Responses, Uploaded, errors
from overpaint.service.doors.native.boxes import box_routes
from overpaint.service.doors.native.forms import form_routes
from overpaint.service.doors.native.gallery import gallery_routes
from overpaint.service.doors.native.jobs import job_routes
from overpaint.service.doors.native.masks import mask_routes
from overpaint.service.doors.native.models import model_routes
from overpaint.service.doors.native.plans import plan_routes
from overpaint.service.doors.native.prompts import prompt_routes
from overpaint.service.doors.native.result_pictures import result_routes
from overpaint.service.doors.native.streams import stream_routes
from overpaint.service.guard.budgets import at_work, png_apart
from overpaint.service.guard.inputs import KINDS_READ, sent_picture
from overpaint.service.intake.bodies import file_body
from overpaint.service.limits import Limits
from overpaint.service.ports import Desk
from overpaint.service.requests import kept


class SamplerView(BaseModel):
    name: str
    aliases: list[str]
    scheduler: str = Field(description="Its own one, which Automatic means.")


class SchedulerView(BaseModel):
    name: str
    aliases: list[str]


class Samplers(BaseModel):
    samplers: list[SamplerView]
    schedulers: list[SchedulerView]


def router(desk: Desk, config: ServeConfig) -> APIRouter:
    """Everything below /v1 but /v1/images, which is OpenAI's."""
    routes = APIRouter(route_class=NativeRoute)
    routes.include_router(job_routes(desk, config))
    routes.include_router(model_routes(config))
    routes.include_router(plan_routes(desk, config))
    for each in (
        stream_routes(desk),
        result_routes(desk, config),
        gallery_routes(desk, config),
        prompt_routes(desk, config),
        box_routes(config),
        form_routes(config),
        mask_routes(desk, config),
    ):
        routes.include_router(each)
    _add_pictures(routes, desk, config)
    _add_png(routes, config.limits)
    _add_lists(routes, config)
    return routes


# Any media type is taken; one is told of, since generated clients ask which of several is meant.
_FILE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


def _body(about: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "description": about, "content": {"application/octet-stream": _FILE}}}


def _add_pictures(routes: APIRouter, desk: Desk, config: ServeConfig) -> None:
    limits = config.limits
    extra = _body(f"The bytes of a {KINDS_READ} file, by whatever media type.")

    @routes.put("/v1/pictures", tags=["pictures"], responses=errors(*BODY, 422), openapi_extra=extra)
    @routes.post("/v1/pictures", tags=["pictures"], responses=errors(*BODY, 422), openapi_extra=extra)
    async def upload(request: Request) -> Uploaded:
        """Keep a picture, to be named in requests. The body is the file itself."""
        return await at_work(keep, await file_body(request, limits.picture_bytes))

    def keep(pieces: list[bytes]) -> Uploaded:
        sent = sent_picture(pieces, limits)
        return Uploaded(picture=kept(sent, desk.store), width=sent.size[0], height=sent.size[1])


def _add_png(routes: APIRouter, limits: Limits) -> None:
    png: Responses = {200: {"description": "The same picture.", "content": {"image/png": _FILE}}}
    given: dict[str, Any] = {
        "responses": {**png, **errors(*BODY, 422)},
        "openapi_extra": _body("The bytes of a picture's file."),
    }

    @routes.post("/v1/pictures/png", tags=["pictures"], response_class=Response, **given)
    async def as_png(request: Request) -> Response:
        """A picture as PNG, with 16 bits a channel where it has them: TIFF, AVIF, BMP and others. Nothing is kept."""
        pieces = await file_body(request, limits.picture_bytes)
        return Response(await at_work(png_apart, pieces, limits), media_type="image/png")


def _add_lists(routes: APIRouter, config: ServeConfig) -> None:
    @routes.get("/v1/samplers", tags=["lists"], responses=errors())
    async def samplers() -> Samplers:
        """Samplers and schedulers, with their other names."""
        return _samplers()

    @routes.get("/v1/limits", tags=["lists"], responses=errors())
    async def limits() -> dict[str, float]:
        """This server's bounds."""
        return {each.name: getattr(config.limits, each.name) for each in fields(config.limits)}


def _samplers() -> Samplers:
    labels: Mapping[str, str] = {each.name: each.label for each in SCHEDULERS}
    return Samplers(
        samplers=[
            SamplerView(
                name=each.name,
                aliases=list(each.aliases),
                scheduler=labels.get(each.default_scheduler or "", "Automatic"),
            )
            for each in SAMPLERS
        ],
        schedulers=[SchedulerView(name=each.label, aliases=[each.name, *each.aliases]) for each in SCHEDULERS],
    )
