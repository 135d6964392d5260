"""The examiner: a small process that says what a stranger's file is, and may die of it without harm to anybody.

It is started by `examiner.py`, in the way that `children.py` tells, and speaks `wire.py` on its standard pipes. It
takes one file after another, and ends with its parent.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from overpaint.errors import OverpaintError
from overpaint.service.jobs import JobError
from overpaint.service.store.forms import plain
from overpaint.service.wire import Message, Sender, read

MEMORY = 4 * 2**30  # bytes that it may hold; what a header describes takes a few hundred MB at most
ALONE = 120  # seconds for one file, where there is no parent any more to end what takes too long
_BELOW_THE_WEB = 10


def examined(message: Message) -> object:
    """{"path": file or folder, "texts": files of text encoders}: what this checkpoint is; no tensor is read."""
    from overpaint.models.companions import text_encoders_for
    from overpaint.models.what_is import spec_of

    path = Path(message["path"])
    return plain(spec_of(path, text_encoders_for(path, message["texts"])))


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Until the pipe ends."""
    sender = Sender(answers)
    while (message := read(questions)) is not None:
        _alarm(ALONE)
        sender.send("answer", **_answer(message))
        _alarm(0)


def _answer(message: Message) -> dict[str, Any]:
    try:
        return {"value": examined(message)}
    except Exception as error:
        return {"error": plain(_error_of(error, Path(message["path"]).name))}


def _alarm(seconds: int) -> None:
    """NOTE: the system ends the process then, for Python would not be heard inside of what takes so long."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _error_of(error: Exception, name: str) -> JobError:
    if isinstance(error, OverpaintError):
        return JobError(code="checkpoint", message=str(error))
    kind = type(error).__name__
    return JobError(code="checkpoint", message=f"{name}: it cannot be read ({kind}); download it again, or use another")


def _limited() -> None:
    """NOTE: the limit is on memory that is written to: torch maps more than that from its files."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if hasattr(os, "nice"):
        os.nice(_BELOW_THE_WEB)


def started() -> None:
    """The whole life of the process."""
    from overpaint.service.painter.worker import deaf, own_pipes

    questions, answers = own_pipes()
    deaf()
    _limited()
    with suppress(BrokenPipeError):
        serve(questions, answers)
    sys.stderr.flush()
    os._exit(0)
