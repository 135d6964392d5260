"""What helps to write a prompt: its length in tokens, styles, and requests that somebody wants again, kept by name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from overpaint.errors import RequestError
from overpaint.request import PICTURE_FIELDS, PaintRequest
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import BODY, NativeRoute, errors
from overpaint.service.guard.budgets import at_work
from overpaint.service.intake.bodies import json_body
from overpaint.service.jobs import Json
from overpaint.service.ports import Desk
from overpaint.service.problems import ApiError
from overpaint.service.schema import NAME, Schema
from overpaint.settings import Settings
from overpaint.text.prompt import parse_attention, split_and, strip_comments, take_network_tags
from overpaint.text.styles import load_styles
from overpaint.text.tokens import CAPACITY, chunk, clip_tokenizer

_PRESETS = "presets"  # the option of the store that holds them
_MOST_PRESETS, _MOST_CHARACTERS = 200, 20_000
_LONGEST = 32_000  # characters of a text that are counted

_FIELDS: Schema = {
    "type": "object",
    "additionalProperties": True,
    "description": "Fields of a request but its pictures; whether a job takes them is judged with the job.",
    NAME: "PresetFields",
}

PresetName = Annotated[str, Path(min_length=1, max_length=80, pattern=r"^[^/\x00-\x1f]+$")]


class PromptText(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=_LONGEST)


class TokenCount(BaseModel):
    """How long a prompt is for the networks. Of parts between ANDs, the longest."""

    tokens: int
    chunks: int = Field(description="So many are read, one after another.")
    room: int = Field(description="Tokens that fit into these chunks.")


class StyleView(BaseModel):
    """A text that wraps a prompt; {prompt} in it is where the prompt stands."""

    name: str
    prompt: str
    negative_prompt: str


class Styles(BaseModel):
    styles: list[StyleView]


class Preset(BaseModel):
    """Fields of a request under a name."""

    name: str
    request: dict[str, Any]


class Presets(BaseModel):
    presets: list[Preset] = Field(description="By name.")


def prompt_routes(desk: Desk, config: ServeConfig) -> APIRouter:
    """POST /v1/tokens, GET /v1/styles, and everything below /v1/presets."""
    routes = APIRouter(route_class=NativeRoute)
    settings = config.settings

    @routes.post("/v1/tokens", tags=["lists"], responses=errors(*BODY, 422))
    async def tokens(asked: PromptText) -> TokenCount:
        """The length of a prompt in tokens. What names networks counts for nothing, embeddings as their names."""
        return await at_work(_counted, asked.text, settings)

    @routes.get("/v1/styles", tags=["lists"], responses=errors())
    async def styles() -> Styles:
        """Styles that requests may name in `styles`."""
        file = settings.styles_file
        known = await asyncio.to_thread(load_styles, file) if file else ()
        views = [
            StyleView(name=each.name, prompt=each.prompt or "", negative_prompt=each.negative_prompt or "")
            for each in known
            if each.prompt is not None or each.negative_prompt is not None
        ]
        return Styles(styles=views)

    _add_presets(routes, desk)
    return routes


def _add_presets(routes: APIRouter, desk: Desk) -> None:
    changing = asyncio.Lock()
    body = {"required": True, "content": {"application/json": {"schema": _FIELDS}}}

    @routes.get("/v1/presets", tags=["lists"], responses=errors())
    async def presets() -> Presets:
        """Requests that are kept by name."""
        kept = await asyncio.to_thread(_kept, desk)
        return Presets(presets=[Preset(name=name, request=dict(kept[name])) for name in sorted(kept, key=str.lower)])

    @routes.put(
        "/v1/presets/{name}", tags=["lists"], responses=errors(*BODY, 409, 422), openapi_extra={"requestBody": body}
    )
    async def keep(name: PresetName, request: Request) -> Preset:
        """Keep fields of a request under a name; what had the name before is gone."""
        fields = _checked(await json_body(request))
        async with changing:
            kept = await asyncio.to_thread(_kept, desk)
            if name not in kept and len(kept) >= _MOST_PRESETS:
                raise ApiError("conflict", f"name={name!r}: {_MOST_PRESETS} presets are kept, delete one first", "name")
            await asyncio.to_thread(desk.store.set_option, _PRESETS, {**kept, name: fields})
        return Preset(name=name, request=fields)

    @routes.delete("/v1/presets/{name}", tags=["lists"], status_code=204, responses=errors(404, 422))
    async def delete(name: PresetName) -> Response:
        """Forget a preset."""
        async with changing:
            kept = await asyncio.to_thread(_kept, desk)
            if name not in kept:
                raise ApiError("not_found", f"name={name!r}: there is no such preset; GET /v1/presets lists them")
            rest = {each: fields for each, fields in kept.items() if each != name}
            await asyncio.to_thread(desk.store.set_option, _PRESETS, rest)
        return Response(status_code=204)


def _kept(desk: Desk) -> Mapping[str, Json]:
    found = desk.store.option(_PRESETS)
    return {name: each for name, each in (found or {}).items() if isinstance(each, Mapping)}


def _checked(fields: Json) -> dict[str, Any]:
    """Whether a value may be painted with is judged with the job; a preset may be for another model."""
    known = PaintRequest.field_names() - PICTURE_FIELDS
    for name, value in fields.items():
        if name not in known:
            raise RequestError(name, value, "a preset holds fields of a request, and no pictures")
    if len(json.dumps(fields)) > _MOST_CHARACTERS:
        raise RequestError("body", "a preset", f"it takes more than {_MOST_CHARACTERS} characters; leave something out")
    return dict(fields)


def _counted(text: str, settings: Settings) -> TokenCount:
    quirks = settings.quirks
    bare = strip_comments(text) if settings.enable_prompt_comments else text
    parts = [each.text for each in split_and(take_network_tags(bare)[0], quirks)] or [""]
    cut = [
        chunk(
            parse_attention(each, quirks),
            clip_tokenizer(),
            backtrack=settings.comma_padding_backtrack,
            quirks=quirks,
        )
        for each in parts
    ]
    chunks, tokens = max((len(found), count) for found, count in cut)
    return TokenCount(tokens=tokens, chunks=chunks, room=CAPACITY * chunks)
