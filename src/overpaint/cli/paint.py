"""`overpaint paint`, `txt2img` and `again`: one request, painted and kept."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
from overpaint.cli.arguments import (
    STOPPED,
    AsJson,
    Kind,
    Mask,
    NewPrompt,
    Open,
    Out,
    Overwrite,
    Prompt,
    Quiet,
    StrengthMap,
    Telling,
)
from overpaint.cli.jobs import CommandJob, Files, job_of, repeated_job
from overpaint.cli.options import (
    HIRES_OPTIONS,
    JOB_OPTIONS,
    NEW_PICTURE_OPTIONS,
    PROMPT_OPTION,
    REQUEST_OPTIONS,
    GivenOptions,
    takes,
)
from overpaint.cli.output import Meter, note, say, say_json, warn
from overpaint.cli.results import choose_target, is_stdout, keep, lost_in_files, seam_told
from overpaint.cli.sequence_commands import perform_again
from overpaint.cli.terminal_pictures import Show, show_results
from overpaint.cli.told import is_stdin
from overpaint.cli.webui_told import refuse_webui_place, tell_webui
from overpaint.errors import PictureError, RequestError

if TYPE_CHECKING:
    from overpaint.files.keeping import KeptPicture, Target
    from overpaint.outcome import ModelIdentity, Processed
    from overpaint.request import PaintRequest


@takes(PROMPT_OPTION, *REQUEST_OPTIONS, *JOB_OPTIONS)
def paint(
    *,
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="The picture to paint over; - reads stdin.", show_default=False)
    ],
    text: Prompt = "",
    mask: Mask = None,
    strength_map: StrengthMap = None,
    output: Out = None,
    kind: Kind = None,
    overwrite: Overwrite = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Paint over a picture, or over the part of it that a mask shows."""
    refuse_webui_place(asked, output)
    stem = "painted" if is_stdin(picture) else f"{picture.stem}-painted"
    target = choose_target(output, stem, overwrite, kind, picture)
    job = job_of(Files(picture, mask, strength_map), text, asked)
    return perform(job, target, asked, Telling(as_json, quiet, show, here))


@takes(PROMPT_OPTION, *NEW_PICTURE_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS)
def txt2img(
    *,
    text: NewPrompt = None,
    output: Out = None,
    kind: Kind = None,
    overwrite: Overwrite = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Paint a new picture from a text.

    Options that begin with --hires ask for a second pass over it, enlarged.
    """
    if text is None and "prompt" not in asked.given:
        raise RequestError("PROMPT", None, "it is missing; `overpaint txt2img --help` shows how")
    refuse_webui_place(asked, output)
    target = choose_target(output, "txt2img", overwrite, kind)
    return perform(job_of(Files(), text or "", asked), target, asked, Telling(as_json, quiet, show, here))


@takes(PROMPT_OPTION, *REQUEST_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS)
def again(
    *,
    painted: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURE",
            help="A painted picture, its recipe (.json) or its infotext (.txt); - reads stdin.",
            show_default=False,
        ),
    ],
    text: Prompt = "",
    picture: Annotated[Path | None, typer.Option("--picture", help="The source, if it moved or changed.")] = None,
    mask: Mask = None,
    strength_map: StrengthMap = None,
    any_model: Annotated[bool, typer.Option("--any-model", help="With another model, if its own is not here.")] = False,
    output: Out = None,
    kind: Kind = None,
    overwrite: Overwrite = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Paint a picture again from its recipe, as it was or changed.

    The model it was painted with is looked for, by its hash, in the folder of --models.
    Pictures of AUTOMATIC1111 have no recipe; then the infotext is used, and --picture names the source if it had one.
    """
    refuse_webui_place(asked, output)
    stem = "again" if is_stdin(painted) else f"{painted.stem}-again"
    target = choose_target(output, stem, overwrite, kind, painted)
    if not (is_stdin(painted) or painted.exists()):
        raise PictureError(f"{painted}: there is no such file")
    asked = asked.with_prompt(text)
    job = repeated_job(painted, Files(picture, mask, strength_map), asked, any_model=any_model)
    if job.tool is not None:
        return perform_again(job, target, asked, Telling(as_json, quiet, show, here))
    return perform(job, target, asked, Telling(as_json, quiet, show, here))


def perform(job: CommandJob, target: Target, asked: GivenOptions, telling: Telling) -> int:
    """See whether the job holds, open the engine, paint, keep, and tell."""
    started = time.monotonic()
    _check_stdout(job, target, telling)
    asked = asked.with_model(job.model)
    session.check(job.request, job.settings, asked)
    tell_webui(asked, telling.hushed, options_count=not job.repeats, tab=job.tab)
    warn(job.notes, telling.hushed)
    with ExitStack() as stack:
        control = stack.enter_context(session.stoppable())
        meter = stack.enter_context(Meter(telling.hushed))
        painter = stack.enter_context(session.open_engine(asked, job.settings, session.loading(meter, control)))
        processed = session.run_job(painter, job.request, job.settings, meter, control)
        model = painter.model
    stopped = control.message is not None
    warnings = _warnings(job, model, processed)
    kept = keep(processed, target, job.origins) if processed is not None else []
    warnings += lost_in_files(kept, processed)
    if telling.as_json:
        pictures = [_account(path, each, processed) for path, each in kept]
        seconds = round(time.monotonic() - started, 3)
        account = {"name": model.name, "hash": model.hash}
        told = {"warnings": (*job.notes, *warnings), "stopped": stopped, "model": account, "seconds": seconds}
        say_json({"pictures": pictures, **told})
    else:
        warn(warnings, telling.quiet)
        for path, each in kept if not is_stdout(target) else ():
            say(f"{path}  seed {each.seed}")
        if stopped:
            note(f"stopped; {len(kept)} of {_asked_for(job.request)} pictures were finished")
    show_results([each.image for _, each in kept] if telling.here else [], telling.quiet)
    for path, _ in kept if telling.show else ():
        typer.launch(str(path))
    return STOPPED if stopped else 0


def _check_stdout(job: CommandJob, target: Target, telling: Telling) -> None:
    if not is_stdout(target):
        return
    if telling.as_json or telling.show or telling.here:
        flag = "--json" if telling.as_json else "--open" if telling.show else "--show"
        raise RequestError("--output", "-", f"the picture itself goes to stdout; leave out {flag}")
    if _asked_for(job.request) > 1:
        raise RequestError("--output", "-", f"one picture fits there, not {_asked_for(job.request)}; give a folder")


def _warnings(job: CommandJob, model: ModelIdentity, processed: Processed | None) -> tuple[str, ...]:
    """Those of the job, and what is not as it was when the picture was first painted."""
    from overpaint.files.recipe import changed_networks, networks_of

    told = processed.warnings if processed is not None else ()
    if job.painted_with and model.hash and job.painted_with != model.hash:
        other = f"model: the picture was painted with {job.painted_with}, this is {model.name} [{model.hash}]"
        told = (*told, other)
    if job.networks and processed is not None:
        told = (*told, *changed_networks(job.networks, networks_of(processed, 0)))
    return told


def _account(path: Path, painted: KeptPicture, processed: Processed | None) -> dict[str, Any]:
    told = {"path": str(path), "seed": painted.seed, "subseed": painted.subseed, "infotext": painted.infotext}
    return {**told, **(seam_told(processed, painted.index) or {})}


def _asked_for(request: PaintRequest) -> int:
    return request.batch_size * request.iterations
