"""The life of a helper: a small process that answers one question after another, within bounds of memory and time.

It is started by `workers.helper`, in the way that `children.py` tells, and ends with its parent.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from overpaint.service.children import deaf, let_the_server_go_first, own_pipes
from overpaint.service.wire import Message, Sender, read

MEMORY = 4 * 2**30  # bytes that it may hold
ALONE = 120  # seconds for one answer, where there is no parent any more to end what takes too long

Answer = Callable[[Message, BinaryIO], dict[str, Any]]  # the question, and what comes behind it


def help_with(answer: Answer, *, behind: int) -> None:
    """The whole life of the process, which stands so far behind the one that answers clients."""
    questions, answers = own_pipes()
    deaf()
    _limited()
    let_the_server_go_first(behind)
    with suppress(BrokenPipeError):
        serve(answer, questions, answers)
    sys.stderr.flush()
    os._exit(0)


def serve(answer: Answer, questions: BinaryIO, answers: BinaryIO) -> None:
    """Until the pipe ends."""
    sender = Sender(answers)
    while (message := read(questions)) is not None:
        _alarm(ALONE)
        sender.send("answer", **answer(message, questions))
        _alarm(0)


def _alarm(seconds: int) -> None:
    """NOTE: the system ends the process then, for Python would not be heard inside of what takes so long."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _limited() -> None:
    """NOTE: the limit is on memory that is written to: torch maps more than that from its files."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
