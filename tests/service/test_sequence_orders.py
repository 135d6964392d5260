"""Sequences from bodies to stored requests: all known, every step judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overpaint.errors import RequestError
from overpaint.sequences.grid import PictureGrid
from overpaint.service.limits import Limits
from overpaint.service.requests import kind_of, loaded_request, stored_request
from overpaint.service.sequence_orders import SequenceOrder
from overpaint.settings import Settings
from tests.service.fake_store import FakeStore
from tests.service.queue.desk_tools import source

LIMITS = Limits()


@pytest.fixture
def store(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path)


def kept(store: FakeStore, limits: Limits = LIMITS, **fields: Any) -> dict[str, Any]:
    return stored_request({"images": [store.put_picture(source())], **fields}, store, limits)


def test_what_is_stored_can_be_read_again(store: FakeStore) -> None:
    stored = kept(store, kind="grid", x="seed=-1,5", y={"steps": [2, 3]}, prompt="a cat", margin=4)
    stored = json.loads(json.dumps(stored))
    assert kind_of(stored) == "sequence"
    order = loaded_request(stored, store.picture)
    assert isinstance(order, SequenceOrder)
    grid = order.sequence(Settings())
    assert isinstance(grid, PictureGrid)
    assert (len(grid), grid.margin, grid.request.prompt) == (4, 4, "a cat")
    assert grid.request.seed != -1
    assert len(order.images) == 1


def test_seeds_of_a_script_are_known_when_it_is_stored(store: FakeStore) -> None:
    """A job that goes on after a crash paints what it began."""
    args = [
        "Seed",
        "-1,-1",
        [],
        "Nothing",
        "",
        [],
        "Nothing",
        "",
        [],
        *[True, False, False, False] + [False] * 3,
        0,
        False,
    ]
    stored = kept(store, kind="script", title="X/Y/Z plot", args=args)
    seeds = stored["sequence"]["x"]["values"]
    assert stored["sequence"]["kind"] == "grid"
    assert -1 not in seeds
    lines = kept(store, kind="prompts", text="a\nb")
    assert lines["sequence"]["own_seeds"] is True


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "outpant", "left": 8}, "give paint, extras, outpaint"),
        ({"kind": "outpaint"}, "does not grow"),
        ({"kind": "outpaint", "left": 100_000}, "left=100000"),
        ({"kind": "outpaint", "lefft": 8}, "did you mean 'left'"),
        ({"kind": "grid", "x": "steps="}, "at least one value"),
        ({"kind": "grid", "x": "seed=1-100", "y": "steps=1-100"}, "10000 cells"),
        ({"kind": "grid", "x": "checkpoint=../../secret"}, "GET /v1/models"),
        ({"kind": "grid", "x": {"vae_dir": ["/etc"]}}, "belongs to the server"),
        ({"kind": "grid", "x": "steps=1,100000"}, "steps"),
        ({"kind": "enlarge", "upscaler": "/etc/passwd"}, "GET /v1/models"),
        ({"kind": "enlarge", "scale": 0}, "scale"),
        ({"kind": "script", "title": "none"}, "Outpainting mk2"),
        ({"kind": "script", "title": "Loopback", "args": [1, 2]}, "takes 4, by position"),
        ({"kind": "prompts", "text": ""}, "at least one line"),
        ({"kind": "loopback", "loops": 1500}, "at most"),
    ],
)
def test_what_is_refused(store: FakeStore, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        kept(store, **fields)


def test_a_sequence_is_within_the_servers_limits(store: FakeStore) -> None:
    assert kept(store, Limits(sequence=3), kind="loopback", loops=3)["kind"] == "sequence"
    with pytest.raises(RequestError, match="at most 3"):
        kept(store, Limits(sequence=3), kind="loopback", loops=4)
