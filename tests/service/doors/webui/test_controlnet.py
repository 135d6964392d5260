"""ControlNet through `alwayson_scripts`, and what its clients ask before they use it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from overpaint.parts import AMOUNTS
from overpaint.pixels.control import canny
from overpaint.service.config import ServeConfig
from overpaint.settings import Settings
from tests.service.doors.webui.test_jobs import (
    BASE,
    MASK,
    PICTURE,
    SMALL,
    SOURCE,
    answered,
    client_for,
    encoded,
    request_of,
    warnings_of,
)
from tests.service.fake_desk import FakeDesk

SQUARE = encoded(size=(64, 64), color=(10, 20, 30))
# As webuiapi's ControlNetUnit writes one, all its fields.
WEBUIAPI: dict[str, Any] = {
    "image": SQUARE, "mask": None, "module": "none", "model": "None", "weight": 1.0,
    "resize_mode": "Resize and Fill", "low_vram": False, "processor_res": 512, "threshold_a": 64, "threshold_b": 64,
    "guidance_start": 0.0, "guidance_end": 1.0, "control_mode": "Balanced", "pixel_perfect": False,
    "hr_option": "Both", "enabled": True,
}  # fmt: skip
# As older plug-ins of painting programs write one.
PLUG_IN: dict[str, Any] = {
    "enabled": True, "input_image": SQUARE, "mask": "", "module": "canny", "model": "lines [a1b2c3d4]", "weight": 0.5,
    "resize_mode": "Scale to Fit (Inner Fit)", "lowvram": False, "processor_res": 512, "threshold_a": 50,
    "threshold_b": 150, "guidance_start": 0, "guidance_end": 0.8, "guessmode": False, "control_mode": 0,
}  # fmt: skip


@pytest.fixture
def with_folder(config: ServeConfig, tmp_path: Path) -> ServeConfig:
    folder = tmp_path / "controlnet"
    for name in ("lines.safetensors", "depth/diffusion_pytorch_model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return replace(config, settings=Settings(controlnet_dir=str(folder)))


@pytest.fixture
def client(desk: FakeDesk, with_folder: ServeConfig) -> Iterator[TestClient]:
    with client_for(desk, with_folder) as made:
        yield made


def units(*given: Any, title: str = "ControlNet") -> dict[str, Any]:
    return {"alwayson_scripts": {title: {"args": list(given)}}}


@pytest.mark.parametrize(
    ("module", "sent", "amount"),
    [("threshold", 40, 40), ("tile_resample", 4, 4), ("tile_resample", -1, 2), ("recolor_luminance", 64, 1)],
)
def test_a_modules_own_number(client: TestClient, desk: FakeDesk, module: str, sent: float, amount: float) -> None:
    answered(client, **SOURCE, **units({**WEBUIAPI, "model": "lines", "module": module, "threshold_a": sent}))
    (control,) = request_of(desk).controls
    assert (control.preprocessor, control.amount) == (module, amount)


@pytest.mark.parametrize("title", ["ControlNet", "controlnet", "CONTROLNET"])
def test_a_unit_becomes_a_control(client: TestClient, desk: FakeDesk, title: str) -> None:
    told = answered(client, **SOURCE, **units({**WEBUIAPI, "model": "lines"}, title=title))
    (control,) = request_of(desk).controls
    assert (control.model, control.weight, control.start, control.end) == ("lines", 1.0, 0.0, 1.0)
    assert (control.preprocessor, control.image.size) == ("none", (64, 64))
    assert not warnings_of(told)


def test_units_of_older_clients(client: TestClient, desk: FakeDesk) -> None:
    answered(client, "txt2img", **SMALL, **units(PLUG_IN, {**PLUG_IN, "enabled": False, "model": "?"}, None, False))
    (control,) = request_of(desk).controls
    assert (control.model, control.preprocessor, control.weight, control.end) == ("lines", "canny", 0.5, 0.8)
    assert (control.canny_low, control.canny_high) == (50, 150)


def test_newer_clients_wrap_the_picture_up(client: TestClient, desk: FakeDesk) -> None:
    unit = {"model": "depth", "image": {"image": f"data:image/png;base64,{SQUARE}", "mask": None}}
    answered(client, "txt2img", **SMALL, **units({**unit, "module": "canny", "threshold_a": -1, "threshold_b": -1}))
    (control,) = request_of(desk).controls
    assert (control.model, control.canny_low, control.canny_high) == ("depth", 100, 200)


def test_the_source_is_followed_where_no_picture_is_given(client: TestClient, desk: FakeDesk) -> None:
    answered(client, **SOURCE, **units({"model": "lines", "resize_mode": 0}))
    assert request_of(desk).controls[0].image.size == (64, 64)
    answer = client.post(f"{BASE}/txt2img", json={**SMALL, **units({"model": "lines"})})
    assert answer.status_code == 422 and "ControlNet.args[0].image" in answer.json()["errors"]


@pytest.mark.parametrize("name", ["lines", "lines.safetensors", "lines [0123abcd]", "lines.safetensors [0123abcd]"])
def test_models_by_all_their_names(client: TestClient, desk: FakeDesk, name: str) -> None:
    answered(client, **SOURCE, **units({"model": name}))
    assert request_of(desk).controls[0].model == "lines"


@pytest.mark.parametrize("mode, red", [(0, 8), ("Just Resize", 8), (1, 0), ("Crop and Resize", 0), (2, 8), (None, 0)])
def test_the_units_own_way_to_resize_counts(client: TestClient, desk: FakeDesk, mode: Any, red: int) -> None:
    """A picture twice as wide as high, with a red side: squeezed, cut away, or small between its repeated edges."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :8] = (255, 0, 0)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    wide = base64.b64encode(data.getvalue()).decode()
    answered(client, **SOURCE, **units({"model": "lines", "image": wide, "resize_mode": mode}))
    image = np.asarray(request_of(desk).controls[0].image.convert("RGB"))
    assert image.shape == (64, 64, 3) and (image[32, :, 0] > 127).sum() == red


def test_where_a_part_is_painted_the_picture_lies_over_the_source(client: TestClient, desk: FakeDesk) -> None:
    answered(client, **SOURCE, mask=MASK, **units({"model": "lines", "image": SQUARE}))
    assert request_of(desk).controls[0].image.size == (48, 32)


@pytest.mark.parametrize(
    "changes, place",
    [
        ({"model": "None"}, "model"),
        ({"model": "nothing of the kind"}, "model"),
        ({"model": "../lines"}, "model"),
        ({"model": "/etc/passwd"}, "model"),
        ({"model": 3}, "model"),
        ({"module": "openpose"}, "module"),
        ({"module": 1}, "module"),
        ({"control_mode": 3}, "control_mode"),
        ({"control_mode": "nobody is"}, "control_mode"),
        ({"mask": 5}, "mask"),
        ({"image": {"image": SQUARE, "mask": [SQUARE]}}, "image.mask"),
        ({"image": 5}, "image"),
        ({"hr_option": "Mid res only"}, "hr_option"),
        ({"input_mode": "batch"}, "input_mode"),
        ({"resize_mode": 3}, "resize_mode"),
        ({"resize_mode": "somehow"}, "resize_mode"),
        ({"resize_mode": [1]}, "resize_mode"),
        ({"weight": "much"}, "weight"),
        ({"weight": 1e30}, "weight"),
        ({"guidance_start": 0.9, "guidance_end": 0.1}, "end"),
        ({"guidance_end": 1.5}, "end"),
        ({"module": "canny", "threshold_a": 1e9}, "canny_low"),
        ({"module": "canny", "threshold_a": "1e400"}, "threshold_a"),
    ],
)
def test_what_is_not_offered_is_refused_in_a_sentence(
    client: TestClient, desk: FakeDesk, changes: dict[str, Any], place: str
) -> None:
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, **units({"model": "lines", "image": SQUARE, **changes})})
    assert (answer.status_code, answer.json()["error"]) == (422, "RequestError"), answer.text
    assert f"{place}=" in answer.json()["errors"] and len(answer.json()["errors"]) < 400
    assert not desk.store.jobs


def test_a_unit_is_an_object(client: TestClient) -> None:
    for wrong in ("lines", 3, [1, 2]):
        assert client.post(f"{BASE}/img2img", json={**SOURCE, **units(wrong)}).status_code == 422


def test_fields_that_are_not_known_are_reported(client: TestClient) -> None:
    unit = {"model": "lines", "pulid_mode": "x", "low_vram": True, "pixel_perfect": True, "processor_res": 64}
    (warning,) = warnings_of(answered(client, **SOURCE, **units(unit)))
    assert warning.startswith("alwayson_scripts.ControlNet.args[0].pulid_mode: not obeyed")


def test_a_broken_picture_of_a_unit_is_told(client: TestClient) -> None:
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, **units({"model": "lines", "image": "!!!"})})
    assert (answer.status_code, answer.json()["detail"]) == (500, "Invalid encoded image")  # API-6


def test_many_pictures_are_too_many(client: TestClient) -> None:
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, **units(*[{"model": "lines", "image": SQUARE}] * 17)})
    assert answer.status_code == 413


def test_without_control_nets_there_is_no_such_script(desk: FakeDesk, config: ServeConfig) -> None:
    with client_for(desk, config) as client:
        answered(client, **SOURCE, **units())
        answered(client, **SOURCE, **units({**WEBUIAPI, "enabled": False}))
        answer = client.post(f"{BASE}/img2img", json={**SOURCE, **units(WEBUIAPI)})
        assert (answer.status_code, answer.json()["detail"]) == (422, "Script 'ControlNet' not found")
        assert "controlnet" not in client.get(f"{BASE}/scripts").json()["img2img"]
        assert client.get("/controlnet/model_list").json() == {"model_list": []}


def test_what_clients_ask_before(client: TestClient) -> None:
    assert client.get("/controlnet/version").json() == {"version": 3}
    assert client.get("/controlnet/model_list?update=true").json() == {"model_list": ["lines", "depth"]}
    listed = client.get("/controlnet/module_list?alias_names=true").json()
    assert listed["module_list"] == ["none", "canny", "invert (from white bg & black line)", *AMOUNTS]
    for name, (usual, low, high) in AMOUNTS.items():
        _, slider = listed["module_detail"][name]["sliders"]
        assert (slider["value"], slider["min"], slider["max"]) == (usual, low, high)
    sliders = listed["module_detail"]["canny"]["sliders"]
    names = ["Resolution", "Low Threshold", "High Threshold"]
    assert [each["name"] for each in sliders] == names and [each["value"] for each in sliders] == [512, 100, 200]
    types = client.get("/controlnet/control_types").json()["control_types"]
    assert types["All"]["model_list"] == ["None", "lines", "depth"] and types["All"]["default_model"] == "None"
    assert types["Depth"] == {
        "module_list": ["none"], "model_list": ["None", "depth"], "default_option": "none", "default_model": "depth"
    }  # fmt: skip
    assert types["Canny"]["module_list"] == ["none", "canny"] and types["Canny"]["default_option"] == "canny"
    assert types["Canny"]["model_list"] == ["None"] and types["Canny"]["default_model"] == "None"
    assert client.get("/controlnet/settings").json() == {"control_net_unit_count": 3}
    scripts = client.get(f"{BASE}/scripts").json()
    assert scripts["img2img"][-1] == scripts["txt2img"][-1] == "controlnet"
    assert scripts["img2img"][0] == scripts["txt2img"][0] == "controlnet m2m"  # webuiapi looks for it
    info = [each for each in client.get(f"{BASE}/script-info").json() if each["name"] == "controlnet"]
    assert [each["is_img2img"] for each in info] == [False, True] and len(info[0]["args"]) == 3


def test_detect_shows_what_a_control_net_would_see(client: TestClient) -> None:
    y, x = np.mgrid[0:64, 0:64]
    picture = Image.fromarray(np.where((x - 32) ** 2 + (y - 32) ** 2 < 400, 255, 0).astype(np.uint8)).convert("RGB")
    data = io.BytesIO()
    picture.save(data, "PNG")
    body = {
        "controlnet_module": "canny", "controlnet_images": [base64.b64encode(data.getvalue()).decode()],
        "controlnet_processor_res": 64, "controlnet_threshold_a": 100, "controlnet_threshold_b": 200,
    }  # fmt: skip
    told = client.post("/controlnet/detect", json=body).json()
    (image,) = told["images"]
    with Image.open(io.BytesIO(base64.b64decode(image))) as found:
        assert found.size == (64, 64)
        assert found.convert("L").tobytes() == canny(picture, 100, 200).tobytes()
    body |= {"controlnet_module": "threshold", "controlnet_threshold_a": 40}
    (image,) = client.post("/controlnet/detect", json=body).json()["images"]
    with Image.open(io.BytesIO(base64.b64decode(image))) as found:
        assert found.convert("L").tobytes() == picture.convert("L").point(lambda level: 255 * (level > 40)).tobytes()
    assert client.post("/controlnet/detect", json={**body, "controlnet_module": "depth"}).status_code == 422


@pytest.mark.parametrize("name", ["controlnet_input_images", "controlnet_images"])
def test_detect_gives_a_picture_for_each(client: TestClient, name: str) -> None:
    told = client.post("/controlnet/detect", json={"controlnet_module": "invert", name: [SQUARE, PICTURE]}).json()
    assert len(told["images"]) == 2 and told["info"] == "Success"
    bodies: list[dict[str, Any]] = [{name: []}, {}, {"controlnet_module": "canny"}]
    for empty in bodies:
        answer = client.post("/controlnet/detect", json=empty)
        assert (answer.status_code, answer.json()["detail"]) == (422, "No image selected")


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        *(({"control_mode": each}, "mode", "balanced") for each in (0, "Balanced", None, "balanced")),
        *(({"control_mode": each}, "mode", "prompt") for each in (1, "My prompt is more important")),
        *(({"control_mode": each}, "mode", "control") for each in (2, "ControlNet is more important")),
        *(({each: True}, "mode", "control") for each in ("guessmode", "guess_mode")),
        ({"hr_option": "Both"}, "passes", "both"),
        ({"hr_option": "Low res only"}, "passes", "first"),
        ({"hr_option": "High res only"}, "passes", "second"),
        ({"module": "canny"}, "return_map", True),
        ({"module": "canny", "save_detected_map": False}, "return_map", False),
        ({"module": "none"}, "return_map", False),
        ({"module": "canny", "model": "None"}, "model", None),
    ],
)
def test_how_a_unit_is_to_work(
    client: TestClient, desk: FakeDesk, given: dict[str, Any], field: str, value: Any
) -> None:
    told = answered(client, **SOURCE, **units({"model": "lines", "image": SQUARE, **given}))
    assert getattr(request_of(desk).controls[0], field) == value
    assert not warnings_of(told)


def half(black: int = 0, size: tuple[int, int] = (64, 64)) -> str:
    """White on its left, something else on its right."""
    mask = Image.new("L", size, black)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    data = io.BytesIO()
    mask.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


@pytest.mark.parametrize("name", ["mask", "mask_image", "effective_region_mask"])
def test_a_mask_says_where_a_unit_counts(client: TestClient, desk: FakeDesk, name: str) -> None:
    unit = {"model": "lines", "image": SQUARE}
    answered(client, **SOURCE, **units({**unit, name: half()}))
    mask = request_of(desk).controls[0].mask
    assert mask.size == (64, 64) and mask.getpixel((5, 5)) == 255 and mask.getpixel((60, 5)) == 0
    answered(client, **SOURCE, **units({**unit, name: half(), "image": {"image": SQUARE, "mask": half(128)}}))
    assert request_of(desk).controls[0].mask.getpixel((60, 5)) == 0
    for nothing in ("", None, encoded("L", (64, 64), 0)):  # clients send empty layers along
        answered(client, **SOURCE, **units({**unit, name: nothing}))
        assert request_of(desk).controls[0].mask is None


INFOTEXT = (
    "cat\nSteps: 4, Sampler: Euler, Seed: 1, Size: 64x64, "
    'ControlNet 0: "Module: canny, Model: lines [a1b2c3d4], Weight: 0.7, Resize Mode: Crop and Resize, Processor Res: '
    "512, Threshold A: 50, Threshold B: 150, Guidance Start: 0.1, Guidance End: 0.9, Pixel Perfect: False, Control "
    'Mode: My prompt is more important, Hr Option: Both", Version: v1.10.1'
)


def test_an_infotext_may_speak_of_units(client: TestClient, desk: FakeDesk) -> None:  # I2I-6
    told = answered(client, **SOURCE, infotext=INFOTEXT)
    (control,) = request_of(desk).controls
    assert (control.model, control.preprocessor, control.weight, control.mode) == ("lines", "canny", 0.7, "prompt")
    assert (control.start, control.end, control.canny_low, control.canny_high) == (0.1, 0.9, 50, 150)
    assert control.image.size == (64, 64) and not warnings_of(told)  # it follows the source
    answered(client, **SOURCE, infotext=INFOTEXT, **units({"model": "depth"}))
    assert [each.model for each in request_of(desk).controls] == ["depth"]
    (warning,) = warnings_of(answered(client, "txt2img", **SMALL, infotext=INFOTEXT))
    assert warning.startswith("infotext: not obeyed, it speaks of a ControlNet") and not request_of(desk).controls


def test_a_mask_takes_the_way_of_its_picture(client: TestClient, desk: FakeDesk) -> None:
    unit = {"model": "lines", "image": encoded(size=(64, 32)), "mask": half(size=(64, 32)), "resize_mode": 1}
    answered(client, **SOURCE, **units(unit))
    control = request_of(desk).controls[0]
    assert control.image.size == control.mask.size == (64, 64)


def test_detect_is_bounded(client: TestClient) -> None:
    data = io.BytesIO()
    Image.new("L", (500, 10)).save(data, "PNG")
    body = {"controlnet_images": [base64.b64encode(data.getvalue()).decode()], "controlnet_processor_res": 10**9}
    (image,) = client.post("/controlnet/detect", json=body).json()["images"]
    with Image.open(io.BytesIO(base64.b64decode(image))) as found:
        assert found.width * found.height <= 4_194_304
    answer = client.post("/controlnet/detect", json={"controlnet_images": [PICTURE] * 17})
    assert answer.status_code == 413
