"""What clients send, as literal JSON: whatever each of them ticks by default, its job is painted."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.settings import Settings
from tests.service.doors.webui.test_jobs import MASK, PICTURE, encoded
from tests.service.fake_desk import FakeDesk

ADDRESS = "http://127.0.0.1:7860"
LAYER = encoded("L", (64, 64), 255)
# name: the kind of job, the body, and how each of its warnings begins
CLIENTS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "SD-Krita (Cyanic), inpainting with a ControlNet layer": (
        "img2img",
        {
            "init_images": [PICTURE], "mask": MASK, "prompt": "a cat", "negative_prompt": "", "sampler_name": "Euler a",
            "scheduler": "Automatic", "steps": 4, "cfg_scale": 7, "seed": -1, "subseed": -1, "subseed_strength": 0,
            "width": 64, "height": 64, "denoising_strength": 0.5, "inpainting_fill": 1, "inpaint_full_res": False,
            "mask_blur": 0, "restore_faces": False, "tiling": False, "batch_size": 1, "n_iter": 1,
            "override_settings": {"sd_model_checkpoint": "sketch", "CLIP_stop_at_last_layers": 1, "sd_vae": "None"},
            "override_settings_restore_afterwards": False, "save_images": False, "include_init_images": False,
            "alwayson_scripts": {"controlnet": {"args": [
                {"enabled": True, "image": {"image": PICTURE, "mask": LAYER}, "module": "canny", "model": "lines",
                 "weight": 1, "resize_mode": "Crop and Resize", "pixel_perfect": True, "control_mode": 0,
                 "processor_res": 512, "threshold_a": 100, "threshold_b": 200, "guidance_start": 0, "guidance_end": 1},
            ]}},
        },
        ("override_settings_restore_afterwards", "override_settings.sd_model_checkpoint"),
    ),
    "Auto-Photoshop plug-in, all its ControlNet units off": (
        "txt2img",
        {
            "prompt": "a cat", "negative_prompt": "", "steps": 4, "width": 64, "height": 64, "seed": "-1",
            "cfg_scale": 7.0, "batch_size": 1, "n_iter": 1, "sampler_name": "Euler a", "sampler_index": "Euler a",
            "enable_hr": True, "denoising_strength": 0.7, "hr_scale": 2, "hr_upscaler": "R-ESRGAN 4x+",
            "hr_second_pass_steps": 0, "hr_resize_x": 0, "hr_resize_y": 0, "restore_faces": False,
            "use_sharp_mask": False, "alwayson_scripts": {"controlnet": {"args": [
                {"enabled": False, "input_image": "", "mask": "", "module": "none", "model": "None", "weight": 1,
                 "resize_mode": "Scale to Fit (Inner Fit)", "lowvram": True, "processor_res": 512, "threshold_a": 0,
                 "threshold_b": 0, "guidance_start": 0, "guidance_end": 1, "guessmode": False},
            ] * 3}},
        },
        ("use_sharp_mask", "hr_upscaler='R-ESRGAN 4x+': it needs the file RealESRGAN_x4plus.pth"),
    ),
    "openOutpaint": (
        "img2img",
        {
            "alwayson_scripts": {}, "controlnet_units": [], "init_images": [f"data:image/png;base64,{PICTURE}"],
            "mask": f"data:image/png;base64,{MASK}", "prompt": "a cat", "negative_prompt": "", "seed": -1,
            "cfg_scale": 7, "sampler_index": "DPM++ 2M", "steps": 4, "denoising_strength": 1, "mask_blur": 0,
            "batch_size": 1, "width": 64, "height": 64, "n_iter": 1, "inpainting_fill": 1, "inpaint_full_res": False,
            "outpainting_fill": 2, "refiner_enabled": False, "hr_upscaler": "ESRGAN_4x", "restore_faces": True,
        },
        ("controlnet_units", "hr_upscaler", "outpainting_fill", "refiner_enabled", "restore_faces"),
    ),
    "AI Render (Blender), a ControlNet of finished depth": (
        "img2img",
        {
            "init_images": [PICTURE], "prompt": "a cat", "negative_prompt": "", "denoising_strength": 0.5, "seed": 4,
            "steps": 4, "width": 64, "height": 64, "cfg_scale": 7.0, "sampler_index": "DPM++ 2M",
            "alwayson_scripts": {"controlnet": {"args": [
                {"enabled": True, "input_image": PICTURE, "mask": LAYER, "weight": 1.0, "module": "none",
                 "model": "depth [cfd03158]", "resize_mode": "Crop and Resize", "lowvram": False},
            ]}},
        },
        (),
    ),
    "stable-gimpfusion, a ControlNet layer with a mask": (
        "txt2img",
        {
            "prompt": "a cat", "negative_prompt": "", "steps": 4, "cfg_scale": 7.5, "seed": -1, "width": 64,
            "height": 64, "batch_size": 1, "sampler_index": "Euler a", "alwayson_scripts": {"controlnet": {"args": [
                {"input_image": LAYER, "mask": encoded("L", (64, 64), 0), "model": "lines",
                 "module": "invert (from white bg & black line)", "weight": 0.8, "resize_mode": 1, "lowvram": False,
                 "processor_res": 64,
                 "threshold_a": 64, "threshold_b": 64, "guidance": 1.0, "guidance_start": 0.0, "guidance_end": 1.0,
                 "control_mode": 2},
            ]}},
        },
        ("alwayson_scripts.controlnet.args[0].guidance: not obeyed",),
    ),
    "SillyTavern with everything ticked": (
        "txt2img",
        {
            "prompt": "a cat", "negative_prompt": "", "sampler_name": "DPM++ 2M", "scheduler": "Karras", "steps": 4,
            "cfg_scale": 7, "width": 64, "height": 64, "restore_faces": True, "enable_hr": True, "hr_upscaler":
            "4x-UltraSharp", "hr_scale": 1.5, "hr_additional_modules": [], "denoising_strength": 0.7,
            "hr_second_pass_steps": 0, "seed": 7, "save_images": True, "send_images": True,
            "do_not_save_grid": False, "do_not_save_samples": False,
            "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "forge_additional_modules": []},
            "override_settings_restore_afterwards": True, "clip_skip": 1,
            "alwayson_scripts": {"ADetailer": {"args": [True, True, {"ad_model": "face_yolov8n.pt"}]}},
        },
        ("clip_skip", "hr_additional_modules", "restore_faces", "hr_upscaler", "override_settings.forge_additional",
         "alwayson_scripts.ADetailer"),
    ),
    "Open WebUI": (
        "txt2img",
        {"prompt": "a cat", "batch_size": 1, "width": 64, "height": 64, "steps": 4, "negative_prompt": "",
         "cfg_scale": 7.0, "sampler_name": "Euler", "scheduler": "Automatic"},
        (),
    ),
    "a Discord bot with its face restorer built in": (
        "txt2img",
        {"prompt": "a cat", "steps": 4, "width": 64, "height": 64, "cfg_scale": "7.0", "sampler_index": "Euler",
         "seed": 3, "n_iter": 1, "styles": [], "RestoreFaces": "CodeFormer", "restore_faces": True,
         "override_settings": {"face_restoration": True, "face_restoration_model": "CodeFormer",
                               "code_former_weight": 0.5}},
        ("RestoreFaces", "restore_faces", "override_settings.face_restoration"),
    ),
    "text-generation-webui, its extension's defaults": (
        "txt2img",
        {"prompt": "a cat", "seed": -1, "sampler_name": "DPM++ 2M Karras", "enable_hr": False, "hr_scale": 1,
         "hr_upscaler": "ESRGAN_4x", "denoising_strength": 0.2, "steps": 4, "cfg_scale": 7, "width": 64, "height": 64,
         "restore_faces": True, "override_settings_restore_afterwards": True, "negative_prompt": ""},
        ("restore_faces",),
    ),
}  # fmt: skip


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig, tmp_path: Path) -> Iterator[TestClient]:
    for name in ("lines", "depth"):
        (tmp_path / f"{name}.safetensors").touch()
    site = replace(config, settings=Settings(controlnet_dir=str(tmp_path)))
    with TestClient(create_app(desk, site), base_url=ADDRESS) as made:
        yield made


@pytest.mark.parametrize("name", CLIENTS)
def test_its_job_is_painted_and_what_was_not_obeyed_is_said(client: TestClient, name: str) -> None:
    kind, body, warnings = CLIENTS[name]
    answer = client.post(f"/sdapi/v1/{kind}", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    with Image.open(io.BytesIO(base64.b64decode(told["images"][0].partition(",")[2] or told["images"][0]))) as picture:
        assert picture.size == (64, 64)
    said = json.loads(told["info"]).get("warnings", [])
    assert len(said) == len(warnings), said
    for beginning in warnings:
        assert any(each.startswith(beginning) for each in said), (beginning, said)
