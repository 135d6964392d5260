"""`save_images` (I2I-2, OUT-5, GRID-1): finished pictures copied to where the options want them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from overpaint.infotext import split_infotext
from overpaint.naming import NameFacts
from overpaint.saving import SavedPicture, save_picture
from overpaint.service.jobs import JobResult, Json, ResultPicture
from overpaint.settings import Settings

Found = Sequence[tuple[ResultPicture, bytes]]


def save_result(result: JobResult, found: Found, request: Json, settings: Settings, kind: str) -> list[SavedPicture]:
    """Every picture, and the sheet, below the folders of the options."""
    info = json.loads(result.info)
    saved: list[SavedPicture] = []
    index = 0
    for picture, data in found:
        if picture.kind == "grid" and settings.grid_save:
            root = settings.outdir_grids or getattr(settings, f"outdir_{kind}_grids")
            saved.append(_saved(picture, data, Path(root), _facts(info, request, 0, picture), settings))
        if picture.kind == "picture":
            if settings.samples_save and (not result.stopped or settings.save_incomplete_images):
                root = settings.outdir_samples or getattr(settings, f"outdir_{kind}_samples")
                saved.append(_saved(picture, data, Path(root), _facts(info, request, index, picture), settings))
            index += 1
    return saved


def _saved(picture: ResultPicture, data: bytes, root: Path, facts: NameFacts, settings: Settings) -> SavedPicture:
    is_grid = picture.kind == "grid"
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return save_picture(
            image,
            picture.infotext or None,
            root,
            facts,
            settings,
            basename="grid" if is_grid else "",
            is_grid=is_grid,
            exif=image.info.get("exif"),
            icc=image.info.get("icc_profile"),
        )


def _facts(info: Mapping[str, Any], request: Json, index: int, picture: ResultPicture) -> NameFacts:
    size = max(int(info.get("batch_size") or 1), 1)
    seeds = tuple(info.get("all_seeds") or ())
    fields = split_infotext(picture.infotext).fields
    return NameFacts(
        seed=picture.seed if picture.seed is not None else info.get("seed", 0),
        all_seeds=seeds,
        steps=info.get("steps", 0),
        cfg_scale=info.get("cfg_scale", 0),
        width=info.get("width", 0),
        height=info.get("height", 0),
        styles=tuple(info.get("styles") or ()),
        sampler=info.get("sampler_name") or "",
        scheduler=fields.get("Schedule type", ""),
        model_name=info.get("sd_model_name") or "",
        model_hash=info.get("sd_model_hash") or "",
        vae_name=info.get("sd_vae_name") or "",
        prompt=_at(info.get("all_prompts"), index),
        negative_prompt=_at(info.get("all_negative_prompts"), index),
        strength=info.get("denoising_strength"),
        clip_skip=info.get("clip_skip") or 1,
        batch_index=index % size,
        batch_size=size,
        iteration=index // size,
        iterations=int(request.get("iterations") or 1),
        job_timestamp=str(info.get("job_timestamp", "0")),
    )


def _at(texts: Any, index: int) -> str:
    return str(texts[index]) if isinstance(texts, list) and index < len(texts) else ""
