"""`overpaint demo`: a small gallery with the built-in model, on one sheet."""

from __future__ import annotations

import io
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overpaint.cli import session
from overpaint.cli.arguments import AsJson, Quiet
from overpaint.cli.options import JOB_OPTIONS, GivenOptions, takes
from overpaint.cli.output import Meter, say, say_json
from overpaint.errors import PaintingCancelled as Stopped
from overpaint.errors import RequestError
from overpaint.events import Control, Finished, Progress

if TYPE_CHECKING:
    from overpaint.demo import GalleryRow
    from overpaint.request import PaintRequest, Picture
    from overpaint.settings import Settings

NAME = "overpaint-demo.png"
_OPTIONS = tuple(each for each in JOB_OPTIONS if each.name in ("device", "dtype"))


@takes(*_OPTIONS)
def demo(
    *,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where the sheet goes (default: here).")] = Path(),
    show: Annotated[bool, typer.Option("--open", help="Open it when it is there.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    asked: GivenOptions,
) -> int:
    """Paint a small gallery with the built-in model.

    Img2img, inpainting, outpainting, variations and styles.

    It takes under a minute, and all of it is one sheet, overpaint-demo.png. A file that is there is never replaced.
    """
    if to.exists() and not to.is_dir():
        raise RequestError("--to", str(to), "it is a file; name a folder")
    asked = asked.machine_alone()
    # Networks this small gain little from a second thread, and on a busy machine the two wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    started, settings = time.monotonic(), asked.settings()
    with ExitStack() as stack:
        control = stack.enter_context(session.stoppable())
        meter = stack.enter_context(Meter(quiet or as_json))
        painter = stack.enter_context(session.open_engine(asked, settings, session.loading(meter, control)))
        rows = _painted(painter, settings, meter, control)
    path = _saved(rows, to)
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        say_json({"sheet": str(path), "rows": [row.title for row in rows], "seconds": seconds})
    else:
        say(f"{path}  painted in {seconds:.0f} s")
    if show:
        typer.launch(str(path))
    return 0


def _painted(
    painter: session.CommandEngine, settings: Settings, meter: Meter, control: Control
) -> tuple[GalleryRow, ...]:
    from overpaint.demo import gallery, painted

    plan = gallery()
    total, done = sum(row.wanted for row in plan), 0

    def paint(request: PaintRequest) -> tuple[Picture, ...]:
        nonlocal done
        for event in painter.run(request, settings, control):
            if isinstance(event, Progress):
                meter.update("painting", done + request.batch_size * event.step // (event.steps + 1), total)
            elif isinstance(event, Finished):
                done += request.batch_size
                meter.update("painting", done, total)
                return tuple(event.result.images)
        raise Stopped("stopped; the sheet is written when all of it is painted")

    return tuple(painted(plan, paint))


def _saved(rows: tuple[GalleryRow, ...], folder: Path) -> Path:
    from overpaint.demo import sheet
    from overpaint.files.saving import save_bytes

    data = io.BytesIO()
    sheet(rows).save(data, "PNG", optimize=True)
    return save_bytes(folder / NAME, data.getvalue())
