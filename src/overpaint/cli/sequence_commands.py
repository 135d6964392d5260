"""`overpaint outpaint`, `enlarge`, `loopback` and `grid`: tools that paint more than once, or beyond a picture."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
from overpaint.cli.arguments import STOPPED, AsJson, Kind, Open, Out, Overwrite, Prompt, Quiet, Telling
from overpaint.cli.jobs import CommandJob, Files, job_of
from overpaint.cli.options import JOB_OPTIONS, PROMPT_OPTION, REQUEST_OPTIONS, GivenOptions, PaintOption, takes
from overpaint.cli.output import Meter, note, say, say_json, table, warn
from overpaint.cli.results import choose_target, ending_of, keep, lost_in_files, seam_told
from overpaint.cli.terminal_pictures import Show, show_results
from overpaint.cli.told import is_stdin
from overpaint.cli.webui_told import refuse_webui_place, tell_webui
from overpaint.errors import RequestError

if TYPE_CHECKING:
    from overpaint.files.keeping import Target
    from overpaint.outcome import Processed
    from overpaint.sequences.kept import KeptSteps
    from overpaint.sequences.story import PaintingSequence

PlanOnly = Annotated[bool, typer.Option("--plan", help="Show what would be painted, and paint nothing.")]
Picture = Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to begin with.", show_default=False)]
Folder = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder of the results (default: one named after the picture). After a crash "
        "the same command goes on where it stood.",
    ),
]
KindOfSteps = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="Of the results: png (default), tif, webp, bmp, jpg, avif or heic."
    ),
]
_MADE_HERE = ("only_masked", "padding", "fill", "invert_mask", "mask_blur", "round_mask", "soft", "resize")
_OPTIONS = tuple(each for each in REQUEST_OPTIONS if each.name not in _MADE_HERE)
_ONE = tuple(each for each in _OPTIONS if each.name not in ("count", "batch_size"))


def _options(strength: float) -> tuple[PaintOption, ...]:
    """Those of a tool that decides the size itself and has a strength of its own."""
    kept = (each for each in _ONE if each.name not in ("size", "seed_resize"))
    told = f"How much to change, 0 to 1 (default {strength:g})."
    return tuple(replace(each, help=told) if each.name == "strength" else each for each in kept)


@dataclass(frozen=True)
class ToolOrder:
    """A tool with its fields, and the job that it is made from."""

    kind: str
    tool: dict[str, Any]
    job: CommandJob
    asked: GivenOptions

    def sequence(self) -> PaintingSequence:
        from overpaint.sequences.forms import sequence_of, split_fields

        request = self.job.request
        _, defaults = split_fields(self.kind, {})
        if "strength" in defaults and "strength" not in self.asked.given and not self.job.repeats:
            request = request.with_changes(strength=defaults["strength"])
        given = {name: value for name, value in self.tool.items() if value is not None}
        return sequence_of(self.kind, given, request, self.job.settings)


_Told = tuple[Path, dict[str, Any] | None]
"""A file, and the seam of the picture in it."""


@dataclass(frozen=True)
class ToolPlace:
    """Where the results of a tool go, and in which format."""

    output: str | None
    kind: str | None = None
    overwrite: bool = False


@takes(PROMPT_OPTION, *_options(0.9), *JOB_OPTIONS)
def outpaint(
    *,
    picture: Picture,
    text: Prompt = "",
    left: Annotated[int | None, typer.Option(help="Pixels to add on the left.", show_default=False)] = None,
    top: Annotated[int | None, typer.Option(help="Pixels to add above.", show_default=False)] = None,
    right: Annotated[int | None, typer.Option(help="Pixels to add on the right.", show_default=False)] = None,
    bottom: Annotated[int | None, typer.Option(help="Pixels to add below.", show_default=False)] = None,
    to: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT of the result instead.")] = None,
    aspect: Annotated[str | None, typer.Option(help="Shape of the result instead, such as 16:9.")] = None,
    anchor: Annotated[
        str | None, typer.Option(help="Where the old picture is: center, left, top-right ... (default center).")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="What the new part starts from: noise, mirror or stretch (default noise).")
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Pixels of the old picture that are seen beside the new part (default: all).")
    ] = None,
    output: Out = None,
    kind: Kind = None,
    overwrite: Overwrite = False,
    only_plan: PlanOnly = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Let a picture grow: paint what lies beyond its edges.

    No pixel of the old picture changes. Checkpoints made for inpainting are used as such.
    """
    tool = {"left": left, "top": top, "right": right, "bottom": bottom, "to": to, "aspect": aspect}
    tool |= {"anchor": anchor, "start": start, "context": context}
    order = ToolOrder("outpaint", tool, job_of(Files(picture), text, asked), asked)
    place = ToolPlace(output, kind, overwrite)
    return _one(order, picture, "outpainted", place, only_plan, Telling(as_json, quiet, show, here))


@takes(PROMPT_OPTION, *_options(0.35), *JOB_OPTIONS)
def enlarge(
    *,
    picture: Picture,
    text: Prompt = "",
    scale: Annotated[float | None, typer.Option(help="How much larger it gets (default 2).")] = None,
    upscaler: Annotated[
        str | None, typer.Option(help="Lanczos, or one of `overpaint models --kind upscaler` (default Lanczos).")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Pixels a side of a tile (default: the model's own size).")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that tiles share (default: a quarter of one).")] = None,
    output: Out = None,
    kind: Kind = None,
    overwrite: Overwrite = False,
    only_plan: PlanOnly = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Make a picture larger and paint it over, in tiles that agree.

    The tiles are blended at every step, so that there are no seams; memory depends on the tile, not on the picture.
    """
    tool = {"scale": scale, "upscaler": upscaler, "tile": tile, "overlap": overlap}
    order = ToolOrder("enlarge", tool, job_of(Files(picture), text, asked), asked)
    place = ToolPlace(output, kind, overwrite)
    return _one(order, picture, "enlarged", place, only_plan, Telling(as_json, quiet, show, here))


@takes(PROMPT_OPTION, *_ONE, *JOB_OPTIONS)
def loopback(
    *,
    picture: Picture,
    text: Prompt = "",
    loops: Annotated[int | None, typer.Option(help="How often it is painted over (default 4).")] = None,
    final_strength: Annotated[float | None, typer.Option(help="The strength of the last loop (default 0.5).")] = None,
    curve: Annotated[
        str | None, typer.Option(help="How the strength gets there: linear, aggressive or lazy (default linear).")
    ] = None,
    output: Folder = None,
    kind: KindOfSteps = None,
    only_plan: PlanOnly = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Paint over a picture, then over the result, and so on.

    Every loop is kept, as loop-1.png, loop-2.png and so on.
    """
    tool = {"loops": loops, "final_strength": final_strength, "curve": curve}
    order = ToolOrder("loopback", tool, job_of(Files(picture), text, asked), asked)
    return _many(order, picture, ToolPlace(output, kind), only_plan, Telling(as_json, quiet, show, here), "loop", "")


@takes(PROMPT_OPTION, *_ONE, *JOB_OPTIONS)
def grid(
    *,
    picture: Picture,
    text: Prompt = "",
    x: Annotated[str | None, typer.Option("--x", help="FIELD=VALUE,VALUE across, such as steps=10,20,30.")] = None,
    y: Annotated[str | None, typer.Option("--y", help='The same down, such as "cfg_scale=3-9 (+3)".')] = None,
    z: Annotated[str | None, typer.Option("--z", help="The same as sheets side by side.")] = None,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Titles and a legend on the sheet.")] = True,
    margin: Annotated[int, typer.Option("--margin", help="Pixels between the cells.")] = 4,
    output: Folder = None,
    kind: KindOfSteps = None,
    only_plan: PlanOnly = False,
    show: Open = False,
    here: Show = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Paint the same job with other values along two or three axes.

    An axis is a field of the request (steps, cfg_scale, sampler, strength, seed, checkpoint, ...), an option,
    `lora NAME` for its weight, `replace` for words of the prompt (the first is replaced by each), `order`, or `size`.
    Cells of one checkpoint are painted together. The sheet is grid.png, the cells are cell-1.png and so on.
    """
    if not (x or y or z):
        raise RequestError("--x", None, "give at least one axis, such as --x steps=10,20,30")
    tool = {"x": x, "y": y, "z": z, "labels": labels, "margin": margin}
    order = ToolOrder("grid", tool, job_of(Files(picture), text, asked), asked)
    place = ToolPlace(output, kind)
    return _many(order, picture, place, only_plan, Telling(as_json, quiet, show, here), "cell", "grid")


def _one(order: ToolOrder, picture: Path, word: str, place: ToolPlace, only_plan: bool, telling: Telling) -> int:
    """A tool that comes to one picture."""
    sequence = _checked(order)
    if only_plan:
        return _show_plan(order, sequence, telling)
    refuse_webui_place(order.asked, place.output)
    stem = word if is_stdin(picture) else f"{picture.stem}-{word}"
    target = choose_target(place.output, stem, place.overwrite, place.kind, picture)
    return _to_file(order, sequence, target, telling)


def perform_again(job: CommandJob, target: Target, asked: GivenOptions, telling: Telling) -> int:
    """A picture that a tool painted, from its recipe."""
    tool = dict(job.tool or {})
    order = ToolOrder(str(tool.pop("kind", "")), tool, job, asked)
    return _to_file(order, _checked(order), target, telling)


def _to_file(order: ToolOrder, sequence: PaintingSequence, target: Target, telling: Telling) -> int:
    processed, _ = _run(order, sequence, telling)
    if processed is None or not processed.images:
        return STOPPED
    kept = keep(processed, target, order.job.origins)
    warn(lost_in_files(kept, processed), telling.hushed)
    _tell([(path, seam_told(processed, each.index)) for path, each in kept], processed, telling)
    return STOPPED if processed.stopped else 0


def _many(
    order: ToolOrder, picture: Path, place: ToolPlace, only_plan: bool, telling: Telling, name: str, sheet: str
) -> int:
    """A tool that keeps its pictures in a folder, and goes on there after a crash."""
    from overpaint.files.metadata import encode_picture, format_for
    from overpaint.files.saving import save_bytes
    from overpaint.sequences.kept import KeptSteps

    ending = ending_of(place.kind, name) or "png"
    sequence = _checked(order)
    if only_plan:
        return _show_plan(order, sequence, telling)
    refuse_webui_place(order.asked, place.output)
    stem = "painted" if is_stdin(picture) else picture.stem
    folder = Path(place.output or f"{stem}-{order.kind}")
    if folder.exists() and not folder.is_dir():
        raise RequestError("--output", str(folder), "it is a file; give a folder")
    kept = KeptSteps.opened(folder, sequence, order.job.settings, order.job.model or "", ending)
    processed, places = _run(order, kept.sequence, telling, kept, name, ending)
    if processed is None:
        return STOPPED
    if sheet and not processed.stopped and processed.index_of_first_image:
        text, quality = processed.infotexts[0], order.job.settings.jpeg_quality
        fits = format_for(processed.images[0], ending, text)
        data = encode_picture(processed.images[0], fits, infotext=text, quality=quality)
        places = [(save_bytes(folder / f"{sheet}.{fits}", data, replace=True), None), *places]
    if not processed.stopped:
        kept.finish()
    _tell(places, processed, telling)
    return STOPPED if processed.stopped else 0


def _checked(order: ToolOrder) -> PaintingSequence:
    """The sequence, seen to hold before torch is imported."""
    from overpaint.tools import check_sequence

    sequence = order.sequence()
    asked = order.asked.with_model(order.job.model)
    machine = {"device": asked.text("device", "auto"), "dtype": asked.text("dtype", "auto")}
    check_sequence(sequence, order.job.settings, order.job.model, **machine)
    return sequence


def _run(
    order: ToolOrder,
    sequence: PaintingSequence,
    telling: Telling,
    kept: KeptSteps | None = None,
    name: str = "",
    ending: str = "png",
) -> tuple[Processed | None, list[_Told]]:
    """Paint what is not painted yet; each finished step is kept at once."""
    from overpaint.events import Cancelled, Finished, Progress, Started, StepFinished
    from overpaint.sequences.running import run_sequence

    job, places = order.job, list[_Told]()
    asked = order.asked.with_model(job.model)
    tell_webui(asked, telling.hushed, options_count=not job.repeats, tab=job.tab)
    warn(job.notes, telling.hushed)
    with ExitStack() as stack:
        control = stack.enter_context(session.stoppable())
        meter = stack.enter_context(Meter(telling.hushed))
        engine: Any = stack.enter_context(session.open_engine(asked, job.settings, session.loading(meter, control)))
        done = () if kept is None else kept.done
        if done and not telling.hushed:
            note(f"{len(done)} of {len(sequence)} steps were painted before")
        for event in run_sequence(engine, sequence, job.settings, control, done):
            if isinstance(event, Started):
                warn(event.warnings, telling.hushed)
            elif isinstance(event, Progress):
                meter.update("painting", event.step, event.steps)
            elif isinstance(event, StepFinished) and kept is not None:
                written = kept.keep(event.number, event.result, job.origins, f"{name}-{event.number + 1}.{ending}")
                places += [(path, seam_told(event.result, i)) for i, path in enumerate(written)]
            elif isinstance(event, Finished | Cancelled):
                return event.result, places
    return None, places


def _tell(places: list[_Told], processed: Processed, telling: Telling) -> None:
    if telling.as_json:
        told = {"warnings": list(processed.warnings), "stopped": processed.stopped}
        say_json({"pictures": [{"path": str(path), **(seam or {})} for path, seam in places], **told})
    else:
        for path, _ in places:
            say(str(path))
        if processed.stopped:
            note("stopped; what was finished is kept")
    shown = processed.images[: processed.index_of_first_image or None]  # the sheet, where there is one
    show_results(shown if telling.here else [], telling.quiet)
    for path, _ in places[:1] if telling.show else ():
        typer.launch(str(path))


def _show_plan(order: ToolOrder, sequence: PaintingSequence, telling: Telling) -> int:
    """What each step would do, from folders and headers alone."""
    from overpaint.cli.surroundings import path_asked_for, surroundings_of
    from overpaint.models.companions import text_encoders_for
    from overpaint.models.what_is import spec_of
    from overpaint.planning.plan import plan
    from overpaint.planning.preflight import account_of, stand_in_upscalers

    settings = order.job.settings
    path = path_asked_for(order.asked.with_model(order.job.model), settings)
    spec = spec_of(path, text_encoders_for(path, settings.text_encoder_files))
    accounts = []
    for step in sequence.prepared(settings, stand_in_upscalers(settings)).outline():
        room = replace(settings, max_pixels_per_pass=max(settings.max_pixels_per_pass, _pixels(step.request)))
        known = surroundings_of(step.request, settings, path)
        accounts.append({"step": step.label, **account_of(plan(step.request, room, spec, known))})
    if telling.as_json:
        say_json({"kind": order.kind, "steps": accounts})
        return 0
    tell_webui(order.asked, telling.quiet, tab=order.job.tab)
    rows = [
        (i + 1, each["step"] or order.kind, "x".join(map(str, each["size"])), f"{each['steps']} steps", _share(each))
        for i, each in enumerate(accounts)
    ]
    say(table(rows, ("", "step", "size", "walk", "repainted")))
    warn(dict.fromkeys(text for each in accounts for text in each["warnings"]), telling.quiet)
    return 0


def _share(account: dict[str, Any]) -> str:
    return "" if account["repainted"] is None else f"{account['repainted']} %"


def _pixels(request: Any) -> int:
    return ((request.width or 0) + 64) * ((request.height or 0) + 64)
