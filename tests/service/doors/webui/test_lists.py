"""The listings of the reference's API against its recordings, and its routes against its OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from overpaint.models.built_in import built_in_names
from overpaint.models.installation import webui_settings
from overpaint.sequences.script_arguments import SCRIPTS
from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.api import router
from overpaint.settings import Settings
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk

# Of the recorded document: training is no part of this project.
NOT_OFFERED = {f"/sdapi/v1/{name}" for name in ("create/embedding", "create/hypernetwork")} | {
    f"/sdapi/v1/{name}" for name in ("train/embedding", "train/hypernetwork")
}
# In the specification, beside the recorded document.
MORE = {"/sdapi/v1/loras", "/sdapi/v1/refresh-loras", "/internal/progress", "/internal/pending-tasks", "/internal/ping"}
# Of the extension "ControlNet", where clients look before they use it.
MORE |= {f"/controlnet/{each}" for each in ("version", "model_list", "module_list", "control_types", "settings")}
MORE |= {"/controlnet/detect"}
# Of the page, where clients look whether there is a server at all.
MORE |= {"/queue/status", "/config", "/user", "/login", "/sdapi/v1/version"}
BODIES = {
    "/sdapi/v1/txt2img": "StableDiffusionProcessingTxt2Img",
    "/sdapi/v1/img2img": "StableDiffusionProcessingImg2Img",
    "/sdapi/v1/extra-single-image": "ExtrasSingleImageRequest",
    "/sdapi/v1/extra-batch-images": "ExtrasBatchImagesRequest",
    "/sdapi/v1/png-info": "PNGInfoRequest",
    "/sdapi/v1/interrogate": "InterrogateRequest",
}
ALWAYS_ON = ("extra options", "soft inpainting", "refiner", "sampler", "seed")
STOCK_SCRIPTS = (*ALWAYS_ON, *(each.title.lower() for each in SCRIPTS))


def without_built_in(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The checkpoints of the site; those that come with the package are beside them."""
    return [each for each in listed if each["model_name"] not in built_in_names()]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Folders with files of the right names; nothing here opens one."""
    for name in ("model/a.safetensors", "model/b.safetensors", "model/b.yaml", "vae/one.vae.pt", "lora/thing.pt"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    for name in ("hyper/net.pt", "esrgan/4x-Sharp.pth", "esrgan/photo_x2.safetensors"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    styles = tmp_path / "files" / "styles.csv"
    styles.write_text("name,prompt,negative_prompt\nink,{prompt} in ink,photo\n", encoding="utf-8")
    return tmp_path / "files"


@pytest.fixture
def client(models: Path, tmp_path: Path, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("overpaint.service.known_models.user_hash_cache", lambda: tmp_path / "hashes.json")
    settings = Settings(
        models_dir=str(models / "model"),
        vae_dir=str(models / "vae"),
        lora_dir=str(models / "lora"),
        hypernetwork_dir=str(models / "hyper"),
        esrgan_dir=str(models / "esrgan"),
        styles_file=str(models / "styles.csv"),
    )
    config = ServeConfig(data=desk.data, checkpoint="a.safetensors", settings=settings, token="a-secret-token")
    app = FastAPI()
    app.include_router(router(desk, config))
    with TestClient(app) as made:
        yield made


def test_every_recorded_route_is_here_with_its_parameters(client: TestClient, parity: Path) -> None:
    recorded = json.loads((parity / "api/openapi.json").read_text("utf-8"))
    ours = client.get("/openapi.json").json()
    assert set(ours["paths"]) == (set(recorded["paths"]) - NOT_OFFERED) | MORE
    for path in set(recorded["paths"]) - NOT_OFFERED:
        for method, route in recorded["paths"][path].items():
            names = [each["name"] for each in route.get("parameters", ())]
            assert [each["name"] for each in ours["paths"][path][method].get("parameters", ())] == names, path
    for path, body in BODIES.items():
        fields, theirs = (each["components"]["schemas"][body]["properties"] for each in (ours, recorded))
        assert set(fields) == set(theirs), path
        for name, schema in theirs.items():
            assert fields[name].get("default") == schema.get("default"), f"{path} {name}"


@pytest.mark.parametrize("name", ["samplers", "schedulers", "latent-upscale-modes"])
def test_fixed_listings_are_the_recorded_ones(client: TestClient, parity: Path, name: str) -> None:
    recorded = json.loads((parity / f"api/GET_{name}.json").read_text("utf-8"))
    assert client.get(f"/sdapi/v1/{name}").json() == recorded


def test_checkpoints_have_the_recorded_fields(client: TestClient, parity: Path, models: Path) -> None:
    recorded = json.loads((parity / "api/GET_sd-models.json").read_text("utf-8"))
    listed = client.get("/sdapi/v1/sd-models").json()
    assert all(set(each) == set(recorded[0]) for each in listed)
    ours = len(built_in_names())
    listed, (built_in, *_) = listed[:-ours], listed[-ours:]
    assert [each["title"] for each in listed] == ["a.safetensors", "b.safetensors"]
    assert [each["config"] for each in listed] == [None, str(models / "model/b.yaml")]
    assert built_in["title"] == f"overpaint-mini.safetensors [{built_in['hash']}]"
    assert len(built_in["hash"]) == 10


def test_a_checkpoint_from_elsewhere_that_is_served_is_listed_first(
    models: Path, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("overpaint.service.known_models.user_hash_cache", lambda: tmp_path / "hashes.json")
    elsewhere = tmp_path / "else.safetensors"
    shutil.copy(models / "model/a.safetensors", elsewhere)
    for folder, names in (("", ["else"]), (str(models / "model"), ["else", "a", "b"])):
        config = ServeConfig(data=desk.data, checkpoint=str(elsewhere), settings=Settings(models_dir=folder))
        app = FastAPI()
        app.include_router(router(desk, config))
        with TestClient(app) as client:
            assert [each["model_name"] for each in client.get("/sdapi/v1/sd-models").json()] == [
                *names,
                *built_in_names(),
            ]
            assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "else.safetensors"


def test_upscalers_begin_as_recorded(client: TestClient, parity: Path, models: Path) -> None:
    recorded = json.loads((parity / "api/GET_upscalers.json").read_text("utf-8"))
    listed = client.get("/sdapi/v1/upscalers").json()
    assert listed[:3] == recorded[:3]
    path = str(models / "esrgan/4x-Sharp.pth")
    assert listed[3] == {
        "name": "4x-Sharp", "model_name": "4x-Sharp", "model_path": path, "model_url": None, "scale": 4.0
    }  # fmt: skip
    assert listed[4]["scale"] == 2.0


def test_other_listings_name_the_files_of_their_folders(client: TestClient, models: Path) -> None:
    def got(name: str) -> Any:
        return client.get(f"/sdapi/v1/{name}").json()

    assert got("sd-vae") == [{"model_name": "one.vae.pt", "filename": str(models / "vae/one.vae.pt")}]
    assert got("hypernetworks") == [{"name": "net", "path": str(models / "hyper/net.pt")}]
    lora = {"name": "thing", "alias": "thing", "path": str(models / "lora/thing.pt"), "metadata": {}}
    assert got("loras") == [lora]
    assert got("prompt-styles") == [{"name": "ink", "prompt": "{prompt} in ink", "negative_prompt": "photo"}]
    assert [got(name) for name in ("face-restorers", "realesrgan-models", "extensions")] == [[], [], []]


def test_embeddings_are_asked_of_the_worker(client: TestClient, desk: FakeDesk) -> None:
    assert client.get("/sdapi/v1/embeddings").json() == {"loaded": {}, "skipped": {}}
    desk.answers["embeddings"] = {"loaded": {"word": {"shape": 4, "vectors": 2}}}
    assert client.get("/sdapi/v1/embeddings").json() == {"loaded": {"word": {"shape": 4, "vectors": 2}}, "skipped": {}}


def test_scripts_are_those_recorded_that_work(client: TestClient, parity: Path) -> None:  # LIST-2
    recorded = json.loads((parity / "api/GET_scripts.json").read_text("utf-8"))
    listed = client.get("/sdapi/v1/scripts").json()
    for kind, titles in recorded.items():
        assert listed[kind] == [each for each in titles if each in STOCK_SCRIPTS]


def test_script_arguments_are_the_recorded_ones(client: TestClient, parity: Path) -> None:  # LIST-3
    recorded = json.loads((parity / "api/GET_script-info.json").read_text("utf-8"))
    listed = client.get("/sdapi/v1/script-info").json()
    kept = [each for each in recorded if each["name"] in STOCK_SCRIPTS]
    assert [(each["name"], each["is_img2img"]) for each in listed] == [(x["name"], x["is_img2img"]) for x in kept]
    for ours, theirs in zip(listed, kept, strict=True):
        if ours["name"] == "refiner":  # its choices are the checkpoints that there are
            ours["args"][1]["choices"] = theirs["args"][1]["choices"]
        if ours["name"] == "sd upscale":  # the upscalers that there are
            assert ours["args"][2]["choices"][:3] == theirs["args"][2]["choices"][:3]
            ours["args"][2]["choices"] = theirs["args"][2]["choices"]
        assert ours == theirs


@pytest.mark.parametrize("name", ["checkpoints", "vae", "embeddings", "loras"])
def test_refreshing_says_nothing(client: TestClient, name: str) -> None:  # LIST-1
    answer = client.post(f"/sdapi/v1/refresh-{name}")
    assert (answer.status_code, answer.json()) == (200, None)


def test_a_new_file_is_listed_at_once(client: TestClient, models: Path) -> None:
    (models / "model/c.safetensors").write_bytes(b"")
    assert [each["model_name"] for each in client.get("/sdapi/v1/sd-models").json()] == [
        "a",
        "b",
        "c",
        *built_in_names(),
    ]


def test_flags_have_the_recorded_names_and_no_secret(client: TestClient, parity: Path) -> None:  # OPT-4
    recorded = json.loads((parity / "api/GET_cmd-flags.json").read_text("utf-8"))
    flags = client.get("/sdapi/v1/cmd-flags")
    assert set(flags.json()) == set(recorded)
    assert "a-secret-token" not in flags.text + client.get("/sdapi/v1/options").text
    assert (flags.json()["api_auth"], flags.json()["gradio_auth"], flags.json()["api"]) == (None, None, True)


def test_memory_has_the_recorded_shape(client: TestClient, desk: FakeDesk, parity: Path) -> None:
    recorded = json.loads((parity / "api/GET_memory.json").read_text("utf-8"))
    desk.answers["memory"] = recorded
    assert client.get("/sdapi/v1/memory").json() == recorded
    desk.answers["memory"] = None
    assert client.get("/sdapi/v1/memory").json() == {name: {"error": "unavailable"} for name in ("ram", "cuda")}


async def _headers(app: FastAPI, path: str) -> list[bytes]:
    """The names of all headers, as they are sent."""
    async with client_of(app) as client:
        return [name.lower() for name, _ in (await client.get(path)).headers.raw]


@pytest.mark.parametrize("path", ["/sdapi/v1/samplers", "/sdapi/v1/nothing-of-this-name", "/controlnet/version"])
def test_every_answer_says_once_how_long_it_took(app: FastAPI, path: str) -> None:  # API-3
    assert asyncio.run(_headers(app, path)).count(b"x-process-time") == 1


def test_the_folder_of_a_webui_as_it_lies(tmp_path: Path, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its models, its styles, and of its options those that its users had changed; results stay with the server."""
    monkeypatch.setattr("overpaint.service.known_models.user_hash_cache", lambda: tmp_path / "hashes.json")
    root = tmp_path / "webui"
    for name in ("models/Stable-diffusion/a.safetensors", "models/Lora/ink.safetensors", "embeddings/x.pt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "styles.csv").write_text("name,prompt\nwash,ink wash\n", encoding="utf-8")
    options = {"CLIP_stop_at_last_layers": 2, "outdir_img2img_samples": "/of/theirs", "sd_model_checkpoint": "a"}
    (root / "config.json").write_text(json.dumps(options), encoding="utf-8")
    config = ServeConfig(data=desk.data, settings=webui_settings(root))
    app = FastAPI()
    app.include_router(router(desk, config))
    with TestClient(app) as client:
        assert client.get("/sdapi/v1/prompt-styles").json()[0]["name"] == "wash"
        assert [each["name"] for each in client.get("/sdapi/v1/loras").json()] == ["ink"]
        held = client.get("/sdapi/v1/options").json()
    assert (held["CLIP_stop_at_last_layers"], held["sd_model_checkpoint"]) == (2, "a.safetensors")
    assert held["outdir_img2img_samples"].startswith(str(desk.data))
