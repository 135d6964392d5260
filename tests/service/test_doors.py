"""What all APIs say alike: of bombs, of prompts that would hold the worker, of places, and when the server stops."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import os
import re
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from overpaint.errors import SaveError
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.jobs import Job, JobError, Record
from overpaint.service.limits import MIB
from overpaint.service.ports import Stopping
from overpaint.settings import Settings
from tests.service.conftest import client_of as in_process
from tests.service.fake_desk import FakeDesk
from tests.service.guard.test_inputs import png

SMALL = {"width": 64, "height": 64, "steps": 1}
OpenAIFiles = list[tuple[str, tuple[str, bytes, str]]]


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    with client_of(desk, config) as made:
        yield made


def client_of(desk: Any, config: ServeConfig) -> TestClient:
    return TestClient(create_app(desk, config), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def files(*pictures: bytes) -> OpenAIFiles:
    return [("image[]", (f"{i}.png", each, "image/png")) for i, each in enumerate(pictures)]


@pytest.fixture(scope="module")
def flat() -> bytes:
    """49 MP in 50 kB, and no lie."""
    data = io.BytesIO()
    Image.new("L", (7000, 7000)).save(data, "PNG")
    return data.getvalue()


def test_many_flat_pictures_are_refused_before_any_is_decoded(client: TestClient, flat: bytes) -> None:
    text = text_of(flat)
    doors: dict[str, dict[str, Any]] = {
        "/v1/jobs": {"json": {"images": [text] * 16, "batch_size": 16}},
        "/v1/plan": {"json": {"images": [text] * 16, "batch_size": 16}},
        "/sdapi/v1/img2img": {"json": {"init_images": [text] * 16, "batch_size": 16}},
        "/sdapi/v1/extra-batch-images": {"json": {"imageList": [{"data": text, "name": "x"}] * 16}},
        "/v1/images/edits": {"files": files(*[flat] * 16), "data": {"prompt": "x"}},
    }
    for door, body in doors.items():
        client.post(door, **body)
        tracemalloc.start()
        started = time.process_time()
        answer = client.post(door, **body)
        seconds = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert answer.status_code in (400, 422) and "all pictures may have" in answer.text, (door, answer.text)
        assert peak < 64 * MIB, (door, peak / MIB)
        assert seconds < 2.0, (door, seconds)  # 0.2 without tracemalloc


@pytest.mark.parametrize("claim", [png(size=(7000, 7000), pixels=b"\0")], ids=["70 bytes"])
def test_headers_that_promise_more_than_can_be_there(client: TestClient, claim: bytes) -> None:
    text = text_of(claim)
    doors: dict[str, dict[str, Any]] = {
        "/v1/jobs": {"json": {"images": [text]}},
        "/sdapi/v1/img2img": {"json": {"init_images": [text]}},
        "/sdapi/v1/png-info": {"json": {"image": text}},
        "/sdapi/v1/extra-single-image": {"json": {"image": text}},
        "/v1/images/edits": {"files": files(claim), "data": {"prompt": "x"}},
        "/v1/pictures": {"content": claim},
    }
    for door, body in doors.items():
        answer = client.post(door, **body)
        assert answer.status_code in (400, 422) and "too small a file" in answer.text, (door, answer.text)


def test_prompts_that_would_hold_the_worker(client: TestClient, desk: FakeDesk) -> None:
    wish = {**SMALL, "prompt": "a AND " * 5000}
    for door, body in {
        "/v1/jobs": wish,
        "/v1/plan": wish,
        "/sdapi/v1/txt2img": wish,
        "/v1/images/generations": {"prompt": wish["prompt"]},
    }.items():
        started = time.monotonic()
        answer = client.post(door, json=body)
        assert answer.status_code == (400 if "images" in door else 422)
        assert "give at most 64" in answer.text and time.monotonic() - started < 60
    assert not desk.store.jobs


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_weight_that_would_make_the_numbers_overflow(client: TestClient, desk: FakeDesk, name: str) -> None:
    for door in ("/v1/jobs", "/v1/plan", "/sdapi/v1/txt2img", "/v1/images/generations"):
        answer = client.post(door, json={"prompt": "x", name: f"a (b:{'9' * 39})", **SMALL})
        assert answer.status_code == (400 if "images" in door else 422), (door, answer.text)
        assert f"{name}='(b:1e+39)': the network's numbers would overflow; give a weight from" in answer.text
    assert not desk.store.jobs


class ClosingDesk(FakeDesk):
    """A desk that stops, in the words of a `LocalDesk`."""

    async def submit(self, job: Job) -> Record:
        raise Stopping("the server is stopping: send the job again when it is back", retry_after=10.0)

    def state(self) -> str:
        return "UNHEALTHY"


def test_a_server_that_stops_takes_nothing(config: ServeConfig) -> None:
    config.data.mkdir()
    with client_of(ClosingDesk(config.data), config) as client:
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "UNHEALTHY")
        for door, body in (
            ("/v1/jobs", SMALL),
            ("/sdapi/v1/txt2img", SMALL),
            ("/v1/images/generations", {"prompt": "x"}),
        ):
            answer = client.post(door, json=body)
            assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
            said = answer.json()["error"]
            assert said == "Stopping" if isinstance(said, str) else said["code"] == "stopping"


class FullDisk(FakeDesk):
    async def submit(self, job: Job) -> Record:
        raise SaveError(f"{self.data}/jobs.db: the disk is full")


def test_a_full_disk(config: ServeConfig) -> None:
    config.data.mkdir()
    with client_of(FullDisk(config.data), config) as client:
        for door, body in (
            ("/v1/jobs", SMALL),
            ("/sdapi/v1/txt2img", SMALL),
            ("/v1/images/generations", {"prompt": "x"}),
        ):
            answer = client.post(door, json=body)
            assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
            assert "jobs.db: the disk is full" in answer.text and str(config.data) not in answer.text


def test_no_answer_tells_where_things_lie(config: ServeConfig, tmp_path: Path) -> None:
    config.data.mkdir()
    models = tmp_path / "m" / "Stable-diffusion"
    config = replace(config, settings=Settings(models_dir=str(models)))
    desk = FakeDesk(config.data)
    for door, body in (
        ("/v1/jobs", SMALL),
        ("/sdapi/v1/txt2img", SMALL),
        ("/v1/images/generations", {"prompt": "x"}),
    ):
        said = f"{config.data}/results/f2/1.png is gone, known in {models}: {models}/one.safetensors"
        desk.script = JobError(code="save", message=said)
        with client_of(desk, config) as client:
            answer = client.post(door, json=body, headers={"Prefer": "wait"})
            assert "results/f2/1.png is gone, known in Stable-diffusion: one.safetensors" in answer.text
            assert str(tmp_path) not in answer.text
    job = next(iter(desk.store.jobs))
    with client_of(desk, config) as client:
        for each in (client.get(f"/v1/jobs/{job}"), client.get(f"/v1/jobs/{job}/events")):
            assert "results/f2/1.png" in each.text and str(tmp_path) not in each.text


@pytest.mark.parametrize("path", ["/v1", "/docs/x", "/v1/nothing", "/a/b"])
def test_where_nothing_is(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert re.search(r"the APIs are /v1, .*/openapi\.json", answer.json()["error"]["message"])


def test_while_a_client_waits_its_body_is_forgotten(desk: FakeDesk, config: ServeConfig) -> None:
    data = io.BytesIO()
    Image.effect_noise((600, 600), 50).save(data, "PNG")
    source = text_of(data.getvalue())
    desk.held = True
    app = create_app(desk, config)

    async def waiting(door: str, body: dict[str, Any], jobs: int) -> tuple[int, int]:
        async with in_process(app) as client:
            before = _kept(source)
            asked = asyncio.create_task(client.post(door, json=body))
            while len(desk.store.jobs) < jobs:
                await asyncio.sleep(0.01)
            more = _kept(source) - before
            for _ in range(100):
                if more:
                    await asyncio.sleep(0.02)
                    more = _kept(source) - before
            await desk.paint_next()
            return (await asked).status_code, more

    doors: dict[str, dict[str, Any]] = {
        "/sdapi/v1/img2img": {"init_images": [source]},
        "/sdapi/v1/extra-single-image": {"image": source},
        "/sdapi/v1/extra-batch-images": {"imageList": [{"data": source, "name": "x"}]},
    }

    async def each_door() -> None:
        for number, (door, body) in enumerate(doors.items(), 1):
            assert await waiting(door, body, number) == (200, 0), door

    asyncio.run(each_door())


def _kept(text: str) -> int:
    gc.collect()
    # NOTE: `isinstance` asks an object for its class, which some of torch's answer with a warning.
    return sum(1 for each in gc.get_objects() if type(each) in (dict, list) and _holds(each, text))


def _holds(value: dict[Any, Any] | list[Any], text: str) -> bool:
    """Directly."""
    members = value.values() if isinstance(value, dict) else value
    return any(type(each) is str and len(each) == len(text) and each == text for each in list(members))


def test_where_nothing_is_in_the_references_api(client: TestClient) -> None:
    for path in ("/sdapi/v1/nothing", "/controlnet/nothing"):
        assert client.get(path).json() == {"error": "HTTPException", "detail": "Not Found", "body": "", "errors": ""}


@pytest.mark.parametrize("kind", [None, "text/plain"])
def test_bodies_of_other_kinds(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/sdapi/v1/txt2img", content=json.dumps(SMALL).encode(), headers=headers)
    assert answer.status_code == 415 and "send application/json" in answer.json()["detail"]
    missing = client.post("/sdapi/v1/png-info")
    assert missing.status_code == 422 and missing.json()["detail"][0]["type"] == "missing"


def test_complaints_name_what_the_client_sent(client: TestClient, flat: bytes) -> None:  # API-2
    small = io.BytesIO()
    Image.new("RGB", (64, 64)).save(small, "PNG")
    source = text_of(small.getvalue())
    for door, body, said in (
        ("img2img", {"init_images": [source], "denoising_strength": 1.5}, "denoising_strength=1.5: "),
        ("txt2img", {**SMALL, "n_iter": 17}, "batch_size x n_iter=17: "),
        ("txt2img", {**SMALL, "enable_hr": True, "hr_scale": 99}, "hr_scale=99"),
        ("extra-single-image", {"image": source, "upscaling_resize": 1000}, "upscaling_resize=1000"),
        (
            "extra-single-image",
            {"image": source, "resize_mode": 1, "upscaling_resize_w": 16_000, "upscaling_resize_h": 16_000},
            "upscaling_resize_w=",
        ),
    ):
        answer = client.post(f"/sdapi/v1/{door}", json=body)
        assert answer.status_code == 422 and answer.json()["errors"].startswith(said), answer.text


def test_what_is_changed_without_a_word_is_told(client: TestClient) -> None:
    data = io.BytesIO()
    Image.new("RGB", (64, 64)).save(data, "PNG")
    source = text_of(data.getvalue())
    wish = {"init_images": [source], "latent_mask": source, "steps": 5.7, "sampler_name": "k_euler", "scheduler": "odd"}
    texts = {"prompt": "a cat <lora:none:1>", "styles": ["none"]}
    told = json.loads(client.post("/sdapi/v1/img2img", json={**SMALL, **wish, **texts}).json()["info"])["warnings"]
    for each in (
        "steps: a whole number",
        "latent_mask: not obeyed",
        "sampler_name='k_euler': there is no such sampler, 'DPM++ 2M'",
        "scheduler='odd': there is no such schedule",
        "styles='none'",
        "there is no LoRA 'none'",
    ):
        assert any(each in said for said in told), (each, told)
    usual = {"sampler_name": "Euler a Karras", "scheduler": "automatic", "steps": 5.0}
    assert "warnings" not in json.loads(client.post("/sdapi/v1/txt2img", json={**SMALL, **usual}).json()["info"])


def test_options_that_no_job_can_run_with(client: TestClient) -> None:
    for values, said in (
        ({"CLIP_stop_at_last_layers": 99}, "give 1 to "),
        ({"img2img_fix_steps": "no"}, "give true or false"),
        ({"n_rows": "x"}, "give a whole number"),
        ({"upscaler_for_img2img": ["x"]}, "give a text"),
    ):
        answer = client.post("/sdapi/v1/options", json=values)
        assert answer.status_code == 422 and said in answer.json()["errors"], answer.text
    assert client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2, "img2img_fix_steps": 1}).json() is None


def test_a_story_that_was_heard_to_its_end(client: TestClient) -> None:
    job = client.post("/v1/jobs", json=SMALL).json()["id"]
    numbers = [
        int(each) for each in re.findall(r"^id: (\d+)$", client.get(f"/v1/jobs/{job}/events").text, re.MULTILINE)
    ]
    for number, status in ((0, 200), (numbers[-2], 200), (numbers[-1], 204), (numbers[-1] + 5, 204)):
        answer = client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(number)})
        assert answer.status_code == status


def test_the_same_job_with_another_priority(client: TestClient) -> None:
    for body, status in (({"priority": 3}, 202), ({"priority": 3}, 202), ({}, 409), ({"run_seconds": 5}, 409)):
        answer = client.put("/v1/jobs/mine", json={**SMALL, **body})
        assert answer.status_code == status or (status == 202 and answer.status_code == 200), answer.text
    assert (
        "priority=0: job mine was handed in with 3"
        in client.put("/v1/jobs/mine", json=SMALL).json()["error"]["message"]
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
@pytest.mark.timeout(60)
def test_a_pipe_among_a_sites_files_keeps_nobody_waiting(desk: FakeDesk, tmp_path: Path) -> None:
    """Whoever opens one waits until somebody writes to it."""
    folders = (
        "models_dir",
        "lora_dir",
        "embeddings_dir",
        "vae_dir",
        "controlnet_dir",
        "hypernetwork_dir",
        "esrgan_dir",
    )
    for name in folders:
        (tmp_path / name).mkdir()
        for suffix in (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".png"):
            os.mkfifo(tmp_path / name / f"pipe{suffix}")
    given: dict[str, Any] = {name: str(tmp_path / name) for name in folders}
    with client_of(desk, ServeConfig(data=desk.data, settings=Settings(**given))) as client:
        for kind in ("checkpoint", "lora", "vae", "embedding", "controlnet", "upscaler", "hypernetwork"):
            listed = client.get(f"/v1/models?kind={kind}")
            assert listed.status_code == 200 and "pipe" not in listed.text
        for path in ("sd-models", "loras", "embeddings", "hypernetworks", "upscalers", "sd-vae"):
            listed = client.get(f"/sdapi/v1/{path}")
            assert listed.status_code == 200 and "pipe" not in listed.text
        for body in ({"checkpoint": "pipe"}, {"prompt": "<lora:pipe:1> pipe"}):
            assert client.post("/v1/plan", json={**SMALL, **body}).status_code == 422
            assert client.post("/sdapi/v1/txt2img", json={**SMALL, **body}).status_code == 200
    os.mkfifo(tmp_path / "styles.csv")
    config = ServeConfig(data=desk.data, settings=Settings(styles_file=str(tmp_path / "styles.csv")))
    with client_of(desk, config) as client:
        for path in ("/v1/plan", "/sdapi/v1/txt2img"):
            told = client.post(path, json={**SMALL, "styles": ["x"]})
            assert told.status_code == 422 and "pipe" in told.text
