"""What a page needs of the API: several stories at once, boxes, results used further, forms and recipes."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image, ImageCms, ImageDraw
from starlette.testclient import TestClient

from overpaint.models.families import SD1_SPEC
from overpaint.planning.boxes import boxed
from overpaint.planning.plan import plan
from overpaint.request import Img2ImgRequest
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.forms import meanings
from overpaint.service.doors.native.streams import merged
from overpaint.service.limits import Limits
from overpaint.settings import Settings
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk

SMALL: dict[str, Any] = {"kind": "paint", "prompt": "a hill", "steps": 2, "width": 64, "height": 64, "seed": 5}


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1:7860") as made:
        yield made


def blocks_of(text: str) -> list[dict[str, str]]:
    found = [dict(line.split(": ", 1) for line in each.splitlines()) for each in text.split("\n\n") if each]
    return [each for each in found if "data" in each]


# -- several stories at once -------------------------------------------------------------------------------------------


def test_stories_of_several_jobs_come_on_one_connection(client: TestClient) -> None:
    for name in ("one", "two"):
        client.put(f"/v1/jobs/{name}", json=SMALL)
    told = client.get("/v1/events", params={"jobs": "one,two"})
    assert told.headers["content-type"].startswith("text/event-stream")
    blocks = blocks_of(told.text)
    alone = {name: blocks_of(client.get(f"/v1/jobs/{name}/events").text) for name in ("one", "two")}
    for name, story in alone.items():
        own = [each for each in blocks if f'"job": "{name}"' in each["data"]]
        assert [(each["event"], each["data"]) for each in own] == [(each["event"], each["data"]) for each in story]
    places = blocks[-1]["id"]
    assert dict(each.split(".") for each in places.split(",")) == {n: s[-1]["id"] for n, s in alone.items()}
    assert client.get("/v1/events", params={"jobs": places}).status_code == 204
    again = client.get("/v1/events", params={"jobs": "one,two"}, headers={"Last-Event-ID": places})
    assert again.status_code == 204
    half = blocks_of(client.get("/v1/events", params={"jobs": f"one.{alone['one'][-1]['id']},two"}).text)
    assert half and all('"job": "two"' in each["data"] for each in half)


def test_stories_go_on_until_the_last_one_is_over(app: FastAPI, desk: FakeDesk) -> None:
    async def heard() -> str:
        desk.held = True
        async with client_of(app) as client:
            for name in ("one", "two"):
                await client.put(f"/v1/jobs/{name}", json=SMALL)
        text, places = "", {"one": 0, "two": 0}
        async for block in merged(desk, places, places, previews="url", beat=0.05):
            text += block
            if block.startswith(": still here"):
                await desk.paint_next()
        return text

    told = asyncio.run(heard())
    assert told.count("event: finished") == 2 and ": still here" in told


@pytest.mark.parametrize(
    ("jobs", "status"), [("none", 404), ("", 422), ("a b", 422), ("x" * 70, 422), (",".join("a" * 65), 422)]
)
def test_stories_of_nothing(client: TestClient, jobs: str, status: int) -> None:
    answer = client.get("/v1/events", params={"jobs": jobs})
    assert answer.status_code == status and answer.json()["error"]["message"]


# -- boxes -------------------------------------------------------------------------------------------------------------


def test_the_box_is_that_of_the_plan() -> None:
    """Against the whole plan, on masks that are boxes: the soft edge's last grays may round to nothing."""
    rng = random.Random(3)
    for _ in range(25):
        size = rng.randint(80, 900), rng.randint(80, 900)
        left, top = rng.randrange(size[0] - 8), rng.randrange(size[1] - 8)
        box = (left, top, rng.randint(left + 4, size[0]), rng.randint(top + 4, size[1]))
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
        blur = rng.choice((0, 2, 4))
        fields: dict[str, Any] = {"padding": rng.choice((0, 32, 50)), "mask_blur_x": blur, "mask_blur_y": blur}
        if rng.random() < 0.4:
            fields |= {"width": rng.choice((64, 512, 520)), "height": rng.choice((64, 256, 504))}
        request = Img2ImgRequest(images=(Image.new("RGB", size),), mask=mask, only_masked=True, **fields)
        wanted = plan(request, Settings(), SD1_SPEC)
        crop, geometry = boxed(request, size, box, SD1_SPEC.native_size, Settings(), SD1_SPEC.latent.factor)
        assert wanted.mask is not None and wanted.mask.crop is not None
        if blur == 0:
            assert (crop, geometry.width, geometry.height) == (
                wanted.mask.crop,
                wanted.geometry.width,
                wanted.geometry.height,
            )
        apart = [abs(a - b) for a, b in zip(crop, wanted.mask.crop, strict=True)]
        assert max(apart) <= 2 * blur + 64 * (blur > 0), (crop, wanted.mask.crop)


def test_a_box_is_planned_without_a_picture(client: TestClient) -> None:
    asked = {"source": [6000, 4000], "box": [1000, 1000, 1500, 1400], "padding": 32, "width": 512, "height": 512}
    told = client.post("/v1/plan/box", json=asked)
    assert told.status_code == 200
    left, top, right, bottom = told.json()["crop"]
    assert left <= 968 and top <= 968 and right >= 1532 and bottom >= 1432 and right - left == bottom - top
    assert told.json()["size"] == [512, 512]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"box": [5, 5, 5, 9]}, "box"),
        ({"box": [0, 0, 101, 9]}, "box"),
        ({"source": [0, 5]}, "source.0"),
        ({"padding": -1}, "padding"),
        ({"checkpoint": "none"}, "checkpoint"),
        ({"checkpoint": "../secret"}, "checkpoint"),
        ({"other": 1}, "other"),
        ({"width": 16_384, "height": 16_384}, "width x height"),
    ],
)
def test_a_box_that_is_none(client: TestClient, change: dict[str, Any], field: str) -> None:
    answer = client.post("/v1/plan/box", json={"source": [100, 100], "box": [1, 1, 9, 9], **change})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)


# -- results used further ----------------------------------------------------------------------------------------------


def test_a_result_becomes_a_source_without_travelling(client: TestClient) -> None:
    job = client.post("/v1/jobs", json=SMALL, headers={"Prefer": "wait"}).json()
    kept = client.post(f"/v1/jobs/{job['id']}/images/0/source")
    assert kept.status_code == 200
    uploaded = client.put("/v1/pictures", content=client.get(job["images"][0]).content).json()
    assert kept.json() == uploaded
    again = client.post("/v1/jobs", json={**SMALL, "images": [kept.json()["picture"]]}, headers={"Prefer": "wait"})
    assert again.json()["state"] == "finished"


def test_a_result_is_shown_small(client: TestClient) -> None:
    job = client.post("/v1/jobs", json={**SMALL, "width": 256, "height": 128}, headers={"Prefer": "wait"}).json()
    small = client.get(f"/v1/jobs/{job['id']}/images/0/thumbnail", params={"side": 64})
    with Image.open(io.BytesIO(small.content)) as opened:
        assert (opened.format, max(opened.size)) == ("WEBP", 64)
    tag = {"If-None-Match": small.headers["etag"]}
    assert client.get(f"/v1/jobs/{job['id']}/images/0/thumbnail", params={"side": 64}, headers=tag).status_code == 304
    assert client.get(f"/v1/jobs/{job['id']}/images/0/thumbnail", params={"side": 9999}).status_code == 422


def test_a_part_of_a_result_is_given_alone(client: TestClient) -> None:
    job = client.post("/v1/jobs", json={**SMALL, "width": 256, "height": 128}, headers={"Prefer": "wait"}).json()
    whole = client.get(job["images"][0]).content
    with Image.open(io.BytesIO(whole)) as opened:
        wide, high = opened.size
        wanted = opened.crop((3, 5, wide, high - 1))
    part = client.get(f"/v1/jobs/{job['id']}/images/0/crop", params={"box": f"3,5,{wide},{high - 1}"})
    with Image.open(io.BytesIO(part.content)) as opened:
        assert opened.format == "PNG" and opened.size == wanted.size
        assert opened.convert("RGB").tobytes() == wanted.convert("RGB").tobytes()
    for wrong in (f"0,0,{wide + 1},{high}", "5,5,5,9", "1,2,3", "-1,0,2,2", "a"):
        refused = client.get(f"/v1/jobs/{job['id']}/images/0/crop", params={"box": wrong})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "box"), wrong


@pytest.mark.parametrize("what", ["source", "thumbnail", "crop?box=0,0,1,1"])
def test_a_result_that_is_not_there(client: TestClient, what: str, desk: FakeDesk) -> None:
    def asked(path: str) -> Any:
        return client.post(path) if what == "source" else client.get(path)

    assert asked(f"/v1/jobs/none/images/0/{what}").status_code == 404
    job = client.post("/v1/jobs", json=SMALL, headers={"Prefer": "wait"}).json()
    assert asked(f"/v1/jobs/{job['id']}/images/7/{what}").status_code == 404
    record = desk.store.jobs[job["id"]]
    Path(desk.store.result_file(job["id"], record.result.pictures[0].file.rpartition("/")[2])).unlink()
    assert asked(f"/v1/jobs/{job['id']}/images/0/{what}").status_code == 410


# -- forms and recipes -------------------------------------------------------------------------------------------------


def test_a_form_knows_every_field_of_a_job(client: TestClient) -> None:
    told = client.get("/v1/schema").json()["fields"]
    document = client.get("/openapi.json").json()["components"]["schemas"]["Img2ImgPlan"]["properties"]
    assert [each["name"] for each in told] == [name for name in document if name != "kind"]
    assert [each["name"] for each in told if not each["about"]] == []
    by_name = {each["name"]: each for each in told}
    number = {"type": "integer", "minimum": 1, "maximum": 150, "default": 20}  # where the model has none of its own
    assert by_name["steps"]["schema"] == {"anyOf": [number, {"type": "null"}], "default": None}
    assert by_name["strength"]["of_source"] and not by_name["steps"]["of_source"]
    assert "Euler a" in by_name["sampler"]["choices"] and "Karras" in by_name["scheduler"]["choices"]
    assert "overpaint-mini" in by_name["checkpoint"]["choices"] and by_name["steps"]["choices"] is None


def test_meanings_are_whole_sentences() -> None:
    assert len(meanings()) > 40 and meanings()["mask"].startswith("Where to paint.")


def test_a_picture_of_the_reference_gives_its_recipe(client: TestClient) -> None:
    from PIL.PngImagePlugin import PngInfo

    note, file = PngInfo(), io.BytesIO()
    text = "a cat\nNegative prompt: dogs\nSteps: 12, Sampler: Euler a, CFG scale: 6.5, Seed: 99, Size: 64x64, "
    note.add_text("parameters", text + "Denoising strength: 0.4, Mask blur: 4")
    Image.new("RGB", (64, 64)).save(file, "PNG", pnginfo=note)
    told = client.post("/v1/recipe", content=file.getvalue()).json()["request"]
    wanted = {"prompt": "a cat", "negative_prompt": "dogs", "steps": 12, "sampler": "Euler a", "cfg_scale": 6.5}
    assert {name: told[name] for name in wanted} == wanted
    assert (told["seed"], told["strength"]) == (99, 0.4)


def test_a_picture_without_a_recipe(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    assert client.post("/v1/recipe", content=file.getvalue()).json() == {"request": None, "infotext": None}
    assert client.post("/v1/recipe", content=b"no picture").status_code == 422


# -- pictures of other formats -----------------------------------------------------------------------------------------


@pytest.fixture
def as_png(desk: FakeDesk, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., httpx.Response]:
    """Ask for a PNG; what a process of its own does otherwise is done here."""
    monkeypatch.setattr("overpaint.service.app.BodyReaders", lambda *_: None)

    def asked(data: bytes, **limits: int) -> httpx.Response:
        app = create_app(desk, replace(config, limits=Limits(**limits)))

        async def story() -> httpx.Response:
            async with client_of(app) as client:
                answer = await client.post("/v1/pictures/png", content=data)
                if answer.status_code == 200:
                    assert (await client.put("/v1/pictures", content=answer.content)).status_code == 200
                return answer

        return asyncio.run(story())

    return asked


def noise(size: tuple[int, int] = (48, 32)) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(4).randbytes(3 * size[0] * size[1]))


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "BMP", "GIF", "JPEG"])
def test_a_picture_of_another_format_becomes_a_png(as_png: Callable[..., httpx.Response], kind: str) -> None:
    data, profile = io.BytesIO(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise().save(data, kind, icc_profile=profile)
    answer = as_png(data.getvalue())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    with Image.open(io.BytesIO(answer.content)) as made, Image.open(data) as given:
        assert made.format == "PNG" and made.convert("RGB").tobytes() == given.convert("RGB").tobytes()
        assert (made.info.get("icc_profile") == profile) is (kind in ("TIFF", "AVIF", "JPEG"))


def test_a_picture_of_16_bits_becomes_a_png_with_all_of_them(
    as_png: Callable[..., httpx.Response], tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2", reason="writes and reads 16 bits")
    samples = np.random.default_rng(2).integers(0, 65_536, (32, 48, 3), np.uint16)
    cv2.imwrite(str(tmp_path / "deep.tif"), samples)
    answer = as_png((tmp_path / "deep.tif").read_bytes())
    found = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16 and (found == samples).all()


def test_what_cannot_become_a_png_is_said(as_png: Callable[..., httpx.Response]) -> None:
    refused = as_png(b"this is no picture")
    assert refused.status_code == 422 and "it is none of PNG" in refused.json()["error"]["message"]
    data = io.BytesIO()
    noise().save(data, "BMP")
    assert as_png(data.getvalue(), picture_bytes=len(data.getvalue()) - 1).status_code == 413
    few = as_png(data.getvalue(), source_pixels=48 * 32 - 1)
    assert few.status_code == 422 and "max_source_pixels" in few.json()["error"]["message"]
