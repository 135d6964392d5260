"""Which models there are, in our shape and in that of OpenAI's clients at once: names, never the places of files."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from PIL import Image
from pydantic import BaseModel, Field

from overpaint.models.hashes import CheckpointFile
from overpaint.models.notes import picture_beside, words_beside
from overpaint.models.upscaler_names import list_upscalers
from overpaint.models.usual import usual_of
from overpaint.models.what_is import row_of
from overpaint.pictures import open_picture
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import NativeRoute, errors
from overpaint.service.guard.budgets import at_work
from overpaint.service.known_models import KnownModels
from overpaint.service.problems import ApiError

Kind = Literal["checkpoint", "lora", "vae", "embedding", "controlnet", "upscaler", "hypernetwork"]


class ModelView(BaseModel):
    """One model. `id`, `object`, `created` and `owned_by` are what OpenAI's clients read."""

    id: str = Field(description="The name that a request asks for it by.")
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["overpaint"] = "overpaint"
    kind: Kind
    title: str
    hash: str | None = None
    family: str | None = None
    usual: dict[str, float] = Field(default={}, description="What a request means that leaves these fields open.")
    sees_pictures: bool | None = Field(
        default=None, description="Whether it looks at a request's `references`; null where its header does not tell."
    )
    served: bool = Field(default=False, description="What a request gets that names no checkpoint.")
    words: list[str] = Field(default=[], description="What calls it up in a prompt, as notes beside its file say.")
    picture: str | None = Field(default=None, description="URL of a picture that lies beside its file.")


_SIDE, _MOST_PIXELS, _MOST_BYTES = 256, 50_000_000, 32 << 20  # of a model's picture
_WEBP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}, "description": "The picture."}
}


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelView]


def model_routes(config: ServeConfig) -> APIRouter:
    """Folders are read whenever they are asked for."""
    routes = APIRouter(tags=["models"], route_class=NativeRoute)

    @routes.get("/v1/models", responses=errors(422))
    async def models(
        kind: Annotated[Kind, Query(description="Which models.")] = "checkpoint",
    ) -> ModelList:
        """The models of one kind; checkpoints, unless it says otherwise."""
        return ModelList(data=await asyncio.to_thread(_LISTS[kind], KnownModels.of(config)))

    @routes.get("/v1/model-pictures", response_class=Response, responses={**_WEBP, **errors(404, 422)})
    async def picture(
        name: Annotated[str, Query(min_length=1, max_length=300, description="The model's `id`.")],
        kind: Annotated[Kind, Query(description="Which models.")] = "checkpoint",
    ) -> Response:
        """The picture that lies beside a model's file, small, as WebP."""
        data = await at_work(_small_picture, KnownModels.of(config), kind, name)
        return Response(data, media_type="image/webp", headers={"Cache-Control": "private, max-age=600"})

    @routes.get("/v1/models/{name:path}", responses=errors(404, 422))
    async def model(name: str) -> ModelView:
        """One checkpoint by any of its names."""
        found = await asyncio.to_thread(_one, KnownModels.of(config), name)
        if found is None:
            raise ApiError("not_found", f"name={name[:80]!r}: there is no such model; GET /v1/models lists them")
        return found

    return routes


def _one(models: KnownModels, name: str) -> ModelView | None:
    found = models.checkpoint(name)
    return None if found is None else _checkpoint(models, found)


def _checkpoints(models: KnownModels) -> list[ModelView]:
    return [_checkpoint(models, each) for each in models.checkpoints()]


def _checkpoint(models: KnownModels, file: CheckpointFile) -> ModelView:
    try:
        row = row_of(file.path, header_only=True)
    except Exception:  # its header alone does not tell, painting with it does; no file keeps the others from the list
        row = None
    told = {} if row is None else {"family": row.title, "usual": usual_of(row), "sees_pictures": row.sees_pictures}
    view = _view("checkpoint", file.name_for_extra, file.path, title=file.title)
    changes = {"hash": file.shorthash, **told, "served": file.path == models.served}
    return view.model_copy(update=changes)


def _loras(models: KnownModels) -> list[ModelView]:
    return [_view("lora", each.name, each.path, title=each.alias) for each in models.loras()]


def _hypernetworks(models: KnownModels) -> list[ModelView]:
    return [_view("hypernetwork", each.name, each.path) for each in models.hypernetworks()]


def _vaes(models: KnownModels) -> list[ModelView]:
    return [_view("vae", name, path) for name, path in models.vaes().items()]


def _embeddings(models: KnownModels) -> list[ModelView]:
    return [_view("embedding", each.name, each.path) for each in models.embeddings()]


def _controlnets(models: KnownModels) -> list[ModelView]:
    return [_view("controlnet", each.name, each.path) for each in models.controlnets()]


def _upscalers(models: KnownModels) -> list[ModelView]:
    return [_view("upscaler", each.name, each.path) for each in list_upscalers(models.settings)]


_CALLED_UP = ("lora", "embedding")
_PATHS: Mapping[Kind, Callable[[KnownModels], Iterable[tuple[str, Path | None]]]] = {
    "checkpoint": lambda models: [(each.name_for_extra, each.path) for each in models.checkpoints()],
    "lora": lambda models: [(each.name, each.path) for each in models.loras()],
    "vae": lambda models: models.vaes().items(),
    "embedding": lambda models: [(each.name, each.path) for each in models.embeddings()],
    "controlnet": lambda models: [(each.name, each.path) for each in models.controlnets()],
    "upscaler": lambda models: [(each.name, each.path) for each in list_upscalers(models.settings)],
    "hypernetwork": lambda models: [(each.name, each.path) for each in models.hypernetworks()],
}


def _small_picture(models: KnownModels, kind: Kind, name: str) -> bytes:
    path = next((path for each, path in _PATHS[kind](models) if each == name), None)
    place = None if path is None else picture_beside(path)
    if place is None:
        raise ApiError("not_found", f"name={name[:80]!r}: there is no picture beside a {kind} of this name", "name")
    if place.stat().st_size > _MOST_BYTES:
        raise ApiError("not_found", f"name={name[:80]!r}: the picture beside it is too large to be shown", "name")
    out = io.BytesIO()
    with open_picture(place.read_bytes(), max_pixels=_MOST_PIXELS) as opened:
        small = opened.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small.save(out, "WEBP", quality=80)
    return out.getvalue()


def _view(kind: Kind, name: str, path: Path | None, *, title: str | None = None) -> ModelView:
    try:
        created = 0 if path is None else int(path.stat().st_mtime)
    except OSError:  # it is gone meanwhile, or not made yet
        created = 0
    words = list(words_beside(path)) if path is not None and kind in _CALLED_UP else []
    has_picture = path is not None and picture_beside(path) is not None
    picture = f"/v1/model-pictures?kind={kind}&name={quote(name, safe='')}" if has_picture else None
    return ModelView(id=name, created=created, kind=kind, title=title or name, words=words, picture=picture)


_LISTS: Mapping[Kind, Callable[[KnownModels], list[ModelView]]] = {
    "checkpoint": _checkpoints,
    "lora": _loras,
    "vae": _vaes,
    "embedding": _embeddings,
    "controlnet": _controlnets,
    "upscaler": _upscalers,
    "hypernetwork": _hypernetworks,
}
