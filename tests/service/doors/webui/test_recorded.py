"""A started server against the recorded answers of the reference, field by field, on the recorded checkpoint.

Tolerated: `version`, the time, the variation seeds that are drawn for each job anew, and pixels within two levels.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.checkpoints import write_checkpoint
from tests.service.conftest import Server, _end, start
from tests.service.doors.webui.test_jobs import with_pictures
from tests.service.doors.webui.test_lists import without_built_in

CASES = (
    *("bad_image", "bad_sampler", "bad_script", "data_url", "defaults", "infotext", "mask", "mask_include_init"),
    *("no_images", "override", "plain", "sampler_index", "scheduler_none_default_sampler", "soft_inpaint"),
)
OF_EACH_RUN = ("version", "job_timestamp", "subseed", "all_subseeds")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the checkpoint of the recordings, in their precision."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "models").mkdir()
    write_checkpoint("tiny-sd15", folder / "models")
    options = ("--models", str(folder / "models"), "--model", "tiny-sd15", "--device", "cpu", "--dtype", "float32")
    server = start(folder / "data", *options)
    try:
        server.wait_ready()
        yield server
    finally:
        _end(server)


@pytest.fixture(scope="module")
def client(recorded_server: Server) -> Iterator[httpx.Client]:
    with recorded_server.client() as made:
        yield made


@pytest.mark.parametrize("name", CASES)
def test_answers_are_the_recorded_ones(client: httpx.Client, parity: Path, name: str) -> None:
    folder = parity / "api" / name
    case = json.loads((folder / "case.json").read_text("utf-8"))
    answer = client.post("/sdapi/v1/img2img", json=with_pictures(case["request"], parity))
    told, recorded = answer.json(), case["response"]
    assert answer.status_code == case["status"], told
    images = told.pop("images", [])
    assert len(images) == recorded.pop("n_images")
    if case["status"] != 200:
        assert told == recorded
        return
    for field in ("init_images", "mask"):  # the recording names the file
        if recorded["parameters"][field] is not None:
            assert told["parameters"][field] is not None
            recorded["parameters"][field] = told["parameters"][field]
    assert told["parameters"] == recorded["parameters"]
    assert comparable(told["info"]) == comparable(recorded["info"])
    for number, image in enumerate(images):
        assert_same_picture(base64.b64decode(image, validate=True), folder / f"image{number}.png")


def comparable(text: str) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(text)
    info.pop("warnings", None)  # ours alone, where the reference says nothing
    info["infotexts"] = [without_version(each) for each in info["infotexts"]]
    return {name: value for name, value in info.items() if name not in OF_EACH_RUN}


def without_version(text: str) -> str:
    return re.sub(r", Version: [^,]*", "", text)


def assert_same_picture(data: bytes, recorded: Path) -> None:
    with Image.open(io.BytesIO(data)) as ours, Image.open(recorded) as theirs:
        assert (ours.format, ours.mode, ours.size) == (theirs.format, theirs.mode, theirs.size)
        apart = np.abs(np.asarray(ours, int) - np.asarray(theirs, int))
        assert apart.max() <= 2
        assert without_version(ours.info["parameters"]) == without_version(theirs.info["parameters"])


def test_the_served_checkpoint_is_listed_as_recorded(client: httpx.Client, parity: Path) -> None:
    recorded = json.loads((parity / "api/GET_sd-models.json").read_text("utf-8"))
    theirs = next(each for each in recorded if each["model_name"] == "tiny-sd15")
    (ours,) = without_built_in(client.get("/sdapi/v1/sd-models").json())
    places = ("filename", "config")
    assert {k: v for k, v in ours.items() if k not in places} == {k: v for k, v in theirs.items() if k not in places}
    assert Path(ours["config"]).name == "tiny-sd15.yaml"
    options, recorded = client.get("/sdapi/v1/options").json(), (parity / "api/GET_options.json").read_text("utf-8")
    for name in ("sd_model_checkpoint", "sd_checkpoint_hash"):
        assert options[name] == json.loads(recorded)[name]


# What differs from the recordings, and why.
OTHER_HERE: dict[str, frozenset[str]] = {
    # what its own page explains; an option that was switched off for the recording
    "options": frozenset(
        {
            "infotext_explanation",
            "profiling_explanation",
            "sd_vae_explanation",
            "settings_in_ui",
            "live_previews_enable",
        }
    ),
    # flags that say how this server was started: its address, its folders, and never its credentials
    "cmd-flags": frozenset(
        {"api_auth", "ckpt", "ckpt_dir", "config", "data_dir", "embeddings_dir", "esrgan_models_path"}
        | {"hypernetwork_dir", "listen", "nowebui", "port", "server_name", "styles_file", "vae_dir"}
        | {
            "api",
            "cors_allow_origins",
            "gradio_allowed_path",
            "gradio_auth",
            "gradio_auth_path",
            "no_half",
            "precision",
        }
        | {"use_cpu"}
    ),
    # of the job that ran before the recording: here the state of an idle server is empty
    "progress": frozenset({"job_timestamp", "job_no", "sampling_steps"}),
}


@pytest.mark.parametrize("name", ["samplers", "schedulers", "latent-upscale-modes", "prompt-styles"])
def test_listings_of_a_started_server_are_the_recorded_ones(client: httpx.Client, parity: Path, name: str) -> None:
    assert client.get(f"/sdapi/v1/{name}").json() == recorded_list(parity, name)


@pytest.mark.parametrize("name", ["options", "cmd-flags"])
def test_objects_of_a_started_server_are_the_recorded_ones(client: httpx.Client, parity: Path, name: str) -> None:
    recorded, ours = recorded_list(parity, name), client.get(f"/sdapi/v1/{name}").json()
    assert set(ours) == set(recorded)
    different = {key for key in recorded if ours[key] != recorded[key] and recorded[key] != "PATH"}
    assert different <= OTHER_HERE[name], different


def test_an_idle_server_says_so_as_recorded(client: httpx.Client, parity: Path) -> None:
    recorded, ours = recorded_list(parity, "progress"), client.get("/sdapi/v1/progress").json()
    assert {**ours, "state": None} == {**recorded, "state": None}
    different = {key for key in recorded["state"] if ours["state"][key] != recorded["state"][key]}
    assert set(ours["state"]) == set(recorded["state"]) and different <= OTHER_HERE["progress"]


def test_memory_of_a_started_server_has_the_recorded_shape(client: httpx.Client, parity: Path) -> None:
    recorded, ours = recorded_list(parity, "memory"), client.get("/sdapi/v1/memory").json()
    assert set(ours) == set(recorded) and set(ours["ram"]) == set(recorded["ram"])
    assert all(each > 0 for each in ours["ram"].values()) and ours["cuda"] == recorded["cuda"]


def recorded_list(parity: Path, name: str) -> Any:
    return json.loads((parity / f"api/GET_{name}.json").read_text("utf-8"))
