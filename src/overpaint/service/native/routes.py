"""The native API: jobs and their stories, uploads, plans, and what there is to choose from."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from overpaint.errors import CheckpointError
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.pictures import open_picture
from overpaint.planning import plan as make_plan
from overpaint.preflight import account_of, spec_from_header, surroundings_of
from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.service.config import ServeConfig
from overpaint.service.guard.inputs import admit_picture
from overpaint.service.jobs import Json
from overpaint.service.known_models import KnownModels, served_checkpoint
from overpaint.service.native.answers import BODY, NativeRoute, Uploaded, errors
from overpaint.service.native.bodies import file_body, json_body
from overpaint.service.native.jobs import job_routes
from overpaint.service.native.models import model_routes
from overpaint.service.ports import Desk
from overpaint.service.requests import job_settings, judged_request, reader_for
from overpaint.service.schema import plan_schema


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


class PlanView(BaseModel):
    """What a job would do."""

    model: str = Field(description="The family of the checkpoint.")
    source: list[int] | None
    size: list[int]
    network_size: list[int]
    crop: list[int] | None = Field(description="[left, top, right, bottom] of what is painted of the source.")
    repainted: float | None = Field(description="Percent of the picture that may change.")
    sampler: str
    scheduler: str
    steps: int
    start: float | None = Field(description="The noise, as a sigma, that painting starts from.")
    network_calls: int | None
    hires: dict[str, Any] | None
    refiner: dict[str, Any] | None
    networks: list[dict[str, Any]]
    controls: list[dict[str, Any]]
    pictures: list[dict[str, Any]]
    batches: int
    unchanged: str | None = Field(description="Why nothing would be painted.")
    comments: list[str]
    warnings: list[str]


def router(desk: Desk, config: ServeConfig) -> APIRouter:
    """Everything below /v1 but /v1/images, which is OpenAI's."""
    routes = APIRouter(route_class=NativeRoute)
    routes.include_router(job_routes(desk, config))
    routes.include_router(model_routes(config))
    _add_pictures(routes, desk, config)
    _add_plan(routes, desk, config)
    _add_lists(routes, config)
    return routes


def _add_pictures(routes: APIRouter, desk: Desk, config: ServeConfig) -> None:
    limits = config.limits
    file = {"schema": {"type": "string", "format": "binary"}}
    body = {"required": True, "content": dict.fromkeys(("image/png", "image/jpeg", "image/webp"), file)}
    extra: dict[str, Any] = {"requestBody": body}

    @routes.put("/v1/pictures", tags=["pictures"], responses=errors(*BODY, 422), openapi_extra=extra)
    @routes.post("/v1/pictures", tags=["pictures"], responses=errors(*BODY, 422), openapi_extra=extra)
    async def upload(request: Request) -> Uploaded:
        """Keep a picture, to be named in requests. The body is the file itself."""
        return await asyncio.to_thread(keep, await file_body(request, limits.picture_bytes))

    def keep(data: bytes) -> Uploaded:
        admit_picture(data, limits, "body")
        with open_picture(data, max_pixels=limits.source_pixels) as picture:
            size = picture.size
        return Uploaded(picture=desk.store.put_picture(data), width=size[0], height=size[1])


def _add_plan(routes: APIRouter, desk: Desk, config: ServeConfig) -> None:
    body = {"required": True, "content": {"application/json": {"schema": plan_schema(config.limits)}}}

    @routes.post("/v1/plan", tags=["jobs"], responses=errors(*BODY, 422), openapi_extra={"requestBody": body})
    async def plan(request: Request) -> PlanView:
        """What a job would do: sizes, steps, seeds, files, warnings. Nothing is painted or kept."""
        return await asyncio.to_thread(planned, await json_body(request))

    def planned(values: Json) -> PlanView:
        settings = job_settings(config.settings, config.limits)
        read = reader_for(config)
        request = judged_request(values, desk.store, config.limits, settings=settings, read=read)
        known = surroundings_of(request, settings, spec_from_header)
        account = account_of(make_plan(request, settings, _spec(request.checkpoint, config), known))
        return PlanView(**{**account, "networks": _named(account["networks"]), "controls": _named(account["controls"])})


def _spec(name: str | None, config: ServeConfig) -> ModelSpec:
    """By the header of what would be painted with; the built-in checkpoint may not be made yet."""
    if name is None:
        path = served_checkpoint(config)
        return spec_from_header(path) if path.exists() else SD1_SPEC
    found = KnownModels.of(config).checkpoint(name)
    if found is None:
        raise CheckpointError(f"checkpoint={name!r}: there is no such model; GET /v1/models lists them")
    return spec_from_header(found.path)


def _named(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where files lie is no client's business."""
    return [{**each, "path": Path(each["path"]).name} for each in files]


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
