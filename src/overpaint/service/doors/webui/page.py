"""What clients ask of the reference's page before they use its API: they find out by it whether a server is there."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from overpaint.planning.hires import LATENT_UPSCALES
from overpaint.service.doors.webui.errors import ReferenceRoute
from overpaint.service.doors.webui.options_book import OptionsBook
from overpaint.service.doors.webui.upscalers import offered_upscalers
from overpaint.service.ports import Desk
from overpaint.version import __version__

_TOOLKIT = "3.41.2"  # of the page's toolkit, whose shapes these are


def page_routes(desk: Desk, book: OptionsBook) -> APIRouter:
    """GET /queue/status, /config and /user, POST /login, GET /sdapi/v1/version."""
    routes = APIRouter(route_class=ReferenceRoute)

    @routes.get("/queue/status")
    async def queue_status() -> dict[str, Any]:
        waiting = await asyncio.to_thread(desk.store.waiting)
        return {
            "msg": "estimation",
            "rank": None,
            "queue_size": len(waiting),
            "avg_event_process_time": None,
            "avg_event_concurrent_process_time": None,
            "rank_eta": None,
            "queue_eta": 0.0,
        }

    @routes.get("/config")
    async def config() -> dict[str, Any]:
        choices = await asyncio.to_thread(_hires_upscalers, book)
        return {
            "version": _TOOLKIT,
            "mode": "blocks",
            "dev_mode": False,
            "analytics_enabled": False,
            "title": "overpaint",
            "enable_queue": True,
            "show_error": False,
            "show_api": True,
            "is_colab": False,
            "root": "",
            "components": [_choice(1, "txt2img_hr_upscaler", "Upscaler", choices)],
            "dependencies": [],
        }

    @routes.get("/user")
    async def user() -> None:
        """Nobody logs in: who has no token does not come this far."""

    @routes.get("/login")
    @routes.post("/login")
    async def login() -> dict[str, Any]:
        return {"success": True}

    @routes.get("/sdapi/v1/version")
    async def version() -> dict[str, Any]:
        return {"app": "overpaint", "version": __version__}

    return routes


def _hires_upscalers(book: OptionsBook) -> list[str]:
    return [*LATENT_UPSCALES, *(each.name for each in offered_upscalers(book.base))]


def _choice(number: int, name: str, label: str, choices: list[str]) -> dict[str, Any]:
    """A list to choose from, as this version of the toolkit tells of it: later ones have pairs for choices."""
    props = {
        "choices": choices,
        "value": choices[0],
        "allow_custom_value": False,
        "container": True,
        "label": label,
        "show_label": True,
        "min_width": 160,
        "name": "dropdown",
        "visible": True,
        "elem_id": name,
    }
    return {"id": number, "type": "dropdown", "props": props}
