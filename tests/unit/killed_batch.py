"""Runs a command line with a fake painter and kills its own process at the nth time a point is reached."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import overpaint.files.batch
import overpaint.files.saving
from overpaint.cli import main, session
from overpaint.files.journal import Journal
from tests.unit.fake_painter import FakePainter


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(count: int, deed: Callable[..., Any], death: Callable[..., None]) -> Callable[..., Any]:
    """The deed, but the nth time death instead."""
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            death(*args, **kwargs)
        return deed(*args, **kwargs)

    return counted


def half_a_file(handle: int, data: memoryview) -> None:
    os_write(handle, data[: len(data) // 2])
    die()


def half_a_line(journal: Any, line: Any) -> None:
    journal._file.write(b'{"row": "12')
    journal._file.flush()
    die()


def after(deed: Callable[..., Any]) -> Callable[..., None]:
    def death(*args: Any, **kwargs: Any) -> None:
        deed(*args, **kwargs)
        die()

    return death


os_write = os.write


def arm(point: str, count: int) -> None:
    if point == "half a file":
        overpaint.files.saving.os.write = at(count, os_write, half_a_file)  # type: ignore[attr-defined]
    elif point == "half a line":
        Journal._append = at(count, Journal._append, half_a_line)  # type: ignore[method-assign]
    elif point == "before writing":
        Journal.promise = at(count, Journal.promise, after(Journal.promise))  # type: ignore[method-assign]
    elif point == "before done":
        Journal.done = at(count, Journal.done, lambda *args: die())  # type: ignore[method-assign]
    elif point == "after done":
        Journal.done = at(count, Journal.done, after(Journal.done))  # type: ignore[method-assign]


if __name__ == "__main__":
    point, count, *arguments = sys.argv[1:]
    arm(point, int(count))
    in_a_step = (lambda step: die() if step == int(count) else None) if point == "in a step" else None
    painter = FakePainter(in_a_step)
    session.open_engine = lambda *args: painter
    sys.exit(main(arguments))
