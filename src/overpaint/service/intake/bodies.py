"""How bodies and headers are read, within bounds and never trusted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from fastapi import Request
from pydantic_core import from_json

from overpaint.service.guard.budgets import at_work, read_apart, reading
from overpaint.service.guard.pictures_apart import WORTH_IT
from overpaint.service.ports import TooLarge
from overpaint.service.problems import ApiError

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

Constant: TypeAlias = Callable[[str], Any] | None

_SMALL = 64 * 1024  # bytes of a body, which are parsed at once
_NAME = re.compile(r"[\w.:@/ -]{1,64}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_WAIT = re.compile(r"wait(?:\s*=\s*\"?(\d{1,6})\"?)?")


async def json_body(request: Request) -> dict[str, Any]:
    """The object in a body. That it is not nested too deeply is the guards' business."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError("media_type", f"Content-Type={kind[:80]!r}: send application/json")
    try:
        values = await parsed(await pieces_of(request), _no_number)
    except (ValueError, RecursionError) as error:
        raise ApiError("malformed", f"body: it is not valid JSON ({str(error)[:120]}); send an object") from None
    if not isinstance(values, dict):
        raise ApiError("malformed", f"body: it is a {type(values).__name__}; send an object of a request's fields")
    return values


async def pieces_of(request: Request) -> list[bytes]:
    """A body as it came.

    NOTE: `request.body()` would keep the bytes for as long as the client waits for its pictures.
    """
    return [piece async for piece in request.stream() if piece]


async def parsed(pieces: list[bytes], constant: Constant = None) -> Any:
    """The JSON of a body, whose pieces are forgotten; `constant` gives what NaN and the like stand for."""
    if sum(map(len, pieces)) <= _SMALL:
        return _value_of(pieces, constant)
    return await at_work(_value_in_turn, pieces, constant)  # large ones hold others up


def _value_in_turn(pieces: list[bytes], constant: Constant) -> Any:
    with reading():
        if sum(map(len, pieces)) >= WORTH_IT and (found := read_apart(pieces)) is not None:
            pieces.clear()
            return found[0]
        return _value_of(pieces, constant)


def _value_of(pieces: list[bytes], constant: Constant) -> Any:
    """NOTE: Python's own parser keeps everybody waiting six times as long; what the quick one refuses, it judges."""
    body = b"".join(pieces)
    pieces.clear()
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        return json.loads(body, parse_constant=constant)


async def file_body(request: Request, largest: int) -> list[bytes]:
    """The pieces of a body, no more than allowed."""
    pieces = await pieces_of(request)
    if sum(map(len, pieces)) > largest:
        raise TooLarge(f"body: the picture is larger than {largest} bytes; give a smaller file")
    return pieces


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
        raise ApiError("malformed", "Idempotency-Key: give 1 to 200 printable ASCII characters without spaces")
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
        raise ApiError("malformed", f"Last-Event-ID={given[:80]!r}: give the number of an event")
    return int(given)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
