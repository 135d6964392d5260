"""What can go wrong, told once for all doors: class of an error -> code -> HTTP status.

A door may give a code another name or shape, or a status that its clients know; it decides nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from overpaint.errors import (
    CheckpointError,
    OverpaintError,
    PictureError,
    RequestError,
    SamplingError,
    SaveError,
)
from overpaint.service.ports import Conflict, Damaged, Full, Stopping, TooLarge

RETRY_SECONDS = 30.0  # until a full disk or a lack of memory may be over

# Code -> status. What is only known by its status has the first code of it.
_STATUSES: Mapping[str, int] = {
    "malformed": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "no_preview": 404,
    "method": 405,
    "slow": 408,
    "conflict": 409,
    "not_running": 409,
    "over": 409,
    "gone": 410,
    "damaged": 410,
    "too_large": 413,
    "media_type": 415,
    "invalid": 422,
    "picture": 422,
    "checkpoint": 422,
    "full": 429,
    "cancelled": 499,
    "internal": 500,
    "sampling": 500,
    "unavailable": 503,
    "memory": 503,
    "crashed": 503,
    "save": 503,
    "stopping": 503,
    "deadline": 504,
    "hung": 504,
}
_TOO_LARGE = (413, 414, 431)  # bodies, targets, headers


class ApiError(OverpaintError):
    """An answer that is an error and has no class of its own."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code, self.field = code, field


class ClientGone(OverpaintError):  # noqa: N818 (what has happened to the client)
    """The client went away; nobody reads this answer."""

    def __init__(self) -> None:
        super().__init__("the client went away, and its job was cancelled unless it can ask for it again")


# Class of an error -> code. The first that fits; other errors of ours say that something is not there just now.
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (ClientGone, "cancelled"),
    (TooLarge, "too_large"),
    (Stopping, "stopping"),
    (Full, "full"),
    (Conflict, "conflict"),
    (Damaged, "damaged"),
    (RequestError, "invalid"),
    (PictureError, "picture"),
    (CheckpointError, "checkpoint"),
    (SaveError, "save"),
    (SamplingError, "sampling"),
    (OverpaintError, "unavailable"),
)
# What a job can fail of, beside what only the desk knows: crashed, deadline, hung, damaged
_OF_JOBS: Mapping[str, str] = {
    **{name: name for name in ("invalid", "checkpoint", "save", "sampling")},
    **dict.fromkeys(("picture", "too_large"), "invalid"),
}


def code_of(error: Exception) -> str:
    """What an error is called."""
    if isinstance(error, ApiError):
        return error.code
    return next(code for kind, code in _CODES if isinstance(error, kind))


def status_of(code: str) -> int:
    """The HTTP status of a code."""
    return _STATUSES.get(code, 500)


def job_code_of(error: Exception) -> str:
    """What a job is said to have failed of. What nobody foresaw is an error of the program."""
    return _OF_JOBS.get(code_of(error), "internal") if isinstance(error, OverpaintError) else "internal"


def job_status_of(code: str) -> int:
    """The HTTP status for those who waited for a job that failed. A damaged one was not finished: nothing is gone."""
    return 500 if code == "damaged" else status_of(code)


def code_of_status(status: int) -> str:
    """What is known by its status alone: refusals of the guards, and of the web framework."""
    if status in _TOO_LARGE:
        return "too_large"
    return next((code for code, each in _STATUSES.items() if each == status), "error")


def retry_header(status: int, error: Exception | None = None) -> dict[str, str]:
    """When to come again, of what may be otherwise by then."""
    if status not in (429, 503):
        return {}
    seconds = error.retry_after if isinstance(error, Full) else RETRY_SECONDS
    return {"Retry-After": str(max(1, math.ceil(seconds)))}
