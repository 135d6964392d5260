"""A started server against the recorded answers of the reference, field by field, on the recorded checkpoint.

Tolerated: `version`, the time, the variation seeds that are drawn for each job anew, and pixels within two levels.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import Server, _end, start
from tests.service.test_reference_jobs import with_pictures

CASES = (
    *("bad_image", "bad_sampler", "bad_script", "data_url", "defaults", "infotext", "mask", "mask_include_init"),
    *("no_images", "override", "plain", "sampler_index", "scheduler_none_default_sampler", "soft_inpaint"),
)
OF_EACH_RUN = ("version", "job_timestamp", "subseed", "all_subseeds")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded_server(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the checkpoint of the recordings, in their precision."""
    folder = tmp_path_factory.mktemp("recorded")
    unpack = [sys.executable, str(parity / "unpack.py"), str(folder / "models"), "tiny-sd15"]
    subprocess.run(unpack, check=True, capture_output=True)
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
    (ours,) = client.get("/sdapi/v1/sd-models").json()
    places = ("filename", "config")
    assert {k: v for k, v in ours.items() if k not in places} == {k: v for k, v in theirs.items() if k not in places}
    assert Path(ours["config"]).name == "tiny-sd15.yaml"
    options, recorded = client.get("/sdapi/v1/options").json(), (parity / "api/GET_options.json").read_text("utf-8")
    for name in ("sd_model_checkpoint", "sd_checkpoint_hash"):
        assert options[name] == json.loads(recorded)[name]
