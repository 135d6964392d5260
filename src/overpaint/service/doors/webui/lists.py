"""What there is to choose from (the listings of the reference's API). They show what works here, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import APIRouter

from overpaint.models.hashes import CheckpointFile
from overpaint.models.header import metadata_of
from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.service.doors.webui.errors import ReferenceRoute
from overpaint.service.doors.webui.options_book import OptionsBook
from overpaint.service.doors.webui.scripts import Script, scripts
from overpaint.service.doors.webui.upscalers import offered_upscalers, realesrgan_models
from overpaint.service.known_models import KnownModels
from overpaint.service.ports import Desk
from overpaint.text.styles import load_styles

_T = TypeVar("_T")
Item = dict[str, Any]

_LATENT_MODES = (
    *("Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)"),
    *("Latent (nearest)", "Latent (nearest-exact)"),
)
_NO_RHO = -1.0
_PATIENCE = 1.0  # seconds


def list_routes(desk: Desk, book: OptionsBook, models: KnownModels) -> APIRouter:
    """All of them are GET, and read folders in a thread."""
    routes = APIRouter(route_class=ReferenceRoute)
    latest: Mapping[str, Any] = {}

    def listing(path: str, items: Callable[[], _T]) -> None:
        async def listed() -> _T:
            return await asyncio.to_thread(items)

        routes.add_api_route(path, listed, name=path.strip("/").replace("-", "_"), response_model=None)

    listing("/samplers", samplers)
    listing("/schedulers", schedulers)
    listing("/sd-models", lambda: [_checkpoint(each) for each in models.checkpoints()])
    listing("/sd-vae", lambda: [{"model_name": name, "filename": str(path)} for name, path in models.vaes().items()])
    listing("/upscalers", lambda: _upscalers(book))
    listing("/latent-upscale-modes", lambda: [{"name": name} for name in _LATENT_MODES])
    listing("/hypernetworks", lambda: [{"name": each.name, "path": str(each.path)} for each in models.hypernetworks()])
    listing("/loras", lambda: _loras(models))
    listing("/face-restorers", list[Item])
    listing("/realesrgan-models", lambda: _realesrgan_models(book))
    listing("/extensions", list[Item])
    listing("/prompt-styles", lambda: _styles(book))
    listing("/scripts", lambda: _script_titles(models))
    listing("/script-info", lambda: _script_info(models, book))

    @routes.get("/embeddings")
    async def embeddings() -> dict[str, Any]:
        nonlocal latest
        with suppress(asyncio.TimeoutError):  # the worker answers between jobs; listings do not wait that long
            latest = await asyncio.wait_for(desk.ask("embeddings"), _PATIENCE) or {}
        return {name: dict(latest.get(name) or {}) for name in ("loaded", "skipped")}

    _add_refreshing(routes)
    return routes


def _add_refreshing(routes: APIRouter) -> None:
    """LIST-1: folders are read whenever they are asked for, so there is nothing to do."""

    async def refreshed() -> None:
        return None

    for what in ("checkpoints", "vae", "embeddings", "loras"):
        path = f"/refresh-{what}"
        routes.add_api_route(path, refreshed, methods=["POST"], name=path.strip("/").replace("-", "_"))


def samplers() -> list[Item]:
    return [{"name": each.name, "aliases": list(each.aliases), "options": each.options} for each in SAMPLERS]


def schedulers() -> list[Item]:
    return [
        {
            "name": each.name,
            "label": each.label,
            "aliases": list(each.aliases) or None,
            "default_rho": _NO_RHO if each.default_rho is None else each.default_rho,
            "need_inner_model": each.needs_model,
        }
        for each in SCHEDULERS
    ]


def _checkpoint(file: CheckpointFile) -> Item:
    sidecar = file.path.with_suffix(".yaml")
    return {
        "title": file.title,
        "model_name": file.model_name,
        "hash": file.shorthash,
        "sha256": file.sha256,
        "filename": str(file.path),
        "config": str(sidecar) if not file.is_folder and sidecar.is_file() else None,
    }


def _upscalers(book: OptionsBook) -> list[Item]:
    return [
        {
            "name": each.name,
            "model_name": each.name if each.path else None,
            "model_path": str(each.path) if each.path else None,
            "model_url": None,
            "scale": each.scale,
        }
        for each in offered_upscalers(book.base)
    ]


def _realesrgan_models(book: OptionsBook) -> list[Item]:
    found = realesrgan_models(book.base)
    return [{"name": each.name, "path": str(each.path), "scale": int(each.scale)} for each in found]


def _loras(models: KnownModels) -> list[Item]:
    return [
        {"name": each.name, "alias": each.alias, "path": str(each.path), "metadata": metadata_of(each.path)}
        for each in models.loras()
    ]


def _styles(book: OptionsBook) -> list[Item]:
    file = book.base.styles_file
    return [each._asdict() for each in load_styles(file)] if file else []


def _script_titles(models: KnownModels) -> dict[str, list[str]]:
    known = scripts(has_controlnets=models.has_controlnets)
    return {
        "txt2img": [each.title for each in known if not each.img2img_only],
        "img2img": [each.title for each in known],
    }


def _script_info(models: KnownModels, book: OptionsBook) -> list[Item]:
    checkpoints = [each.title for each in models.checkpoints()]
    upscalers = [each.name for each in offered_upscalers(book.base)]

    def known(*, is_img2img: bool) -> list[Item]:
        found = scripts(checkpoints, has_controlnets=models.has_controlnets, upscalers=upscalers, is_img2img=is_img2img)
        return [_script(each, is_img2img=is_img2img) for each in found if is_img2img or not each.img2img_only]

    return known(is_img2img=False) + known(is_img2img=True)


def _script(script: Script, *, is_img2img: bool) -> Item:
    args = [asdict(each) for each in script.arguments]
    return {"name": script.title, "is_alwayson": not script.selectable, "is_img2img": is_img2img, "args": args}
