"""What a form needs: every field of a request with its bounds, meaning and choices; and recipes to fill it from."""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from overpaint.errors import OverpaintError
from overpaint.files.metadata import read_infotext, read_recipe
from overpaint.request import SOURCE_FIELDS
from overpaint.request_help import IMG2IMG_HELP
from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import BODY, NativeRoute, errors
from overpaint.service.guard.budgets import at_work
from overpaint.service.guard.inputs import sent_picture
from overpaint.service.intake.bodies import file_body
from overpaint.service.known_models import KnownModels
from overpaint.service.schema import NAME, plan_schema
from overpaint.text.infotext import parse_infotext
from overpaint.text.pasting import request_fields

_FIELD = re.compile(r"^    (\w+): .*\n((?:        .*\n?)+)", re.MULTILINE)


class FormField(BaseModel):
    """One field of a request."""

    name: str
    about: str = Field(description="What it is for, in one or two sentences.")
    field_schema: dict[str, Any] = Field(alias="schema", description="JSON schema of its values, with the default.")
    of_source: bool = Field(description="Whether it means nothing without a source picture.")
    choices: list[str] | None = Field(description="Names that this server knows for it; null where there is no list.")


class Form(BaseModel):
    """The fields of a painting job, in the order of the request."""

    fields: list[FormField]


class FoundRecipe(BaseModel):
    """How a picture was painted."""

    request: dict[str, Any] | None = Field(description="Fields of a request; null if the picture does not say.")
    infotext: str | None


def form_routes(config: ServeConfig) -> APIRouter:
    """GET /v1/schema and POST /v1/recipe."""
    routes = APIRouter(route_class=NativeRoute)
    file = {"schema": {"type": "string", "format": "binary"}}
    body = {"required": True, "content": {"application/octet-stream": file}}

    @routes.get("/v1/schema", tags=["lists"], responses=errors())
    async def form() -> Form:
        """Every field of a painting job: its bounds here, what it is for, and what may be chosen."""
        return await asyncio.to_thread(_form, config)

    @routes.post("/v1/recipe", tags=["pictures"], responses=errors(*BODY, 422), openapi_extra={"requestBody": body})
    async def recipe(request: Request) -> FoundRecipe:
        """How a picture was painted, as fields of a request. The body is the file itself; nothing is kept."""
        return await at_work(_recipe, await file_body(request, config.limits.picture_bytes), config)

    return routes


def _form(config: ServeConfig) -> Form:
    (schema, *_) = plan_schema(config.limits)["oneOf"]
    told, choices = meanings(), _choices(KnownModels.of(config))
    given = {name: each for name, each in schema["properties"].items() if name != "kind"}
    return Form(
        fields=[
            FormField(
                name=name,
                about=told.get(name, ""),
                schema=_without_names(each),
                of_source=name in SOURCE_FIELDS,
                choices=choices.get(name),
            )
            for name, each in given.items()
        ]
    )


@cache
def meanings() -> Mapping[str, str]:
    """What each field is for, as `help()` tells it."""
    return {name: " ".join(textwrap.dedent(text).split()) for name, text in _FIELD.findall(IMG2IMG_HELP)}


def _choices(models: KnownModels) -> dict[str, list[str]]:
    checkpoints = [each.name_for_extra for each in models.checkpoints()]
    return {
        "sampler": [each.name for each in SAMPLERS],
        "scheduler": [each.label for each in SCHEDULERS],
        "checkpoint": checkpoints,
        "refiner": checkpoints,
    }


def _without_names(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_names(each) for key, each in schema.items() if key != NAME}
    return [_without_names(each) for each in schema] if isinstance(schema, list) else schema


def _recipe(pieces: list[bytes], config: ServeConfig) -> FoundRecipe:
    data = sent_picture(pieces, config.limits).file  # how it was painted stands beside its pixels
    infotext, _ = read_infotext(data)
    fields = dict(_of_recipe(data)) or dict(_of_infotext(infotext))
    return FoundRecipe(request=fields or None, infotext=infotext)


def _of_recipe(data: bytes) -> Iterator[tuple[str, Any]]:
    try:
        recipe = read_recipe(data)
    except OverpaintError:
        return  # its infotext may still tell
    request = recipe.get("request") if recipe else None
    if isinstance(request, Mapping):
        yield from request.items()


def _of_infotext(infotext: str | None) -> Iterator[tuple[str, Any]]:
    if infotext is None or "Steps: " not in infotext:
        return
    for name, value in request_fields(parse_infotext(infotext)).items():
        yield name, _plain(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    return getattr(value, "value", list(value) if isinstance(value, tuple) else value)
