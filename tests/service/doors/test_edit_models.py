"""Flow families at the doors: lists tell what they are painted with, and several pictures are one request's."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.settings import Settings
from tests.flux_toys import toy_flux
from tests.newer_toys import toy_klein, toy_qwen_edit
from tests.service.doors.openai.openai_tools import Served, file_of, hole, opened, scene, served
from tests.service.fake_desk import FakeDesk

openai = pytest.importorskip("openai")

KONTEXT, KLEIN, SCHNELL = "flux1-kontext-dev", "flux-2-klein-4b", "flux1-schnell"
QWEN_EDIT = "qwen_image_edit_2511_bf16"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for each in ("kontext-dev", "schnell"):
        toy_flux(made, each)
    toy_klein(made)
    toy_qwen_edit(made)
    return made / "diffusion_models"


@pytest.fixture
def config(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ServeConfig:
    monkeypatch.setattr("overpaint.service.known_models.user_hash_cache", lambda: tmp_path / "hashes.json")
    return ServeConfig(data=tmp_path / "data", settings=Settings(models_dir=str(folder)))


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    with TestClient(create_app(desk, config), base_url="http://127.0.0.1") as made:
        yield made


@pytest.fixture
def page(desk: FakeDesk, config: ServeConfig) -> Iterator[Served]:
    with served(desk, config) as found:
        yield found


def edited(page: Served, model: str, **fields: Any) -> dict[str, Any]:
    """The request that the desk was handed; three pictures of different shapes were sent."""
    pictures = [("a.png", io.BytesIO(file_of(scene(*size))), "image/png") for size in ((64, 64), (48, 96), (80, 32))]
    with openai.OpenAI(base_url=f"{page.url}/v1", api_key="none", max_retries=0, timeout=60) as asking:
        told = asking.images.edit(image=pictures, prompt="the cat wears this hat", model=model, **fields)
    (*_, record) = page.desk.store.jobs.values()
    request = dict(record.job.request)
    assert len(told.data) == request["batch_size"] * request["iterations"]
    return request


@pytest.mark.parametrize("model", [KONTEXT, KLEIN, QWEN_EDIT])
def test_an_edit_model_looks_at_the_further_pictures(model: str, page: Served) -> None:
    """Of one request, whose strength is the model's own; the mask is for the first, whatever shape the others have."""
    mask = ("mask.png", io.BytesIO(file_of(hole(scene()))), "image/png")
    request = edited(page, model, mask=mask)
    assert (len(request["images"]), len(request["references"]), request["batch_size"]) == (1, 2, 1)
    sizes = [opened(page.desk.store.picture(each)).size for each in (*request["images"], *request["references"])]
    assert sizes == [(64, 64), (48, 96), (80, 32)]
    assert opened(page.desk.store.picture(request["mask"])).size == (64, 64)
    assert request["checkpoint"] == model and request.get("strength") is None


def test_several_results_of_an_edit(page: Served) -> None:
    request = edited(page, KONTEXT, n=2)
    assert (request["iterations"], request["batch_size"], len(request["references"])) == (2, 1, 2)


@pytest.mark.parametrize("model", [SCHNELL, "gpt-image-1"])
def test_with_other_models_each_picture_is_painted_over(model: str, page: Served) -> None:
    request = edited(page, model)
    assert (len(request["images"]), "references" in request, request["batch_size"]) == (3, False, 3)


def test_an_edit_model_in_gguf_is_known_by_its_name(page: Served, folder: Path) -> None:
    """The web process reads no such file."""
    file = folder / "flux1-kontext-dev-Q8_0.gguf"
    file.write_bytes(b"GGUF")
    try:
        assert len(edited(page, "flux1-kontext-dev-Q8_0")["references"]) == 2
    finally:
        file.unlink()


def test_lists_tell_families_and_what_they_are_painted_with(client: TestClient) -> None:
    listed = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
    assert {name: listed[name]["family"] for name in (KONTEXT, KLEIN, SCHNELL)} == {
        KONTEXT: "Flux.1 Kontext dev",
        KLEIN: "Flux.2 klein",
        SCHNELL: "Flux.1 schnell",
    }
    assert listed[KONTEXT]["usual"] == {"strength": 1.0, "steps": 20, "cfg_scale": 1.0, "guidance": 2.5}
    assert listed[KLEIN]["usual"] == {"strength": 1.0, "steps": 4, "cfg_scale": 1.0}
    assert listed["overpaint-mini"]["usual"] == {"strength": 0.75, "steps": 20, "cfg_scale": 7.0}
    (checkpoint,) = [each for each in client.get("/v1/schema").json()["fields"] if each["name"] == "checkpoint"]
    assert {KONTEXT, KLEIN, SCHNELL} <= set(checkpoint["choices"])
    assert {KONTEXT, KLEIN, SCHNELL} <= {each["model_name"] for each in client.get("/sdapi/v1/sd-models").json()}


def test_the_reference_s_door_leaves_the_scale_that_nobody_chose_to_the_model(
    client: TestClient, desk: FakeDesk
) -> None:
    """7 is what its clients send unless somebody chose another; all other numbers there are what it says they are."""
    for given, wanted in (({}, None), ({"cfg_scale": 7}, None), ({"cfg_scale": 2.5}, 2.5)):
        body = {"prompt": "cat", "width": 64, "height": 64, "override_settings": {"sd_model_checkpoint": SCHNELL}}
        assert client.post("/sdapi/v1/txt2img", json={**body, **given}).status_code == 200
        (*_, record) = desk.store.jobs.values()
        assert (record.job.request["cfg_scale"], record.job.request["steps"]) == (wanted, 50)
        assert record.job.request["checkpoint"].endswith(f"{SCHNELL}.safetensors")
