"""The box that would be painted, from the mask's own box: asked while somebody is still drawing the mask."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from overpaint.errors import CheckpointError, RequestError
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.models.what_is import spec_of
from overpaint.planning.boxes import boxed
from overpaint.request import Img2ImgRequest
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import BODY, NativeRoute, errors
from overpaint.service.known_models import KnownModels, served_checkpoint
from overpaint.service.request_limits import check_name, job_settings
from overpaint.settings import Settings

Side = Annotated[int, Field(ge=1, le=2**24)]
Place = Annotated[int, Field(ge=0, le=2**24)]


class MaskBox(BaseModel):
    """What is known of a job before its mask is finished."""

    model_config = ConfigDict(extra="forbid")

    source: list[Side] = Field(min_length=2, max_length=2, description="Width and height of the source.")
    box: list[Place] = Field(
        min_length=4,
        max_length=4,
        description="[left, top, right, bottom] of what the mask selects; the last two are outside.",
    )
    width: Side | None = None
    height: Side | None = None
    padding: int = Field(default=32, ge=0, le=16_384)
    mask_blur_x: int = Field(default=4, ge=0, le=256)
    mask_blur_y: int = Field(default=4, ge=0, le=256)
    checkpoint: str | None = None


class PlannedBox(BaseModel):
    """What would be painted."""

    crop: list[int] = Field(description="[left, top, right, bottom] of what the networks see.")
    size: list[int] = Field(description="Width and height at which they see it.")


def box_routes(config: ServeConfig) -> APIRouter:
    """The one route that plans without pictures."""
    routes = APIRouter(route_class=NativeRoute)

    @routes.post("/v1/plan/box", tags=["jobs"], responses=errors(*BODY, 422))
    async def plan_box(asked: MaskBox) -> PlannedBox:
        """What of a source an "only masked" job would paint. No picture travels, and nothing is kept."""
        return await asyncio.to_thread(_planned, asked, config)

    return routes


def _planned(asked: MaskBox, config: ServeConfig) -> PlannedBox:
    left, top, right, bottom = asked.box
    wide, high = asked.source
    if not (left < right <= wide and top < bottom <= high):
        raise RequestError("box", asked.box, "give left < right and top < bottom within the source")
    given = asked.model_dump(exclude={"source", "box"}, exclude_none=True)
    request = Img2ImgRequest(images=(Image.new("L", (1, 1)),), only_masked=True, **given)
    spec = _spec(_path(asked.checkpoint, config), config.settings)
    settings = job_settings(config.settings, config.limits)
    crop, geometry = boxed(
        request, (wide, high), (left, top, right, bottom), spec.native_size, settings, spec.latent.factor
    )
    return PlannedBox(crop=list(crop), size=[geometry.width, geometry.height])


def _path(name: str | None, config: ServeConfig) -> Path:
    if name is None:
        return served_checkpoint(config)
    check_name("checkpoint", name)
    return KnownModels.of(config).named("checkpoint", name).path


def _spec(path: Path, settings: Settings) -> ModelSpec:
    """As its header says; what no header tells, and what is not made yet, is taken for the common kind."""
    try:
        return _read(path, settings.text_encoder_files, path.stat().st_mtime_ns)
    except (OSError, CheckpointError):
        return SD1_SPEC


@lru_cache(maxsize=32)
def _read(path: Path, encoders: tuple[str, ...], changed: int) -> ModelSpec:
    """NOTE: `changed` makes another file of one that was written anew."""
    return spec_of(path, encoders, header_only=True)
