"""What the field `infotext` fills (I2I-6), with the reference's accident and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.infotext import filled_by
from overpaint.settings import Quirks, Settings
from overpaint.text.styles import Style
from tests.service.doors.webui.test_jobs import MASK, PICTURE, SMALL, SOURCE, answered, client_for, request_of
from tests.service.fake_desk import FakeDesk

TEXT = (
    "a red cat in ink\nNegative prompt: dog\nSteps: 6, Sampler: Euler a, CFG scale: 5, Image CFG scale: 1.5, Seed: 77, "
    "Size: 64x128, Seed resize from: 192x256, Denoising strength: 0.4, Mask mode: Inpaint not masked, Mask blur: 7, "
    "Inpaint area: Only masked, Masked area padding: 8, Masked content: latent noise, Refiner: other, "
    "Refiner switch at: 0.5, RNG: CPU"
)
SCRIPTS = {
    "steps": 6, "sampler_name": "Euler a", "scheduler": "Automatic", "seed": 77,
    "refiner_checkpoint": "other", "refiner_switch_at": 0.5,
}  # fmt: skip
STYLES = (Style("ink", "{prompt} in ink", ""),)


def test_as_the_reference_does() -> None:
    filled = filled_by(TEXT, frozenset(), Settings.reference(), is_img2img=True, styles=STYLES)
    assert filled.fields == {**SCRIPTS, "seed_resize_from_h": 192, "seed_resize_from_w": 256}
    assert filled.overrides == {"randn_source": "CPU"}


def test_without_the_accident() -> None:
    filled = filled_by(TEXT, frozenset({"seed"}), Settings(), is_img2img=True, styles=STYLES)
    without_seed = {name: value for name, value in SCRIPTS.items() if name != "seed"}
    assert filled.fields == {
        **without_seed, "seed_resize_from_w": 192, "seed_resize_from_h": 256, "prompt": "a red cat",
        "negative_prompt": "dog", "styles": ["ink"], "cfg_scale": 5.0, "image_cfg_scale": 1.5, "width": 64,
        "height": 128, "denoising_strength": 0.4, "mask_blur": 7, "inpainting_mask_invert": 1, "inpainting_fill": 2,
        "inpaint_full_res": True, "inpaint_full_res_padding": 8,
    }  # fmt: skip


def test_txt2img_is_filled_either_way() -> None:
    text = f"{TEXT}, Hires upscale: 2, Hires steps: 4, Hires upscaler: Latent, Batch size: 2"
    for quirks in (Quirks.none(), Quirks.reference()):
        filled = filled_by(text, frozenset({"width"}), Settings(quirks=quirks), is_img2img=False, styles=STYLES)
        assert {
            "prompt": "a red cat",
            "styles": ["ink"],
            "height": 128,
            "batch_size": 2,
        }.items() <= filled.fields.items()
        assert {"enable_hr": True, "hr_scale": 2.0, "hr_second_pass_steps": 4}.items() <= filled.fields.items()
        assert "width" not in filled.fields and not filled.soft


@pytest.fixture
def client(desk: FakeDesk, config: ServeConfig) -> Iterator[TestClient]:
    with client_for(desk, config) as made:
        yield made


OF_A_JOB = (
    "a red cat\nNegative prompt: dog\nSteps: 6, Sampler: Euler a, Schedule type: Karras, CFG scale: 5, Seed: 77, "
    "Size: 64x128, Variation seed: 9, Variation seed strength: 0.25, Seed resize from: 192x256, "
    "Denoising strength: 0.4, Clip skip: 2, Mask blur: 7, ENSD: 31337"
)


def test_an_infotext_fills_little_of_img2img(client: TestClient, desk: FakeDesk) -> None:  # I2I-6
    told = answered(client, init_images=[PICTURE], width=64, height=64, steps=4, infotext=OF_A_JOB)
    request = request_of(desk)
    assert (request.sampler, request.scheduler, request.seed) == ("Euler a", "Karras", 77)
    assert (request.steps, request.prompt, request.cfg_scale, request.strength) == (4, "", None, 0.75)
    assert (request.variation_seed, request.variation_strength) == (9, 0.25)
    assert request.seed_resize == (256, 192)  # the accident: width and height swapped
    assert request.overrides == {"CLIP_stop_at_last_layers": 2, "eta_noise_seed_delta": 31337}
    assert told["parameters"]["override_settings"] == dict(request.overrides)


def test_an_infotext_fills_much_of_txt2img(client: TestClient, desk: FakeDesk) -> None:  # I2I-6
    text = f"{OF_A_JOB}, Hires upscale: 1.5, Hires steps: 3, Hires upscaler: Lanczos"
    told = answered(client, "txt2img", infotext=text, cfg_scale=3, override_settings={"CLIP_stop_at_last_layers": 3})
    request = request_of(desk)
    assert (request.prompt, request.negative_prompt, request.cfg_scale) == ("a red cat", "dog", 3.0)
    assert (request.width, request.height, request.steps) == (64, 128, 6)
    assert (request.hires.scale, request.hires.steps, request.hires.strength) == (1.5, 3, 0.4)
    assert told["parameters"]["prompt"] == "a red cat"
    assert request.overrides["CLIP_stop_at_last_layers"] == 3  # what the client says comes first


def test_soft_inpainting_is_found_in_an_infotext(client: TestClient, desk: FakeDesk) -> None:  # I2I-6
    text = "Steps: 4, Seed: 1, Soft inpainting enabled: True, Soft inpainting schedule bias: 3"
    answered(client, **SOURCE, mask=MASK, infotext=text)
    assert (request_of(desk).soft_inpainting.schedule_bias, request_of(desk).soft_inpainting.mask_influence) == (3, 0)


def test_an_infotext_full_of_nonsense_says_nothing(client: TestClient, desk: FakeDesk) -> None:
    text = "Steps: many, Sampler: , Seed: 1e9, Size: 0x0x0, CFG scale: inf, Hires upscale: nan"
    answered(client, "txt2img", **SMALL, infotext=text)
    assert (request_of(desk).steps, request_of(desk).cfg_scale) == (4, None)
