"""img2img and txt2img of the reference's API on a desk without a worker: what is asked, stored and answered."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.api import router
from overpaint.service.jobs import JobError
from overpaint.service.limits import Limits
from overpaint.service.requests import loaded_request
from overpaint.settings import Settings
from tests.service.fake_desk import FakeDesk

BASE = "/sdapi/v1"


def encoded(mode: str = "RGB", size: tuple[int, int] = (48, 32), color: Any = 90) -> str:
    data = io.BytesIO()
    Image.new(mode, size, color).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


PICTURE, MASK = encoded(), encoded("L", color=255)
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4}
SOURCE: dict[str, Any] = {"init_images": [PICTURE], **SMALL}


def client_for(desk: FakeDesk, config: ServeConfig) -> TestClient:
    app = FastAPI()
    app.include_router(router(desk, config))
    return TestClient(app)


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    with client_for(desk, config) as made:
        yield made


def answered(client: TestClient, path: str = "img2img", **fields: Any) -> dict[str, Any]:
    answer = client.post(f"{BASE}/{path}", json=fields)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stored(desk: FakeDesk) -> dict[str, Any]:
    return dict(list(desk.store.jobs.values())[-1].job.request)


def request_of(desk: FakeDesk) -> Any:
    return loaded_request(stored(desk), desk.store.picture)


def warnings_of(told: dict[str, Any]) -> list[str]:
    found: list[str] = json.loads(told["info"]).get("warnings", [])
    return found


@pytest.mark.parametrize(
    "name",
    [
        *("plain", "bad_sampler", "data_url", "defaults", "infotext", "mask", "mask_include_init", "override"),
        *("sampler_index", "scheduler_none_default_sampler", "soft_inpaint"),
    ],
)
def test_parameters_are_the_recorded_ones(client: TestClient, parity: Path, name: str) -> None:  # I2I-7
    """The echo needs no worker; the pictures and `info` are compared in test_recorded."""
    case = json.loads((parity / f"api/{name}/case.json").read_text("utf-8"))
    told = answered(client, **with_pictures(case["request"], parity))
    expected = case["response"]["parameters"]
    for field in ("init_images", "mask"):
        if expected[field] is not None:
            assert told["parameters"][field]
            expected[field] = told["parameters"][field]
    assert told["parameters"] == expected
    assert len(told["images"]) == case["response"]["n_images"]
    assert set(told) == {"images", "parameters", "info"}
    assert bool(warnings_of(told)) is (name == "bad_sampler")


def with_pictures(request: dict[str, Any], parity: Path) -> dict[str, Any]:
    """A recorded request with the pictures that its file names stand for."""

    def read(name: str) -> str:
        is_url, file = name.startswith("DATAURL:"), parity / "images" / name.removeprefix("DATAURL:")
        if not file.is_file():
            return name
        text = base64.b64encode(file.read_bytes()).decode()
        return f"data:image/png;base64,{text}" if is_url else text

    changed = dict(request)
    if "init_images" in request:
        changed["init_images"] = [read(each) for each in request["init_images"]]
    if "mask" in request:
        changed["mask"] = read(request["mask"])
    return changed


@pytest.mark.parametrize("name", ["no_images", "bad_script", "bad_image"])
def test_errors_are_the_recorded_ones(client: TestClient, parity: Path, desk: FakeDesk, name: str) -> None:  # API-2
    case = json.loads((parity / f"api/{name}/case.json").read_text("utf-8"))
    answer = client.post(f"{BASE}/img2img", json=with_pictures(case["request"], parity))
    recorded = {field: value for field, value in case["response"].items() if field != "n_images"}
    assert (answer.status_code, answer.json()) == (case["status"], recorded)
    assert not desk.store.jobs


def test_the_order_of_checks(client: TestClient) -> None:  # I2I-1
    steps: list[tuple[dict[str, Any], int, str]] = [
        ({}, 404, "Init image not found"),
        ({"init_images": [PICTURE]}, 422, "Script 'nope' not found"),
    ]
    for fields, status, detail in steps:
        given = {"script_name": "nope", "alwayson_scripts": {"nope": {}}, **fields}
        answer = client.post(f"{BASE}/img2img", json=given)
        assert (answer.status_code, answer.json()["detail"]) == (status, detail)


def test_fields_become_the_request(client: TestClient, desk: FakeDesk) -> None:
    answered(
        client, **SOURCE, mask=MASK, prompt="cat", seed="7", subseed=8.0, subseed_strength=0.5, steps_=1, cfg_scale=5,
        mask_blur=2, inpainting_fill=2, inpaint_full_res=False, inpainting_mask_invert=1, resize_mode=1, n_iter=2,
        denoising_strength=0.3, seed_resize_from_w=64, seed_resize_from_h=128, sampler_name="Euler a", eta=1.0,
    )  # fmt: skip
    request = request_of(desk)
    assert (request.prompt, request.seed, request.variation_seed, request.variation_strength) == ("cat", 7, 8, 0.5)
    assert (request.mask_blur_x, request.mask_blur_y, request.masked_content.value) == (2, 2, "noise")
    assert (request.only_masked, request.invert_mask, request.resize_mode.value) == (False, True, "crop")
    assert (request.strength, request.seed_resize, request.iterations) == (0.3, (64, 128), 2)
    assert (request.sampler, request.scheduler, request.eta, request.cfg_scale) == ("Euler a", "", 1.0, 5.0)
    assert request.images[0].size == (48, 32) and request.mask.size == (48, 32)


def test_a_latent_mask_is_decoded(client: TestClient, desk: FakeDesk) -> None:  # I2I, where the reference forgets to
    answered(client, **SOURCE, latent_mask=f"data:image/png;base64,{MASK}")
    assert request_of(desk).latent_mask.getpixel((0, 0)) == 255


def test_numbers_are_coerced_and_null_is_the_default(client: TestClient, desk: FakeDesk) -> None:  # API-4
    numbers: dict[str, Any] = {
        "width": "64",
        "height": 64.9,
        "steps": None,
        "cfg_scale": 5,
        "prompt": None,
        "inpaint_full_res": 0,
    }
    told = answered(client, init_images=[PICTURE], **numbers)
    request = request_of(desk)
    assert (request.width, request.height, request.steps, request.cfg_scale) == (64, 64, 50, 5.0)
    assert (request.prompt, request.only_masked) == ("", False)
    assert told["parameters"]["steps"] is None


@pytest.mark.parametrize("field, value", [("seed", "abc"), ("steps", [1]), ("cfg_scale", "much"), ("styles", "ink")])
def test_what_is_no_value_of_its_field_is_told_as_fastapi_tells_it(client: TestClient, field: str, value: Any) -> None:
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, field: value})  # I2I-12
    (said, *_) = answer.json()["detail"]
    assert (answer.status_code, said["loc"][:2], set(said)) == (422, ["body", field], {"loc", "msg", "type"})


@pytest.mark.parametrize(
    "field, text",
    [
        ("override_settings", '{"localization": NaN}'),
        ("override_settings", '{"' + "x" * 101 + '": 1}'),
        ("alwayson_scripts", '{"seed": {"args": ' + "[" * 500 + "]" * 500 + "}}"),
        ("script_args", "[" * 100_000 + "]" * 100_000),
        ("force_task_id", '"half \\ud800"'),
        ("comments", '{"a": "\\udfff"}'),
        ("styles", '["\\ud800"]'),
    ],
)
def test_what_no_answer_could_hold_is_refused(client: TestClient, field: str, text: str) -> None:
    body = json.dumps(SOURCE)[:-1] + f', "{field}": {text}}}'
    answer = client.post(f"{BASE}/img2img", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(client: TestClient, text: str) -> None:
    for field in ("cfg_scale", "steps", "s_tmax", "denoising_strength"):
        body = json.dumps(SOURCE)[:-1] + f', "{field}": {text}}}'
        answer = client.post(f"{BASE}/img2img", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, field


@pytest.mark.parametrize(
    "field, value",
    [
        *[("denoising_strength", 1.5), ("width", 0), ("steps", 151), ("n_iter", 17), ("cfg_scale", 51)],
        *[("prompt", "x" * 32_001), ("resize_mode", 4), ("inpainting_fill", -1)],
        ("seed", 2**70),
    ],
)
def test_what_cannot_be_painted_is_refused_at_once(
    client: TestClient, desk: FakeDesk, field: str, value: Any
) -> None:  # I2I-11
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, field: value})
    assert (answer.status_code, answer.json()["error"]) == (422, "RequestError")
    assert not desk.store.jobs


def test_a_number_for_a_text_is_its_digits(client: TestClient, desk: FakeDesk) -> None:  # API-4
    answered(client, **SOURCE, prompt=2001, styles=[5])
    assert (request_of(desk).prompt, request_of(desk).styles) == ("2001", ("5",))


def test_limits_hold_at_n(client: TestClient) -> None:
    answered(client, **{**SOURCE, "steps": 150, "n_iter": 16, "cfg_scale": 50, "prompt": " " * 32_000})


def test_more_pictures_than_the_batch_has_places(client: TestClient) -> None:  # I2I-9
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, "init_images": [PICTURE] * 3})
    said = "bad number of images passed: 3; expecting 1 or less"
    assert answer.json() == {"error": "RuntimeError", "detail": "", "body": "", "errors": said}
    assert answer.status_code == 500
    assert answered(client, **{**SOURCE, "init_images": [PICTURE] * 3, "batch_size": 3})


def test_urls_are_not_fetched(client: TestClient) -> None:  # API-6
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, "init_images": ["http://127.0.0.1/x.png"]})
    assert (answer.status_code, answer.json()["detail"]) == (500, "Requests not allowed")


def test_pictures_are_held_to_the_limits(desk: FakeDesk, config: ServeConfig) -> None:
    size = len(base64.b64decode(PICTURE))
    allowed = Limits(picture_bytes=size, source_pixels=48 * 32, source_side=48)
    for limits, status in (
        (allowed, 200),
        (replace(allowed, picture_bytes=size - 1), 413),
        (replace(allowed, source_pixels=48 * 32 - 1), 422),
        (replace(allowed, source_side=47), 422),
    ):
        with client_for(desk, replace(config, limits=limits)) as client:
            answer = client.post(f"{BASE}/img2img", json=SOURCE)
            assert (answer.status_code, set(answer.json()) >= {"error", "errors"}) == (status, status != 200)
            assert client.post(f"{BASE}/png-info", json={"image": PICTURE}).status_code == status


def test_a_picture_that_is_broken_inside_is_told_in_a_sentence(client: TestClient, desk: FakeDesk) -> None:
    data = base64.b64decode(PICTURE)
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, "init_images": [base64.b64encode(data[:-30]).decode()]})
    assert (answer.status_code, answer.json()["detail"]) == (422, "")
    assert "init_images[0]" in answer.json()["errors"] and not desk.store.jobs


def test_unknown_keys_are_reported_and_not_obeyed(client: TestClient, desk: FakeDesk) -> None:
    told = answered(client, **SOURCE, hr_additional_modules=[], clip_skip=2)
    assert [each.split(":")[0] for each in warnings_of(told)] == ["clip_skip", "hr_additional_modules"]
    assert "clip_skip" not in told["parameters"] and request_of(desk).clip_skip is None


def test_styles_are_passed_on(client: TestClient, desk: FakeDesk) -> None:
    answered(client, **SOURCE, styles=["ink", "night"])
    assert request_of(desk).styles == ("ink", "night")


def test_pictures_are_sent_only_when_wanted(client: TestClient) -> None:
    told = answered(client, **SOURCE, send_images=False, batch_size=2)
    assert told["images"] == [] and json.loads(told["info"])["all_seeds"]
    (image,) = answered(client, **SOURCE)["images"]
    assert Image.open(io.BytesIO(base64.b64decode(image, validate=True))).text["parameters"]  # type: ignore[attr-defined]


def test_init_images_are_echoed_only_when_wanted(client: TestClient) -> None:
    told = answered(client, **SOURCE, mask=MASK, include_init_images=True)
    assert (told["parameters"]["init_images"], told["parameters"]["mask"]) == ([PICTURE], MASK)


def test_nothing_is_saved_by_default(client: TestClient, desk: FakeDesk, config: ServeConfig) -> None:  # I2I-2
    answered(client, **SOURCE, batch_size=2)
    assert not (config.data / "outputs").exists()
    assert not Settings.from_json(list(desk.store.jobs.values())[-1].job.settings).return_grid


def test_pictures_are_saved_when_wanted(client: TestClient, desk: FakeDesk, config: ServeConfig) -> None:  # I2I-2
    answered(client, **SOURCE, batch_size=2, seed=5, save_images=True)
    saved = sorted(path.name for path in (config.data / "outputs/img2img-images").rglob("*.png"))
    assert saved == ["00000-5.png", "00001-6.png"]
    assert Settings.from_json(list(desk.store.jobs.values())[-1].job.settings).return_grid  # the sheet comes first
    answered(client, "txt2img", **SMALL, save_images=True, seed=9)
    assert [path.name for path in (config.data / "outputs/txt2img-images").rglob("*.png")] == ["00000-9.png"]


def test_soft_inpainting_by_position(client: TestClient, desk: FakeDesk) -> None:  # I2I-3, SOFT
    answered(client, **SOURCE, mask=MASK, alwayson_scripts={"SOFT Inpainting": {"args": [True, 2, 0.25, "x"][:3]}})
    soft = request_of(desk).soft_inpainting
    assert (soft.schedule_bias, soft.preservation_strength, soft.transition_contrast_boost) == (2, 0.25, 4)
    assert request_of(desk).round_mask is False
    for args in ([], [False, 2]):
        answered(client, **SOURCE, mask=MASK, alwayson_scripts={"soft inpainting": {"args": args}})
        assert request_of(desk).soft_inpainting is None
    long = [True, 1, 0.5, 4, 0, 0.5, 2, "beyond", "the last"]
    answered(client, **SOURCE, mask=MASK, alwayson_scripts={"soft inpainting": {"args": long}})
    assert request_of(desk).soft_inpainting.difference_contrast == 2


@pytest.mark.parametrize(
    "scripts, status, detail",
    [
        ({"ControlNet": {"args": [{"model": "x"}]}}, 422, "Script 'ControlNet' not found"),
        ({"Loopback": {"args": []}}, 422, "Cannot have a selectable script in the always on scripts params"),
        ({"Seed": {"args": [1, False]}, "extra options": {}, "refiner": {"x": 1}}, 200, ""),
    ],
)
def test_always_on_scripts(client: TestClient, scripts: dict[str, Any], status: int, detail: str) -> None:  # I2I-3
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, "alwayson_scripts": scripts})
    assert (answer.status_code, answer.json().get("detail", "")) == (status, detail)
    if status == 200:
        assert [each.split(":")[0] for each in warnings_of(answer.json())] == ["alwayson_scripts.Seed"]  # I2I-5


@pytest.mark.parametrize(
    ("path", "name", "hint"),
    [
        ("img2img", "nothing of the kind", ""),
        ("img2img", "lopback", "did you mean 'loopback'?; there are img2img alternative test, loopback"),
        ("txt2img", "Loopback", "it works in img2img only"),
    ],
)
def test_unknown_scripts_are_not_found(client: TestClient, path: str, name: str, hint: str) -> None:  # I2I-1
    answer = client.post(f"{BASE}/{path}", json={**SOURCE, "script_name": name})
    assert (answer.status_code, answer.json()["detail"]) == (422, f"Script '{name}' not found")
    assert answer.json()["errors"].startswith(hint)


def test_a_script_by_name_is_a_sequence(client: TestClient, desk: FakeDesk) -> None:  # I2I-4
    answered(client, **SOURCE, script_name="LOOPBACK", script_args=[3, 0.25, "Lazy", "None"])
    assert list(desk.store.jobs.values())[-1].job.kind == "sequence"
    assert stored(desk)["sequence"] == {"kind": "loopback", "loops": 3, "final_strength": 0.25, "curve": "Lazy"}
    answered(client, **SOURCE, script_name="Outpainting mk2")
    assert stored(desk)["sequence"]["pixels"] == 128
    answered(client, "txt2img", **SMALL, prompt="a|b", script_name="Prompt matrix")
    assert stored(desk)["sequence"]["kind"] == "prompt-matrix"


@pytest.mark.parametrize("args", [[3], [0, 0.5, "Linear", "None"], [2, 0.5, "Linear", "CLIP"]])
def test_wrong_arguments_of_a_script(client: TestClient, args: list[Any]) -> None:
    answer = client.post(f"{BASE}/img2img", json={**SOURCE, "script_name": "Loopback", "script_args": args})
    assert answer.status_code == 422
    assert "oop" in answer.text or "nterrogat" in answer.text


def test_txt2img_with_a_second_pass(client: TestClient, desk: FakeDesk) -> None:
    told = answered(
        client, "txt2img", **SMALL, enable_hr=True, hr_scale=1.5, hr_upscaler="Lanczos", hr_second_pass_steps=3,
        denoising_strength=0.4, hr_sampler_name="Euler", hr_scheduler="Use same scheduler", prompt="cat",
    )  # fmt: skip
    hires = request_of(desk).hires
    assert (hires.scale, hires.upscaler, hires.steps, hires.strength) == (1.5, "Lanczos", 3, 0.4)
    assert (hires.sampler, hires.scheduler) == ("Euler", None)
    assert told["parameters"]["hr_scale"] == 1.5
    answered(client, "txt2img", **SMALL, enable_hr=True, denoising_strength=None)
    assert request_of(desk).hires.strength == 0.75


@pytest.mark.parametrize(
    "code, status, name",
    [
        ("memory", 500, "OutOfMemoryError"),
        ("invalid", 422, "RequestError"),
        ("deadline", 504, "TimeoutError"),
        ("sampling", 500, "SamplingError"),
        ("internal", 500, "RuntimeError"),
    ],
)
def test_a_job_that_fails_says_why(client: TestClient, desk: FakeDesk, code: str, status: int, name: str) -> None:
    desk.script = JobError(code=code, message="it went wrong")
    answer = client.post(f"{BASE}/img2img", json=SOURCE)
    assert (answer.status_code, answer.json()["error"], answer.json()["errors"]) == (status, name, "it went wrong")
    assert answered(client, **SOURCE)


def test_a_full_queue_says_when_to_come_back(desk: FakeDesk, config: ServeConfig) -> None:
    desk.store.most_waiting = 0
    with client_for(desk, config) as client:
        answer = client.post(f"{BASE}/img2img", json=SOURCE)
    assert (answer.status_code, answer.headers["Retry-After"], answer.json()["error"]) == (429, "7", "Full")


def test_jobs_carry_the_servers_deadlines(desk: FakeDesk, config: ServeConfig) -> None:
    limits = Limits(queue_deadline=11, run_deadline=12, steps=6)
    with client_for(desk, replace(config, limits=limits)) as client:
        answered(client, **SOURCE)
        assert client.post(f"{BASE}/img2img", json={**SOURCE, "steps": 7}).status_code == 422
    job = list(desk.store.jobs.values())[-1].job
    assert (job.queue_seconds, job.run_seconds, job.origin, job.kind) == (11, 12, "sdapi", "paint")
    assert Settings.from_json(job.settings).max_steps == 6
