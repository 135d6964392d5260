"""`overpaint paint`, `txt2img` and `again`: one request, painted and kept."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
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
from overpaint.cli.terminal_pictures import Show, show_results
from overpaint.cli.told import is_stdin
from overpaint.cli.webui_told import refuse_webui_place, tell_webui
from overpaint.errors import PictureError, RequestError

if TYPE_CHECKING:
    from overpaint.files.keeping import KeptPicture, Origins, Target
    from overpaint.outcome import ModelIdentity, Processed
    from overpaint.request import PaintRequest

STOPPED = 130
STDOUT = "-"

Mask = Annotated[
    str | None,
    typer.Option(
        "--mask",
        help="A file (white, or opaque where it has alpha: repaint), or a mask in words, such as "
        "'ellipse 10,10,90,60 | feather 8'; `overpaint mask --help` has the words.",
    ),
]
StrengthMap = Annotated[
    str | None,
    typer.Option(
        "--strength-map", help="A gray file, or a mask in words: how much of --strength each place has; black stays."
    ),
]
Out = Annotated[
    str | None, typer.Option("--output", "-o", help="File, FOLDER/, or - for stdout (default: a new name here).")
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="png, tif, webp, bmp, jpg, avif or heic (default: by the name; else the source's, if it keeps every "
        "pixel; else png).",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Open = Annotated[bool, typer.Option("--open", help="Show what was painted.")]
_PROMPT = typer.Argument(metavar="PROMPT", help="What it should show; --prompt says the same.", show_default=False)
Prompt = Annotated[str, _PROMPT]
NewPrompt = Annotated[str | None, _PROMPT]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")]


@dataclass(frozen=True)
class Telling:
    """How much is told, and to whom."""

    as_json: bool = False
    quiet: bool = False
    show: bool = False  # open the pictures
    here: bool = False  # show them in the terminal

    @property
    def hushed(self) -> bool:
        return self.quiet or self.as_json

    def __post_init__(self) -> None:
        if self.here and self.as_json:
            raise RequestError("--show", None, "--json prints JSON and nothing else; leave out one of them")


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
        from overpaint.cli.sequence_commands import perform_again

        return perform_again(job, target, asked, Telling(as_json, quiet, show, here))
    return perform(job, target, asked, Telling(as_json, quiet, show, here))


def choose_target(
    output: str | None, stem: str, overwrite: bool, kind: str | None = None, source: Path | None = None
) -> Target:
    """Refuse a place or a format that cannot be used, before any work is done."""
    from overpaint.files import keeping
    from overpaint.files.formats import own_ending

    ending = ending_of(kind, stem)
    if output == STDOUT:
        return keeping.Target(Path(STDOUT), overwrite, ending or "png")
    named = Path(output).suffix.lower() if output and not keeping.is_folder(output) else ""
    if ending is not None and named and named != f".{ending}":
        raise RequestError("--format", kind, f"the name {output} says another one; leave out one of them")
    own = "png" if source is None or is_stdin(source) else own_ending(source)
    return keeping.choose_target(output or "./", f"{stem}.{ending or own}", overwrite, "--output")


def ending_of(kind: str | None, stem: str) -> str | None:
    """The format that was asked for, as files end in it."""
    from overpaint.files.keeping import check_format

    ending = None if kind is None else kind.lower().removeprefix(".")
    if ending is not None:
        check_format(f"{stem}.{ending}", "--format", kind)
    return ending


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
        for path, each in kept if not _is_stdout(target) else ():
            say(f"{path}  seed {each.seed}")
        if stopped:
            note(f"stopped; {len(kept)} of {_asked_for(job.request)} pictures were finished")
    show_results([each.image for _, each in kept] if telling.here else [], telling.quiet)
    for path, _ in kept if telling.show else ():
        typer.launch(str(path))
    return STOPPED if stopped else 0


def _check_stdout(job: CommandJob, target: Target, telling: Telling) -> None:
    if not _is_stdout(target):
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


def keep(processed: Processed, target: Target, origins: Origins) -> list[tuple[Path, KeptPicture]]:
    """Write every finished picture; one that cannot be written leaves those before it where they are."""
    from overpaint.files.keeping import finished_pictures, save_painted

    if _is_stdout(target):
        return [_poured(each, processed, target) for each in finished_pictures(processed)]
    return list(save_painted(processed, target, origins))


def lost_in_files(kept: list[tuple[Path, KeptPicture]], processed: Processed | None) -> tuple[str, ...]:
    """What the formats of the files do not hold."""
    from overpaint.files.keeping import lost_in

    files = [(each.image, path.name) for path, each in kept if str(path) != STDOUT]
    return tuple(told for image, name in files for told in lost_in(image, name, processed))


def _is_stdout(target: Target) -> bool:
    return str(target.path) == STDOUT


def _poured(painted: KeptPicture, processed: Processed, target: Target) -> tuple[Path, KeptPicture]:
    """To stdout, with its infotext and, in a PNG, its recipe."""
    from overpaint.files.keeping import files_of
    from overpaint.files.recipe import JobFiles

    *_, (_, data) = files_of(painted, processed, f"painted.{target.ending}", JobFiles())
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return target.path, painted


def _account(path: Path, painted: KeptPicture, processed: Processed | None) -> dict[str, Any]:
    told = {"path": str(path), "seed": painted.seed, "subseed": painted.subseed, "infotext": painted.infotext}
    return {**told, **(seam_told(processed, painted.index) or {})}


def seam_told(processed: Processed | None, index: int) -> dict[str, Any] | None:
    """How visible the mask's edge is in a picture, for JSON; None where nothing was inpainted."""
    seams = processed.seams if processed is not None else ()
    seam = seams[index] if index < len(seams) else None
    return None if seam is None else {"seam": vars(seam)}


def _asked_for(request: PaintRequest) -> int:
    return request.batch_size * request.iterations
