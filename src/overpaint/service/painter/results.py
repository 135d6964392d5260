"""What a job makes as files, and finished batches built up again from them.

A batch is kept whole before anybody hears of it. Painting it again gives the same bytes, so that it does not matter
whether a crash came before or after its files were written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from overpaint.errors import PictureError
from overpaint.extras import LARGEST_RESULT
from overpaint.files.formats import KINDS, MEDIA_TYPES, format_of, losses
from overpaint.files.metadata import format_for, picture_content
from overpaint.files.recipe import recipe_of
from overpaint.files.saving import OWNER, save_bytes
from overpaint.finish import FinishedPicture
from overpaint.outcome import FinishedBatch, ModelIdentity, Processed, account, gets_sheet, returned_masks
from overpaint.pictures import LOSSLESS, SourceExtras, open_picture, source_extras
from overpaint.pixels.seams import Seam
from overpaint.planning.plans import Plan
from overpaint.request import Picture
from overpaint.service.byproducts import byproduct_file, keep_byproducts, wanted_byproducts
from overpaint.service.jobs import DoneBatch, JobResult, ResultPicture
from overpaint.settings import Settings

_Kind = Literal["picture", "mask", "grid", "control"]


@dataclass(frozen=True)
class Output:
    """One picture to be kept, and what is known of it."""

    image: Picture
    infotext: str = ""
    kind: _Kind = "picture"
    seed: int | None = None
    items: Mapping[str, str] | None = None
    extras: SourceExtras | None = None
    recipe: Mapping[str, Any] | None = None
    seam: Seam | None = None


def keep(folder: Path, number: int, output: Output, settings: Settings) -> ResultPicture:
    """Write a picture, whole or not at all, in the place of one that is there already."""
    text = output.infotext or None
    shown = text if settings.enable_pnginfo else None
    extension = format_for(output.image, settings.samples_format, shown)
    contents = {
        "infotext": shown,
        "items": output.items if settings.enable_pnginfo else None,
        **(output.extras or SourceExtras(None, None, "")).beside,
        "recipe": output.recipe if settings.enable_pnginfo else None,
        "quality": settings.jpeg_quality,
        "lossless": _is_lossless(output.image, settings),
        "background": None if settings.quirks.drop_source_extras else settings.img2img_background_color,
    }
    data = picture_content(output.image, extension, contents)
    path = save_bytes(folder / f"{number}.{extension}", data, replace=True, mode=OWNER)
    return ResultPicture(
        number=number,
        file=path.name,
        infotext=output.infotext,
        kind=output.kind,
        media_type=MEDIA_TYPES[KINDS[extension]],
        seed=output.seed,
        width=output.image.width,
        height=output.image.height,
        seam=None if output.seam is None else asdict(output.seam),
    )


def _is_lossless(image: Picture, settings: Settings) -> bool:
    return settings.webp_lossless or image.info.get(LOSSLESS) is True


def _lost(batch: FinishedBatch, plan: Plan) -> tuple[str, ...]:
    """What the format of the files does not hold of these pictures; the reference does not say so."""
    settings = plan.settings
    if settings.quirks.drop_source_extras:
        return ()
    kind, is_masked = settings.samples_format, plan.request.mask is not None

    def of(image: Picture) -> Iterator[str]:
        lossless = _is_lossless(image, settings)
        return losses(image, kind, is_masked=is_masked, lossless=lossless, name=f"samples_format={kind}")

    return tuple(dict.fromkeys(told for each in batch.pictures for told in of(each.image)))


def clear_unfinished(folder: Path) -> None:
    """Take away what a process that was killed had begun to write."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            path.unlink()


class JobResults:
    """The batches of one painting job, as values and as files."""

    def __init__(self, plan: Plan, folder: Path, done: Sequence[DoneBatch]) -> None:
        self.plan, self.folder = plan, folder
        self.kept: list[DoneBatch] = []
        self.finished: list[FinishedBatch] = []
        folder.mkdir(parents=True, exist_ok=True)
        clear_unfinished(folder)
        for batch in sorted(done, key=lambda each: each.number) if _can_go_on(plan) else ():
            again = _rebuilt(plan, batch, folder) if batch.number == len(self.kept) else None
            if again is None:  # it is painted again, and so is what follows
                break
            self.kept.append(batch)
            self.finished.append(again)

    def add(self, batch: FinishedBatch, model: ModelIdentity) -> DoneBatch:
        """Keep a batch that was just finished."""
        batch = replace(batch, warnings=(*batch.warnings, *_lost(batch, self.plan)))
        self.finished.append(batch)
        told = account(_without_grid(self.plan), model, self.finished)
        first = _grid_comes(self.plan) + sum(len(each.pictures) for each in self.kept)
        outputs = _outputs(told, batch)
        settings = self.plan.settings
        pictures = tuple(keep(self.folder, first + i, each, settings) for i, each in enumerate(outputs))
        of_each = (each.file for each in pictures if each.kind == "picture")
        for file, finished in zip(of_each, batch.pictures, strict=True):
            keep_byproducts(self.folder, file, vars(finished), settings)
        number = len(self.kept)
        notes = dict(batch.notes)
        done = DoneBatch(
            number=number,
            pictures=pictures,
            notes=notes,
            complete=batch.complete,
            comments=tuple(batch.comments),
            warnings=tuple(batch.warnings),
        )
        self.kept.append(done)
        return done

    def result(self, processed: Processed, warnings: Sequence[str] = ()) -> JobResult:
        """The job's result; its files are all there when this returns."""
        pictures = [each for batch in self.kept for each in batch.pictures]
        if processed.index_of_first_image:
            sheet = Output(processed.images[0], processed.infotexts[0], "grid")
            pictures.insert(0, keep(self.folder, 0, sheet, self.plan.settings))
        first = len(pictures) + 1  # a name that is free, whether a sheet was expected or not
        maps = (Output(each, kind="control") for each in processed.control_maps)
        pictures += [keep(self.folder, first + i, each, self.plan.settings) for i, each in enumerate(maps)]
        return JobResult(
            pictures=tuple(replace(each, number=i) for i, each in enumerate(pictures)),
            infotexts=processed.infotexts,
            info=processed.js(),
            warnings=tuple(dict.fromkeys((*processed.warnings, *self._warnings(), *warnings))),
            comments=processed.comments,
            stopped=processed.stopped,
            model=model_values(processed.model),
        )

    def _warnings(self) -> Iterator[str]:
        return (warning for batch in self.kept for warning in batch.warnings)


def model_values(model: ModelIdentity) -> dict[str, Any]:
    return {"name": model.name, "hash": model.hash, "vae_name": model.vae_name, "vae_hash": model.vae_hash}


def _can_go_on(plan: Plan) -> bool:
    """A sheet of all pictures needs every pixel as it was, and what only hands its source back is quickly done anew."""
    return (keeps_every_pixel(plan.settings) or not _grid_comes(plan)) and plan.unchanged is None


def keeps_every_pixel(settings: Settings) -> bool:
    """Whether what is read back from a kept file is what was painted."""
    return format_of(f".{settings.samples_format}").keeps == "every pixel"


def _grid_comes(plan: Plan) -> bool:
    """Whether the result's first place will be a contact sheet's."""
    count = len(plan.images) * (1 + len(returned_masks(plan)))
    return plan.settings.return_grid and gets_sheet(plan, count)


def _without_grid(plan: Plan) -> Plan:
    return replace(plan, settings=replace(plan.settings, return_grid=False))


def _outputs(processed: Processed, batch: FinishedBatch) -> Iterator[Output]:
    plan, texts = processed.plan, processed.infotexts[-len(batch.batch) :]
    for image, finished, text in zip(batch.batch, batch.pictures, texts, strict=True):
        # An infotext does not hold what a ControlNet followed.
        recipe = recipe_of(processed, image.index).to_json() if plan.controls or plan.references else None
        extras, seam = source_extras(finished.image), finished.seam
        yield Output(finished.image, text, seed=image.seed, extras=extras, recipe=recipe, seam=seam)
        found = (getattr(finished, name) for name in returned_masks(plan))
        yield from (Output(each, kind="mask") for each in found if each is not None)


def _rebuilt(plan: Plan, done: DoneBatch, folder: Path) -> FinishedBatch | None:
    """The batch that was kept; None where its files are not what they should be."""
    if done.number >= len(plan.batches):
        return None
    batch, names = plan.batches[done.number], ("image", *returned_masks(plan))
    if len(done.pictures) != len(batch) * len(names):
        return None
    if not all(each.is_file() for each in _byproduct_files(plan, done, folder)):
        return None
    try:
        images = [read_kept(folder / each.file) for each in done.pictures]
    except (OSError, PictureError):
        return None
    groups = (images[i : i + len(names)] for i in range(0, len(images), len(names)))
    fields: list[dict[str, Any]] = [dict(zip(names, group, strict=True)) for group in groups]
    seams = [None if each.seam is None else Seam(**each.seam) for each in done.pictures if each.kind == "picture"]
    pictures = tuple(FinishedPicture(**each, seam=seam) for each, seam in zip(fields, seams, strict=True))
    return FinishedBatch(batch, pictures, dict(done.notes), done.complete, done.comments, done.warnings)


def _byproduct_files(plan: Plan, done: DoneBatch, folder: Path) -> Iterator[Path]:
    """What was kept beside the pictures: a store that cleans up after a crash may not know of it."""
    is_there = {"uncorrected": any(each.has_target for each in plan.canvases)}
    for kind in wanted_byproducts(plan.settings):
        if is_there.get(kind.attribute, plan.mask is not None):
            names = (each.file for each in done.pictures if each.kind == "picture")
            yield from (folder / byproduct_file(name, kind) for name in names)


def read_kept(path: Path) -> Picture:
    """A kept picture with all of its bits."""
    return open_picture(path.read_bytes(), max_pixels=LARGEST_RESULT)
