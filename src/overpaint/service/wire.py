"""Messages between the web process and its worker: four bytes of length, then JSON.

Only plain values travel, so neither side can be made to run anything. A pipe that ends inside a message has ended: half
a message is no message.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

from overpaint.errors import OverpaintError
from overpaint.service.limits import MIB

Message = dict[str, Any]

LARGEST = 64 * MIB

_LENGTH = struct.Struct(">I")


class Garbled(OverpaintError):  # noqa: N818 (what came, not what went wrong)
    """What came through the pipe is no message; nothing behind it can be trusted either."""


def encoded(message: Mapping[str, Any], largest: int = LARGEST) -> bytes:
    """A message as it travels."""
    try:
        text = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise Garbled(f"message {message.get('type')!r}: it is not plain JSON ({error})") from error
    if len(text) > largest:
        raise Garbled(f"message {message.get('type')!r}: {len(text)} bytes are more than {largest}")
    return _LENGTH.pack(len(text)) + text


def decoded(text: bytes) -> Message:
    """The message in the bytes behind a length."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"{len(text)} bytes that are not JSON came instead of a message") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Garbled("JSON came that is not a message: it has no type")
    return message


def read(stream: BinaryIO, largest: int = LARGEST) -> Message | None:
    """The next message, waited for; None when the pipe has ended."""
    head = _exactly(stream, _LENGTH.size)
    text = None if head is None else _exactly(stream, _length(head, largest))
    return None if text is None else decoded(text)


async def receive(reader: asyncio.StreamReader, largest: int = LARGEST) -> Message | None:
    """The same for the side that must not block."""
    try:
        head = await reader.readexactly(_LENGTH.size)
        text = await reader.readexactly(_length(head, largest))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return decoded(text)


class Sender:
    """The way out, for any number of threads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, kind: str, **values: Any) -> None:
        data = encoded({"type": kind, **values})
        with self._lock:
            self._stream.write(data)
            self._stream.flush()


def _length(head: bytes, largest: int) -> int:
    length: int = _LENGTH.unpack(head)[0]
    if length > largest:
        raise Garbled(f"a message of {length} bytes was announced; at most {largest} are taken")
    return length


def _exactly(stream: BinaryIO, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        piece = stream.read(count - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)
