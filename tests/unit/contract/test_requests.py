"""The contract's field names as a request: what the table names is read, and nothing else."""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from overpaint.contract.fields import StableDiffusionProcessing
from overpaint.contract.requests import common_fields, img2img_fields, txt2img_fields
from overpaint.errors import RequestError
from overpaint.other_names import REFERENCE
from overpaint.parts import Hires, SoftInpainting
from overpaint.request import MASK_FIELDS, MaskedContent, ResizeMode

IMG2IMG = {
    "denoising_strength": 0.6,
    "resize_mode": 2,
    "inpainting_mask_invert": 1,
    "mask_blur_x": 3,
    "mask_blur_y": 5,
    "mask_round": True,
    "inpaint_full_res": False,
    "inpaint_full_res_padding": 16.0,
    "inpainting_fill": 1,
    "image_cfg_scale": 1.5,
    "initial_noise_multiplier": 0.9,
}
HIRES = {
    "enable_hr": True,
    "denoising_strength": 0.4,
    "firstphase_width": 0,
    "firstphase_height": 0,
    "hr_scale": 1.5,
    "hr_upscaler": "Lanczos",
    "hr_second_pass_steps": 0,
    "hr_resize_x": 0,
    "hr_resize_y": 96,
    "hr_checkpoint_name": "Use same checkpoint",
    "hr_sampler_name": "Use same sampler",
    "hr_scheduler": "Karras",
    "hr_prompt": ["a", "b"],
    "hr_negative_prompt": "",
}


def job(**given: Any) -> Any:
    common = {each.name: each.default for each in fields(StableDiffusionProcessing)}
    return SimpleNamespace(**{**common, **given})


def test_names_of_the_reference_become_ours() -> None:  # REQ-1
    read = common_fields(
        job(n_iter=3, sampler_name="Euler", subseed=5, subseed_strength=0.25, refiner_checkpoint="x", width=512.0)
    )
    told = {name: read[name] for name in ("iterations", "sampler", "variation_seed", "variation_strength", "refiner")}
    assert told == {
        "iterations": 3,
        "sampler": "Euler",
        "variation_seed": 5,
        "variation_strength": 0.25,
        "refiner": "x",
    }
    assert read["width"] == 512 and isinstance(read["width"], int)
    assert read["use_networks"] and not common_fields(job(disable_extra_networks=True))["use_networks"]


def test_seed_extras_count_only_where_they_are_enabled() -> None:
    extras = {"subseed": 5, "subseed_strength": 0.25, "seed_resize_from_w": 64, "seed_resize_from_h": 32}
    assert common_fields(job(**extras))["seed_resize"] == (64, 32)
    off = common_fields(job(**extras, seed_enable_extras=False))
    assert off["seed_resize"] is None
    assert not {"variation_seed", "variation_strength"} & off.keys()


def test_what_is_about_a_source() -> None:
    read = img2img_fields(job(**IMG2IMG), None)
    assert (read["strength"], read["noise_multiplier"], read["image_cfg_scale"]) == (0.6, 0.9, 1.5)
    assert (read["resize_mode"], read["masked_content"]) == (ResizeMode.FILL, MaskedContent.ORIGINAL)
    assert (read["invert_mask"], read["only_masked"], read["padding"]) == (True, False, 16)
    assert read["round_mask"] and not img2img_fields(job(**IMG2IMG), SoftInpainting())["round_mask"]


def test_without_a_mask_its_fields_are_left_out_but_judged() -> None:
    assert not MASK_FIELDS & img2img_fields(job(**IMG2IMG), None, masked=False).keys()
    with pytest.raises(RequestError, match="mask_blur_x"):
        img2img_fields(job(**{**IMG2IMG, "mask_blur_x": -1}), None, masked=False)


@pytest.mark.parametrize(("theirs", "value"), [("resize_mode", 4), ("inpainting_fill", True), ("resize_mode", "crop")])
def test_choices_are_counted_from_zero(theirs: str, value: Any) -> None:
    with pytest.raises(RequestError, match=rf"^{theirs}=.*choose one of 0 "):
        img2img_fields(job(**{**IMG2IMG, theirs: value}), None)


def test_the_second_pass() -> None:
    read = txt2img_fields(job(**HIRES))
    assert read["hires"] == Hires(
        scale=1.5, height=96, upscaler="Lanczos", strength=0.4, scheduler="Karras", prompt=("a", "b")
    )
    assert txt2img_fields(job(**{**HIRES, "enable_hr": False}))["hires"] is None
    first = txt2img_fields(job(**{**HIRES, "firstphase_width": 64, "firstphase_height": 48.0}))
    assert (first["width"], first["height"]) == (64, 48)


def test_every_field_of_a_second_pass_has_a_name_there() -> None:
    assert all(f"hires.{each.name}" in REFERENCE for each in fields(Hires))


@pytest.mark.parametrize("name", ["restore_faces"])
def test_what_is_not_offered_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"^{name}="):
        common_fields(job(**{name: 1}))


def test_the_merging_of_tokens_is_an_option_here() -> None:  # JOB-12
    asked = job(token_merging_ratio=0.5, token_merging_ratio_hr=0.25, override_settings={"token_merging_ratio": 0.1})
    assert common_fields(asked)["overrides"] == {"token_merging_ratio": 0.5, "token_merging_ratio_hr": 0.25}
    assert common_fields(job(override_settings={"token_merging_ratio": 0.1}))["overrides"] == {
        "token_merging_ratio": 0.1
    }


def test_only_declared_fields_are_read() -> None:
    """A script of the reference may leave an attribute of any name on a job; it is no field of a request."""
    kind = make_dataclass("Job", [(name, Any, value) for name, value in vars(job()).items()])
    stray = kind()
    stray.loras, stray.exact = ["a"], True
    assert not {"loras", "exact"} & common_fields(stray).keys()
    assert common_fields(stray) == common_fields(kind())
