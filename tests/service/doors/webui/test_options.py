"""The options of the reference's API (OPT), and what a job takes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.api import router
from overpaint.settings import OPTION_NAMES, Quirks, Settings
from tests.service.fake_desk import FakeDesk

OPTIONS = "/sdapi/v1/options"
AS_JSON = {"Content-Type": "application/json"}
# Of the page's own texts only the names are kept; the others are the recording machine's, or a value of this project.
DIFFERENT_HERE = {
    *("infotext_explanation", "profiling_explanation", "sd_vae_explanation", "settings_in_ui"),
    *("sd_model_checkpoint", "sd_checkpoint_hash", "live_previews_enable"),
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServeConfig:
    monkeypatch.setattr("overpaint.service.known_models.user_hash_cache", lambda: tmp_path / "hashes.json")
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    return ServeConfig(data=tmp_path / "data", checkpoint="one", settings=Settings(models_dir=str(folder)))


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(router(desk, config))
    with TestClient(app) as made:
        yield made


def painted(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/sdapi/v1/txt2img", json={"width": 64, "height": 64, "steps": 4, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def settings_of_latest(desk: FakeDesk) -> Settings:
    return Settings.from_json(list(desk.store.jobs.values())[-1].job.settings)


def test_options_are_the_recorded_ones_with_their_values(client: TestClient, parity: Path) -> None:  # OPT-1
    recorded = json.loads((parity / "api/GET_options.json").read_text("utf-8"))
    ours = client.get(OPTIONS).json()
    assert set(ours) == set(recorded)
    different = {name for name in recorded if ours[name] != recorded[name] and recorded[name] != "PATH"}
    assert different == DIFFERENT_HERE
    assert ours["sd_model_checkpoint"] == "one.safetensors"


def test_the_whole_dict_can_be_posted_back(client: TestClient, desk: FakeDesk) -> None:
    before = client.get(OPTIONS).json()
    answer = client.post(OPTIONS, json=before)
    assert (answer.status_code, answer.json()) == (200, None)
    assert client.get(OPTIONS).json() == before
    assert not desk.asked  # nothing is loaded again


def test_a_part_can_be_posted_and_outlives_the_server(
    client: TestClient, desk: FakeDesk, config: ServeConfig
) -> None:  # OPT-2
    changes = {"CLIP_stop_at_last_layers": 2.0, "samples_format": "jpg", "localization": "de", "n_rows": 3}
    assert client.post(OPTIONS, json=changes).json() is None
    app = FastAPI()
    app.include_router(router(desk, config))
    with TestClient(app) as again:
        ours = again.get(OPTIONS).json()
    assert {name: ours[name] for name in changes} == changes
    painted(client)
    taken = settings_of_latest(desk)
    assert (taken.CLIP_stop_at_last_layers, taken.samples_format, taken.n_rows) == (2, "jpg", 3)


def test_jobs_begin_with_the_references_accidents(client: TestClient, desk: FakeDesk) -> None:
    painted(client)
    assert settings_of_latest(desk).quirks == Quirks.reference()


def test_an_unknown_option_is_an_error_and_those_before_it_are_set(client: TestClient) -> None:  # OPT-2
    answer = client.post(OPTIONS, json={"eta_ddim": 0.5, "no_such_option": 1, "eta_ancestral": 0.5})
    assert answer.status_code == 500
    assert answer.json()["error"] == "KeyError" and "no_such_option" in answer.json()["errors"]
    ours = client.get(OPTIONS).json()
    assert (ours["eta_ddim"], ours["eta_ancestral"]) == (0.5, 1.0)


@pytest.mark.parametrize("name", ["models_dir", "lora_dir", "styles_file", "max_steps", "text_encoder_files"])
def test_what_belongs_to_the_site_is_neither_shown_nor_set(client: TestClient, name: str) -> None:
    assert name not in client.get(OPTIONS).json()
    assert client.post(OPTIONS, json={name: "/"}).status_code == 500
    answer = client.post("/sdapi/v1/txt2img", json={"override_settings": {name: "/"}})
    assert (answer.status_code, answer.json()["error"]) == (500, "KeyError")


@pytest.mark.parametrize("name, value", [("api_useragent", "x"), ("sd_checkpoint_hash", "00"), ("api_new", 1)])
def test_restricted_and_read_only_options_stay_silently(client: TestClient, name: str, value: object) -> None:  # OPT-2
    before = client.get(OPTIONS).json()
    assert client.post(OPTIONS, json={name: value}).status_code == 200
    assert client.get(OPTIONS).json() == before


@pytest.mark.parametrize(
    "name, value",
    [("samples_format", "bmp"), ("n_rows", "many"), ("fp8_storage", "Enable"), ("outdir_samples", "../elsewhere")],
)
def test_a_value_that_cannot_be_obeyed_is_refused(client: TestClient, name: str, value: object) -> None:
    before = client.get(OPTIONS).json()
    answer = client.post(OPTIONS, json={name: value})
    assert (answer.status_code, answer.json()["error"]) == (422, "SettingError")
    assert client.get(OPTIONS).json() == before


@pytest.mark.parametrize("value", ["/etc", "/", "../../outside", "outputs/../../outside"])
def test_results_are_saved_below_the_outputs_only(client: TestClient, value: str) -> None:
    assert client.post(OPTIONS, json={"outdir_img2img_samples": value}).status_code == 422
    answer = client.post("/sdapi/v1/txt2img", json={"override_settings": {"outdir_txt2img_samples": value}})
    assert answer.status_code == 422


@pytest.mark.parametrize("name", ["outdir_samples", "outdir_img2img_grids", "sd_vae"])
@pytest.mark.parametrize("value", ["a\0b", "x" * 600, "x/" * 2500, "\ud800", "\0"])
def test_a_name_that_no_file_can_have_is_refused_in_one_sentence(client: TestClient, name: str, value: str) -> None:
    """Of a server that was asked for its options, and of one that was asked for a picture."""
    body = {"prompt": "", "steps": 1, "width": 64, "height": 64, "override_settings": {name: value}}
    for answer in (
        client.post(OPTIONS, content=json.dumps({name: value}), headers=AS_JSON),
        client.post("/sdapi/v1/txt2img", content=json.dumps(body), headers=AS_JSON),
    ):
        assert answer.status_code == 422, answer.text
        assert name in answer.text and len(answer.text) < 1000


def test_a_folder_below_the_outputs_may_be_chosen(client: TestClient, config: ServeConfig) -> None:
    assert client.post(OPTIONS, json={"outdir_samples": "outputs/mine"}).status_code == 200
    assert client.get(OPTIONS).json()["outdir_samples"] == str((config.data / "outputs/mine").resolve())


@pytest.mark.parametrize("asked", ["two.safetensors", "two"])
def test_a_checkpoint_is_loaded_when_it_is_chosen(
    client: TestClient, desk: FakeDesk, config: ServeConfig, asked: str
) -> None:
    assert client.post(OPTIONS, json={"sd_model_checkpoint": asked, "eta_ddim": 0.25}).status_code == 200
    path = str(Path(config.settings.models_dir) / "two.safetensors")
    assert desk.asked == [("load", {"checkpoint": path})]
    ours = client.get(OPTIONS).json()
    assert (ours["sd_model_checkpoint"], ours["eta_ddim"]) == ("two.safetensors", 0.25)
    painted(client)
    assert list(desk.store.jobs.values())[-1].job.request["checkpoint"] == path
    assert client.post("/sdapi/v1/reload-checkpoint").json() == {}  # CTRL-2
    assert client.post("/sdapi/v1/unload-checkpoint").json() == {}
    assert desk.asked[1:] == [("load", {"checkpoint": path}), ("unload", {})]


@pytest.mark.parametrize("name", ["three", "/etc/passwd", "../models/two.safetensors", ""])
def test_an_unknown_checkpoint_sets_nothing(client: TestClient, desk: FakeDesk, name: str) -> None:  # OPT-2
    answer = client.post(OPTIONS, json={"eta_ddim": 0.5, "sd_model_checkpoint": name})
    assert (answer.status_code, answer.json()["error"]) == (500, "RuntimeError")
    assert answer.json()["errors"] == f"model {name!r} not found"
    assert client.get(OPTIONS).json()["eta_ddim"] == 0.0
    assert not desk.asked


def test_a_job_keeps_the_checkpoint_it_was_asked_under(client: TestClient, desk: FakeDesk, config: ServeConfig) -> None:
    painted(client)
    assert client.post(OPTIONS, json={"sd_model_checkpoint": "two"}).status_code == 200
    first = next(iter(desk.store.jobs.values())).job
    assert first.request["checkpoint"] == str(Path(config.settings.models_dir) / "one.safetensors")


def test_overrides_are_for_one_job(client: TestClient, desk: FakeDesk) -> None:  # I2I-10
    overrides = {"CLIP_stop_at_last_layers": 2, "samples_format": "webp", "sd_model_checkpoint": "two"}
    told = painted(client, override_settings=overrides, override_settings_restore_afterwards=False)
    assert told["parameters"]["override_settings"] == overrides
    assert "override_settings_restore_afterwards" in json.loads(told["info"])["warnings"][0]
    job = list(desk.store.jobs.values())[-1].job
    assert job.request["overrides"] == {"CLIP_stop_at_last_layers": 2}
    assert settings_of_latest(desk).samples_format == "webp"
    assert job.request["checkpoint"].endswith("two.safetensors")
    painted(client)
    job = list(desk.store.jobs.values())[-1].job
    assert job.request["overrides"] == {} and settings_of_latest(desk).samples_format == "png"
    assert job.request["checkpoint"].endswith("one.safetensors")


def test_null_leaves_an_option_as_it_is(client: TestClient, desk: FakeDesk) -> None:
    before = client.get(OPTIONS).json()
    assert client.post(OPTIONS, json=dict.fromkeys(before)).status_code == 200
    assert client.get(OPTIONS).json()["n_rows"] == before["n_rows"]
    painted(client, override_settings={"sd_vae": None, "jpeg_quality": None, "upscaler_for_img2img": None})
    assert list(desk.store.jobs.values())[-1].job.request["overrides"] == {"upscaler_for_img2img": None}


def test_a_hash_that_is_not_known_yet_is_computed(client: TestClient, config: ServeConfig) -> None:
    digest = hashlib.sha256(b"two").hexdigest()
    for wrong in ("two.safetensors [0123456789]", "one.safetensors [" + digest[:10] + "]"):
        assert client.post(OPTIONS, json={"sd_model_checkpoint": wrong}).status_code == 500
    title = f"two.safetensors [{digest[:10]}]"
    assert client.post(OPTIONS, json={"sd_model_checkpoint": title}).status_code == 200
    ours = client.get(OPTIONS).json()
    assert (ours["sd_model_checkpoint"], ours["sd_checkpoint_hash"]) == (title, digest)


def test_an_unknown_override_is_an_error(client: TestClient, desk: FakeDesk) -> None:  # I2I-9
    answer = client.post("/sdapi/v1/txt2img", json={"override_settings": {"no_such_option": 1}})
    assert (answer.status_code, answer.json()["error"]) == (500, "KeyError")
    assert not desk.store.jobs


def test_options_of_other_programs_are_reported(client: TestClient) -> None:
    told = painted(client, override_settings={"forge_additional_modules": ["x"], "localization": "de"})
    (warning,) = json.loads(told["info"])["warnings"]
    assert "forge_additional_modules" in warning


def test_an_unknown_checkpoint_in_the_overrides_is_dropped_and_said(
    client: TestClient, desk: FakeDesk
) -> None:  # JOB-1
    told = painted(client, override_settings={"sd_model_checkpoint": "/etc/passwd"})
    (warning,) = json.loads(told["info"])["warnings"]
    assert "no such model" in warning
    assert list(desk.store.jobs.values())[-1].job.request["checkpoint"].endswith("one.safetensors")


@pytest.mark.parametrize("field", ["refiner_checkpoint", "hr_checkpoint_name"])
def test_models_are_named_not_pointed_at(client: TestClient, field: str) -> None:
    for name in ("/etc/passwd", "../one.safetensors", "nothing of the kind"):
        answer = client.post("/sdapi/v1/txt2img", json={field: name, "enable_hr": True})
        assert (answer.status_code, answer.json()["error"]) == (422, "RequestError"), name
    assert painted(client, **{field: "two"}, enable_hr=True)


def test_a_vae_is_named_not_pointed_at(client: TestClient, tmp_path: Path) -> None:
    other = tmp_path / "vae.safetensors"
    other.write_bytes(b"")
    for name in (str(other), "/etc/passwd"):
        answer = client.post("/sdapi/v1/txt2img", json={"override_settings": {"sd_vae": name}})
        assert answer.status_code == 422
        assert client.post(OPTIONS, json={"sd_vae": name}).status_code == 422
    assert painted(client, override_settings={"sd_vae": "None"})


def test_no_option_of_the_settings_is_forgotten(client: TestClient) -> None:
    ours = set(client.get(OPTIONS).json())
    hidden = OPTION_NAMES - ours
    assert hidden == {
        name for name in hidden if name.endswith(("_dir", "_file", "_files")) or name.startswith(("max_", "model_"))
    } | {
        *("unoffered_features", "recipe_whole_paths", "encodings_memory", "backend", "flow_shift"),
        *("device_memory", "weights_kept"),
        *("skip_late_cond", "deepcache_interval", "inpaint_window"),
    }


def test_options_that_the_reference_does_not_have_are_obeyed_unlisted(client: TestClient, desk: FakeDesk) -> None:
    asked = {"deepcache_interval": 2, "skip_late_cond": 0.25, "inpaint_window": "auto", "token_merging_ratio_hr": 0.5}
    painted(client, override_settings=asked)
    assert list(desk.store.jobs.values())[-1].job.request["overrides"] == asked
    assert client.post(OPTIONS, json={"token_merging_ratio_hr": 0.25}).status_code == 200
    assert client.get(OPTIONS).json()["token_merging_ratio_hr"] == 0.25
