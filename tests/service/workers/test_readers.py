"""Large bodies are read in a process whose end costs one request, and with the outcome that they would have here."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from overpaint.errors import PictureError
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.guard.pictures_apart import Apart, PictureApart
from overpaint.service.helpers import reading
from overpaint.service.limits import Limits
from overpaint.service.workers import readers
from overpaint.service.workers.readers import BodyReaders
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk

DYING = """
import os, struct, sys
sys.stdin.buffer.read(4)
os.kill(os.getpid(), 11)
"""


def noise(kind: str = "PNG", size: tuple[int, int] = (200, 160), **how: Any) -> bytes:
    """A picture that no format makes small."""
    pixels = np.random.default_rng(5).integers(0, 255, (*size[::-1], 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **how)
    return data.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


class InThisProcess:
    """A reader without a process; counts what it took and what it left."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.taken: list[PictureApart] = []
        self.bodies = 0

    def json(self, pieces: Sequence[bytes]) -> tuple[Any, Apart] | None:
        told = answered(b"".join(pieces), self.folder, self.limits)
        self.bodies += 1
        if not told["is_read"]:
            return None
        found = {mark: readers._picture(each) for mark, each in told["pictures"].items()}
        self.taken += found.values()
        return told["values"], found

    def close(self) -> None:
        """There is nothing to end."""


def answered(body: bytes, folder: Path, limits: Limits = Limits()) -> dict[str, Any]:  # noqa: B008 (frozen)
    question = {"size": len(body), "limits": asdict(limits), "folder": str(folder), "mark": "f" * 32}
    return dict(json.loads(json.dumps(reading.answer({"type": "read", **question}, io.BytesIO(body)))))


def test_pictures_are_taken_out_and_the_rest_stays(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    turned, text = noise("JPEG", quality=100, exif=exif.tobytes()), "?" * 70_000
    values = {"prompt": text, "steps": 3, "images": [text_of(turned), "short"], "mask": {"pictures": {"a": text}}}
    told = answered(json.dumps(values).encode(), tmp_path)
    (mark, found), *others = told["pictures"].items()
    assert told["values"] == {**values, "images": [mark, "short"]} and not others
    assert Path(found["path"]).read_bytes() == turned and found["size"] == [160, 200] and found["pixels"] == 32_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"images": [NaN, "%s"]}',
        b'["%s"]',
        b'{"images": ["%s"], "include_init_images": true}',
        b'{"images": ["%s"], "infotext": "' + b"x" * 1_100_000 + b'"}',
    ],
    ids=["no JSON", "no object", "echoed", "much besides"],
)
def test_what_is_better_read_here_leaves_nothing_behind(body: bytes, tmp_path: Path) -> None:
    assert answered(body.replace(b"%s", text_of(noise()).encode()), tmp_path) == {"is_read": False}
    assert not list(tmp_path.iterdir())


def pictures() -> dict[str, bytes]:
    good = noise()
    return {
        "good": good,
        "cut off": good[:-40_000],
        "wrong inside": good[:50_000] + bytes(1000) + good[51_000:],
        "a TIFF": noise("TIFF"),
        "too many pixels": noise(size=(400, 300)),
        "too large": noise("BMP", size=(500, 400)),
        "no picture": bytes(range(256)) * 400,
    }


def bodies_of(data: bytes) -> dict[str, dict[str, Any]]:
    """A body with the picture for each door that takes one, and the wrong field last, if all else is right."""
    text, paint = text_of(data), {"prompt": "p", "seed": 3, "steps": 1, "width": 64, "height": 64}
    unit = {"image": text, "module": "canny", "enabled": True, "model": None}
    return {
        "/v1/jobs": {**paint, "images": [text], "mask": text, "variation_seed": 1},
        "/v1/jobs?": {**paint, "images": ["data:image/png;base64," + text], "nosuch": 1},
        "/v1/jobs??": {"kind": "loopback", "loops": 2, "images": [text], **paint, "variation_seed": 1},
        "/v1/jobs???": {**paint, "variation_seed": 1, "images": [text], "mask": {"expression": "all"}},
        "/v1/plan": {**paint, "images": [text]},
        "/v1/masks": {"picture": text, "expression": "ellipse 10,10,90,90"},
        "/sdapi/v1/img2img": {**paint, "init_images": [text], "mask": text, "subseed": 1},
        "/sdapi/v1/extra-single-image": {"image": text, "upscaling_resize": 2},
        "/sdapi/v1/png-info": {"image": text},
        "/controlnet/detect": {"controlnet_module": "canny", "controlnet_input_images": [text]},
        "/sdapi/v1/txt2img": {**paint, "subseed": 1, "alwayson_scripts": {"controlnet": {"args": [unit]}}},
        "/v1/images/edits": {"prompt": "p", "images": [{"image_url": "data:image/png;base64," + text}], "seed": 3},
    }


FEW = ("/v1/jobs", "/sdapi/v1/img2img", "/v1/images/edits")


@pytest.mark.parametrize("name", pictures())
def test_what_is_read_apart_is_answered_as_what_is_read_here(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overpaint.service.intake.bodies.WORTH_IT", 60_000)
    limits, data = Limits(source_pixels=100_000, picture_bytes=500_000), pictures()[name]
    paths = tuple(bodies_of(b"")) if name in ("good", "wrong inside") else FEW

    def outcomes(reader: Any, folder: Path) -> dict[str, Any]:
        folder.mkdir()
        desk = FakeDesk(folder)
        monkeypatch.setattr("overpaint.service.app.BodyReaders", lambda *_: reader)
        app, found = create_app(desk, ServeConfig(data=folder, limits=limits)), dict[str, Any]()

        async def story() -> None:
            async with client_of(app) as client:
                for path in paths:
                    answer = await client.post(path, json=bodies_of(data)[path])
                    requests = [without_chance(each.job.request) for each in desk.store.records(limit=100)]
                    kept = sorted(each.name for each in (folder / "inputs").rglob("*") if each.is_file())
                    found[path] = (answer.status_code, told_of(answer), requests, kept)

        asyncio.run(story())
        return found

    apart = InThisProcess(tmp_path / "apart" / "inputs" / "incoming", limits)
    here, there = outcomes(None, tmp_path / "here"), outcomes(apart, tmp_path / "apart")
    for path in paths:
        assert there[path] == here[path], path
    assert apart.bodies == len(paths) and len(apart.taken) >= len(paths)
    assert any(found[0] < 300 for found in here.values()) == (name == "good")
    assert not (apart.folder.is_dir() and list(apart.folder.iterdir()))


def told_of(answer: httpx.Response) -> Any:
    """Errors; what is made of a good picture is for others to look at."""
    return answer.json() if answer.status_code >= 400 else None


def without_chance(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name != "variation_seed"}


def test_a_mark_is_nothing_to_other_requests(tmp_path: Path) -> None:
    desk = FakeDesk(tmp_path)
    app = create_app(desk, ServeConfig(data=tmp_path))

    async def story() -> None:
        async with client_of(app) as client:
            answer = await client.post("/v1/jobs", json={"images": ["f" * 32 + "-0"], "width": 64, "height": 64})
            assert answer.status_code == 422 and "images[0]" in answer.text

    asyncio.run(story())


def test_a_picture_that_ends_the_reader_is_refused_and_the_next_one_is_made_a_png(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    reading_apart = BodyReaders(folder, Limits(), command=(sys.executable, "-c", DYING))
    try:
        for _ in range(2):
            with pytest.raises(PictureError, match="takes more memory or time than it may; save it as PNG or JPEG"):
                reading_apart.png(noise("TIFF"))
        for each in reading_apart.helpers:
            each.command = readers.COMMAND
        with Image.open(io.BytesIO(reading_apart.png(noise("TIFF")))) as made, Image.open(io.BytesIO(noise())) as same:
            assert made.format == "PNG" and made.tobytes() == same.tobytes()
        with pytest.raises(PictureError, match="the picture cannot be opened"):
            reading_apart.png(b"no picture")
    finally:
        reading_apart.close()
    assert not list(folder.glob("*"))


def test_a_body_that_ends_the_reader_is_refused_and_the_next_one_is_read(tmp_path: Path) -> None:
    body = json.dumps({"images": [text_of(noise())]}).encode()
    reading_apart = BodyReaders(tmp_path / "incoming", Limits(), command=(sys.executable, "-c", DYING))
    try:
        for _ in range(3):
            with pytest.raises(
                PictureError, match="body: reading it takes more memory or time than it may; send small"
            ):
                reading_apart.json([body])
        for each in reading_apart.helpers:
            each.command = readers.COMMAND
        found = reading_apart.json([body[:1000], body[1000:]])
        assert found is not None
        values, taken = found
        (mark,) = values["images"]
        assert taken[mark].read("images[0]") == noise() and taken[mark].measure().size == (200, 160)
        (pid,) = [each.pid for each in reading_apart.helpers if each.pid is not None]
        assert pid != os.getpid()
    finally:
        reading_apart.close()
    assert [each.pid for each in reading_apart.helpers] == [None, None]
