"""How the server says no where no route is asked: in the words of the API that the path belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Scope

from overpaint.service.problems import code_of_status

_REFERENCE = ("/sdapi/", "/internal/", "/controlnet/")


class RequestRefused(Exception):  # noqa: N818 (an answer, not an accident)
    """An answer that is an error."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def refusal(scope: Scope, refused: RequestRefused) -> JSONResponse:
    """The answer in the shape that this path's clients know."""
    return JSONResponse(_body(scope["path"], refused.status, refused.message), refused.status, refused.headers)


def is_reference(path: str) -> bool:
    """Whether its clients know the reference's answers."""
    return path.startswith(_REFERENCE)


def _body(path: str, status: int, message: str) -> dict[str, Any]:
    if is_reference(path):
        return {"error": "HTTPException", "detail": message, "body": "", "errors": ""}
    # The native clients read code, message and field; OpenAI's read message, type, param and code.
    kind = "invalid_request_error" if status < 500 else "server_error"
    names = {"code": code_of_status(status), "message": message, "field": None}
    return {"error": {**names, "type": kind, "param": None}}
