"""What the command says: results on stdout, everything else on stderr, and a bar when it takes long."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_SECONDS = 1.0


def say(text: str) -> None:
    """A line of the result."""
    typer.echo(text)


def say_json(value: Mapping[str, Any]) -> None:
    """The result for machines: one line, one object."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def note(text: str) -> None:
    """A line beside the result."""
    typer.echo(f"overpaint: {text}", err=True)


def warn(warnings: Iterable[str], quiet: bool = False) -> None:
    """What to know about a job that works all the same."""
    told = () if quiet else tuple(warnings)
    if told:
        from overpaint.cli.flags import warning_in_flags

        for each in told:
            note(f"warning: {warning_in_flags(each)}")


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Columns as wide as their widest cell."""
    cells = [[str(each) for each in row] for row in ([header] if header else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


class Meter:
    """A progress bar with the time that is left, on a terminal, once the work has taken a second."""

    def __init__(self, quiet: bool = False) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def update(self, what: str, done: int, total: int) -> None:
        """Where a piece of work stands; a finished one is taken off."""
        if not self._shown or time.monotonic() - self._started < QUIET_SECONDS:
            return
        progress = self._progress or self._start()
        if done >= total:
            if what in self._tasks:
                progress.remove_task(self._tasks.pop(what))
            return
        if what not in self._tasks:
            self._tasks[what] = progress.add_task(what, total=total, completed=done)
        progress.update(self._tasks[what], completed=done, total=total)

    def _start(self) -> Progress:
        from overpaint.watching import terminal_bar

        self._progress = terminal_bar()
        self._progress.start()
        return self._progress
