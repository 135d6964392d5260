"""Masks drawn from words, for who wants to see one before painting with it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from overpaint.errors import RequestError
from overpaint.masks import coverage, overlay
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import BODY, NativeRoute, errors
from overpaint.service.drawn_masks import MaskInWords, as_png
from overpaint.service.guard.budgets import at_work, room_for
from overpaint.service.intake.bodies import json_body
from overpaint.service.jobs import Json
from overpaint.service.ports import Desk
from overpaint.service.requests import RequestSources, reader_for
from overpaint.service.schema import MASK_IN_WORDS, NAME, PICTURE

COVERAGE = "Mask-Coverage"
_FIELDS = frozenset({"picture", "expression", "pictures", "show"})
_BODY: dict[str, Any] = {
    **MASK_IN_WORDS,
    "properties": {
        "picture": dict(PICTURE),
        **MASK_IN_WORDS["properties"],
        "show": {"type": "boolean", "default": False, "description": "The picture with the mask laid over it instead."},
    },
    "required": ["picture", "expression"],
    NAME: "MaskRequest",
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The mask, gray and of the picture's size.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {COVERAGE: {"schema": {"type": "number"}, "description": "Per cent of the picture that is white."}},
    }
}


def mask_routes(desk: Desk, config: ServeConfig) -> APIRouter:
    """The one route that draws."""
    routes = APIRouter(route_class=NativeRoute)
    extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}}}
    documented = {**_ANSWER, **errors(*BODY, 422, 429)}

    @routes.post("/v1/masks", tags=["pictures"], response_class=Response, responses=documented, openapi_extra=extra)
    async def mask(request: Request) -> Response:
        """A mask in words as a PNG. Nothing is kept."""
        data, percent = await at_work(drawn, await json_body(request))
        return Response(data, media_type="image/png", headers={COVERAGE: f"{percent:.3f}"})

    def drawn(values: Json) -> tuple[bytes, float]:
        unknown = sorted(set(values) - _FIELDS)
        if unknown:
            raise RequestError(
                unknown[0], values[unknown[0]], f"there is no such field; give {', '.join(sorted(_FIELDS))}"
            )
        if not isinstance(values.get("show", False), bool):
            raise RequestError("show", values["show"], "give true or false")
        words = {name: each for name, each in values.items() if name in ("expression", "pictures")}
        asked, sources = MaskInWords.read("mask", words), RequestSources(desk.store, config.limits, reader_for(config))
        reference, others = sources.reference("picture", values.get("picture")), asked.others(sources)
        with room_for(sources.pixels):
            picture = sources.opened("picture", reference)
            found = asked.drawn(picture, others)
            return as_png(overlay(picture, found) if values.get("show") else found), coverage(found)

    return routes
