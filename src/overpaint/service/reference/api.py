"""The reference's API: /sdapi/v1 for everybody's clients, /internal for its own page's questions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from overpaint.service.config import ServeConfig
from overpaint.service.known_models import KnownModels
from overpaint.service.ports import Desk
from overpaint.service.reference.bodies import ErrorBody, WrongFields
from overpaint.service.reference.extras import extras_routes
from overpaint.service.reference.jobs import job_routes
from overpaint.service.reference.lists import list_routes
from overpaint.service.reference.options import option_routes
from overpaint.service.reference.options_book import OptionsBook
from overpaint.service.reference.pictures import PictureReader
from overpaint.service.reference.progress import Tasks, control_routes, internal_routes, progress_routes
from overpaint.service.reference.requests import Reader

_REFUSALS: dict[int | str, dict[str, Any]] = {
    **{status: {"model": ErrorBody} for status in (400, 404, 409, 410, 413, 429, 500, 501, 504)},
    422: {"model": ErrorBody | WrongFields},
}


def router(desk: Desk, config: ServeConfig) -> APIRouter:
    """All its routes."""
    book, models, tasks = OptionsBook.of(desk, config), KnownModels.of(config), Tasks()
    pictures = PictureReader(config)
    routes = APIRouter()
    for part in (
        job_routes(desk, config, Reader(config, book, models), pictures, tasks),
        extras_routes(desk, config, book, pictures),
        progress_routes(desk, book, tasks),
        control_routes(desk, tasks),
        option_routes(desk, config, book, models),
        list_routes(desk, book, models),
    ):
        routes.include_router(part, prefix="/sdapi/v1", tags=["sdapi"], responses=_REFUSALS)
    routes.include_router(internal_routes(desk, book, tasks), tags=["sdapi"], responses=_REFUSALS)
    return routes
