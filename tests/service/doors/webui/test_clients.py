"""Real clients of the reference's API against a started server: webuiapi itself, and what others were seen to send."""

from __future__ import annotations

import base64
import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import _end, start

webuiapi = pytest.importorskip("webuiapi")

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 3, "seed": 7, "sampler_name": "Euler"}
SLOW: dict[str, Any] = {**SMALL, "width": 256, "height": 256, "steps": 120}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def api(running_server: Any) -> Any:
    return webuiapi.WebUIApi(baseurl=f"{running_server.url}/sdapi/v1")


def scene(width: int = 64, height: int = 64) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 3 % 256, y * 3 % 256, (x + y) % 256], -1).astype(np.uint8))


def box(width: int = 64, height: int = 64) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (20, 20, 44, 44))
    return mask


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


def until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_img2img(api: Any) -> None:
    told = api.img2img(images=[scene()], prompt="a cat", denoising_strength=0.5, eta=0.0, **SMALL)
    assert told.image.size == (64, 64)
    assert told.info["seed"] == 7 and told.info["sampler_name"] == "Euler"
    assert told.parameters["init_images"] is None and told.parameters["scheduler"] == "automatic"
    assert "Denoising strength: 0.5" in told.image.info["parameters"]
    again = api.img2img(images=[scene()], prompt="a cat", denoising_strength=0.5, eta=0.0, **SMALL)
    assert again.image.tobytes() == told.image.tobytes()


def test_img2img_with_a_mask_leaves_the_rest_alone(api: Any) -> None:
    source = scene()
    told = api.img2img(
        images=[source], mask_image=box(), mask_blur=0, inpainting_fill=1, inpaint_full_res=False, **SMALL
    )
    outside = np.asarray(box()) == 0
    assert (np.asarray(told.image.convert("RGB"))[outside] == np.asarray(source)[outside]).all()
    assert (np.asarray(told.image.convert("RGB"))[~outside] != np.asarray(source)[~outside]).any()


def test_several_pictures_and_styles(api: Any) -> None:
    told = api.img2img(images=[scene()], batch_size=2, n_iter=2, styles=["no such style"], **SMALL)
    assert len(told.images) == 4 and told.info["all_seeds"] == [7, 8, 9, 10]
    assert told.info["index_of_first_image"] == 0


def test_txt2img(api: Any) -> None:
    told = api.txt2img(prompt="a cat", **SMALL)
    assert told.image.size == (64, 64) and told.info["prompt"] == "a cat"
    told = api.txt2img(
        prompt="a cat", enable_hr=True, hr_scale=2, hr_upscaler=webuiapi.HiResUpscaler.Latent,
        denoising_strength=0.6, hr_second_pass_steps=2, **SMALL,
    )  # fmt: skip
    assert told.image.size == (128, 128)


def test_a_sheet_comes_first_where_pictures_are_saved(running_server: Any, api: Any) -> None:  # I2I-2
    told = api.img2img(images=[scene()], batch_size=2, save_images=True, **SMALL)
    assert [each.size for each in told.images] == [(128, 64), (64, 64), (64, 64)]
    assert told.info["index_of_first_image"] == 1 and len(told.info["infotexts"]) == 3
    outputs = running_server.data / "outputs"
    saved = sorted(path for path in (outputs / "img2img-images").rglob("*.png"))
    assert [path.name for path in saved] == ["00000-7.png", "00001-8.png"]
    with Image.open(saved[1]) as image:
        assert image.info["parameters"] == told.info["infotexts"][2]
    assert [path.name for path in (outputs / "img2img-grids").rglob("*.png")] == ["grid-0000.png"]
    hidden = {"return_grid": False}
    told = api.img2img(images=[scene()], batch_size=2, save_images=True, override_settings=hidden, **SMALL)
    assert len(told.images) == 2 and told.info["index_of_first_image"] == 0 and len(told.info["infotexts"]) == 2
    assert len(list((outputs / "img2img-grids").rglob("*.png"))) == 2


def test_other_formats(api: Any) -> None:  # API-7
    for name, kind in (("jpg", "JPEG"), ("webp", "WEBP")):
        told = api.img2img(images=[scene()], override_settings={"samples_format": name}, **SMALL)
        assert told.image.format == kind
        assert api.png_info(told.image).info == ""  # webuiapi sends it on as a bare PNG
        assert told.info["infotexts"][0].encode("utf-16-be") in told.image.info["exif"]


def test_options(api: Any) -> None:
    before = api.get_options()
    assert api.util_get_current_model() == before["sd_model_checkpoint"]
    try:
        assert api.set_options({"CLIP_stop_at_last_layers": 2}) is None
        assert api.get_options()["CLIP_stop_at_last_layers"] == 2
        assert api.txt2img(prompt="a", **SMALL).info["clip_skip"] == 2
        override = api.txt2img(prompt="a", override_settings={"CLIP_stop_at_last_layers": 1}, **SMALL)
        assert override.info["clip_skip"] == 1
        assert api.txt2img(prompt="a", **SMALL).info["clip_skip"] == 2
    finally:
        api.set_options(before)
    assert api.get_options() == before


def test_models_and_other_lists(api: Any) -> None:
    name = next(each for each in api.util_get_model_names() if each.startswith("sketch"))
    api.util_set_model(name)
    assert api.util_get_current_model() == name
    assert api.refresh_checkpoints() is None
    assert "Euler a" in [each["name"] for each in api.get_samplers()]
    assert "Lanczos" in [each["name"] for each in api.get_upscalers()]
    listed = (
        *(api.get_schedulers, api.get_sd_vae, api.get_hypernetworks, api.get_face_restorers, api.get_prompt_styles),
        *(api.get_realesrgan_models, api.get_latent_upscale_modes, api.get_loras),
    )
    assert all(isinstance(each(), list) for each in listed)
    assert set(api.get_embeddings()) == {"loaded", "skipped"}
    assert set(api.get_memory()) == {"ram", "cuda"} and api.get_memory()["ram"]["total"] > 0
    assert api.get_cmd_flags()["api"] is True
    assert "soft inpainting" in api.get_scripts()["img2img"]


def test_png_info(api: Any) -> None:
    painted = api.txt2img(prompt="a cat in a hat", **SMALL)
    told = api.png_info(painted.image)
    assert told.info.startswith("a cat in a hat\n") and told.parameters["Seed"] == "7"


def test_upscale(api: Any) -> None:
    told = api.extra_single_image(scene(), upscaler_1=webuiapi.Upscaler.Lanczos, upscaling_resize=2)
    assert told.image.size == (128, 128) and "<p>" in told.info
    told = api.extra_single_image(
        scene(), upscaler_1="Lanczos", upscaler_2="Nearest", extras_upscaler_2_visibility=0.5,
        resize_mode=1, upscaling_resize_w=96, upscaling_resize_h=72,
    )  # fmt: skip
    assert told.image.size == (96, 72)
    told = api.extra_batch_images([scene(), scene(32, 32)], upscaler_1="Nearest", upscaling_resize=2)
    assert [each.size for each in told.images] == [(128, 128), (64, 64)]


def test_nobody_describes_pictures(api: Any) -> None:
    with pytest.raises(RuntimeError) as error:
        api.interrogate(scene())
    assert error.value.args[0] == 501


def test_progress_and_interrupt(api: Any) -> None:
    api.util_wait_for_ready()
    thread, results = in_background(lambda: api.img2img(images=[scene()], denoising_strength=1.0, **SLOW))
    told = until(lambda: (now := api.get_progress())["state"]["sampling_step"] > 1 and now)
    assert 0 < told["progress"] < 1 and told["state"]["job_count"] == 1
    assert told["state"]["job"] == "scripts_img2img" and told["eta_relative"] > 0
    shown = until(lambda: api.get_progress()["current_image"], 60)
    assert Image.open(io.BytesIO(base64.b64decode(shown))).size
    assert api.interrupt() == {}
    thread.join(60)
    (result,) = results
    assert result.image.size == (256, 256) and len(result.images) == 1
    api.util_wait_for_ready()
    assert api.get_progress()["state"]["job_count"] == 0


def test_skip_ends_one_batch(api: Any) -> None:
    fields = {**SLOW, "steps": 60, "n_iter": 2}
    thread, results = in_background(lambda: api.txt2img(prompt="a", **fields))
    until(lambda: api.get_progress()["state"]["sampling_step"] > 1)
    assert api.skip() is None
    until(lambda: not thread.is_alive() or api.get_progress()["state"]["job_no"] == 1)
    api.interrupt()
    thread.join(60)
    assert len(results[0].images) == 2


def test_a_client_that_goes_frees_the_queue(running_server: Any, api: Any) -> None:
    with running_server.client(timeout=1.0) as client, pytest.raises(httpx.TimeoutException):
        client.post("/sdapi/v1/txt2img", json={**SLOW, "n_iter": 4})
    until(lambda: api.get_progress()["state"]["job_count"] == 0, 40)


@pytest.fixture(scope="module")
def controlled(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server that has a ControlNet for its checkpoint."""
    from overpaint.models.what_is import spec_of
    from tests.unit.toy_control import control_file, random_control

    models = tmp_path_factory.mktemp("controlled")
    for name in ("Stable-diffusion", "ControlNet"):
        (models / name).mkdir()
    shutil.copy(tiny_checkpoint, models / "Stable-diffusion/sketch.safetensors")
    control_file(models / "ControlNet/lines.safetensors", random_control(spec_of(tiny_checkpoint).unet))
    options = ("--models", str(models), "--model", "sketch", "--device", "cpu")
    server = start(tmp_path_factory.mktemp("data"), *options)
    try:
        server.wait_ready()
        yield webuiapi.WebUIApi(baseurl=f"{server.url}/sdapi/v1")
    finally:
        _end(server)


def test_control_nets(controlled: Any) -> None:
    assert webuiapi.ControlNetInterface(controlled, show_deprecation_warning=False).model_list() == ["lines"]
    assert controlled.controlnet_version() >= 2 and "canny" in controlled.controlnet_module_list()
    detected = controlled.controlnet_detect([scene()], module="canny", processor_res=64)
    assert detected.image.size == (64, 64) and "controlnet" in controlled.get_scripts()["img2img"]

    def painted(**changes: Any) -> bytes:
        unit = webuiapi.ControlNetUnit(image=scene(), model="lines", **changes)
        # NOTE: webuiapi writes into the default of `alwayson_scripts`, so each call gets its own.
        told = controlled.txt2img(prompt="a cat", controlnet_units=[unit], alwayson_scripts={}, **SMALL)
        pixels: bytes = told.image.tobytes()
        return pixels

    plain = controlled.txt2img(prompt="a cat", alwayson_scripts={}, **SMALL).image.tobytes()
    assert painted() != plain and painted() == painted()
    assert painted(weight=0.0) == plain == painted(enabled=False)
    assert len({painted(), painted(module="canny"), painted(weight=0.5), painted(guidance_end=0.4)}) == 4
    unit = webuiapi.ControlNetUnit(model="lines")  # it follows the source
    told = controlled.img2img(images=[scene()], controlnet_units=[unit], alwayson_scripts={}, **SMALL)
    assert told.image.size == (64, 64)
    assert painted(control_mode=2) != painted()


def test_sillytavern(running_server: Any) -> None:
    """What its extension asks for, and the job that it sends, further keys included."""
    with running_server.client() as client:
        for name in ("options", "upscalers", "latent-upscale-modes", "sd-vae", "samplers", "schedulers", "sd-models"):
            assert client.get(f"/sdapi/v1/{name}").status_code == 200
        model = client.get("/sdapi/v1/sd-models").json()[0]["title"]
        assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": model}).json() is None
        assert "forge_preset" not in client.get("/sdapi/v1/options").json()
        job = {
            "prompt": "a cat", "negative_prompt": "", "sampler_name": "Euler a", "scheduler": "Karras", "steps": 3,
            "cfg_scale": 7, "width": 64, "height": 64, "restore_faces": False, "enable_hr": False,
            "hr_upscaler": "Latent", "hr_scale": 2, "hr_additional_modules": [], "denoising_strength": 0.7,
            "hr_second_pass_steps": 0, "seed": -1, "clip_skip": 1, "save_images": True, "send_images": True,
            "do_not_save_grid": False, "do_not_save_samples": False,
            "override_settings": {
                "CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "forge_additional_modules": ["Automatic"],
            },
            "override_settings_restore_afterwards": True,
        }  # fmt: skip
        told = client.post("/sdapi/v1/txt2img", json=job)
        assert told.status_code == 200 and len(told.json()["images"]) == 1
        progress = client.get("/sdapi/v1/progress").json()
        assert (progress["progress"], progress["state"]["job_count"]) == (0.0, 0)
        assert client.post("/sdapi/v1/interrupt").json() == {}


def test_open_webui(running_server: Any) -> None:
    """It posts the whole options back with another checkpoint, then a small job."""
    with running_server.client() as client:
        options = client.get("/sdapi/v1/options").json()
        model = client.get("/sdapi/v1/sd-models").json()[0]
        options["sd_model_checkpoint"] = model["title"]
        assert client.post("/sdapi/v1/options", json=options).status_code == 200
        assert client.get("/sdapi/v1/options").json() == options
        job = {"prompt": "a cat", "batch_size": 2, "width": 64, "height": 64, "steps": 3, "negative_prompt": ""}
        told = client.post("/sdapi/v1/txt2img", json=job).json()
        assert len(told["images"]) == 2 and isinstance(told["info"], str)
        assert all(Image.open(io.BytesIO(base64.b64decode(each))).size == (64, 64) for each in told["images"])
