"""How the reference's API says no (API-2).

What a client asked wrongly is answered with 4xx, but where the reference is known to answer otherwise. On purpose:

    500 HTTPException "Requests not allowed", "Request to local resource not allowed",
                      "Invalid image url", "Invalid encoded image"          API-6, PNG-1
    500 RuntimeError  "bad number of images passed: 3; expecting 1 or less" I2I-9
    500 KeyError      an option that does not exist                         I2I-9, OPT-2
    500 RuntimeError  "model 'x' not found"                                 OPT-2
    500 AssertionError  an upscaler that does not exist                     EX-3
    501 HTTPException   no model here describes pictures                    IGT-1

Whatever was asked, the server may be in trouble of its own: 500 OutOfMemoryError, SamplingError and RuntimeError (the
worker died), 503 WorkerGone (no worker just now), SaveError (the disk is full) and Stopping, 504 TimeoutError (a
deadline, a step that hung).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from overpaint.errors import OverpaintError, RequestError
from overpaint.service.doors.webui.bodies import Body
from overpaint.service.doors.webui.names import as_they_call_it
from overpaint.service.guard.budgets import forget_body
from overpaint.service.guard.places import placeless
from overpaint.service.intake.bodies import parsed, pieces_of
from overpaint.service.jobs import JobError
from overpaint.service.ports import Full
from overpaint.service.problems import code_of, job_status_of, retry_header, status_of
from overpaint.service.workers.port import WorkerRefused

# The class name, and how what is said begins.
DELIBERATE: tuple[tuple[int, str, str], ...] = (
    (500, "HTTPException", "Requests not allowed"),
    (500, "HTTPException", "Request to local resource not allowed"),
    (500, "HTTPException", "Invalid image url"),
    (500, "HTTPException", "Invalid encoded image"),
    (500, "RuntimeError", "bad number of images passed: "),
    (500, "KeyError", ""),
    (500, "RuntimeError", "model "),
    (500, "AssertionError", "upscaler_"),
    (501, "HTTPException", "this server has no model that describes pictures"),
)
"""Answers of 500 and more that a wrong request gets, because clients of the reference know them."""

# What clients of the reference know: the code of a failed job -> the class name, and the status if it is another one.
_JOB_ERRORS: Mapping[str, tuple[str, int | None]] = {
    "invalid": ("RequestError", None),
    "checkpoint": ("CheckpointError", None),
    "sampling": ("SamplingError", None),
    "memory": ("OutOfMemoryError", 500),
    "crashed": ("RuntimeError", 500),
    "save": ("SaveError", None),
    **dict.fromkeys(("deadline", "hung"), ("TimeoutError", None)),
}
_NAMES: Mapping[str, str] = {"damaged": "Gone", "gone": "Gone", "cancelled": "ClientDisconnect"}  # code -> class name


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
        return Refusal(409, "Cancelled", "the job was cancelled before it had painted anything")
    name, status = _JOB_ERRORS.get(error.code, ("RuntimeError", None))
    return Refusal(status or job_status_of(error.code), name, error.message)


def is_deliberate(status: int, error: str, said: str) -> bool:
    """Whether an error of 500 or more is one that is meant; `said` is its detail, or what stands in its errors."""
    return any((status, error) == each[:2] and said.startswith(each[2]) for each in DELIBERATE)


class ReferenceRoute(APIRoute):
    """A route whose every answer is of the reference's shape, errors too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                if self.body_field is not None:
                    _check_media_type(request)
                return await handle(_LeanRequest(request.scope, request.receive))
            except RequestError as error:
                return _answer(as_they_call_it(error, request.url.path))
            except (Refusal, OverpaintError, HTTPException, RequestValidationError) as error:
                return _answer(error)

        return answered


class _LeanRequest(Request):
    """NOTE: what these two give is kept by whoever asks, for as long as the client waits for its pictures."""

    _pieces: list[bytes] | None = None

    async def body(self) -> bytes:
        """The first byte of it, until it is parsed: as much as tells that there is one."""
        if self._pieces is None:
            self._pieces = await pieces_of(self)
        return self._pieces[0][:1] if self._pieces else b""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            await self.body()
            self._json = await parsed(self._pieces or [])
        return self._json


def forget(request: Request, body: Body) -> None:
    """The request is read and its pictures are in the store: while its client waits, nothing of it is in memory."""
    if isinstance(request, _LeanRequest) and isinstance(given := getattr(request, "_json", None), dict):
        given.clear()
    body.forget()
    forget_body()


def _check_media_type(request: Request) -> None:
    """NOTE: without it a body counts as a text, and every field of it as missing (API-2 has no words for that)."""
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if not is_json and request.headers.get("content-length", "0") != "0":
        raise http_refusal(415, f"Content-Type={given[:80]!r}: send application/json")


def _answer(error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):  # NOTE: what was given may be a picture of megabytes: not echoed
        said = [{name: each[name] for name in ("loc", "msg", "type")} for each in error.errors()]
        return JSONResponse({"detail": said}, 422)
    if isinstance(error, HTTPException):
        return _body(error.status_code, "HTTPException", str(error.detail), "", error.headers)
    if isinstance(error, Refusal):
        return _body(error.status, error.error, error.detail, error.errors, retry_header(error.status))
    if isinstance(error, WorkerRefused):
        return _answer(job_refusal(error.error))
    code = code_of(error)
    status = status_of(code)
    detail, errors = (str(error), "") if isinstance(error, Full) else ("", str(error))
    return _body(status, _NAMES.get(code, type(error).__name__), detail, errors, retry_header(status, error))


def _body(status: int, error: str, detail: str, errors: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    said = {"error": error, "detail": placeless(detail), "body": "", "errors": placeless(errors)}
    return JSONResponse(said, status, headers)
