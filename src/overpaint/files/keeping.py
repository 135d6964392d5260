"""From a job's result to files: each finished picture with its infotext, its recipe and what its source carried."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from overpaint.errors import RequestError
from overpaint.files.formats import losses
from overpaint.files.kept_files import FileRecord
from overpaint.files.metadata import format_for, picture_content, recipe_path, recipe_text, whole
from overpaint.files.recipe import JobFiles, recipe_of
from overpaint.files.saving import save_bytes
from overpaint.heic import REMEDY, can_write_heic
from overpaint.pictures import LOSSLESS, SourceExtras, source_extras
from overpaint.stores import AnyFile

if TYPE_CHECKING:
    from overpaint.outcome import Processed
    from overpaint.request import Picture
    from overpaint.settings import Settings

FORMATS = ("png", "jpg", "jpeg", "webp", "avif", "tif", "tiff", "bmp", "heic", "heif")


@dataclass(frozen=True)
class KeptPicture:
    """One finished picture of a job."""

    index: int
    image: Picture
    infotext: str
    seed: int
    subseed: int


@dataclass(frozen=True)
class Origins:
    """The files a job's pictures came from, for its recipes."""

    source: AnyFile | None = None
    masks: Mapping[str, AnyFile] = field(default_factory=dict)  # by field: mask, latent_mask, strength_map
    controls: Sequence[AnyFile | None] = ()
    references: Sequence[AnyFile | None] = ()

    def records(self, beside: AnyFile | None, settings: Settings) -> JobFiles:
        """As the recipe of a picture in this folder keeps them."""
        whole = settings.recipe_whole_paths

        def record(path: AnyFile | None) -> FileRecord | None:
            return None if path is None or not path.is_file() else FileRecord.of(path, beside, whole=whole)

        masks = {name: record(path) for name, path in self.masks.items()}
        controls, references = (tuple(map(record, each)) for each in (self.controls, self.references))
        return JobFiles(source=record(self.source), controls=controls, references=references, **masks)


def finished_pictures(processed: Processed) -> Iterator[KeptPicture]:
    """The pictures themselves, without grids and mask outputs."""
    first = processed.index_of_first_image
    images, infotexts = processed.images[first:], processed.infotexts[first:]
    if not images:
        return
    stride = len(images) // len(infotexts)  # each picture may be followed by its masks
    planned = zip(processed.plan.images, images[::stride], infotexts, strict=False)
    for plan, image, infotext in planned:
        yield KeptPicture(plan.index, image, infotext, plan.seed, plan.subseed)


def files_of(painted: KeptPicture, processed: Processed, name: str, files: JobFiles) -> list[tuple[str, bytes]]:
    """The files to write for a picture of this name; the picture last, so that it never lacks a part."""
    contents = contents_of(painted, processed, files)
    data = whole(picture_content(painted.image, PurePosixPath(name).suffix, contents))
    return [*_beside(name, contents["recipe"]), (name, data)]


def _beside(name: str, recipe: Mapping[str, object] | None) -> list[tuple[str, bytes]]:
    """The recipe's own file, where the format of the picture has no place for it."""
    if recipe is None:
        return []
    return [(each, recipe_text(recipe).encode()) for each in with_recipe(name)[1:]]


def with_recipe(name: str) -> tuple[str, ...]:
    """The name of a picture, and that of its recipe where its format has no place for one."""
    path = PurePosixPath(name)
    if path.suffix.lower() == ".png":
        return (name,)
    return name, str(path.with_name(recipe_path(Path(path.name)).name))


def contents_of(painted: KeptPicture, processed: Processed, files: JobFiles) -> dict[str, Any]:
    """What goes into a picture's file besides its pixels, and how they are packed, as `encode_picture` takes it."""
    settings = processed.plan.settings
    extras = _extras(painted, processed)
    wanted = settings.enable_pnginfo
    return {
        "infotext": painted.infotext if wanted else None,
        **(extras or SourceExtras(None, None, "")).beside,
        "recipe": recipe_of(processed, painted.index, files).to_json() if wanted else None,
        "quality": settings.jpeg_quality,
        "lossless": settings.webp_lossless or (extras is not None and extras.lossless),
        "background": settings.img2img_background_color,
    }


def lost_in(image: Picture, name: str, processed: Processed | None = None) -> tuple[str, ...]:
    """What to know about a picture of a job that is written under this name."""
    if processed is None:
        return tuple(losses(image, name))
    request, settings = processed.plan.request, processed.plan.settings
    lossless = settings.webp_lossless or any(each.info.get(LOSSLESS) is True for each in (image, *request.images))
    return tuple(losses(image, name, is_masked=request.mask is not None, lossless=lossless))


def _extras(painted: KeptPicture, processed: Processed) -> SourceExtras | None:
    """What the picture carries, and what its source has beyond that: the reference's way hands nothing on."""
    sources = processed.plan.request.images
    if not sources:
        return None
    own, given = (
        source_extras(each) for each in (painted.image, sources[painted.index % processed.batch_size % len(sources)])
    )
    carried = {name: value for name, value in own.beside.items() if value is not None}
    return replace(given, **carried, lossless=own.lossless or given.lossless)


def name_for(painted: KeptPicture, name: str) -> str:
    """The name with the ending its format needs: a picture too large for JPEG becomes a PNG."""
    path = PurePosixPath(name)
    wished = path.suffix.lower().removeprefix(".")
    kept = format_for(painted.image, wished, painted.infotext)
    return name if kept == wished else str(path.with_suffix(f".{kept}"))


def check_format(name: str, argument: str = "output", ending: str | None = None) -> None:
    """Refuse a name whose ending names no format, before any work is done; the ending may have been given alone."""
    suffix = PurePosixPath(name).suffix.lower().removeprefix(".")
    if suffix not in FORMATS and ending is not None:
        raise RequestError(argument, ending, f"choose one of {', '.join(FORMATS)}")
    if suffix not in FORMATS:
        raise RequestError(argument, name, f"give a name that ends in one of .{', .'.join(FORMATS)}")
    if suffix in ("heic", "heif") and not can_write_heic():
        raise RequestError(argument, ending or name, f"to write HEIC the extra overpaint[heic] is needed; {REMEDY}")


def numbered(name: str, number: int) -> str:
    """a.png -> a-2.png."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


@dataclass(frozen=True)
class Target:
    """Where pictures go."""

    path: Path
    overwrite: bool  # otherwise a taken name gets a number
    ending: str = "png"  # the format, where a stream has no name


def is_folder(place: str | os.PathLike[str]) -> bool:
    """A place that ends in a slash is a folder, and is made if it is not there."""
    return os.fspath(place).endswith(("/", os.sep)) or Path(place).is_dir()


def choose_target(place: str | os.PathLike[str], default: str, overwrite: bool, argument: str = "path") -> Target:
    """Refuse a place that cannot be used, before any work is done; in a folder a taken name gets a number."""
    path = Path(place)
    if is_folder(place):
        return Target(path / default, overwrite)
    check_format(path.name, argument)
    if not path.parent.is_dir():
        raise RequestError(argument, str(path), "its folder does not exist; make it first, or end the path in a slash")
    if path.exists() and not overwrite:
        remedy = (
            "give --overwrite or another name" if argument.startswith("-") else "give overwrite=True or another name"
        )
        raise RequestError(argument, str(path), f"it exists; {remedy}")
    return Target(path, overwrite)


def save_painted(processed: Processed, target: Target, origins: Origins) -> Iterator[tuple[Path, KeptPicture]]:
    """Write every finished picture; one that cannot be written leaves those before it where they are."""
    records = origins.records(target.path.parent, processed.plan.settings)
    several = len(processed.plan.images) > 1
    for each in finished_pictures(processed):
        name = numbered(target.path.name, each.index + 1) if several else target.path.name
        yield save_one(each, processed, replace(target, path=target.path.with_name(name)), records), each


def save_one(painted: KeptPicture, processed: Processed, target: Target, records: JobFiles) -> Path:
    """Write a picture, and beside it the recipe if its format holds none; returns where it is."""
    name = name_for(painted, target.path.name)
    contents = contents_of(painted, processed, records)
    data = picture_content(painted.image, PurePosixPath(name).suffix, contents)
    path = save_bytes(target.path.with_name(name), data, replace=target.overwrite)
    for _, content in _beside(name, contents["recipe"]):
        save_bytes(recipe_path(path), content, replace=True)
    return path
