"""What clients ask of a server before they use it, how they ask, and what they tick by habit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.settings import Settings
from tests.service.doors.webui.test_jobs import SMALL, SOURCE
from tests.service.fake_desk import FakeDesk

ADDRESS = "http://127.0.0.1:7860"


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=ADDRESS, follow_redirects=False) as made:
        yield made


def test_a_client_decides_by_the_queue_whether_it_is_connected(client: TestClient) -> None:
    told = client.get("/queue/status").json()
    assert (told["msg"], told["queue_size"], told["queue_eta"]) == ("estimation", 0, 0.0)


def test_config_lists_the_upscalers_of_a_second_pass(config: ServeConfig, desk: FakeDesk, tmp_path: Path) -> None:
    (tmp_path / "RealESRGAN_x4plus.pth").touch()
    site = replace(config, settings=Settings(realesrgan_dir=str(tmp_path)))
    with TestClient(create_app(desk, site), base_url=ADDRESS) as client:
        components = client.get("/config").json()["components"]
    (choice,) = [each for each in components if each["props"]["elem_id"] == "txt2img_hr_upscaler"]
    shown = choice["props"]["choices"]  # plain texts: gradio 3.41.2 writes them so, which the reference asks for
    assert all(isinstance(each, str) for each in shown) and choice["props"]["value"] == shown[0]
    assert (choice["type"], choice["props"]["name"]) == ("dropdown", "dropdown")
    assert shown[:2] == ["Latent", "Latent (antialiased)"] and shown[-4:] == [
        "None",
        "Lanczos",
        "Nearest",
        "R-ESRGAN 4x+",
    ]


def test_the_list_of_routes_is_there_and_loads_nothing(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text and "http" not in page.text.replace("http-equiv", "")
    head = client.head("/docs")
    assert (head.status_code, head.content) == (200, b"")
    assert "/sdapi/v1/img2img" in page.text and "/v1/jobs/{job_id}" in page.text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET, HEAD, OPTIONS"),
        ("/sdapi/v1/options", "GET, POST, OPTIONS"),
        ("/sdapi/v1/txt2img", "POST, OPTIONS"),
        ("/controlnet/detect", "POST, OPTIONS"),
        ("/v1/images/generations", "POST, OPTIONS"),
    ],
)
def test_options_says_what_may_be_asked(client: TestClient, path: str, allowed: str) -> None:
    answer = client.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")


def test_options_of_nothing_is_not_there(client: TestClient) -> None:
    assert client.options("/nothing/of/the/kind").status_code == 404


def test_who_asks_the_page_for_its_user(client: TestClient) -> None:
    assert client.get("/user").json() is None
    assert client.get("/login").json() == client.post("/login", data={"username": "a", "password": "b"}).json()
    assert client.get("/sdapi/v1/version").json()["app"] == "overpaint"


def test_none_of_it_is_for_strangers(config: ServeConfig, desk: FakeDesk) -> None:
    with TestClient(create_app(desk, replace(config, token="secret")), base_url=ADDRESS) as client:
        for path in ("/docs", "/config", "/user", "/login", "/queue/status", "/sdapi/v1/version"):
            assert client.get(path).status_code == client.get(f"{path}/").status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.post("/login", data={"username": "a", "password": "secret"}).status_code == 401


def test_a_slash_at_the_end_means_the_same(client: TestClient) -> None:
    assert client.get("/sdapi/v1/samplers/").json() == client.get("/sdapi/v1/samplers").json()
    told = client.post("/sdapi/v1/img2img/", json=SOURCE)
    assert told.status_code == 200 and len(told.json()["images"]) == 1
    assert client.get("/v1/samplers/").status_code == client.get("/healthz/").status_code == 200


@pytest.mark.parametrize("how", [{}, {"json": {}}, {"content": b"", "headers": {"content-type": "application/json"}}])
def test_describing_nothing(client: TestClient, how: dict[str, Any]) -> None:
    answer = client.post("/sdapi/v1/interrogate", **how)
    assert (answer.status_code, answer.json()["detail"]) == (501, "this server has no model that describes pictures")


# -- what is ticked by habit -------------------------------------------------------------------------------------------

ADETAILER: dict[str, Any] = {"ad_model": "face_yolov8n.pt", "ad_prompt": "", "ad_confidence": 0.3}


def said(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    found: list[str] = json.loads(answer.json()["info"]).get("warnings", [])
    return found


@pytest.mark.parametrize("path", ["img2img", "txt2img"])
def test_faces_are_not_restored_and_the_picture_is_painted(client: TestClient, path: str) -> None:
    job = {**(SOURCE if path == "img2img" else SMALL), "restore_faces": True}
    assert said(client.post(f"/sdapi/v1/{path}", json=job)) == [
        "restore_faces: not obeyed, faces are not restored here"
    ]
    job = {**job, "restore_faces": False, "override_settings": {"face_restoration": True}}
    (warning,) = said(client.post(f"/sdapi/v1/{path}", json=job))
    assert warning.startswith("override_settings.face_restoration: not obeyed")


@pytest.mark.parametrize(
    ("script", "args"),
    [
        ("ADetailer", []),
        ("ADetailer", [False]),
        ("ADetailer", [False, False, ADETAILER]),
        ("ADetailer", [{**ADETAILER, "ad_model": "None"}, {"ad_model": "None"}]),
        ("ADetailer", [True, False, {**ADETAILER, "ad_tab_enable": False}]),
        ("ADetailer", {}),
        ("Tiled Diffusion", [False, "MultiDiffusion", 96]),
        ("reactor", [None, False, "0"]),
        ("Dynamic Prompts v2.17.1", [False, False]),
        ("FreeU Integrated (SD 1.x, SD 2.x, SDXL)", {"args": [False, 1.01]}),
    ],
)
def test_scripts_of_other_sites_that_are_off(client: TestClient, script: str, args: Any) -> None:
    scripts = {script: args if isinstance(args, dict) else {"args": args}}
    assert said(client.post("/sdapi/v1/txt2img", json={**SMALL, "alwayson_scripts": scripts})) == []


@pytest.mark.parametrize(
    ("script", "args"),
    [
        ("ADetailer", [ADETAILER]),
        ("adetailer", [True, False, ADETAILER, {"ad_model": "None"}]),
        ("Dynamic Thresholding (CFG Scale Fix)", [True, 7, 100]),
    ],
)
def test_scripts_of_other_sites_that_are_on(desk: FakeDesk, config: ServeConfig, script: str, args: list[Any]) -> None:
    job = {**SMALL, "alwayson_scripts": {script: {"args": args}}}
    with TestClient(create_app(desk, config), base_url=ADDRESS) as client:
        warning = f"alwayson_scripts.{script}: not obeyed, there is no such script here"
        assert said(client.post("/sdapi/v1/txt2img", json=job)) == [warning]
    strict = replace(config, settings=Settings(unoffered_features="refuse"))
    with TestClient(create_app(desk, strict), base_url=ADDRESS) as client:
        answer = client.post("/sdapi/v1/txt2img", json=job)
        assert (answer.status_code, answer.json()["detail"]) == (422, f"Script '{script}' not found")
        assert client.post("/sdapi/v1/txt2img", json={**SMALL, "restore_faces": True}).status_code == 422


def test_a_script_that_nobody_knows_stays_an_error(client: TestClient) -> None:
    for args in ([], [False], [True]):
        job = {**SMALL, "alwayson_scripts": {"ADtailer": {"args": args}}}
        answer = client.post("/sdapi/v1/txt2img", json=job)
        assert (answer.status_code, answer.json()["detail"]) == (422, "Script 'ADtailer' not found")
