"""Large bodies are read in a process whose end costs one request, and with the outcome that they would have here."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms

from overpaint.errors import PictureError
from overpaint.pictures import open_picture
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

    def decoded(self, pieces: Sequence[bytes]) -> Image.Image | None:
        return readers.decoded_of(answered(b"".join(pieces), self.folder, self.limits, "decoded"), self.limits)

    def picture(self, pieces: Sequence[bytes]) -> PictureApart | None:
        told = answered(b"".join(pieces), self.folder, self.limits, "picture")["picture"]
        self.bodies += 1
        if told is None:
            return None
        self.taken.append(readers._picture(told))
        return self.taken[-1]

    def close(self) -> None:
        """There is nothing to end."""


def answered(body: bytes, folder: Path, limits: Limits = Limits(), what: str = "json") -> dict[str, Any]:  # noqa: B008
    question = {"size": len(body), "limits": asdict(limits), "folder": str(folder), "mark": uuid.uuid4().hex}
    return dict(json.loads(json.dumps(reading.answer({"type": what, **question}, io.BytesIO(body)))))


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
    limits, data = Limits(source_pixels=100_000, picture_bytes=500_000), pictures()[name]
    paths = tuple(bodies_of(b"")) if name in ("good", "wrong inside") else FEW
    asked = {path: {"json": bodies_of(data)[path]} for path in paths}
    here, there, apart = both(asked, limits, tmp_path, monkeypatch)
    for path in paths:
        assert there[path] == here[path], path
    assert apart.bodies == len(paths) and len(apart.taken) >= len(paths)
    assert any(found[0] < 300 for found in here.values()) == (name in ("good", "a TIFF"))
    assert not (apart.folder.is_dir() and list(apart.folder.iterdir()))


def files_of(data: bytes) -> dict[str, dict[str, Any]]:
    """The picture as it is, for each door that takes files: alone, or in a form."""
    form = {"prompt": "p", "seed": "3", "size": "64x64", "steps": "1"}
    mask = noise(size=(100, 80))
    return {
        "/v1/pictures": {"content": data},
        "/v1/recipe": {"content": data},
        "/v1/images/edits": {"files": {"image": ("a.png", data)}, "data": form},
        "/v1/images/edits?": {"files": {"image": ("a.png", data), "mask": ("m.png", mask)}, "data": form},
        "/v1/images/variations": {"files": [("image[]", ("a.png", data)), ("image[]", ("b.png", data))], "data": form},
    }


@pytest.mark.parametrize("name", ["good", "wrong inside", "too large", "no picture", "clear", "half clear", "turned"])
def test_files_are_read_apart_with_the_same_outcome(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, data = Limits(source_pixels=100_000, picture_bytes=500_000), {**pictures(), **more_pictures()}[name]
    asked = files_of(data)
    here, there, apart = both(asked, limits, tmp_path, monkeypatch)
    for path in asked:
        assert there[path] == here[path], path
    assert apart.bodies == len(apart.taken) and (apart.bodies >= len(asked)) == (name in ("good", *more_pictures()))
    assert not (apart.folder.is_dir() and list(apart.folder.iterdir()))


def more_pictures() -> dict[str, bytes]:
    """Good ones with something beside their colours."""
    colours = Image.open(io.BytesIO(noise())).convert("RGBA")
    clear, half, exif = colours.copy(), colours.copy(), Image.Exif()
    clear.paste((0, 0, 0, 0), (0, 0, 50, 50))
    half.putalpha(128)
    exif[0x0112] = 6
    pictures = {"clear": file_of(clear), "half clear": file_of(half)}
    return {**pictures, "turned": noise("JPEG", quality=100, exif=exif.tobytes())}


def file_of(picture: Image.Image, **how: Any) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG", **how)
    return data.getvalue()


def test_no_large_picture_is_decoded_by_who_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where somebody looks at its pixels."""
    decoded: list[str] = []

    def counted(data: bytes, **bounds: Any) -> Image.Image:
        decoded.append("here")
        return open_picture(data, **bounds)

    for place in ("guard.budgets", "guard.inputs"):
        monkeypatch.setattr(f"overpaint.service.{place}.open_picture", counted)
    data, paint = noise(), {"prompt": "p", "width": 64, "height": 64, "steps": 1, "sampler": "Euler"}
    asked = {**files_of(data), "/v1/plan": {"json": {**paint, "images": [text_of(data)]}}}
    small_masks = {"/v1/images/edits?": asked.pop("/v1/images/edits?")}
    small_masks["/v1/plan?"] = {"json": {**asked["/v1/plan"]["json"], "only_masked": True, "mask": text_of(spot())}}
    small_masks["/v1/plan??"] = {"json": {**asked["/v1/plan"]["json"], "mask": {"expression": "all"}}}
    asked |= {path: {"json": each} for path, each in looking_at(text_of(data), paint).items()}
    # A small mask is decoded where it came or was drawn, and what an edit makes of it is judged like any picture.
    for some, expected in ((asked, 0), (small_masks, 4)):
        folder = tmp_path / str(expected)
        found = outcomes(InThisProcess(folder / "incoming", Limits()), folder / "data", some, Limits(), monkeypatch)
        assert {path: each[:2] for path, each in found.items() if each[0] >= 300} == {}
        assert len(decoded) == expected


def looking_at(text: str, paint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Bodies of which somebody looks at the pixels before anything is painted."""
    return {
        "/v1/plan?mask": {**paint, "images": [text], "mask": text, "only_masked": True},
        "/v1/plan?sequence": {"kind": "loopback", "loops": 2, "images": [text], **paint},
        "/v1/jobs?sequence": {"kind": "loopback", "loops": 2, "images": [text], **paint},
        "/v1/masks": {"picture": text, "expression": "ellipse 10,10,90,90", "show": True},
        "/controlnet/detect": {"controlnet_module": "canny", "controlnet_input_images": [text]},
    }


def spot() -> bytes:
    mask = Image.new("L", (200, 160))
    mask.paste(255, (50, 50, 90, 80))
    return file_of(mask)


def test_a_plan_says_the_same_of_a_source_that_it_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, large = (Image.open(io.BytesIO(noise(size=size))) for size in ((200, 160), (400, 320)))
    deep = np.random.default_rng(1).integers(0, 65536, (160, 200), np.uint16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # of no use here, and said so
    sources = {
        "JPEG": noise("JPEG", quality=100),
        "profile": file_of(plain, icc_profile=profile),
        "gray": file_of(large.convert("L")),
        "clear": more_pictures()["clear"],
        "palette": file_of(large.quantize(256)),
        "deep": file_of(Image.fromarray(deep)),
    }
    beside = {"prompt": "p", "seed": 1, "mask": text_of(spot()), "only_masked": True}
    asked = {f"/v1/plan?{name}": {"json": {"images": [text_of(data)], **beside}} for name, data in sources.items()}
    here, there, apart = both(asked, Limits(), tmp_path, monkeypatch)
    assert there == here and len(apart.taken) == len(sources)
    for path, (status, told, *_) in here.items():
        assert status == 200 and told["source"] is not None
        assert any("colour profile" in each for each in told["warnings"]) == (path == "/v1/plan?profile")


def both(
    asked: Mapping[str, Mapping[str, Any]], limits: Limits, folder: Path, monkeypatch: pytest.MonkeyPatch, **how: int
) -> tuple[dict[str, Any], dict[str, Any], InThisProcess]:
    """The outcomes without a reader, and with one."""
    apart = InThisProcess(folder / "apart" / "inputs" / "incoming", limits)
    here = outcomes(None, folder / "here", asked, limits, monkeypatch, **how)
    return here, outcomes(apart, folder / "apart", asked, limits, monkeypatch, **how), apart


def outcomes(
    reader: InThisProcess | None,
    folder: Path,
    asked: Mapping[str, Mapping[str, Any]],
    limits: Limits,
    monkeypatch: pytest.MonkeyPatch,
    worth_it: int = 60_000,
) -> dict[str, Any]:
    """What is answered to each, and what is kept of it, by a server that has bodies read by this reader."""
    for place in ("intake.bodies", "guard.budgets"):
        monkeypatch.setattr(f"overpaint.service.{place}.WORTH_IT", worth_it)
    monkeypatch.setattr("overpaint.service.app.BodyReaders", lambda *_: reader)
    folder.mkdir(parents=True)
    desk = FakeDesk(folder)
    app, found = create_app(desk, ServeConfig(data=folder, limits=limits)), dict[str, Any]()

    async def story() -> None:
        async with client_of(app) as client:
            for path, given in asked.items():
                answer = await client.post(path, **given)
                requests = [without_chance(each.job.request) for each in desk.store.records(limit=100)]
                kept = sorted(each.name for each in (folder / "inputs").rglob("*") if each.is_file())
                found[path] = (answer.status_code, told_of(path, answer), requests, kept)

    asyncio.run(story())
    return found


def told_of(path: str, answer: httpx.Response) -> Any:
    """Errors, and what is said of a picture; what is made of a good one is for others to look at."""
    is_about_it = path.partition("?")[0] in ("/v1/plan", "/v1/pictures", "/v1/recipe")
    return answer.json() if answer.status_code >= 400 or is_about_it else None


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
            with pytest.raises(PictureError, match="takes more memory or time than it may"):
                reading_apart.png([noise("TIFF")])
        for each in reading_apart.helpers:
            each.command = readers.COMMAND
        with (
            Image.open(io.BytesIO(reading_apart.png([noise("TIFF")]))) as made,
            Image.open(io.BytesIO(noise())) as same,
        ):
            assert made.format == "PNG" and made.tobytes() == same.tobytes()
        with pytest.raises(PictureError, match="the picture cannot be opened"):
            reading_apart.png([b"no picture"])
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
        alone = reading_apart.picture([noise()[:1000], noise()[1000:]])
        assert alone is not None and alone.size == (200, 160) and alone.digest == taken[mark].digest
        assert not {each.pid for each in reading_apart.helpers} & {None, os.getpid()}
    finally:
        reading_apart.close()
    assert [each.pid for each in reading_apart.helpers] == [None, None]
