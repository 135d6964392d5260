"""A job judged before a model is opened: the same mistakes as in the engine, and an account in plain values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overpaint.errors import CheckpointError, RequestError
from overpaint.models.built_in import built_in_names
from overpaint.planning.plan import plan
from overpaint.planning.preflight import account_of, check, network_calls
from overpaint.request import ControlUnit, Hires, Img2ImgRequest, Lora, PaintRequest, Txt2ImgRequest
from overpaint.settings import Settings
from tests.unit.toy_job import SANE, asked, box_mask, noisy_picture

MODEL = next(iter(built_in_names()))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sampler": "nobody's"}, "sampler"),
        ({"styles": ("none",)}, "styles"),
        ({"loras": (Lora(name="none"),)}, "loras"),
        ({"prompt": "a <lora:none:1> cat"}, "prompt"),
        ({"steps": 9_999}, "steps"),
        ({"controls": (ControlUnit(model="none", image=noisy_picture(8, 8)),)}, "controls[0].model"),
    ],
)
def test_what_the_engine_would_refuse_is_refused_before(fields: dict[str, Any], field: str, tmp_path: Path) -> None:
    settings = Settings(lora_dir=str(tmp_path), controlnet_dir=str(tmp_path))
    with pytest.raises((RequestError, CheckpointError)) as caught:
        check(asked(**fields), settings, MODEL, device="cpu")
    assert str(caught.value).startswith(f"{field}=")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        check(asked(), Settings(), tmp_path / "none.safetensors", device="cpu")
    with pytest.raises(CheckpointError):
        check(asked(checkpoint="none"), Settings(), MODEL, device="cpu")
    with pytest.raises((RequestError, CheckpointError), match="refiner"):
        check(asked(refiner="none"), Settings(), MODEL, device="cpu")


def test_a_good_job_passes_and_stays_as_it_is() -> None:
    large = noisy_picture(1600, 1200)
    request = Img2ImgRequest(images=(large,), mask=box_mask(1600, 1200, (10, 10, 90, 90)), only_masked=True, width=64)
    check(request, Settings(), MODEL, device="cpu")
    assert request.images[0].size == (1600, 1200)


def account(request: PaintRequest) -> dict[str, Any]:
    told = account_of(plan(request, SANE))
    assert json.loads(json.dumps(told)) == told  # plain values
    return told


def test_the_account_of_a_masked_job() -> None:
    told = account(asked(mask=box_mask(32, 32, (0, 0, 16, 32)), mask_blur_x=0, mask_blur_y=0, strength=0.5, steps=8))
    assert (told["source"], told["size"], told["crop"]) == ([32, 32], [32, 32], None)
    assert told["repainted"] == 50.0 and told["steps"] == 5
    assert [each["seed"] for each in told["pictures"]] == [1]


def test_the_account_of_a_second_pass() -> None:
    told = account(Txt2ImgRequest(width=64, height=48, seed=1, sampler="Euler", steps=4, hires=Hires(strength=0.5)))
    assert told["source"] is None and told["repainted"] is None
    assert (told["hires"]["enlarged"], told["hires"]["strength"]) == ([128, 96], 0.5)
    assert told["network_calls"] == 4 + 4


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"sampler": "Euler", "strength": 1, "steps": 6}, 6),
        ({"sampler": "Heun", "strength": 1, "steps": 6}, 11),  # the last step has one call
        ({"sampler": "Euler", "strength": 1, "steps": 6, "iterations": 3}, 18),
        ({"sampler": "DPM adaptive"}, None),
        ({"strength": 0}, 0),
    ],
)
def test_network_calls(fields: dict[str, Any], calls: int | None) -> None:
    assert network_calls(plan(asked(**fields), SANE)) == calls
