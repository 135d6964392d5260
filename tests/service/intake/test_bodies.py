"""Bodies are parsed off the event loop, quickly, and with the same outcome as Python's own parser."""

from __future__ import annotations

import asyncio
import json
import random
import struct
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic_core import from_json

from overpaint.service.intake import bodies
from overpaint.service.intake.bodies import parsed
from tests.service.queue.desk_tools import run

BODIES = (
    b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e999}', b'{"a":"\\ud800"}', b'{"a":123456789012345678901234567890}',
    b'{"a":1,"a":2}', b'\xef\xbb\xbf{"a":1}', b'{"a":1.0,"b":-0.0,"c":1E5,"d":0.1}', b"[1,]", b'{"a":"\x01"}', b" {} ",
    b'"x', b"\xff", b'{"a":1}x', b"1" * 5000, b"", b"nul", b'{"a":"\xc3\xa9\\u00e9\\n"}', b"{'a':1}", b"[" * 5000,
)  # fmt: skip


def outcome(parse: Any, body: bytes) -> Any:
    try:
        return repr(parse(body))
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("body", BODIES, ids=lambda each: repr(each[:20]))
@pytest.mark.parametrize("padding", [0, 100_000])
def test_what_comes_of_a_body_is_what_python_makes_of_it(body: bytes, padding: int) -> None:
    body = b" " * padding + body
    ours = outcome(lambda given: run(parsed([given[:3], given[3:]]), 20), body)
    assert ours == outcome(json.loads, body)


def test_every_number_is_read_to_the_last_bit() -> None:
    rng = random.Random(7)
    numbers = [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(5000)]
    text = json.dumps([each for each in numbers if abs(each) < float("inf")]).encode()
    assert repr(run(parsed([text]), 20)) == repr(json.loads(text))


def test_the_pieces_of_a_body_are_let_go_before_it_is_parsed() -> None:
    pieces = [b"[1,", b"2]"]
    assert run(parsed(pieces), 20) == [1, 2] and pieces == []


@pytest.mark.parametrize("path", ["/v1/jobs", "/sdapi/v1/txt2img", "/v1/images/generations"])
def test_no_door_parses_a_large_body_on_the_event_loop(path: str, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[bool, int]] = []
    quick = from_json

    def seen(body: bytes, **how: Any) -> Any:
        threads.append((_has_loop(), len(body)))
        return quick(body, **how)

    monkeypatch.setattr(bodies, "from_json", seen)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        for size in (10, 200_000):
            client.post(path, json={"prompt": "x" * size, "width": 64, "height": 64, "steps": 1})
    assert [on_loop for on_loop, _ in threads] == [True, False], threads


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
