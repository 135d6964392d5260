"""Options, flags, memory and the checkpoint in force (OPT-1 to OPT-4, CTRL-2). No answer holds a secret."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body

from overpaint.contract.options import reference_tables
from overpaint.errors import OverpaintError
from overpaint.models.families import SD1_SPEC
from overpaint.models.hashes import CheckpointFile
from overpaint.models.what_is import spec_of
from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.bodies import Table
from overpaint.service.doors.webui.errors import ReferenceRoute, Refusal
from overpaint.service.doors.webui.options_book import CHECKPOINT, OptionsBook
from overpaint.service.known_models import KnownModels
from overpaint.service.ports import Desk

Values = Annotated[Table, Body()]

_UNAVAILABLE: Mapping[str, str] = {"error": "unavailable"}


def option_routes(desk: Desk, config: ServeConfig, book: OptionsBook, models: KnownModels) -> APIRouter:
    """GET and POST /options, GET /cmd-flags and /memory, POST /unload-checkpoint and /reload-checkpoint."""
    routes = APIRouter(route_class=ReferenceRoute)
    changing = asyncio.Lock()

    @routes.get("/options")
    async def get_options() -> dict[str, Any]:
        return await asyncio.to_thread(book.values, models)

    @routes.post("/options")
    async def set_options(values: Values) -> None:
        async with changing:
            chosen = await asyncio.to_thread(_chosen, values, book, models)
            if chosen is not None:
                await desk.ask("load", {"checkpoint": str(chosen.path)})
                known = await asyncio.to_thread(models.checkpoint, chosen.name)  # its hash is known by now
                chosen = known or chosen
            await asyncio.to_thread(_set, values, chosen, book, models)

    @routes.get("/cmd-flags")
    async def cmd_flags() -> dict[str, Any]:
        return flags(config)

    @routes.get("/memory")
    async def memory() -> dict[str, Any]:
        told = await desk.ask("memory")
        return {name: (told or {}).get(name) or dict(_UNAVAILABLE) for name in ("ram", "cuda")}

    @routes.post("/unload-checkpoint")
    async def unload_checkpoint() -> dict[str, Any]:
        await desk.ask("unload")
        return {}

    @routes.post("/reload-checkpoint")
    async def reload_checkpoint() -> dict[str, Any]:
        current = await asyncio.to_thread(book.checkpoint_in_force, models)
        await desk.ask("load", {"checkpoint": str(current.path)})
        return {}

    return routes


def _chosen(values: Mapping[str, Any], book: OptionsBook, models: KnownModels) -> CheckpointFile | None:
    """OPT-2: the checkpoint that is asked for, if it is another one; an unknown one is refused before all else."""
    name = values.get(CHECKPOINT)
    if name is None:
        return None
    found = models.checkpoint(name) if isinstance(name, str) else None
    if found is None:
        raise Refusal(500, "RuntimeError", f"model {name!r} not found")
    return None if found.path == book.checkpoint_in_force(models).path else found


def _set(values: Mapping[str, Any], chosen: CheckpointFile | None, book: OptionsBook, models: KnownModels) -> None:
    file = chosen or book.checkpoint_in_force(models)
    try:
        spec = spec_of(file.path, header_only=True)
    except (OverpaintError, OSError):  # its header alone does not tell
        spec = SD1_SPEC
    book.set(values, None if chosen is None else chosen.title, spec)


def flags(config: ServeConfig) -> dict[str, Any]:
    """OPT-4: the reference's flags with what they are here. Tokens and passwords are not among them."""
    settings = config.settings
    folders = {
        "data_dir": str(config.data),
        "ckpt_dir": settings.models_dir,
        "vae_dir": settings.vae_dir,
        "lora_dir": settings.lora_dir,
        "embeddings_dir": settings.embeddings_dir,
        "hypernetwork_dir": settings.hypernetwork_dir,
        "esrgan_models_path": settings.esrgan_dir,
        "realesrgan_models_path": settings.realesrgan_dir,
        "swinir_models_path": settings.swinir_dir,
        "scunet_models_path": settings.scunet_dir,
        "dat_models_path": settings.dat_dir,
    }
    own = {
        "api": True,
        "nowebui": True,
        "ckpt": config.checkpoint,
        "styles_file": [settings.styles_file] if settings.styles_file else [],
        "listen": not config.is_loopback,
        "server_name": config.host,
        "port": config.port,
        "cors_allow_origins": ",".join(config.allowed_origins) or None,
        "api_auth": None,
        "gradio_auth": None,
        "gradio_auth_path": None,
    }
    return {**reference_tables()["flags"], **{name: path or None for name, path in folders.items()}, **own}
