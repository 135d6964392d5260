"""How the reference's API says no: with 4xx, but for the few answers that its clients know otherwise."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from overpaint.errors import CheckpointError
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui import errors
from overpaint.service.doors.webui.errors import DELIBERATE, is_deliberate
from overpaint.service.jobs import JobError
from overpaint.service.workers.port import WorkerGone, WorkerRefused
from overpaint.settings import Settings
from tests.service.doors.webui.test_jobs import BASE, PICTURE, SMALL, SOURCE, client_for
from tests.service.fake_desk import FakeDesk

# The long form: OVERPAINT_FUZZ=500 pytest tests/service/doors/webui/test_errors.py
EXAMPLES = int(os.environ.get("OVERPAINT_FUZZ", "40"))
FUZZED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="OVERPAINT_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

URL = {"init_images": ["https://example.com/x.png"]}
# What asks for each of them: whether URLs are on, the path, the body.
CAUSES: tuple[tuple[bool, str, dict[str, Any]], ...] = (
    (False, "img2img", {**SOURCE, **URL}),
    (True, "img2img", {**SOURCE, "init_images": ["https://localhost/x.png"]}),
    (True, "img2img", {**SOURCE, "init_images": ["http://example.com/x.png"]}),
    (False, "img2img", {**SOURCE, "init_images": ["!!!notbase64"]}),
    (False, "img2img", {**SOURCE, "init_images": [PICTURE] * 3}),
    (False, "txt2img", {**SMALL, "override_settings": {"it's": 1}}),
    (False, "options", {"sd_model_checkpoint": "nope"}),
    (False, "extra-single-image", {"image": PICTURE, "upscaler_1": "nope"}),
    (False, "interrogate", {"image": PICTURE, "model": "clip"}),
)


@pytest.mark.parametrize("number", range(len(CAUSES)))
def test_each_has_a_cause(desk: FakeDesk, config: ServeConfig, number: int) -> None:
    opened, path, body = CAUSES[number]
    with client_for(desk, replace(config, url_inputs=opened)) as client:
        answer = client.post(f"{BASE}/{path}", json=body)
    told = answer.json()
    status, error, begins = DELIBERATE[number]
    assert (answer.status_code, told["error"]) == (status, error)
    assert set(told) == {"error", "detail", "body", "errors"}  # API-2
    assert (told["detail"] or told["errors"]).startswith(begins)
    assert not desk.store.jobs


def test_the_list_is_told_where_errors_are_made() -> None:
    text = errors.__doc__ or ""
    for status, error, begins in DELIBERATE:
        assert f"{status} {error}" in text
        assert error in ("KeyError", "AssertionError") or status == 501 or begins.split(":")[0].rstrip() in text


def test_all_is_as_the_reference_words_it(desk: FakeDesk, config: ServeConfig) -> None:
    with client_for(desk, config) as client:
        for path, body in (("txt2img", {**SMALL, "override_settings": {"nope": 1}}), ("options", {"nope": 1})):
            told = client.post(f"{BASE}/{path}", json=body)
            assert told.status_code == 500
            assert told.json() == {"error": "KeyError", "detail": "", "body": "", "errors": "'nope'"}
        told = client.post(f"{BASE}/interrogate", json={"image": PICTURE, "model": "nope"})
        assert (told.status_code, told.json()["detail"]) == (404, "Model not found")  # IGT-1


@pytest.mark.parametrize(
    "code, status",
    [
        *[("invalid", 422), ("checkpoint", 422), ("memory", 500), ("sampling", 500), ("save", 503), ("crashed", 500)],
        *[("internal", 500), ("deadline", 504), ("hung", 504)],
    ],
)
def test_jobs_that_failed(desk: FakeDesk, config: ServeConfig, code: str, status: int) -> None:
    desk.script = JobError(code=code, message="so it was")
    with client_for(desk, config) as client:
        answer = client.post(f"{BASE}/img2img", json=SOURCE)
    assert (answer.status_code, answer.json()["errors"]) == (status, "so it was")


@pytest.mark.parametrize(
    "error, status, name",
    [
        (WorkerRefused(JobError(code="checkpoint", message="so it was")), 422, "CheckpointError"),
        (WorkerRefused(JobError(code="memory", message="so it was")), 500, "OutOfMemoryError"),
        (CheckpointError("so it was"), 422, "CheckpointError"),
        (WorkerGone("so it was"), 503, "WorkerGone"),
    ],
)
def test_a_worker_that_does_not_answer_as_it_should(
    desk: FakeDesk, config: ServeConfig, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, name: str
) -> None:
    async def ask(what: str, values: Any = None) -> Any:
        raise error

    monkeypatch.setattr(desk, "ask", ask)
    with client_for(desk, config) as client:
        for path in ("reload-checkpoint", "unload-checkpoint"):
            answer = client.post(f"{BASE}/{path}")
            assert (answer.status_code, answer.json()["error"]) == (status, name)
            assert answer.json()["errors"] == "so it was"


def test_a_cancelled_job_is_a_conflict(desk: FakeDesk, config: ServeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else did that, by its id in the native API."""
    submit = desk.submit

    async def cancelled(job: Any) -> Any:
        desk.held = True
        record = await submit(job)
        await desk.cancel(job.id)
        return record

    monkeypatch.setattr(desk, "submit", cancelled)
    with client_for(desk, config) as client:
        answer = client.post(f"{BASE}/txt2img", json=SMALL)
    assert (answer.status_code, answer.json()["error"]) == (409, "Cancelled")


# -- whatever is sent --------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
)
PICTURES = st.sampled_from([PICTURE, f"data:image/png;base64,{PICTURE}", "", "!!!", PICTURE[:40], "http://x/y"])
UNIT = st.fixed_dictionaries(
    {"model": st.sampled_from(["lines", "nope"])},
    optional={
        "image": PICTURES | ANYTHING,
        "weight": ANYTHING,
        "resize_mode": st.sampled_from([0, 1, 2, 3, "Just Resize", None]) | ANYTHING,
        "module": st.sampled_from(["none", "canny", "invert"]) | ANYTHING,
        "threshold_a": ANYTHING,
        "control_mode": ANYTHING,
        "mask": ANYTHING,
    },
)
SCRIPTS = st.dictionaries(
    st.sampled_from(["ControlNet", "soft inpainting", "seed", "refiner", "loopback"]) | st.text(max_size=6),
    st.fixed_dictionaries({"args": st.lists(UNIT | ANYTHING, max_size=2)}) | ANYTHING,
    max_size=2,
)
OPTIONS = st.dictionaries(
    st.sampled_from(sorted(Settings.__dataclass_fields__)) | st.text(max_size=8), ANYTHING, max_size=3
)
INIT_IMAGES = st.lists(PICTURES, max_size=2) | ANYTHING
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "init_images": INIT_IMAGES,
    "mask": PICTURES | ANYTHING,
    "latent_mask": PICTURES | ANYTHING,
    "alwayson_scripts": SCRIPTS,
    "override_settings": OPTIONS | ANYTHING,
    "infotext": st.just("a cat\nSteps: 5, Sampler: Euler, Seed: 9, Size: 64x64") | ANYTHING,
    "save_images": st.booleans(),
    **{
        name: st.integers(-2, 130) | ANYTHING
        for name in ("width", "height", "steps", "batch_size", "n_iter", "seed", "resize_mode", "inpainting_fill")
    },
    **dict.fromkeys(("prompt", "sampler_name", "denoising_strength", "styles", "eta", "force_task_id"), ANYTHING),
}
BODIES: dict[str, st.SearchStrategy[Any]] = {
    "img2img": st.fixed_dictionaries({}, optional={**FIELDS, "init_images": st.just([PICTURE]) | INIT_IMAGES}),
    "txt2img": st.fixed_dictionaries(
        {}, optional={**FIELDS, "enable_hr": st.booleans(), "hr_scale": ANYTHING, "hr_upscaler": ANYTHING}
    ),
    "options": OPTIONS,
    "extra-single-image": st.fixed_dictionaries(
        {"image": PICTURES},
        optional={"upscaler_1": st.sampled_from(["None", "Lanczos"]) | ANYTHING, "upscaling_resize": ANYTHING},
    ),
    "extra-batch-images": st.fixed_dictionaries(
        {"imageList": st.lists(st.fixed_dictionaries({"data": PICTURES, "name": st.text(max_size=5)}), max_size=2)}
    ),
    "png-info": st.fixed_dictionaries({"image": PICTURES | ANYTHING}),
    "interrogate": st.fixed_dictionaries({"image": PICTURES, "model": ANYTHING}),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The whole application with its guards, and a ControlNet."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "nets").mkdir()
    (folder / "nets/lines.pth").write_bytes(b"")
    found = Settings(controlnet_dir=str(folder / "nets"))
    config = ServeConfig(data=folder / "data", settings=found, allowed_hosts=("testserver",))
    config.data.mkdir()
    app: FastAPI = create_app(FakeDesk(config.data), config)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("path", sorted(BODIES))
def test_nothing_that_is_sent_brings_about_a_5xx(whole: TestClient, path: str) -> None:
    """But the deliberate ones; and every answer is of a shape that clients know."""

    @FUZZED
    @given(body=BODIES[path])
    def answered(body: Any) -> None:
        answer = whole.post(f"{BASE}/{path}", content=json.dumps(body), headers={"Content-Type": "application/json"})
        told = answer.json()
        if answer.status_code >= 500:
            said = told["detail"] or told["errors"]
            assert is_deliberate(answer.status_code, told["error"], said), (body, told)
        if answer.status_code >= 400:
            assert set(told) in ({"error", "detail", "body", "errors"}, {"detail"}), told

    answered()


@FUZZED
@given(data=st.data())
def test_no_broken_picture_brings_about_a_5xx(whole: TestClient, data: st.DataObject) -> None:
    """Bytes of a good picture, changed or cut."""
    good = bytearray(base64.b64decode(PICTURE))
    for _ in range(data.draw(st.integers(0, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    text = base64.b64encode(good[: data.draw(st.integers(1, len(good)))]).decode()
    for path, body in (("png-info", {"image": text}), ("img2img", {**SOURCE, "init_images": [text]})):
        answer = whole.post(f"{BASE}/{path}", json=body)
        told = answer.json()
        deliberate = answer.status_code == 500 and told["detail"] == "Invalid encoded image"
        assert deliberate or answer.status_code in (200, 413, 422), (path, told)


def test_no_path_of_this_machine_is_told(whole: TestClient, tmp_path: Path) -> None:
    for body in ({**SOURCE, "override_settings": {"sd_vae": str(tmp_path)}}, {**SOURCE, "sampler_name": "\0"}):
        told = whole.post(f"{BASE}/img2img", json=body).text
        assert not re.search(r"site-packages|Traceback|\.py\b", told)
