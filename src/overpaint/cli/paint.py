"""`overpaint paint` and `overpaint again`: one request, painted and kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
from overpaint.cli.options import JOB_OPTIONS, PROMPT_OPTION, REQUEST_OPTIONS, Asked, takes
from overpaint.cli.output import Meter, note, say, say_json, warn
from overpaint.errors import PictureError, RequestError

if TYPE_CHECKING:
    from overpaint.keeping import Origins, Painted
    from overpaint.outcome import ModelIdentity, Processed
    from overpaint.recipe import Recipe
    from overpaint.request import Img2ImgRequest, Picture
    from overpaint.settings import Settings

STOPPED = 130

Mask = Annotated[Path | None, typer.Option("--mask", help="White, or opaque where it has alpha: repaint.")]
Out = Annotated[Path | None, typer.Option("--output", "-o", help="File or folder (default: a new name here).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")]


@dataclass(frozen=True)
class Job:
    """Everything that is decided before the engine is opened."""

    request: Img2ImgRequest
    settings: Settings
    origins: Origins
    painted_with: str = ""  # the hash of the model an earlier picture was painted with


@dataclass(frozen=True)
class Target:
    """Where the pictures go."""

    path: Path
    overwrite: bool  # otherwise a taken name gets a number


@takes(*REQUEST_OPTIONS, *JOB_OPTIONS)
def paint(
    *,
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to paint over.", show_default=False)],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What it should show.", show_default=False)] = "",
    mask: Mask = None,
    output: Out = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: Asked,
) -> int:
    """Paint over a picture, or over the part of it that a mask shows."""
    target = choose_target(output, f"{picture.stem}-painted.png", overwrite)
    job = job_of(picture, prompt, mask, asked)
    return perform(job, target, asked, as_json=as_json, quiet=quiet)


@takes(PROMPT_OPTION, *REQUEST_OPTIONS, *JOB_OPTIONS)
def again(
    *,
    painted: Annotated[Path, typer.Argument(metavar="PICTURE", help="A painted picture.", show_default=False)],
    picture: Annotated[Path | None, typer.Option("--picture", help="The source, if it moved or changed.")] = None,
    mask: Mask = None,
    output: Out = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: Asked,
) -> int:
    """Paint a picture again from its own recipe, as it was or with some options otherwise.

    Pictures of AUTOMATIC1111 have no recipe; then the infotext is used, and --picture names the source.
    """
    target = choose_target(output, f"{painted.stem}-again.png", overwrite)
    if not painted.is_file():
        raise PictureError(f"{painted}: there is no such file")
    job = repeated_job(painted, picture, mask, asked)
    return perform(job, target, asked, as_json=as_json, quiet=quiet)


def choose_target(output: Path | None, default: str, overwrite: bool) -> Target:
    """Refuse a place that cannot be used, before any work is done."""
    from overpaint.keeping import check_format

    if output is None or output.is_dir():
        return Target((output or Path()) / default, overwrite)
    check_format(output.name, "--output")
    if not output.parent.is_dir():
        raise RequestError("--output", str(output), "its folder does not exist; make it first")
    if output.exists() and not overwrite:
        raise RequestError("--output", str(output), "it exists; give --overwrite or another name")
    return Target(output, overwrite)


def job_of(picture: Path, prompt: str, mask: Path | None, asked: Asked) -> Job:
    """The request of `paint` and `plan`."""
    from overpaint.keeping import Origins
    from overpaint.request import Img2ImgRequest

    settings = asked.settings()
    values: dict[str, Any] = {"prompt": prompt, "images": [opened(picture, settings)]}
    if mask is not None:
        values["mask"] = opened(mask, settings)
    request = Img2ImgRequest.from_json({**values, **asked.fields()})
    return Job(request, settings, Origins(picture, {"mask": mask} if mask is not None else {}))


def opened(path: Path, settings: Settings) -> Picture:
    """A picture file, decoded; complaints name the file."""
    from overpaint.pictures import open_picture

    try:
        return open_picture(path, max_pixels=settings.max_source_pixels)
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from error


def repeated_job(painted: Path, picture: Path | None, mask: Path | None, asked: Asked) -> Job:
    """The request of `again`: from the recipe in or beside the picture, else from its infotext."""
    from overpaint.metadata import read_infotext, read_recipe
    from overpaint.recipe import Recipe

    values = read_recipe(painted)
    if values is not None:
        return _from_recipe(Recipe.from_json(values), painted, picture, mask, asked)
    text, _ = read_infotext(painted)
    if text is None:
        raise PictureError(f"{painted}: it holds neither a recipe nor an infotext; use `overpaint paint`")
    return _from_infotext(text, picture, mask, asked)


def _from_recipe(recipe: Recipe, painted: Path, picture: Path | None, mask: Path | None, asked: Asked) -> Job:
    from overpaint.keeping import Origins
    from overpaint.recipe import find_file, open_kept
    from overpaint.settings import Settings

    settings = asked.settings(recipe.settings_on(Settings()))
    near = (painted.parent, Path())
    if picture is None:
        if recipe.source is None:
            raise RequestError("--picture", None, "the recipe names no source file; give it")
        picture = find_file(recipe.source, "picture", near)
    kept = {name: getattr(recipe, name) for name in ("mask", "latent_mask")}
    masks = {name: open_kept(each, name, near, settings.max_source_pixels) for name, each in kept.items()}
    if mask is not None:
        masks["mask"] = opened(mask, settings)
    request = recipe.request_for(opened(picture, settings), masks, asked.fields())
    origins = Origins(picture, {"mask": mask} if mask is not None else {})
    return Job(request, settings, origins, recipe.model.hash)


def _from_infotext(text: str, picture: Path | None, mask: Path | None, asked: Asked) -> Job:
    """An infotext tells neither source nor mask, and of the reference's pictures expects the reference's ways."""
    from dataclasses import replace

    from overpaint.infotext import parse_infotext
    from overpaint.keeping import Origins
    from overpaint.pasting import option_overrides, request_fields
    from overpaint.request import Img2ImgRequest
    from overpaint.settings import Quirks, Settings

    if picture is None:
        raise RequestError(
            "--picture", None, "the picture has an infotext but no recipe; give the source it was made of"
        )
    parsed = parse_infotext(text)
    if mask is None and ("Mask blur" in parsed or parsed.get("Inpaint area") == "Only masked"):
        raise RequestError("--mask", None, "the infotext speaks of a mask but does not hold it; give it")
    is_reference = str(parsed.get("Version", "v")).startswith("v")
    site = replace(Settings(), quirks=Quirks.reference() if is_reference else Quirks.none())
    settings = asked.settings(site.with_changes(option_overrides(parsed, site)))
    fields: Mapping[str, Any] = {**request_fields(parsed), **asked.fields()}
    pictures = {"images": [opened(picture, settings)], "mask": None if mask is None else opened(mask, settings)}
    request = Img2ImgRequest.from_json({**fields, **pictures})
    return Job(request, settings, Origins(picture, {"mask": mask} if mask is not None else {}), _hash_in(parsed))


def _hash_in(parsed: Mapping[str, object]) -> str:
    return str(parsed.get("Model hash", ""))


def perform(job: Job, target: Target, asked: Asked, *, as_json: bool, quiet: bool) -> int:
    """Open the engine, paint, keep, and tell."""
    started = time.monotonic()
    with ExitStack() as stack:
        control = stack.enter_context(session.stoppable())
        meter = stack.enter_context(Meter(quiet or as_json))
        painter = stack.enter_context(session.open_engine(asked, job.settings, session.loading(meter, control)))
        processed = session.run_job(painter, job.request, job.settings, meter, control)
        model = painter.model
    stopped = control.message is not None
    other = _other_model(job, model)
    warnings = (*(processed.warnings if processed is not None else ()), *other)
    kept = keep(processed, target, job.origins) if processed is not None else []
    if as_json:
        pictures = [_account(path, each) for path, each in kept]
        seconds = round(time.monotonic() - started, 3)
        account = {"name": model.name, "hash": model.hash}
        say_json({"pictures": pictures, "warnings": warnings, "stopped": stopped, "model": account, "seconds": seconds})
    else:
        warn(warnings, quiet)
        for path, each in kept:
            say(f"{path}  seed {each.seed}")
        if stopped:
            note(f"stopped; {len(kept)} of {_asked_for(job.request)} pictures were finished")
    return STOPPED if stopped else 0


def _other_model(job: Job, model: ModelIdentity) -> tuple[str, ...]:
    known = bool(job.painted_with and model.hash)
    if not known or job.painted_with == model.hash:
        return ()
    return (f"model: the picture was painted with {job.painted_with}, this is {model.name} [{model.hash}]",)


def keep(processed: Processed, target: Target, origins: Origins) -> list[tuple[Path, Painted]]:
    """Write every finished picture; one that cannot be written leaves those before it where they are."""
    from overpaint.keeping import files_of, finished_pictures, name_for, numbered

    records = origins.records(target.path.parent)
    several = len(processed.plan.images) > 1
    kept = []
    for each in finished_pictures(processed):
        name = numbered(target.path.name, each.index + 1) if several else target.path.name
        name = name_for(each, name)
        *beside, (_, data) = files_of(each, processed, name, records)
        path = _written(target, name, data)
        _write_beside(path, [content for _, content in beside])
        kept.append((path, each))
    return kept


def _written(target: Target, name: str, data: bytes) -> Path:
    from overpaint.saving import save_bytes

    return save_bytes(target.path.parent / name, data, replace=target.overwrite)


def _write_beside(path: Path, recipes: list[bytes]) -> None:
    """The recipe of a format that cannot hold it, under the name the picture got in the end."""
    from overpaint.metadata import recipe_path
    from overpaint.saving import save_bytes

    for content in recipes:
        save_bytes(recipe_path(path), content, replace=True)


def _account(path: Path, painted: Painted) -> dict[str, Any]:
    return {"path": str(path), "seed": painted.seed, "subseed": painted.subseed, "infotext": painted.infotext}


def _asked_for(request: Img2ImgRequest) -> int:
    return request.batch_size * request.iterations
