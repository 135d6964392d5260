"""The native API: jobs and their stories, plans, uploads, and what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import BODY, NativeRoute, Uploaded, errors
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
from overpaint.service.guard.budgets import at_work
from overpaint.service.guard.inputs import sent_picture
from overpaint.service.intake.bodies import file_body
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
    _add_lists(routes, config)
    return routes


_UPLOAD = "The bytes of a PNG, JPEG or WebP file, by whatever media type."


def _add_pictures(routes: APIRouter, desk: Desk, config: ServeConfig) -> None:
    limits = config.limits
    # Any media type is taken; one is told of, since generated clients ask which of several is meant.
    file = {"schema": {"type": "string", "format": "binary"}}
    body = {"required": True, "description": _UPLOAD, "content": {"application/octet-stream": file}}
    extra: dict[str, Any] = {"requestBody": body}

    @routes.put("/v1/pictures", tags=["pictures"], responses=errors(*BODY, 422), openapi_extra=extra)
    @routes.post("/v1/pictures", tags=["pictures"], responses=errors(*BODY, 422), openapi_extra=extra)
    async def upload(request: Request) -> Uploaded:
        """Keep a picture, to be named in requests. The body is the file itself."""
        return await at_work(keep, await file_body(request, limits.picture_bytes))

    def keep(pieces: list[bytes]) -> Uploaded:
        sent = sent_picture(pieces, limits)
        return Uploaded(picture=kept(sent, desk.store), width=sent.size[0], height=sent.size[1])


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
