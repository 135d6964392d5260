"""The examiner: a helper that says what a stranger's file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from overpaint.errors import OverpaintError
from overpaint.service.helpers.helping import help_with
from overpaint.service.jobs import JobError
from overpaint.service.store.forms import plain
from overpaint.service.wire import Message


def examined(message: Message) -> object:
    """{"path": file or folder, "texts": files of text encoders}: what this checkpoint is; no tensor is read."""
    from overpaint.models.companions import text_encoders_for
    from overpaint.models.what_is import spec_of

    path = Path(message["path"])
    return plain(spec_of(path, text_encoders_for(path, message["texts"])))


def answer(message: Message, _: BinaryIO) -> dict[str, Any]:
    try:
        return {"value": examined(message)}
    except Exception as error:
        return {"error": plain(_error_of(error, Path(message["path"]).name))}


def _error_of(error: Exception, name: str) -> JobError:
    if isinstance(error, OverpaintError):
        return JobError(code="checkpoint", message=str(error))
    kind = type(error).__name__
    return JobError(code="checkpoint", message=f"{name}: it cannot be read ({kind}); download it again, or use another")


def started() -> None:
    """The whole life of the process."""
    help_with(answer, behind=10)
