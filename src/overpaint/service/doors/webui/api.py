"""The reference's API: /sdapi/v1 for everybody's clients, /controlnet for an extension, and what its own page has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

from overpaint.service.config import ServeConfig
from overpaint.service.document import answer_of
from overpaint.service.doors.webui.bodies import SdapiErrorBody, WrongFields
from overpaint.service.doors.webui.controlnet import controlnet_routes
from overpaint.service.doors.webui.extras import extras_routes
from overpaint.service.doors.webui.jobs import job_routes
from overpaint.service.doors.webui.lists import list_routes
from overpaint.service.doors.webui.options import option_routes
from overpaint.service.doors.webui.options_book import OptionsBook
from overpaint.service.doors.webui.page import page_routes
from overpaint.service.doors.webui.pictures import PictureReader
from overpaint.service.doors.webui.progress import Tasks, control_routes, internal_routes, progress_routes
from overpaint.service.doors.webui.requests import Reader
from overpaint.service.doors.webui.saving import Saver
from overpaint.service.intake.jobs import Intake
from overpaint.service.known_models import KnownModels
from overpaint.service.ports import Desk

_REFUSALS: dict[int | str, dict[str, Any]] = {
    **{status: answer_of(SdapiErrorBody) for status in (400, 404, 409, 410, 413, 429, 500, 501, 503, 504)},
    422: answer_of(SdapiErrorBody, WrongFields),
}


def router(desk: Desk, config: ServeConfig) -> APIRouter:
    """All its routes."""
    intake, book, models, tasks = Intake(desk, config), OptionsBook.of(desk, config), KnownModels.of(config), Tasks()
    pictures, saver = PictureReader(config), Saver(desk)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        resuming = asyncio.create_task(saver.resume())
        yield
        resuming.cancel()

    routes = APIRouter(lifespan=lifespan)
    for part in (
        job_routes(intake, Reader(intake, book, models), pictures, tasks, saver),
        extras_routes(intake, book, pictures),
        progress_routes(desk, book, tasks),
        control_routes(desk, tasks),
        option_routes(desk, config, book, models),
        list_routes(desk, book, models),
    ):
        routes.include_router(part, prefix="/sdapi/v1", tags=["sdapi"], responses=_REFUSALS)
    others = (internal_routes(desk, book, tasks), controlnet_routes(config, models, pictures), page_routes(desk, book))
    for part in others:
        routes.include_router(part, tags=["sdapi"], responses=_REFUSALS)
    return routes
