"""Bodies: counted on the stream and after unpacking, in time, and no trap for parsers (peers.md 5.2, 5.3.2)."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overpaint.service.guard import bodies, jsonshape
from overpaint.service.guard.bodies import BodyGuard
from overpaint.service.guard.jsonshape import DEEPEST, LONGEST_PART, MOST_PARTS, JsonShape
from overpaint.service.guard.refusals import RequestRefused
from overpaint.service.limits import MIB, Limits

LIMIT = 100_000


class Place:
    """An app that reads its body, behind the guard."""

    def __init__(self, limit: int = LIMIT, patience: float = 5.0) -> None:
        self.guard = BodyGuard(self._app, Limits(body_bytes=limit), patience)
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.body = b""
        while True:
            message = await receive()
            self.body += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def post(self, pieces: Iterable[bytes], pause: float = 0.0, **headers: str) -> tuple[int, dict[str, Any]]:
        """Send a body in these pieces; the status and what was said."""
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if "content_length" not in headers:
            given.append((b"transfer-encoding", b"chunked"))
        scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": given}
        waiting, sent = list(pieces), list[Any]()

        async def receive() -> Any:
            await asyncio.sleep(pause)
            return {"type": "http.request", "body": waiting.pop(0) if waiting else b"", "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.guard(scope, receive, send))
        said = b"".join(each.get("body", b"") for each in sent)
        return sent[0]["status"] if sent else 0, json.loads(said) if said else {}


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LINGER", 0.05)


def pieces_of(data: bytes, size: int = 1000) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def raw_deflate(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(data) + packing.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:]),  # two members
    "deflate": lambda data: zlib.compress(data),
    "Deflate": raw_deflate,
}


@pytest.mark.parametrize("coding", PACKERS)
@pytest.mark.parametrize("size", [0, 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize("step", [7_777, 10**9])
def test_the_limit_counts_what_is_unpacked(coding: str, size: int, step: int) -> None:
    data = bytes(each % 251 for each in range(size))
    packed = PACKERS[coding](data)
    place = Place()
    status, said = place.post(pieces_of(packed, step), content_encoding=coding)
    if size <= LIMIT:
        assert (status, place.body) == (200, data)
        assert place.headers == {"content-length": str(size)}
    else:
        assert (status, place.body) == (413, None)
        assert said["error"]["code"] == "too_large" and str(LIMIT) in said["error"]["message"]
    assert place.guard.hall.bytes == 0


def test_a_promise_beyond_the_limit_is_refused_unread() -> None:
    place = Place()
    assert place.post([b"x"], content_length=str(LIMIT + 1))[0] == 413
    assert place.post([b"x" * LIMIT], content_length=str(LIMIT))[0] == 200
    for wrong in ("-1", "1e3", "²", "9" * 30, ""):
        assert place.post([b"x"], content_length=wrong)[0] == 400


def test_without_a_body_nothing_is_read() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())

    async def receive() -> Any:
        return "untouched"

    async def send(message: Any) -> None:
        raise AssertionError

    seen: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"content-length", b"0")]}
    asyncio.run(BodyGuard(app, Limits())(scope, receive, send))
    assert seen == ["untouched"]


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip,deflate", "compress", "x" * 1000])
def test_other_codings_are_refused(coding: str) -> None:
    assert Place().post([b"x"], content_encoding=coding)[0] == 415


def test_what_cannot_be_unpacked_or_is_cut_off() -> None:
    packed = gzip.compress(b"x" * 1000)
    for broken in (b"no gzip", packed[:-9], packed[:5], packed[:10] + b"\xff" * 20):
        assert Place().post([broken], content_encoding="gzip")[0] == 400


def zeros(size: int) -> bytes:
    packing = zlib.compressobj(9, wbits=31)
    block = packing.compress(b"x" * MIB) + packing.flush(zlib.Z_FULL_FLUSH)
    again = packing.compress(b"x" * MIB) + packing.flush(zlib.Z_FULL_FLUSH)
    return block + again * (size // MIB - 1) + packing.flush()


def test_bombs_are_refused_quickly_and_cheaply() -> None:
    for bomb in (zeros(1024 * MIB), b"".join([gzip.compress(b"\0" * 60_000)] * 3000)):
        place = Place(Limits().body_bytes)
        started = time.process_time()
        tracemalloc.start()
        try:
            status, _ = place.post(pieces_of(bomb, 65_536), content_encoding="gzip")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert status == 413
        assert time.process_time() - started < 0.2
        assert peak < 64 * MIB


def test_slow_bodies_are_not_waited_for() -> None:
    started = time.monotonic()
    status, said = Place(patience=0.2).post([b"x"] * 1000, pause=0.1)
    assert (status, said["error"]["code"]) == (408, "slow")
    assert Place(patience=0.2).post([b"x", b"y"], pause=100)[0] == 408
    assert time.monotonic() - started < 60
    assert Place(patience=1.5).post([b"x" * 9000] * 10, pause=0.2)[0] == 200  # slow, but it moves


def test_a_client_that_goes_is_forgotten() -> None:
    place, calls = Place(), 0

    async def receive() -> Any:
        nonlocal calls
        calls += 1
        return {"type": "http.disconnect"} if calls > 1 else {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
    asyncio.run(place.guard(scope, receive, send))
    assert place.body is None
    assert place.guard.hall.bytes == 0


def test_all_bodies_together_have_a_limit() -> None:
    place = Place()
    hall = place.guard.hall
    hall.bytes = hall.most_bytes - LIMIT
    assert place.post([b"x" * LIMIT])[0] == 200
    hall.bytes += 1
    status, said = place.post([b"x" * LIMIT])
    assert (status, said["error"]["code"]) == (503, "unavailable")
    assert place.post([b"x" * (LIMIT - 1)])[0] == 200


def shape_of(data: bytes, step: int = 65_536) -> None:
    shape = JsonShape()
    for piece in pieces_of(data, step):
        shape.feed(piece)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + b"1" + closing * depth


class TestShape:
    @pytest.mark.parametrize("step", [1, 3, 65_536])
    def test_depth_at_the_limit_and_beyond(self, step: int) -> None:
        for opening, closing in ((b"[", b"]"), (b'{"a\\"":', b"}")):
            shape_of(nested(DEEPEST, opening, closing), step)
            with pytest.raises(RequestRefused, match="nested"):
                shape_of(nested(DEEPEST + 1, opening, closing), step)
        with pytest.raises(RequestRefused, match="nested"):
            shape_of(b" \n\t" * 1000 + nested(10_000))
        with pytest.raises(RequestRefused, match="nested"):
            shape_of(b"\xef\xbb\xbf" + nested(10_000), step)

    def test_brackets_in_texts_are_no_depth(self) -> None:
        shape_of(json.dumps({"a": "[" * 10_000, "b": '\\"[{' * 5000, "c\\": ["\\\\", '"']}).encode(), 7)

    def test_long_texts_are_passed_over_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pattern that goes through each character of a picture held the event loop for 140 ms in 22 MB."""
        monkeypatch.setattr(jsonshape, "_END_OF_TEXT", None)
        shape_of(b'{"images": ["' + b"QUJD" * 100_000 + b'"], "prompt": "' + b"a" * 100_000 + b'"}', 65_536)

    def test_parts_at_the_limit_and_beyond(self) -> None:
        shape_of(b"[" + b"1," * (MOST_PARTS - 2) + b"1]")
        for data in (b"[" + b"1," * MOST_PARTS, b"[" + b'""' * MOST_PARTS, b"[" + b"[]," * MOST_PARTS):
            with pytest.raises(RequestRefused, match="parts"):
                shape_of(data)

    def test_long_numbers_at_the_limit_and_beyond(self) -> None:
        shape_of(b"[" + b"1" * LONGEST_PART + b"]", 100)
        for step in (100, 65_536):
            with pytest.raises(RequestRefused, match="number"):
                shape_of(b"[" + b"1" * (LONGEST_PART + 1) + b"]", step)

    def test_blanks_before_it_beyond_the_limit(self) -> None:
        for step in (1, 100):
            shape_of(b" " * (LONGEST_PART - 10) + b"[1]", step)
        for step in (100, 65_536):
            with pytest.raises(RequestRefused, match="blanks"):
                shape_of(b" " * 70_000, step)

    @pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
    @pytest.mark.parametrize("text", ['{"a": 1}', " [1]", '"a text"'])
    def test_other_characters_than_utf_8(self, coding: str, text: str) -> None:
        for step in (1, 100):
            with pytest.raises(RequestRefused, match="UTF-8"):
                shape_of(text.encode(coding), step)

    @pytest.mark.parametrize(
        "data",
        [
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
            b"RIFF\0\0\0\0WEBP",
            b"--boundary\r\n",
            b"a=1&b=2",
            b"II*\0\x08\0\0\0",
            b"1",
        ],
    )
    def test_what_is_no_json_passes(self, data: bytes) -> None:
        shape_of(data + b"[" * 10_000)

    def test_long_texts_are_quick(self) -> None:
        for text in (b"A" * 32 * MIB, b"\\n" * 8 * MIB, b"\\" * 16 * MIB):
            started = time.process_time()
            shape_of(b'{"image":"' + text + b'"}')
            assert time.process_time() - started < 1

    @settings(max_examples=100, deadline=None)
    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
        step=st.integers(1, 20),
        ascii_only=st.booleans(),
    )
    def test_real_json_passes_in_pieces_of_any_size(self, value: Any, step: int, ascii_only: bool) -> None:
        data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        shape = JsonShape()
        for piece in pieces_of(data, step):
            shape.feed(piece)
        assert shape._depth == 0 and not shape._in_text


def test_large_bodies_take_turns_and_one_of_them_has_a_round_of_the_loop() -> None:
    """What thirty of them bring in one round would hold everybody up for thirty times as long."""
    turns, taken = bodies.LoopTurns(), list[tuple[int, str]]()

    async def body(name: str, rounds: list[int]) -> None:
        for _ in range(3):
            await turns.next()
            taken.append((rounds[0], name))

    async def story() -> None:
        rounds = [0]
        gone = asyncio.create_task(body("gone", rounds))
        others = [asyncio.create_task(body(name, rounds)) for name in "abc"]
        await asyncio.sleep(0)
        gone.cancel()
        while not all(each.done() for each in others):
            rounds[0] += 1
            await asyncio.sleep(0)

    asyncio.run(story())
    assert "".join(name for _, name in taken) == "abcabcabc"
    assert len({number for number, _ in taken}) == len(taken)


def test_only_large_bodies_wait_for_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []

    async def turn(_: object) -> None:
        waited.append(1)

    monkeypatch.setattr(bodies.LoopTurns, "next", turn)
    for pieces, expected in ((16, 0), (17, 0), (18, 1), (19, 2)):
        waited.clear()
        place = Place(limit=4 * MIB)
        assert place.post([b"x" * (MIB // 16)] * pieces)[0] == 200
        assert len(waited) == expected and place.body is not None and len(place.body) == pieces * MIB // 16
