"""`overpaint paint`, `txt2img` and `again`: one request, painted and kept."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
from overpaint.cli.jobs import Files, Job, job_of, repeated_job
from overpaint.cli.options import (
    HIRES_OPTIONS,
    JOB_OPTIONS,
    NEW_PICTURE_OPTIONS,
    PROMPT_OPTION,
    REQUEST_OPTIONS,
    Asked,
    takes,
)
from overpaint.cli.output import Meter, note, say, say_json, warn
from overpaint.errors import PictureError

if TYPE_CHECKING:
    from overpaint.files.keeping import Origins, Painted, Target
    from overpaint.outcome import ModelIdentity, Processed
    from overpaint.request import Img2ImgRequest

STOPPED = 130

Mask = Annotated[Path | None, typer.Option("--mask", help="White, or opaque where it has alpha: repaint.")]
Out = Annotated[str | None, typer.Option("--output", "-o", help="File, or FOLDER/ (default: a new name here).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")]


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
    job = job_of(Files(picture, mask), prompt, asked)
    return perform(job, target, asked, as_json=as_json, quiet=quiet)


@takes(*NEW_PICTURE_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS)
def txt2img(
    *,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What it should show.", show_default=False)],
    output: Out = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: Asked,
) -> int:
    """Paint a new picture; options that begin with --hires ask for a second pass over it, enlarged."""
    target = choose_target(output, "txt2img.png", overwrite)
    return perform(job_of(Files(), prompt, asked), target, asked, as_json=as_json, quiet=quiet)


@takes(PROMPT_OPTION, *REQUEST_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS)
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

    Pictures of AUTOMATIC1111 have no recipe; then the infotext is used, and --picture names the source if it had one.
    """
    target = choose_target(output, f"{painted.stem}-again.png", overwrite)
    if not painted.is_file():
        raise PictureError(f"{painted}: there is no such file")
    job = repeated_job(painted, Files(picture, mask), asked)
    return perform(job, target, asked, as_json=as_json, quiet=quiet)


def choose_target(output: str | None, default: str, overwrite: bool) -> Target:
    """Refuse a place that cannot be used, before any work is done."""
    from overpaint.files import keeping

    return keeping.choose_target(output or "./", default, overwrite, "--output")


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
    warnings = _warnings(job, model, processed)
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


def _warnings(job: Job, model: ModelIdentity, processed: Processed | None) -> tuple[str, ...]:
    """Those of the job, and what is not as it was when the picture was first painted."""
    from overpaint.files.recipe import changed_networks, networks_of

    told = processed.warnings if processed is not None else ()
    if job.painted_with and model.hash and job.painted_with != model.hash:
        other = f"model: the picture was painted with {job.painted_with}, this is {model.name} [{model.hash}]"
        told = (*told, other)
    if job.networks and processed is not None:
        told = (*told, *changed_networks(job.networks, networks_of(processed, 0)))
    return told


def keep(processed: Processed, target: Target, origins: Origins) -> list[tuple[Path, Painted]]:
    """Write every finished picture; one that cannot be written leaves those before it where they are."""
    from overpaint.files.keeping import save_painted

    return list(save_painted(processed, target, origins))


def _account(path: Path, painted: Painted) -> dict[str, Any]:
    return {"path": str(path), "seed": painted.seed, "subseed": painted.subseed, "infotext": painted.infotext}


def _asked_for(request: Img2ImgRequest) -> int:
    return request.batch_size * request.iterations
