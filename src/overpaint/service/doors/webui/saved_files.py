"""What of a job is saved under which name, and the saving of one of its files."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from overpaint.errors import SaveError
from overpaint.files.metadata import format_for
from overpaint.files.naming import NameFacts, subfolder, target_paths
from overpaint.files.output import OutputKind, grids_folder, samples_folder
from overpaint.files.saving import save_bytes, save_picture
from overpaint.request import Picture
from overpaint.service.byproducts import byproduct_file, wanted_byproducts
from overpaint.service.jobs import Record, ResultPicture
from overpaint.service.ports import Store
from overpaint.settings import Settings
from overpaint.text.infotext import split_infotext


@dataclass(frozen=True)
class Item:
    """One file that is to be saved."""

    store: Store
    job_id: str
    key: str  # its name among the job's files
    root: Path
    facts: NameFacts
    infotext: str
    suffix: str = ""
    is_grid: bool = False
    is_byproduct: bool = False

    @property
    def basename(self) -> str:
        return "grid" if self.is_grid else ""

    def opened(self) -> Picture:
        with Image.open(io.BytesIO(self.store.result_bytes(self.job_id, self.key))) as image:
            image.load()
            return image


def items_of(store: Store, record: Record, settings: Settings, kind: OutputKind) -> Iterator[Item]:
    """OUT-5, GRID-1: pictures of finished batches with what belongs to each, then the sheet."""
    facts = _Facts(record)
    pictures = [each for each in record.result.pictures if each.kind == "picture"]
    if settings.samples_save:
        root = Path(samples_folder(settings, kind))
        cut_short = set() if settings.save_incomplete_images else _cut_short(store, record)
        for index, picture in enumerate(pictures):
            if picture.file not in cut_short:
                yield from _picture_items(store, record.id, picture, root, facts.of(index, picture), settings)
    for picture in record.result.pictures:
        if picture.kind == "grid" and settings.grid_save:
            root = Path(grids_folder(settings, kind))
            yield Item(store, record.id, _name(picture), root, facts.of(0, picture), picture.infotext, is_grid=True)


def _picture_items(
    store: Store, job_id: str, picture: ResultPicture, root: Path, facts: NameFacts, settings: Settings
) -> Iterator[Item]:
    own = Item(store, job_id, _name(picture), root, facts, picture.infotext)
    beside: dict[bool, list[Item]] = {True: [], False: []}
    for each in wanted_byproducts(settings):
        name = byproduct_file(_name(picture), each)
        if store.has_result(job_id, name):
            item = replace(own, key=name, suffix=each.suffix, is_byproduct=True)
            beside[each.comes_first].append(item)
    yield from (*beside[True], own, *beside[False])


def _cut_short(store: Store, record: Record) -> set[str]:
    """The files of batches that were interrupted or skipped."""
    return {each.file for batch in store.batches(record.id) if not batch.complete for each in batch.pictures}


def _name(picture: ResultPicture) -> str:
    return picture.file.rpartition("/")[2]


def place_for(item: Item, settings: Settings) -> Path:
    """The first free name of the options' pattern."""
    with item.opened() as image:
        facts = item.facts
        if "image_hash" in (settings.samples_filename_pattern + settings.directories_filename_pattern).lower():
            facts = replace(facts, image_hash=hashlib.sha256(image.tobytes()).hexdigest())
        shown = item.infotext if settings.enable_pnginfo else None
        extension = format_for(image, settings.grid_format if item.is_grid else settings.samples_format, shown)
    folder = subfolder(item.root, facts, settings, is_grid=item.is_grid)
    naming = {"basename": item.basename, "suffix": item.suffix}
    targets = target_paths(folder, facts, settings, extension, **naming, is_grid=item.is_grid)
    free = (path for path in targets.paths if not path.exists() and not path.with_suffix(".txt").exists())
    if (path := next(free, None)) is None:
        raise SaveError(f"{folder}: no name is left for the picture; clear the folder or change the name pattern")
    return path


def save_at(path: Path, item: Item, settings: Settings, *, may_be_there: bool) -> None:
    """Save under a name that was chosen before. If that was by a server that was killed, the file may be there.

    NOTE: then only its text is looked after. The small copy of a very large picture (STORE-7) may be missing.
    """
    if may_be_there and path.exists():
        if settings.save_txt and item.infotext and not path.with_suffix(".txt").exists():
            save_bytes(path.with_suffix(".txt"), f"{item.infotext}\n".encode("utf-8", "replace"))
        return
    here = settings.with_changes({"save_to_dirs": False, "grid_save_to_dirs": False})
    with item.opened() as image:
        own = {} if item.is_byproduct else image.info
        save_picture(
            image,
            item.infotext or None,
            path.parent,
            item.facts,
            here,
            name=path.stem,
            is_grid=item.is_grid,
            exif=own.get("exif"),
            icc=own.get("icc_profile"),
        )


class _Facts:
    """What file name patterns may say about a job's pictures."""

    def __init__(self, record: Record) -> None:
        self._request = record.job.request
        self._info: Mapping[str, Any] = {}
        with suppress(ValueError):
            self._info = json.loads(record.result.info)

    def of(self, index: int, picture: ResultPicture) -> NameFacts:
        info = self._info
        size = max(int(info.get("batch_size") or 1), 1)
        fields = split_infotext(picture.infotext).fields
        return NameFacts(
            seed=picture.seed if picture.seed is not None else info.get("seed", 0),
            all_seeds=tuple(info.get("all_seeds") or ()),
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
            iterations=int(self._request.get("iterations") or 1),
            job_timestamp=str(info.get("job_timestamp", "0")),
        )


def _at(texts: Any, index: int) -> str:
    return str(texts[index]) if isinstance(texts, list) and index < len(texts) else ""
