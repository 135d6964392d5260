"""`overpaint bench`: how fast your model is on this machine, and what steps that do less cost."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from overpaint.cli import session
from overpaint.cli.arguments import AsJson, Open, Overwrite, Quiet
from overpaint.cli.options import JOB_OPTIONS, GivenOptions, takes
from overpaint.cli.output import Meter, say, say_json, table
from overpaint.cli.results import choose_target
from overpaint.errors import PaintingCancelled as StoppedBench
from overpaint.errors import RequestError
from overpaint.events import Control, Finished
from overpaint.machine import peak_memory

if TYPE_CHECKING:
    from overpaint.bench import BenchJob, Measured
    from overpaint.files.keeping import Target
    from overpaint.request import PaintRequest
    from overpaint.settings import Settings

_OPTIONS = tuple(each for each in JOB_OPTIONS if each.name != "quality")
_MOST_ROUNDS, _MOST_STEPS = 100, 150
_SIDES = (64, 2048)


@takes(*_OPTIONS)
def bench(
    *,
    quality: Annotated[
        bool, typer.Option("--quality", help="Also how like the exact pictures those of faster steps are.")
    ] = False,
    size: Annotated[
        int | None, typer.Option("--size", help="Pixels a side (default: what the model was made for).")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Of each job, at strength 0.75.")] = 20,
    rounds: Annotated[int, typer.Option("--rounds", help="How often each job is painted; the medians count.")] = 3,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="PNG file for the chart; without it there is none.")
    ] = None,
    overwrite: Overwrite = False,
    show: Open = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Measure how fast your model paints on this machine.

    Jobs that leave something out stand beside the exact one, and one whose picture and texts are known from the job
    before. They take turns, so that what else the machine does hits all of them.

    PSNR is in decibels (above 40 nobody sees a difference); SSIM is 1 for equal pictures.
    """
    target = _checked(size, steps, rounds, output, show, overwrite)
    settings = asked.settings()
    job = _job(size, steps, asked, settings)
    settings = settings.with_changes({"encodings_memory": 0.0})  # each job does all of its work
    session.check(job.request(0, {}), settings, asked)
    with ExitStack() as stack:
        control = stack.enter_context(session.stoppable())
        meter = stack.enter_context(Meter(quiet or as_json))
        started = time.perf_counter()
        engine = stack.enter_context(session.open_engine(asked, settings, session.loading(meter, control)))
        reading = round(time.perf_counter() - started, 2)
        found = _measured(engine, job, settings, meter, control, rounds)
        title = f"{engine.model.name} on {_where(engine)}, {job.size[0]}x{job.size[1]}, {steps} steps at strength 0.75"
        peak = peak_memory(_where(engine))
    path = None if target is None else _written(found, title, quality, target)
    if as_json:
        say_json({**_told(found, title, reading, path, quality), "peak_memory_bytes": peak})
    else:
        _say(found, title, reading, peak, path, quality)
    if show and path is not None:
        typer.launch(str(path))
    return 0


def _checked(
    size: int | None, steps: int, rounds: int, output: str | None, show: bool, overwrite: bool
) -> Target | None:
    for flag, value, least, most in (("--steps", steps, 2, _MOST_STEPS), ("--rounds", rounds, 1, _MOST_ROUNDS)):
        if not least <= value <= most:
            raise RequestError(flag, value, f"give {least} to {most}")
    if size is not None and (size % 8 or not _SIDES[0] <= size <= _SIDES[1]):
        raise RequestError("--size", size, f"give a multiple of 8, from {_SIDES[0]} to {_SIDES[1]}")
    if show and output is None:
        raise RequestError("--open", None, "there is no file to open; name the chart with --output")
    if output is None:
        return None
    if output == "-":
        raise RequestError("--output", "-", "the chart is written to a file; give its name")
    return choose_target(output, "overpaint-bench", overwrite)


def _job(size: int | None, steps: int, asked: GivenOptions, settings: Settings) -> BenchJob:
    """At the model's own size, which its header says."""
    from overpaint.bench import BenchJob

    if size is None:
        from overpaint.cli.surroundings import path_asked_for
        from overpaint.models.companions import text_encoders_for
        from overpaint.models.what_is import spec_of

        path = path_asked_for(asked, settings)
        size = spec_of(path, text_encoders_for(path, settings.text_encoder_files)).native_size
    return BenchJob((size, size), steps)


def _measured(
    engine: session.CommandEngine, job: BenchJob, settings: Settings, meter: Meter, control: Control, rounds: int
) -> tuple[Measured, ...]:
    from overpaint.bench import AGAIN, EXACT, SHORTCUTS, BenchPicture, measure

    cases, done = (EXACT, AGAIN, *SHORTCUTS), 0

    def paint(request: PaintRequest) -> BenchPicture:
        for event in engine.run(request, settings, control):
            if isinstance(event, Finished):
                result = event.result
                return BenchPicture(result.images[result.index_of_first_image], result.encodings.made)
        raise StoppedBench("stopped; nothing was measured to its end")

    def step() -> None:
        nonlocal done
        done += 1
        meter.update("measuring", done, rounds * len(cases))

    return measure(paint, job, cases, rounds, step)


def _where(engine: session.CommandEngine) -> str:
    return str(getattr(engine, "device", "cpu"))


def _written(found: tuple[Measured, ...], title: str, quality: bool, target: Target) -> Path:
    from overpaint.bench import chart
    from overpaint.files.metadata import encode_picture
    from overpaint.files.saving import save_bytes

    data = encode_picture(chart(found, title, quality), target.path.suffix)
    return save_bytes(target.path, data, replace=target.overwrite)


def _told(found: tuple[Measured, ...], title: str, reading: float, path: Path | None, quality: bool) -> dict[str, Any]:
    jobs = []
    for each in found:
        likeness = {"psnr": each.psnr, "ssim": each.ssim} if quality else {}
        times = {"seconds": each.seconds, "cpu_seconds": each.cpu_seconds, "times_faster": each.times_faster}
        times["encoded"] = each.encoded
        jobs.append({"name": each.name, "options": dict(each.options), **times, **likeness})
    return {"title": title, "reading_seconds": reading, "jobs": jobs, "chart": None if path is None else str(path)}


def _say(
    found: tuple[Measured, ...], title: str, reading: float, peak: int | None, path: Path | None, quality: bool
) -> None:
    from overpaint.bench import HEADER, QUALITY_HEADER, rows_of

    say(title)
    memory = "" if peak is None else f"; the most memory it all took is {peak / 2**30:.1f} GiB"
    say(f"reading the model took {reading:.1f} s{memory}\n")
    say(table(list(rows_of(found, quality)), (*HEADER, *(QUALITY_HEADER if quality else ()), "")))
    if path is not None:
        say(f"\n{path}")
