"""Whoever gives a field by another program's name is told ours."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import overpaint
from overpaint.contract.requests import img2img_fields, txt2img_fields
from overpaint.errors import RequestError
from overpaint.extras import ExtrasRequest
from overpaint.other_names import (
    DIFFUSERS,
    OPENAI,
    REFERENCE,
    REFERENCE_CONTROLS,
    REFERENCE_EXTRAS,
    Names,
    hint,
    ours_of,
    theirs_of,
)
from overpaint.parts import ControlUnit, Hires, nearest
from overpaint.request import Img2ImgRequest, Txt2ImgRequest
from overpaint.service.doors.webui.bodies import (
    ExtrasBatchImagesRequest,
    ExtrasSingleImageRequest,
    StableDiffusionProcessingImg2Img,
    StableDiffusionProcessingTxt2Img,
)

SOURCE = Image.new("RGB", (8, 8))
IMG2IMG, TXT2IMG = Img2ImgRequest.field_names(), Txt2ImgRequest.field_names()
EXTRAS = frozenset(ExtrasRequest.__dataclass_fields__)

# What people type: (their name, what is to be given here)
TOLD = {
    **dict.fromkeys(("init_images", "init_image", "image"), ("images",)),
    "denoising_strength": ("strength",),
    "mask_image": ("mask",),
    "image_mask": ("mask",),
    "mask_blur": ("mask_blur_x", "mask_blur_y"),
    "inpaint_full_res": ("only_masked",),
    "inpaint_full_res_padding": ("padding",),
    "inpainting_fill": ("masked_content",),
    "inpainting_mask_invert": ("invert_mask",),
    "sampler_name": ("sampler",),
    "sampler_index": ("sampler",),
    "n_iter": ("iterations",),
    "subseed": ("variation_seed",),
    "subseed_strength": ("variation_strength",),
    "override_settings": ("overrides",),
    "sd_model_checkpoint": ("checkpoint",),
    "CLIP_stop_at_last_layers": ("clip_skip",),
    "alwayson_scripts": ("controls", "soft_inpainting"),
    "guidance_scale": ("cfg_scale",),
    "num_inference_steps": ("steps",),
    "num_images_per_prompt": ("batch_size",),
    "padding_mask_crop": ("only_masked", "padding"),
    "generator": ("seed",),
    "model": ("checkpoint",),
    "size": ("width", "height"),
    "denoising-strength": ("strength",),
}


def made_of(fields: dict[str, Any]) -> dict[str, Any]:
    return fields


@pytest.mark.parametrize("name", TOLD)
def test_a_name_of_another_program_gets_ours(name: str) -> None:
    said = f"there is no such field; did you mean {' or '.join(map(repr, TOLD[name]))}?"
    for kind in (Img2ImgRequest, Txt2ImgRequest):
        with pytest.raises(RequestError) as caught:
            kind.from_json({"prompt": "a", name: 0.5})
        assert (caught.value.field, caught.value.remedy) == (name, said)
    with pytest.raises(RequestError, match="did you mean"):
        Img2ImgRequest(images=(SOURCE,), **made_of({name: 0.5}))
    with pytest.raises(RequestError, match="did you mean"):
        Img2ImgRequest(images=(SOURCE,)).with_changes(**made_of({name: 0.5}))


def test_python_s_first_line_tells_it_before_anything_is_loaded(tmp_path: Path) -> None:
    """No model is opened: there is none of that name."""
    picture = tmp_path / "a.png"
    SOURCE.save(picture)
    with pytest.raises(RequestError, match=r"^denoising_strength=0.5: there is no such field; did you mean 'strength'"):
        overpaint.img2img(picture, "a", checkpoint="none", **made_of({"denoising_strength": 0.5}))
    with pytest.raises(RequestError, match=r"^guidance_scale=5: there is no such field; did you mean 'cfg_scale'"):
        overpaint.txt2img("a", checkpoint="none", **made_of({"guidance_scale": 5}))
    with pytest.raises(RequestError, match=r"^strenght=0.5: there is no such field; did you mean 'strength'"):
        overpaint.img2img(picture, "a", checkpoint="none", **made_of({"strenght": 0.5}))


def test_parts_have_names_elsewhere_too() -> None:
    assert hint("hr_scale", TXT2IMG) == "there is no such field; did you mean 'hires.scale'?"
    assert hint("enable_hr", TXT2IMG) == "there is no such field; did you mean 'hires'?"
    assert hint("hr_prompt", IMG2IMG) == "there is no such field"  # not `prompt`: this kind of job has no second pass
    with pytest.raises(RequestError, match=r"^hires.hr_upscaler='x': there is no such field; did you mean 'upscaler'"):
        Txt2ImgRequest.from_json({"hires": {"hr_upscaler": "x"}})
    with pytest.raises(RequestError, match=r"^hires.denoising_strength=1: .* did you mean 'strength'"):
        Txt2ImgRequest.from_json({"hires": {"denoising_strength": 1}})
    with pytest.raises(RequestError, match=r"^controls\[0\].module='canny': .* did you mean 'preprocessor'"):
        Img2ImgRequest(images=(SOURCE,), controls=({"model": "x", "image": SOURCE, "module": "canny"},))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"^upscaler_1='x': .* did you mean 'upscaler'"):
        ExtrasRequest.from_json({"images": [], "upscaler_1": "x"})


def test_opposites_and_what_is_not_there() -> None:
    said = "there is no such field; did you mean 'use_networks', which says the opposite?"
    assert nearest("disable_extra_networks", TXT2IMG) == said
    assert nearest("send_images", TXT2IMG) == "there is no such field"  # and not: did you mean 'images'?
    assert nearest("strenght", TXT2IMG) == "there is no such field; did you mean 'strength'?"
    assert nearest("zzz", TXT2IMG) == "there is no such field"


PAINTING_BODIES = (StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img)


def test_every_field_of_the_reference_is_ours_or_in_the_table() -> None:
    for body in PAINTING_BODIES:
        strangers = [name for name in body.model_fields if name not in TXT2IMG and ours_of(name, TXT2IMG) is None]
        assert [each for each in strangers if not each.startswith("firstphase_")] == []
    for extras in (ExtrasSingleImageRequest, ExtrasBatchImagesRequest):
        names = extras.model_fields.keys() - EXTRAS - {"resize_mode", "show_extras_results", "upscale_first"}
        assert [name for name in names if not ours_of(name, EXTRAS)] == ["codeformer_weight"]


def test_tables_name_fields_that_there_are() -> None:
    hires = {f"hires.{name}" for name in Hires.__dataclass_fields__}
    assert {*REFERENCE, *DIFFUSERS} <= TXT2IMG | hires
    assert set(REFERENCE_EXTRAS) <= EXTRAS and set(REFERENCE_CONTROLS) <= set(ControlUnit.__dataclass_fields__)
    fields = {name for body in PAINTING_BODIES for name in body.model_fields}
    assert {theirs.partition(".")[0] for theirs in REFERENCE.values()} <= fields


@pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("diffusers", "transformers")),
    reason="needs diffusers and transformers",
)
def test_parameters_of_diffusers_pipelines_are_ours_or_in_the_table() -> None:
    import diffusers

    for kind in (diffusers.StableDiffusionImg2ImgPipeline, diffusers.StableDiffusionInpaintPipeline):
        names = set(inspect.signature(kind.__call__).parameters) - {"self", "kwargs"}
        assert names >= {"image", "guidance_scale", "num_inference_steps"}
        assert {name for name in names - TXT2IMG if ours_of(name, TXT2IMG) is None} <= {
            *("callback_on_step_end_tensor_inputs", "ip_adapter_image_embeds", "masked_image_latents")
        }


@pytest.mark.parametrize("ours", [name for name in REFERENCE if "." not in name])
def test_the_contract_reads_the_field_that_the_table_names(ours: str) -> None:
    """The other direction of the table is how jobs of the reference are read."""
    theirs = REFERENCE[ours]
    if "." in theirs or ours == "images":
        return  # an option or a script: read elsewhere; pictures are handed over by themselves
    values: dict[str, Any] = {
        name: each.default for body in PAINTING_BODIES for name, each in body.model_fields.items()
    }
    usual = {**values, "seed_enable_extras": True, "enable_hr": False}
    other = {"override_settings": {"x": 1}, "sampler_name": "Euler", "refiner_checkpoint": "x"}.get(theirs, 1)
    if values[theirs] == other or values[theirs] is True:
        other = 0
    before, after = (img2img_fields(SimpleNamespace(**{**usual, **more}), None) for more in ({}, {theirs: other}))
    assert {name for name in before if before[name] != after[name]} == {ours}


@pytest.mark.parametrize("ours", [name for name in REFERENCE if name.startswith("hires.")])
def test_the_contract_reads_the_second_pass_as_the_table_names_it(ours: str) -> None:
    values: dict[str, Any] = {
        name: each.default for name, each in StableDiffusionProcessingTxt2Img.model_fields.items()
    }
    usual = {**values, "seed_enable_extras": True, "enable_hr": True, "denoising_strength": 0.7}
    other: Any = {"hr_scale": 3.0, "hr_resize_x": 64, "hr_resize_y": 64, "hr_second_pass_steps": 9}
    changed = {**usual, REFERENCE[ours]: other.get(REFERENCE[ours], 0.25 if "denoising" in REFERENCE[ours] else "x")}
    before, after = (txt2img_fields(SimpleNamespace(**each))["hires"] for each in (usual, changed))
    name = ours.removeprefix("hires.")
    assert {each for each in Hires.__dataclass_fields__ if getattr(before, each) != getattr(after, each)} == {name}


@pytest.mark.parametrize(
    "field, names, theirs",
    [
        ("strength", REFERENCE, "denoising_strength"),
        ("images[2]", REFERENCE, "init_images[2]"),
        ("controls[0].image", REFERENCE, "alwayson_scripts.controlnet.args[0].image"),
        ("hires.scale", REFERENCE, "hr_scale"),
        ("batch_size x iterations", REFERENCE, "batch_size x n_iter"),
        ("images[2]", {**REFERENCE_EXTRAS, "images": "image"}, "image"),  # there is one only
        ("width x height", OPENAI, "size"),
        ("steps", REFERENCE, "steps"),
        ("a request", REFERENCE, "a request"),
    ],
)
def test_a_complaint_names_what_the_client_sent(field: str, names: Names, theirs: str) -> None:
    assert theirs_of(field, names) == theirs
