"""Real clients that use a ControlNet, against a started server: webuiapi and sd-backend-client."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.files.metadata import read_recipe
from overpaint.models.checkpoint import recognise
from overpaint.networks.controlnet import ControlNet
from overpaint.pixels.control import canny
from tests.service.conftest import Server, _end, start
from tests.unit.toy_control import control_file, control_spec, random_network

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 3, "seed": 7}


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("controls")
    network = random_network(partial(ControlNet, control_spec(recognise(tiny_checkpoint).unet)), 1)
    control_file(folder / "lines_canny.safetensors", network)
    site = ("--set", f"controlnet_dir={folder}", "--model", str(tiny_checkpoint), "--device", "cpu")
    started = start(tmp_path_factory.mktemp("data"), *site)
    try:
        started.wait_ready()
        yield started
    finally:
        _end(started)


def disc() -> Image.Image:
    y, x = np.mgrid[0:64, 0:64]
    return Image.fromarray(np.where((x - 32) ** 2 + (y - 32) ** 2 < 400, 255, 0).astype(np.uint8)).convert("RGB")


@pytest.fixture(scope="module")
def api(server: Server) -> Any:
    webuiapi = pytest.importorskip("webuiapi")
    return webuiapi.WebUIApi(baseurl=f"{server.url}/sdapi/v1", sampler="Euler")


def units_of(**fields: Any) -> list[Any]:
    webuiapi = pytest.importorskip("webuiapi")
    given = {"image": disc(), "module": "canny", "model": "lines_canny", "threshold_a": 100, "threshold_b": 200}
    return [webuiapi.ControlNetUnit(**{**given, **fields})]


def test_the_map_follows_the_pictures(api: Any) -> None:
    told = api.txt2img(prompt="a cat", controlnet_units=units_of(), batch_size=2, **SMALL)
    assert [each.size for each in told.images] == [(64, 64)] * 3
    assert told.images[2].convert("L").tobytes() == canny(disc(), 100, 200).tobytes()
    assert "ControlNet 0" in told.info["infotexts"][0] and "Control Mode: Balanced" in told.info["infotexts"][1]
    told.images[0].info["parameters"].index("Module: canny, Model: lines_canny")


def test_a_later_call_without_units_has_none(api: Any) -> None:
    assert api.has_controlnet
    api.txt2img(controlnet_units=units_of(), **SMALL)
    plain = api.txt2img(**SMALL)
    assert len(plain.images) == 1 and "ControlNet" not in plain.info["infotexts"][0]


def test_modes_and_masks_reach_the_picture(api: Any) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    changes: list[dict[str, Any]] = [{}, {"control_mode": 1}, {"control_mode": 2}, {"mask": mask}, {"weight": 0.5}]
    made = [api.txt2img(controlnet_units=units_of(**each), **SMALL).image.tobytes() for each in changes]
    assert len({*made, api.txt2img(**SMALL).image.tobytes()}) == len(changes) + 1


def test_a_second_pass_alone_is_guided(api: Any) -> None:
    hires: dict[str, Any] = {"enable_hr": True, "hr_scale": 1.5, "hr_second_pass_steps": 2, "denoising_strength": 0.7}
    kinds = ("Both", "Low res only", "High res only")
    made = [api.txt2img(controlnet_units=units_of(hr_option=each), **hires, **SMALL).image for each in kinds]
    assert {each.size for each in made} == {(96, 96)} and len({each.tobytes() for each in made}) == 3


def test_what_the_picture_followed_is_in_its_recipe(server: Server, api: Any) -> None:
    api.txt2img(controlnet_units=units_of(), **SMALL)
    with server.client() as client:
        job = client.get("/v1/jobs").json()["jobs"][0]
        (first, second) = job["pictures"]
        assert (first["kind"], second["kind"], len(job["images"])) == ("picture", "control", 1)
        data = client.get(first["url"]).content
    recipe = read_recipe(data)
    assert recipe is not None and recipe["controls"][0].startswith("data:image/png;base64,")


def test_webuiapi_asks_what_there_is(api: Any) -> None:
    assert api.controlnet_model_list() == ["lines_canny"] and "canny" in api.controlnet_module_list()
    told = api.controlnet_detect(images=[disc()], module="canny", threshold_a=100, threshold_b=200)
    assert len(told.images) == 1


def test_sd_backend_client(server: Server) -> None:
    sd = pytest.importorskip("sd_backend_client")
    client = sd.A1111Webservice(server.url)
    assert client.get_controlnet_models().model_list == ["lines_canny"]
    found = {each.name: each for each in client.get_controlnet_preprocessors()}
    assert {"none", "canny"} <= found.keys() and {"All", "Canny"} <= client.get_controlnet_type_categories().keys()
    assert client.get_capabilities().controlnet
    preview = client.controlnet_preprocessor_preview(disc(), None, found["canny"])
    assert preview.size == (512, 512)  # the extension's own resolution
    params = sd.DiffusionParams(prompt="a cat", width=64, height=64, steps=3, seed=7)
    params.controlnet_units = [
        sd.ControlNetUnit(
            image=disc(),
            model=sd.ControlNetModel(full_model_name="lines_canny"),
            preprocessor=sd.PreprocessorParams(typedef=found["canny"], parameter_values={"control_mode": "Balanced"}),
        )
    ]
    told = client.txt2img(params)
    assert [each.size for each in told["images"]] == [(64, 64)] * 2
