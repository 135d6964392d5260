"""Enlarging, reading and describing pictures by the reference's API (EX, PNG, IGT)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from overpaint.service.config import ServeConfig
from tests.service.doors.webui.test_jobs import BASE, PICTURE, answered, client_for, encoded, request_of
from tests.service.fake_desk import FakeDesk


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    with client_for(desk, config) as made:
        yield made


@pytest.mark.parametrize("path", ["extra-single-image", "extra-batch-images"])
def test_extras_are_jobs_too(client: TestClient, desk: FakeDesk, path: str) -> None:  # EX-1, EX-2
    images: dict[str, Any] = {"image": PICTURE}
    if path == "extra-batch-images":
        images = {"imageList": [{"data": PICTURE, "name": "a"}]}
    told = answered(client, path, upscaling_resize=3, upscaler_1="Lanczos", codeformer_weight=0.5, **images)
    job = list(desk.store.jobs.values())[-1].job
    assert (job.kind, job.origin, job.request["scale"], job.request["upscaler"]) == ("extras", "sdapi", 3.0, "Lanczos")
    assert told["html_info"] == "<p>fake</p>"
    assert told["image"] if path == "extra-single-image" else len(told["images"]) == 1
    told = answered(client, path, show_extras_results=False, resize_mode=1, upscaling_resize_w=96, **images)
    assert not told.get("image") and not told.get("images")
    assert request_of(desk).size == (96, 512)


@pytest.mark.parametrize(
    "fields, status, error",
    [
        ({"upscaler_1": "nothing"}, 500, "AssertionError"),  # EX-3
        ({"gfpgan_visibility": 1}, 422, "RequestError"),
        ({"upscaling_resize": 60, "image": encoded(size=(2000, 2000))}, 422, "RequestError"),
    ],
)
def test_extras_that_cannot_be(client: TestClient, fields: dict[str, Any], status: int, error: str) -> None:
    answer = client.post(f"{BASE}/extra-single-image", json={"image": PICTURE, **fields})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    for wrong in ({"resize_mode": 2}, {"upscaling_resize": 0}, {"codeformer_weight": 2}):
        assert client.post(f"{BASE}/extra-single-image", json={"image": PICTURE, **wrong}).status_code == 422


def test_png_info_reads_what_was_written(client: TestClient, parity: Path) -> None:  # PNG-1
    case = json.loads((parity / "api/plain/case.json").read_text("utf-8"))
    picture = base64.b64encode((parity / "api/plain/image0.png").read_bytes()).decode()
    for text in (picture, f"data:image/png;base64,{picture}"):
        told = client.post(f"{BASE}/png-info", json={"image": text}).json()
        assert told["info"] == json.loads(case["response"]["info"])["infotexts"][0]
        assert told["parameters"]["Sampler"] == "Euler" and told["parameters"]["Size-1"] == "128"
        assert told["parameters"]["Mask mode"] == "Inpaint masked"  # PARSE-6
    bare = client.post(f"{BASE}/png-info", json={"image": PICTURE}).json()
    assert (bare["info"], bare["items"], bare["parameters"]["Prompt"]) == ("", {}, "")


def test_png_info_of_what_is_no_picture(client: TestClient) -> None:  # PNG-1
    for text in ("", "!!!", base64.b64encode(b"text").decode()):
        answer = client.post(f"{BASE}/png-info", json={"image": text})
        assert (answer.status_code, answer.json()["detail"]) == (500, "Invalid encoded image"), text


def test_nobody_describes_pictures(client: TestClient) -> None:  # IGT-1
    for model, status in (("clip", 501), ("deepdanbooru", 501), ("other", 404)):
        answer = client.post(f"{BASE}/interrogate", json={"image": PICTURE, "model": model})
        assert (answer.status_code, answer.json()["error"]) == (status, "HTTPException")
    assert answer.json()["detail"] == "Model not found"
