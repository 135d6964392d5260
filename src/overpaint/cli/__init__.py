"""The command `overpaint`: parse, build a request, hand over.

Exit codes: 0 done, 1 a job failed, 2 wrong usage or request, 3 a picture or model cannot be used, 4 a result could
not be saved, 130 stopped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from overpaint.cli.arguments import STOPPED
from overpaint.cli.batch_command import batch
from overpaint.cli.bench_command import bench
from overpaint.cli.demo import demo
from overpaint.cli.doctor import doctor
from overpaint.cli.help import Page
from overpaint.cli.info import info
from overpaint.cli.jobs_commands import cancel, submit, watch
from overpaint.cli.jobs_commands import jobs as jobs_command  # `jobs` is also a module here, whoever loads it first
from overpaint.cli.lists import samplers, settings
from overpaint.cli.looking_commands import compare, sheet
from overpaint.cli.mask_command import mask
from overpaint.cli.models import models
from overpaint.cli.output import note, say, say_json
from overpaint.cli.paint import again, paint, txt2img
from overpaint.cli.plan_command import plan
from overpaint.cli.sequence_commands import enlarge, grid, loopback, outpaint
from overpaint.cli.serve import serve
from overpaint.cli.ui import ui
from overpaint.cli.upscale import upscale
from overpaint.cli.worker_command import worker
from overpaint.errors import (
    CheckpointError,
    MaskTextError,
    OverpaintError,
    PaintingCancelled,
    PictureError,
    RequestError,
    SaveError,
)

EPILOG = (
    "Exit codes: 0 done, 1 a job failed, 2 wrong usage or request, 3 a picture or model cannot be used, "
    "4 a result could not be saved, 130 stopped by Ctrl-C (what was finished is kept)."
)
COMMANDS = (
    demo,
    paint,
    txt2img,
    plan,
    again,
    batch,
    outpaint,
    enlarge,
    loopback,
    grid,
    upscale,
    mask,
    compare,
    sheet,
    info,
    samplers,
    models,
    settings,
    doctor,
    bench,
    ui,
    serve,
    worker,
    submit,
    watch,
    cancel,
    jobs_command,
)

_TOOLS = ("outpaint", "enlarge", "loopback", "grid")
_FAILED, _USAGE = 1, 2
_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (  # the first that fits
    (RequestError, _USAGE),
    (PictureError, 3),
    (CheckpointError, 3),
    (SaveError, 4),
    (PaintingCancelled, STOPPED),
    (KeyboardInterrupt, STOPPED),
    (typer.Abort, STOPPED),
)

app = typer.Typer(
    name="overpaint",
    help="Paint over pictures, and new ones, with Stable Diffusion checkpoints.",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _command in COMMANDS:
    app.command(cls=Page, epilog=EPILOG)(_command)


@app.callback(invoke_without_command=True)
def overview(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Paint over pictures, and new ones, with Stable Diffusion checkpoints.

    Same checkpoint, seed and options, same picture.
    """
    if version:
        from overpaint.version import __version__

        say(f"overpaint {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        say(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the return value is the exit code."""
    given = _of_tool(list(sys.argv[1:] if arguments is None else arguments))
    try:
        status = app(given, standalone_mode=False, prog_name="overpaint")
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("OVERPAINT_DEBUG") == "1":
            raise
        return _fail(error, given)
    return status if isinstance(status, int) else 0


def _of_tool(given: list[str]) -> list[str]:
    """`plan grid ...` is `grid --plan ...`, and so with the other tools; a picture of such a name stays a picture."""
    command, tool = [*given, "", ""][:2]
    if command == "plan" and tool in _TOOLS and not Path(tool).exists():
        return [tool, "--plan", *given[2:]]
    return given


def _fail(error: BaseException, given: Sequence[str]) -> int:
    """One line on stderr; for machines the same as an object on stdout."""
    message, code = _message(error, given), _exit_code(error)
    note(message)
    if "--json" in given:
        field = error.field if isinstance(error, RequestError) else None
        say_json({"error": {"message": message, "code": code, "field": field}})
    return code


def _exit_code(error: BaseException) -> int:
    if _is_usage_error(error):
        return _USAGE
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), _FAILED)


def _is_usage_error(error: BaseException) -> bool:
    # NOTE: typer carries click's classes with it or imports them, depending on its version; both have this method.
    return hasattr(error, "format_message")


def _message(error: BaseException, given: Sequence[str]) -> str:
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "stopped"
    if isinstance(error, OverpaintError):
        from overpaint.cli.flags import as_flags

        return "\n".join((as_flags(error), *([error.pointer] if isinstance(error, MaskTextError) else ())))
    if _is_usage_error(error):
        from overpaint.cli.mistakes import told

        return told(error, given)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
