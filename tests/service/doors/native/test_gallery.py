"""Finished jobs found by words, pinned and deleted; presets, styles, tokens, and what lies beside a model's file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.numpy import save_file
from starlette.testclient import TestClient

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.limits import Limits
from overpaint.settings import Settings
from overpaint.text.tokens import clip_tokenizer
from tests.service.fake_desk import FakeDesk

ADDRESS = "http://127.0.0.1:7860"
SMALL: dict[str, Any] = {"kind": "paint", "steps": 2, "width": 64, "height": 64, "seed": 5}


@pytest.fixture
def desk(tmp_path: Path) -> FakeDesk:
    return FakeDesk(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    settings = replace(Settings(), lora_dir=str(tmp_path / "loras"), styles_file=str(tmp_path / "styles.csv"))
    return ServeConfig(data=tmp_path, settings=settings)


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(desk, config), base_url=ADDRESS) as made:
        yield made


def ids_of(client: TestClient, **asked: Any) -> list[str]:
    return [each["id"] for each in client.get("/v1/gallery", params=asked).json()["jobs"]]


def test_the_gallery_is_found_by_words(client: TestClient, desk: FakeDesk) -> None:
    for name, prompt in (("one", "a red Boat at sea"), ("two", "a green boat"), ("three", "a hill")):
        client.put(f"/v1/jobs/{name}", json={**SMALL, "prompt": prompt, "negative_prompt": "fog"})
    desk.held = True
    client.put("/v1/jobs/waits", json={**SMALL, "prompt": "a red boat that waits"})
    assert ids_of(client) == ["three", "two", "one"], "the newest first, and none that is not over"
    assert ids_of(client, search="boat RED") == ["one"] and ids_of(client, search="fog") == ["three", "two", "one"]
    assert ids_of(client, search="boat", limit=1) == ["two"] and ids_of(client, search="boat", skip=1) == ["one"]
    told = client.get("/v1/gallery", params={"search": "boat", "limit": 1}).json()
    assert told["found"] == 2 and told["jobs"][0]["prompt"] == "a green boat" and told["keep_seconds"] == 3600


def test_jobs_are_pinned_and_deleted(client: TestClient, desk: FakeDesk) -> None:
    client.put("/v1/jobs/one", json=SMALL)
    client.put("/v1/jobs/two", json=SMALL)
    assert client.put("/v1/jobs/one/pin").json()["pinned"] and ids_of(client, pinned=True) == ["one"]
    assert client.delete("/v1/jobs/one/pin").json()["pinned"] is False and ids_of(client, pinned=True) == []
    assert client.delete("/v1/jobs/two").status_code == 204 and ids_of(client) == ["one"]
    assert client.get("/v1/jobs/two").json()["gone"] and client.put("/v1/jobs/two/pin").status_code == 410
    desk.held = True
    client.put("/v1/jobs/three", json=SMALL)
    for method, path in (("PUT", "/v1/jobs/three/pin"), ("DELETE", "/v1/jobs/three")):
        answer = client.request(method, path)
        assert answer.status_code == 409 and "cancel it first" in answer.json()["error"]["message"]
    for method, path in (("PUT", "/v1/jobs/x/pin"), ("DELETE", "/v1/jobs/x/pin"), ("DELETE", "/v1/jobs/x")):
        assert client.request(method, path).status_code == 404


def test_pins_have_a_limit(desk: FakeDesk, config: ServeConfig) -> None:
    with TestClient(create_app(desk, replace(config, limits=Limits(result_bytes=100))), base_url=ADDRESS) as client:
        client.put("/v1/jobs/one", json=SMALL)
        desk.store.jobs["one"] = replace(desk.store.jobs["one"], bytes=101)
        answer = client.put("/v1/jobs/one/pin")
    assert answer.status_code == 413 and "unpin or delete" in answer.json()["error"]["message"]


def test_presets_are_kept_by_name(client: TestClient) -> None:
    fields = {"prompt": "a hill", "steps": 7, "cfg_scale": 4.5}
    assert client.put("/v1/presets/My%20hills", json=fields).json() == {"name": "My hills", "request": fields}
    client.put("/v1/presets/a", json={"steps": 3})
    client.put("/v1/presets/a", json={"steps": 4})
    told = client.get("/v1/presets").json()["presets"]
    assert told == [{"name": "a", "request": {"steps": 4}}, {"name": "My hills", "request": fields}]
    for wrong in ({"mask": "sha256:0"}, {"no_such": 1}, {"prompt": "x" * 30_000}):
        assert client.put("/v1/presets/wrong", json=wrong).status_code == 422
    assert client.put("/v1/presets/" + "n" * 81, json={}).status_code == 422
    assert client.delete("/v1/presets/a").status_code == 204 and client.delete("/v1/presets/a").status_code == 404
    assert [each["name"] for each in client.get("/v1/presets").json()["presets"]] == ["My hills"]


def test_a_prompt_is_counted_in_tokens(client: TestClient) -> None:
    def count(text: str) -> dict[str, int]:
        told: dict[str, int] = client.post("/v1/tokens", json={"text": text}).json()
        return told

    plain = "a photo of a lake, oil on canvas"
    alone = len(clip_tokenizer().encode(plain))
    assert count(plain) == {"tokens": alone, "chunks": 1, "room": 75}
    assert count("(a photo of a lake:1.3), oil on canvas <lora:x:0.5>")["tokens"] == alone
    assert count(f"a AND {plain}")["tokens"] == alone, "of parts between ANDs, the longest"
    assert count(", ".join([plain] * 12))["chunks"] == 2 and count("")["tokens"] == 0
    assert client.post("/v1/tokens", json={"text": "x" * 40_000}).status_code == 422


def test_styles_are_listed(client: TestClient, tmp_path: Path) -> None:
    assert client.get("/v1/styles").json() == {"styles": []}
    (tmp_path / "styles.csv").write_text("name,prompt,negative_prompt\noil,{prompt} in oil,photo\n")
    assert client.get("/v1/styles").json()["styles"] == [
        {"name": "oil", "prompt": "{prompt} in oil", "negative_prompt": "photo"}
    ]


def test_a_model_comes_with_its_words_and_its_picture(client: TestClient, tmp_path: Path) -> None:
    import numpy as np

    folder = tmp_path / "loras"
    folder.mkdir()
    metadata = {"modelspec.trigger_phrase": "in ink"}
    for name in ("ink", "plain", "broken"):
        save_file({"x": np.zeros(1, np.float32)}, folder / f"{name}.safetensors", metadata if name == "ink" else None)
    (folder / "ink.json").write_text(json.dumps({"activation text": "inked, in ink"}))
    (folder / "ink.civitai.info").write_text(json.dumps({"trainedWords": ["inkstyle", 7]}))
    (folder / "broken.json").write_text("[" * 100_000)
    (folder / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (400, 300), (9, 8, 7)).save(folder / "ink.preview.png")
    told = {each["id"]: each for each in client.get("/v1/models?kind=lora").json()["data"]}
    assert told["ink"]["words"] == ["inkstyle", "inked, in ink", "in ink"]
    assert told["plain"]["words"] == [] and told["plain"]["picture"] is None
    answer = client.get(told["ink"]["picture"])
    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.content)).size == (256, 192)
    assert client.get(told["broken"]["picture"]).status_code == 422
    assert client.get("/v1/model-pictures?kind=lora&name=..%2Fink").status_code == 404
