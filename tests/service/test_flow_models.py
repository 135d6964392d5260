"""A flow model behind the three doors: listed, chosen by its name, and kept to its mask. It is the built-in one."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from tests.service.conftest import Server, client_of
from tests.service.fake_desk import FakeDesk
from tests.service.queue.desk_tools import run

NAME = "overpaint-mini-flow"
SIZE = (64, 48)


def test_it_is_in_the_lists(app: Any) -> None:
    async def listed() -> list[Any]:
        async with client_of(app) as client:
            return [(await client.get(path)).json() for path in ("/v1/models", "/sdapi/v1/sd-models")]

    native, webui = run(listed())
    assert NAME in str(native)
    (row,) = (each for each in webui if each["model_name"] == NAME)
    assert row["title"] == f"{NAME}.safetensors [{row['hash']}]"


def test_it_is_chosen_by_its_name(app: Any, desk: FakeDesk) -> None:
    async def asked() -> list[httpx.Response]:
        job = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64}
        async with client_of(app) as client:
            return [
                await client.post("/v1/images/generations", json={"prompt": "a cat", "model": NAME, "size": "64x64"}),
                await client.post("/v1/jobs", json={**job, "checkpoint": NAME}),
                await client.post("/v1/plan", json={**job, "checkpoint": NAME, "sampler": "DDIM"}),
            ]

    openai, native, refused = run(asked())
    assert (openai.status_code, native.status_code, refused.status_code) == (200, 202, 422), refused.text
    assert "which a Stable Diffusion 1 (flow) model does not have" in refused.text


@pytest.fixture(scope="module")
def http(running_server: Server) -> Iterator[httpx.Client]:
    with running_server.client() as client:
        yield client


def source() -> Image.Image:
    picture = Image.radial_gradient("L").resize(SIZE).convert("RGB")
    ImageDraw.Draw(picture).rectangle((5, 5, 30, 20), fill=(10, 120, 200))
    return picture


def mask() -> Image.Image:
    drawn = Image.new("L", SIZE)
    ImageDraw.Draw(drawn).rectangle((20, 16, 44, 40), fill=255)
    return drawn


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def text_of(picture: Image.Image) -> str:
    return base64.b64encode(png(picture)).decode("ascii")


def by_native(http: httpx.Client) -> bytes:
    wish = {"images": [text_of(source())], "mask": text_of(mask()), "mask_blur_x": 0, "mask_blur_y": 0, "steps": 3}
    answer = http.post("/v1/jobs", json={**wish, "prompt": "x", "checkpoint": NAME}, headers={"Prefer": "wait"})
    assert answer.status_code == 200, answer.text
    return http.get(answer.json()["images"][0]).content


def by_webui(http: httpx.Client) -> bytes:
    wish = {"init_images": [text_of(source())], "mask": text_of(mask()), "mask_blur": 0, "steps": 3, "prompt": "x"}
    sized = {"width": SIZE[0], "height": SIZE[1], "override_settings": {"sd_model_checkpoint": NAME}}
    answer = http.post("/sdapi/v1/img2img", json={**wish, **sized, "sampler_name": "Euler"})
    assert answer.status_code == 200, answer.text
    return base64.b64decode(answer.json()["images"][0])


def by_openai(http: httpx.Client) -> bytes:
    hole = source().convert("RGBA")
    hole.putalpha(mask().point(lambda value: 255 - value))
    files = {"image": ("a.png", png(source()), "image/png"), "mask": ("m.png", png(hole), "image/png")}
    form = {"prompt": "x", "model": NAME, "steps": "3", "size": "auto", "mask_blur": "0"}
    answer = http.post("/v1/images/edits", data=form, files=files)
    assert answer.status_code == 200, answer.text
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


@pytest.mark.slow
@pytest.mark.parametrize("way", [by_native, by_webui, by_openai])
def test_pixels_outside_the_mask_stay(way: Any, http: httpx.Client) -> None:
    painted = Image.open(io.BytesIO(way(http))).convert("RGB")
    assert painted.size == SIZE and painted.tobytes() != source().tobytes()
    painted.paste(source(), mask=mask())
    assert painted.tobytes() == source().tobytes()
