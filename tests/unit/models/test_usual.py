"""What a request leaves open is painted as the model usually is, and recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from overpaint.models.families import FAMILIES, SD1_SPEC, ModelSpec, family_called
from overpaint.models.usual import USUAL, usual_of
from overpaint.planning.plan import plan
from overpaint.request import Img2ImgRequest, PaintRequest, Txt2ImgRequest
from overpaint.settings import Settings

OWN: dict[str, dict[str, Any]] = {  # that differ from Stable Diffusion's
    "zimage": {"cfg_scale": 1.0, "steps": 9},
    "zimage-base": {"cfg_scale": 5.0, "steps": 28},
    "flux-fill": {"cfg_scale": 1.0, "strength": 1.0, "guidance": 30.0},
    "flux-dev": {"cfg_scale": 1.0, "guidance": 3.5},
    "flux-kontext": {"cfg_scale": 1.0, "strength": 1.0, "guidance": 2.5},
    "flux-krea": {"cfg_scale": 1.0, "guidance": 4.5},
    "flux-schnell": {"cfg_scale": 1.0, "steps": 4},
    "chroma": {"cfg_scale": 3.0},
    "sd35": {"cfg_scale": 4.5},
    "sd35-turbo": {"cfg_scale": 1.0, "steps": 4},
    "qwen-image": {"cfg_scale": 4.0},
    "qwen-image-edit": {"cfg_scale": 4.0, "strength": 1.0, "steps": 40},
    "qwen-image-edit-2509": {"cfg_scale": 4.0, "strength": 1.0, "steps": 40},
    "qwen-image-edit-2511": {"cfg_scale": 4.0, "strength": 1.0, "steps": 40},
    "flux2-klein": {"cfg_scale": 1.0, "strength": 1.0, "steps": 4},
    "flux2-klein-base": {"cfg_scale": 4.0, "strength": 1.0, "steps": 50},
}


def asked(**fields: Any) -> Img2ImgRequest:
    return Img2ImgRequest(images=(Image.new("RGB", (32, 32)),), **fields)


def like(name: str) -> ModelSpec:
    """Stable Diffusion's networks, painted as this family is."""
    family = next(each for each in FAMILIES if each.name == name)
    return replace(SD1_SPEC, **{each: getattr(family, each) for each in (*USUAL, "guidance")})


@pytest.mark.parametrize("family", [each for each in FAMILIES if each.name in OWN], ids=lambda each: each.name)
def test_the_row_of_a_family_says_it(family: Any) -> None:
    assert usual_of(family) == {**USUAL, **OWN[family.name]}


def test_other_families_are_painted_as_stable_diffusion() -> None:
    others = [each for each in FAMILIES if each.network == "unet" and each.supported]
    assert others and all(usual_of(each) == USUAL for each in others)
    assert dict(USUAL) == {"strength": 0.75, "steps": 20, "cfg_scale": 7.0}  # REQ-1, and the page's steps


@pytest.mark.parametrize("name", ["flux-kontext", "flux2-klein", "zimage"])
def test_what_is_not_given_is_the_model_s_own(name: str) -> None:
    made, usual = plan(asked(), spec=like(name)), usual_of(like(name))
    assert {each: getattr(made.request, each) for each in USUAL} == {each: usual[each] for each in USUAL}
    assert (made.strength, made.sampler.steps_asked) == (usual["strength"], usual["steps"])
    assert (made.sampler.cfg_scale, made.sampler.guidance) == (usual["cfg_scale"], usual.get("guidance"))
    assert made.notes["Denoising strength"] == usual["strength"]


def test_what_is_given_counts() -> None:
    """Also where it is the number that Stable Diffusion is painted with."""
    made = plan(asked(strength=0.75, steps=20, cfg_scale=7.0), spec=like("flux2-klein")).request
    assert (made.strength, made.steps, made.cfg_scale) == (0.75, 20, 7.0)


def test_planning_again_what_was_planned_changes_nothing() -> None:
    first = plan(asked(seed=3), spec=like("flux-kontext")).request
    assert plan(first, spec=SD1_SPEC).request == first
    assert PaintRequest.from_json(first.to_json()).to_json() == first.to_json()


def test_from_text_alone_there_is_no_strength() -> None:
    made = plan(Txt2ImgRequest(width=64, height=64), spec=like("flux-kontext"))
    assert made.request.strength is None and made.strength is None and made.sampler.from_noise


def test_no_more_steps_than_are_allowed_here() -> None:
    """Nobody asked for 50."""
    assert plan(asked(), Settings(max_steps=30), like("flux2-klein-base")).request.steps == 30


@pytest.mark.parametrize(
    ("family", "name", "told"),
    [
        ("zimage", "z_image_turbo_bf16.safetensors", "zimage"),
        ("zimage", "Z-Image-Base-Q8_0.gguf", "zimage-base"),
        ("zimage", "z_image_basemix.safetensors", "zimage"),
        ("flux2-klein", "flux-2-klein-base-9b.safetensors", "flux2-klein-base"),
        ("sd35", "sd3.5_large_turbo.safetensors", "sd35-turbo"),
        ("sd35", "sd3.5_large.safetensors", "sd35"),
    ],
)
def test_what_only_a_name_tells(family: str, name: str, told: str) -> None:
    row = next(each for each in FAMILIES if each.name == family)
    assert family_called(row, name).name == told
