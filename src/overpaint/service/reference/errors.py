"""How the reference's API says no (API-2), and the time header of its answers (API-3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from overpaint.errors import OverpaintError, PictureError, RequestError
from overpaint.service.guard.inputs import TooLarge
from overpaint.service.jobs import JobError
from overpaint.service.ports import Conflict, Full

# JobError.code -> status and class name
_JOB_ERRORS: Mapping[str, tuple[int, str]] = {
    "invalid": (422, "RequestError"),
    "checkpoint": (500, "CheckpointError"),
    "sampling": (500, "SamplingError"),
    "memory": (500, "OutOfMemoryError"),
    "save": (500, "SaveError"),
    "deadline": (504, "TimeoutError"),
    "hung": (504, "TimeoutError"),
}


# Of several kinds the first one counts.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLarge, 413),
    (Conflict, 409),
    (RequestError, 422),
    (PictureError, 422),
)


class Refusal(Exception):  # noqa: N818 (an answer, not an accident)
    """An answer that is an error: the class name that clients see, and one sentence."""

    def __init__(self, status: int, error: str, errors: str = "", *, detail: str = "") -> None:
        super().__init__(errors or detail)
        self.status, self.error, self.errors, self.detail = status, error, errors, detail


def http_refusal(status: int, detail: str, errors: str = "") -> Refusal:
    """What the reference raises on purpose."""
    return Refusal(status, "HTTPException", errors, detail=detail)


def job_refusal(error: JobError | None) -> Refusal:
    """I2I-9: why a job gave nothing."""
    if error is None:
        return Refusal(500, "Cancelled", "the job was cancelled before it had painted anything")
    status, name = _JOB_ERRORS.get(error.code, (500, "RuntimeError"))
    return Refusal(status, name, error.message)


class ReferenceRoute(APIRoute):
    """A route whose every answer is of the reference's shape, errors too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def timed(request: Request) -> Response:
            started = time.perf_counter()
            try:
                response = await handle(request)
            except (Refusal, OverpaintError, HTTPException, RequestValidationError) as error:
                response = _answer(error)
            response.headers["X-Process-Time"] = f"{time.perf_counter() - started:.4f}"
            return response

        return timed


def _answer(error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):  # NOTE: what was given may be a picture of megabytes: not echoed
        said = [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
        return JSONResponse({"detail": said}, 422)
    if isinstance(error, HTTPException):
        return _body(error.status_code, "HTTPException", str(error.detail), "", error.headers)
    if isinstance(error, Refusal):
        return _body(error.status, error.error, error.detail, error.errors)
    if isinstance(error, Full):
        wait = {"Retry-After": str(max(1, round(error.retry_after)))}
        return _body(429, "Full", str(error), "", wait)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return _body(status, type(error).__name__, "", str(error))


def _body(status: int, error: str, detail: str, errors: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": error, "detail": detail, "body": "", "errors": errors}, status, headers)
