"""Bodies of requests: read whole within bounds of size, time and shape before any route sees them.

They are counted as they come in, after unpacking. What is refused is refused early, and what still comes is thrown away
for a moment, so that a client that is busy sending gets to read the answer.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overpaint.service.guard.budgets import RequestBudget, ServerBudget, visiting
from overpaint.service.guard.jsonshape import JsonShape
from overpaint.service.guard.pictures_apart import BodyReader
from overpaint.service.guard.refusals import RequestRefused, refusal
from overpaint.service.limits import Limits

PATIENCE = 20.0  # seconds without progress, of a body that comes
SLOWEST = 32 * 1024  # bytes per second
RATIO = 100  # times a packed body may unpack,
RATIO_FROM = 2**20  # once it is this large
LINGER = 2.0  # seconds

_PIECE = 64 * 1024
_LARGE = 1024 * 1024  # bytes, from which on a body waits for its turns


class BodyGuard:
    """Hands on requests whose body is there, of an allowed size, and no trap for parsers."""

    def __init__(
        self, app: ASGIApp, limits: Limits, patience: float = PATIENCE, reader: BodyReader | None = None
    ) -> None:
        self._app, self._limits, self._patience = app, limits, patience
        self.hall = ServerBudget(limits, reader)
        self._turns = LoopTurns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        visit, pieces = RequestBudget(self.hall), deque[bytes]()
        with visiting(visit):
            try:
                await self._read(scope, receive, visit, pieces)
            except RequestRefused as refused:
                pieces.clear()
                visit.let_go()
                await _refuse(scope, receive, send, refused)
                return
            except ClientDisconnect:
                return
            scope["headers"] = _unpacked_headers(scope, sum(map(len, pieces)))
            await self._app(scope, _replay(pieces, receive), send)

    async def _read(self, scope: Scope, receive: Receive, visit: RequestBudget, pieces: deque[bytes]) -> None:
        headers = Headers(scope=scope)
        limit = self._limits.body_bytes
        if _promised(headers) > limit:
            raise _too_large(limit)
        unpacked, shape, size = _unpacker(headers), JsonShape(), 0
        async for packed in self._arriving(receive):
            for piece in unpacked.feed(packed):
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                visit.hold(len(piece))
                shape.feed(piece)
                pieces.append(piece)
        unpacked.close()

    async def _arriving(self, receive: Receive) -> AsyncIterator[bytes]:
        """The body as it comes, as long as it comes fast enough."""
        loop = asyncio.get_running_loop()
        started, size, more = loop.time(), 0, True
        while more:
            if size > _LARGE:
                await self._turns.next()
            left = started + self._patience + size / SLOWEST - loop.time()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, min(left, self._patience)))
            except asyncio.TimeoutError:
                raise RequestRefused(408, "the request's body came too slowly, send it again") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            size += len(message.get("body", b""))
            yield message.get("body", b"")


def _replay(pieces: deque[bytes], receive: Receive) -> Receive:
    """The body once more. It counts until its request is answered, or says that it is forgotten."""
    is_over = False

    async def replayed() -> Message:
        nonlocal is_over
        if is_over:
            return await receive()
        piece = pieces.popleft() if pieces else b""
        is_over = not pieces
        return {"type": "http.request", "body": piece, "more_body": not is_over}

    return replayed


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _promised(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise RequestRefused(400, f"Content-Length={text[:40]!r}: give a number of bytes")
    return int(text)


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(413, f"the request's body has more than {limit} bytes, send smaller or fewer pictures")


def _unpacked_headers(scope: Scope, size: int) -> list[tuple[bytes, bytes]]:
    """As they are true of what is handed on."""
    gone = (b"content-encoding", b"content-length", b"transfer-encoding")
    kept = [(name, value) for name, value in scope["headers"] if name not in gone]
    return [*kept, (b"content-length", str(size).encode())]


async def _refuse(scope: Scope, receive: Receive, send: Send, refused: RequestRefused) -> None:
    answer = refusal(scope, refused)
    answer.headers["Connection"] = "close"
    start: Message = {"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    # NOTE: closing on a client that still sends resets the connection, and the answer is lost on the way.
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_discard(receive), LINGER)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
        pass


class LoopTurns:
    """A turn each, one in each round of the event loop.

    NOTE: what large bodies bring in one round holds everybody up for so long; of thirty at once, thirty times as long.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._give)
        await turn

    def _give(self) -> None:
        turn = self._waiting.popleft()
        if not turn.done():  # cancelled
            turn.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._give)


class _Plain:
    """A body that came as it is."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        return (data[at : at + _PIECE] for at in range(0, len(data), _PIECE))

    def close(self) -> None:
        """There is nothing that could be missing."""


class _Packed:
    """A body of gzip (RFC 1952, several members too) or deflate (RFC 1950, or without its header, as some send it)."""

    def __init__(self, coding: str) -> None:
        self._bits = 31 if coding.endswith("gzip") else 15
        self._unpack = zlib.decompressobj(self._bits)
        self._packed = self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not self._packed and self._bits == 15 and data and data[0] & 0x0F != 8:
            self._unpack = zlib.decompressobj(-15)
        self._packed += len(data)
        while data:
            try:
                piece = self._unpack.decompress(data, _PIECE)
            except zlib.error:
                raise RequestRefused(
                    400, "the request's body cannot be unpacked, send it without Content-Encoding"
                ) from None
            self._size += len(piece)
            if self._size > RATIO_FROM and self._size > RATIO * self._packed:
                raise RequestRefused(
                    413, f"the request's body unpacks to more than {RATIO} times its size, send it unpacked"
                )
            if piece:
                yield piece
            data = self._unpack.unconsumed_tail
            if self._unpack.eof and self._unpack.unused_data and self._bits == 31:
                data, self._unpack = self._unpack.unused_data, zlib.decompressobj(31)

    def close(self) -> None:
        """What is cut off may not pass for a whole."""
        if self._packed and not self._unpack.eof:
            raise RequestRefused(400, "the request's body ends too early, send it again")


def _unpacker(headers: Headers) -> _Plain | _Packed:
    codings = [each.strip().lower() for line in headers.getlist("content-encoding") for each in line.split(",")]
    codings = [each for each in codings if each not in ("", "identity")]
    if not codings:
        return _Plain()
    if len(codings) > 1 or codings[0] not in ("gzip", "x-gzip", "deflate"):
        raise RequestRefused(415, f"Content-Encoding={', '.join(codings)[:40]!r}: use gzip, deflate or none")
    return _Packed(codings[0])
