"""From a job's result to files: each finished picture with its infotext, its recipe and what its source carried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from overpaint.errors import RequestError
from overpaint.files.kept_files import FileRecord
from overpaint.files.metadata import encode_picture, format_for, recipe_path, recipe_text
from overpaint.files.recipe import JobFiles, recipe_of
from overpaint.outcome import Processed
from overpaint.pictures import SourceExtras, source_extras
from overpaint.request import Picture

FORMATS = ("png", "jpg", "jpeg", "webp", "avif")


@dataclass(frozen=True)
class Painted:
    """One finished picture of a job."""

    index: int
    image: Picture
    infotext: str
    seed: int
    subseed: int


@dataclass(frozen=True)
class Origins:
    """The files a job's pictures came from, for its recipes."""

    source: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)  # by field: mask, latent_mask
    controls: Sequence[Path | None] = ()

    def records(self, beside: Path) -> JobFiles:
        """As a recipe keeps them."""

        def record(path: Path | None) -> FileRecord | None:
            return None if path is None else FileRecord.of(path, beside)

        masks = {name: record(path) for name, path in self.masks.items()}
        return JobFiles(source=record(self.source), controls=tuple(map(record, self.controls)), **masks)


def finished_pictures(processed: Processed) -> Iterator[Painted]:
    """The pictures themselves, without grids and mask outputs."""
    first = processed.index_of_first_image
    images, infotexts = processed.images[first:], processed.infotexts[first:]
    if not images:
        return
    stride = len(images) // len(infotexts)  # each picture may be followed by its masks
    planned = zip(processed.plan.images, images[::stride], infotexts, strict=False)
    for plan, image, infotext in planned:
        yield Painted(plan.index, image, infotext, plan.seed, plan.subseed)


def files_of(painted: Painted, processed: Processed, name: str, files: JobFiles) -> list[tuple[str, bytes]]:
    """The files to write for a picture of this name; the picture last, so that it never lacks a part."""
    settings = processed.plan.settings
    path = PurePosixPath(name)
    extras = _extras(painted, processed)
    wanted = settings.enable_pnginfo
    recipe = recipe_of(processed, painted.index, files).to_json() if wanted else None
    data = encode_picture(
        painted.image,
        path.suffix,
        infotext=painted.infotext if wanted else None,
        exif=extras.exif if extras else None,
        icc=extras.icc if extras else None,
        recipe=recipe,
        quality=settings.jpeg_quality,
        lossless=settings.webp_lossless,
    )
    if recipe is None or path.suffix.lower() == ".png":
        return [(name, data)]
    beside = path.with_name(recipe_path(Path(path.name)).name)
    return [(str(beside), recipe_text(recipe).encode()), (name, data)]


def _extras(painted: Painted, processed: Processed) -> SourceExtras | None:
    """Of the source of this picture, if it has one."""
    sources = processed.plan.request.images
    return source_extras(sources[painted.index % processed.batch_size % len(sources)]) if sources else None


def name_for(painted: Painted, name: str) -> str:
    """The name with the ending its format needs: a picture too large for JPEG becomes a PNG."""
    path = PurePosixPath(name)
    wished = path.suffix.lower().removeprefix(".")
    kept = format_for(painted.image, wished, painted.infotext)
    return name if kept == wished else str(path.with_suffix(f".{kept}"))


def check_format(name: str, argument: str = "output") -> None:
    """Refuse a name whose ending names no format, before any work is done."""
    suffix = PurePosixPath(name).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise RequestError(argument, name, f"give a name that ends in one of .{', .'.join(FORMATS)}")


def numbered(name: str, number: int) -> str:
    """a.png -> a-2.png."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
