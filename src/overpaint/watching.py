"""How far a job is, told to whoever waits for it: a function of the program's, or a bar in a terminal or a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from overpaint.errors import OverpaintWarning, RequestTypeError
from overpaint.events import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Watcher: TypeAlias = bool | Callable[[Progress], object]
"""True: a bar. A function: it is called after every step, and may raise to end the job."""


def warn(messages: Iterable[str]) -> None:
    """As Python warnings, at the line of the program that called into this package."""
    for each in messages:
        warnings.warn(each, OverpaintWarning, stacklevel=_levels_to_the_caller())


def _levels_to_the_caller() -> int:
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "overpaint":
        level, frame = level + 1, frame.f_back
    return level


@contextmanager
def watching(watcher: Watcher) -> Iterator[Callable[[Progress], object]]:
    """The function to tell every step to."""
    check_watcher(watcher)
    if watcher is True:
        bar: _Bar = _NotebookBar() if in_notebook() else _TerminalBar()
        try:
            yield lambda step: bar.show(step.step, step.steps)
        finally:
            bar.close()
    else:
        yield (lambda step: None) if isinstance(watcher, bool) else watcher


def check_watcher(watcher: object) -> None:
    """Refused before any work is done."""
    if not isinstance(watcher, bool) and not callable(watcher):
        raise RequestTypeError("progress", watcher, "give True for a bar, or a function of each overpaint.Progress")


def in_notebook() -> bool:
    """Whether this is a kernel of Jupyter, which shows more than text."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def terminal_bar() -> RichProgress:
    """A bar with the time that is left, on standard error; in a pipe or a file only its end is written."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # NOTE: by default rich sends stdout where the bar is; results that go to a file or a pipe must stay there.
    return Progress(*columns, console=console, transient=console.is_terminal, redirect_stdout=sys.stdout.isatty())


class _Bar(Protocol):
    def show(self, step: int, steps: int) -> None: ...
    def close(self) -> None: ...


class _TerminalBar:
    def __init__(self) -> None:
        self._progress = terminal_bar()
        self._task = self._progress.add_task("painting", total=None)
        self._progress.start()

    def show(self, step: int, steps: int) -> None:
        self._progress.update(self._task, completed=step, total=steps)

    def close(self) -> None:
        self._progress.stop()


class _NotebookBar:
    """One element of HTML, shown again with every step; it needs nothing that a notebook does not have."""

    def __init__(self) -> None:
        shown: Any = import_module("IPython.display")  # a notebook has it
        self._html = shown.HTML
        self._handle = shown.display(shown.HTML(self._text(0, 0)), display_id=True)

    def show(self, step: int, steps: int) -> None:
        self._handle.update(self._html(self._text(step, steps)))

    def close(self) -> None:
        """The last state stays, as what a cell printed does."""

    @staticmethod
    def _text(step: int, steps: int) -> str:
        return f'<progress value="{step}" max="{max(steps, 1)}"></progress> {step}/{steps}'
