"""What a job of the reference's door writes to disk: pictures, their by-products, the contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from overpaint.files.byproducts import wanted_byproducts
from overpaint.files.metadata import encode_picture
from overpaint.files.naming import NameFacts
from overpaint.files.saving import SavedPicture, save_bytes, save_picture
from overpaint.finish import FinishedPicture
from overpaint.outcome import FinishedBatch, Processed, contact_sheet, init_image_hash
from overpaint.request import Picture
from overpaint.settings import Settings

OutputKind: TypeAlias = Literal["img2img", "txt2img"]


def samples_folder(settings: Settings, kind: OutputKind) -> str:
    """Where the options want a job's pictures."""
    return settings.outdir_samples or str(getattr(settings, f"outdir_{kind}_samples"))


def grids_folder(settings: Settings, kind: OutputKind) -> str:
    """Where they want its contact sheet."""
    return settings.outdir_grids or str(getattr(settings, f"outdir_{kind}_grids"))


def _kind(result: Processed) -> OutputKind:
    return "img2img" if result.plan.canvases else "txt2img"


def save_batch(result: Processed, done: FinishedBatch, folder: str | None = None) -> tuple[SavedPicture, ...]:
    """OUT-5: the pictures of one iteration, into the options' folder unless another is given."""
    settings = result.plan.settings
    if not settings.samples_save or not (done.complete or settings.save_incomplete_images):
        return ()
    return tuple(_save_batch(result, done, Path(folder or samples_folder(settings, _kind(result)))))


def save_grid(result: Processed, folder: str | None = None) -> SavedPicture | None:
    """GRID-1: the contact sheet of a job that made several pictures."""
    settings, first = result.plan.settings, result.index_of_first_image
    sheet = result.images[0] if first else contact_sheet(result.plan, result.images)
    if sheet is None or not settings.grid_save:
        return None
    root = Path(folder or grids_folder(settings, _kind(result)))
    facts = name_facts(result, 0)
    return save_picture(sheet, result.infotexts[0], root, facts, settings, basename="grid", is_grid=True)


def save_sources(result: Processed) -> None:
    """IMG-1: a copy of every source, named by its hash; one that is there already stays."""
    settings = result.plan.settings
    if settings.save_init_img:
        save_source_pictures(result.plan.request.images, settings)


def save_source_pictures(pictures: Iterable[Picture], settings: Settings) -> None:
    """The same, whatever the option says."""
    for picture in pictures:
        path = Path(settings.outdir_init_images) / f"{init_image_hash(picture)}.png"
        if not path.exists():
            save_bytes(path, encode_picture(picture, "png"))


def _save_batch(result: Processed, done: FinishedBatch, root: Path) -> Iterator[SavedPicture]:
    settings = result.plan.settings
    for image, finished in zip(done.batch, done.pictures, strict=True):
        facts = name_facts(result, image.index)
        text = str(finished.image.info.get("parameters", "")) or None
        for picture, suffix in _outputs(finished, result):
            yield save_picture(picture, text, root, facts, settings, suffix=suffix)


def _outputs(finished: FinishedPicture, result: Processed) -> Iterator[tuple[Picture, str]]:
    """OUT-4, CC-5: a picture among its by-products, each with what its file's name ends with."""
    found = [(each, getattr(finished, each.attribute)) for each in wanted_byproducts(result.plan.settings)]
    yield from ((picture, each.suffix) for each, picture in found if picture is not None and each.comes_first)
    yield finished.image, ""
    yield from ((picture, each.suffix) for each, picture in found if picture is not None and not each.comes_first)


def name_facts(result: Processed, index: int) -> NameFacts:
    """What file name patterns may say about one picture."""
    plan, request = result.plan, result.plan.request
    image = plan.images[index]
    size = max(len(each) for each in plan.batches)
    return NameFacts(
        seed=image.seed,
        all_seeds=tuple(each.seed for each in plan.images),
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        width=plan.geometry.width,
        height=plan.geometry.height,
        styles=request.styles,
        sampler=plan.sampler.spec.name,
        scheduler=plan.sampler.scheduler,
        model_name=result.model.name,
        model_hash=result.model.hash,
        vae_name=result.model.vae_name or "",
        prompt=image.prompt,
        negative_prompt=image.negative_prompt,
        strength=plan.strength,
        clip_skip=plan.settings.CLIP_stop_at_last_layers,
        batch_index=index % size,
        batch_size=size,
        iteration=index // size,
        iterations=request.iterations,
        job_timestamp=result.job_timestamp,
    )
