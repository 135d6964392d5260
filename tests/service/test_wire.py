"""Messages over pipes: whole ones come through, anything else ends the talk."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint.service import wire
from overpaint.service.logs import line
from overpaint.service.wire import Garbled, Message, Sender, encoded, read, receive
from tests.service.queue.desk_tools import run

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def received(data: bytes, largest: int = wire.LARGEST) -> list[Message | None]:
    """Everything that an asyncio reader makes of these bytes."""

    async def all_of_it() -> list[Message | None]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        found: list[Message | None] = []
        while (message := await receive(reader, largest)) is not None:
            found.append(message)
        return found

    return run(all_of_it())


def all_read(data: bytes, largest: int = wire.LARGEST) -> list[Message | None]:
    stream, found = io.BytesIO(data), list[Message | None]()
    while (message := read(stream, largest)) is not None:
        found.append(message)
    return found


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.text(), PLAIN, max_size=4), max_size=4))
def test_what_is_sent_is_received(values: list[dict[str, Any]]) -> None:
    messages = [{**each, "type": "any"} for each in values]
    data = b"".join(map(encoded, messages))
    assert all_read(data) == messages
    assert received(data) == messages


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 60))
def test_a_torn_message_is_none(cut: int) -> None:
    whole = encoded({"type": "first"})
    data = whole + encoded({"type": "second", "text": "x" * 30})
    kept = data[: len(whole) + min(cut, len(data) - len(whole) - 1)]
    assert all_read(kept) == [{"type": "first"}]
    assert received(kept) == [{"type": "first"}]


@pytest.mark.parametrize("make", [all_read, received])
def test_the_size_limit_at_n_and_n_plus_one(make: Any) -> None:
    message = {"type": "a", "text": "x" * 100}
    size = len(json.dumps(message, separators=(",", ":")))
    assert make(encoded(message), size) == [message]
    with pytest.raises(Garbled, match="announced"):
        make(encoded(message), size - 1)
    assert encoded(message, size)
    with pytest.raises(Garbled, match="more than"):
        encoded(message, size - 1)


@pytest.mark.parametrize("text", [b"", b"nonsense", b"[]", b"{}", b'{"type": 3}', b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("make", [all_read, received])
def test_what_is_no_message_ends_the_talk(make: Any, text: bytes) -> None:
    with pytest.raises(Garbled):
        make(struct.pack(">I", len(text)) + text)


def test_a_length_that_is_not_true_takes_no_memory() -> None:
    with pytest.raises(Garbled, match="announced"):
        all_read(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object()])
def test_only_plain_values_are_sent(value: object) -> None:
    with pytest.raises(Garbled, match="plain JSON"):
        encoded({"type": "a", "value": value})


def test_threads_do_not_mix_their_messages() -> None:
    stream = io.BytesIO()
    sender = Sender(stream)

    def send(name: str) -> None:
        for _ in range(50):
            sender.send(name, text=name * 500)

    threads = [threading.Thread(target=send, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    messages = all_read(stream.getvalue())
    assert len(messages) == 200
    assert all(each is not None and each["text"] == each["type"] * 500 for each in messages)


def test_lines_of_the_log() -> None:
    assert line("queued", job="a-1", seconds=1.23456, code=None) == "event=queued job=a-1 seconds=1.235"
    assert line("failed", error='no "x"\nhere') == 'event=failed error="no \\"x\\"\\nhere"'
