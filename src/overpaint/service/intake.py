"""What all doors share: how bodies and headers are read, within bounds and never trusted, and a few answers."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any

from fastapi import Request

from overpaint.errors import OverpaintError
from overpaint.service.jobs import Record, ResultPicture
from overpaint.service.ports import Damaged, Desk, Full, TooLarge

RETRY_SECONDS = 30.0  # until a full disk or a lack of memory may be over
HEARTBEAT = 15.0  # seconds of silence, after which a comment keeps proxies from hanging up

# What the document says of them
CLIENT_HEADER = {
    "name": "X-Client",
    "in": "header",
    "schema": {"type": "string"},
    "description": "A name of yours, for lists.",
}
KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
    "description": "Sent twice with the same key, a request makes one job.",
}

_NAME = re.compile(r"[\w.:@/ -]{1,64}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_WAIT = re.compile(r"wait(?:\s*=\s*\"?(\d{1,6})\"?)?")


class ApiError(OverpaintError):
    """An answer that is an error and has no class of its own."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.field = status, code, field


async def json_body(request: Request) -> dict[str, Any]:
    """The object in a body. That it is not nested too deeply is the guards' business."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(415, "media_type", f"Content-Type={kind[:80]!r}: send application/json")
    # NOTE: `request.body()` would keep the bytes for as long as the client waits for its pictures.
    body = b"".join([piece async for piece in request.stream()])
    try:
        values = await asyncio.to_thread(json.loads, body, parse_constant=_no_number)  # large ones hold others up
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "malformed", f"body: it is not valid JSON ({str(error)[:120]}); send an object") from None
    if not isinstance(values, dict):
        raise ApiError(400, "malformed", f"body: it is a {type(values).__name__}; send an object of a request's fields")
    return values


async def file_body(request: Request, largest: int) -> bytes:
    """The bytes of a body, no more than allowed."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > largest:
            raise TooLarge(f"body: the picture is larger than {largest} bytes; give a smaller file")
    return bytes(data)


def client_name(request: Request) -> str:
    """Who asks, for fairness and lists: a name that it gives itself, that of its token, or its address. Never a
    secret."""
    named = request.headers.get("x-client", "")
    if _NAME.fullmatch(named):
        return named
    if of_token := getattr(request.state, "token_name", None):
        return str(of_token)
    return request.client.host if request.client else ""


def idempotency_key(request: Request) -> str | None:
    """What a client calls its request, so that sending it twice makes one job."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise ApiError(400, "malformed", "Idempotency-Key: give 1 to 200 printable ASCII characters without spaces")
    return key


def seconds_to_wait(request: Request, longest: float) -> float | None:
    """`Prefer: wait` or `Prefer: wait=30` (RFC 7240); None if the client does not wait."""
    given = (each.strip().lower() for line in request.headers.getlist("prefer") for each in re.split("[,;]", line))
    found = next((match for match in map(_WAIT.fullmatch, given) if match), None)
    if found is None:
        return None
    return min(longest, float(found[1])) if found[1] else longest


def last_event(request: Request) -> int:
    """The last event that a client has heard of."""
    given = request.headers.get("last-event-id", "0")
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise ApiError(400, "malformed", f"Last-Event-ID={given[:80]!r}: give the number of an event")
    return int(given)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def retry_header(status: int, error: Exception | None = None) -> dict[str, str]:
    """When to come again, of what may be otherwise by then."""
    if status not in (429, 503):
        return {}
    seconds = error.retry_after if isinstance(error, Full) else RETRY_SECONDS
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def picture_file(record: Record, picture: ResultPicture, desk: Desk) -> bytes:
    """The bytes of a result; a picture that is deleted by now is an error."""
    try:
        return desk.store.result_bytes(record.id, picture.file.rpartition("/")[2])
    except Damaged as error:
        raise ApiError(410, "damaged", str(error)) from None
    except FileNotFoundError:
        message = f"{url_of(record, picture)}: the picture was kept long enough and is deleted; paint it again"
        raise ApiError(410, "gone", message) from None


def url_of(record: Record, picture: ResultPicture) -> str:
    return f"/v1/jobs/{record.id}/images/{picture.number}"
