"""Requests: validated on construction, frozen, JSON both ways."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.errors import RequestError
from overpaint.request import (
    SOURCE_FIELDS,
    Hires,
    Img2ImgRequest,
    MaskedContent,
    PaintRequest,
    ResizeMode,
    SoftInpainting,
    Txt2ImgRequest,
)


def picture(width: int = 16, height: int = 8, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (width, height), 128)


def request(**fields: Any) -> PaintRequest:
    return Img2ImgRequest(**{"images": (picture(),), **fields})


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"images": ()}, "images"),
        ({"images": ("photo.png",)}, "images[0]"),
        ({"images": None}, "images"),
        ({"images": (picture(), picture())}, "images"),  # IMG-4: more sources than the batch
        ({"mask": "mask.png"}, "mask"),
        ({"strength": -0.1}, "strength"),
        ({"strength": 1.01}, "strength"),
        ({"strength": math.nan}, "strength"),
        ({"strength": True}, "strength"),
        ({"strength": "0.5"}, "strength"),
        ({"width": 0}, "width"),
        ({"height": -8}, "height"),
        ({"width": 64.5}, "width"),
        ({"steps": 0}, "steps"),
        ({"cfg_scale": math.inf}, "cfg_scale"),
        ({"cfg_scale": math.nan}, "cfg_scale"),
        ({"mask_blur_x": -1}, "mask_blur_x"),
        ({"padding": -1}, "padding"),
        ({"batch_size": 0}, "batch_size"),
        ({"iterations": 0}, "iterations"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": ()}, "seed"),
        ({"prompt": None}, "prompt"),  # REQ-7
        ({"prompt": ()}, "prompt"),  # REQ-7
        ({"prompt": ("a", "b"), "negative_prompt": ("c",)}, "negative_prompt"),  # JOB-3
        ({"resize_mode": "squash"}, "resize_mode"),
        ({"masked_content": 9}, "masked_content"),
        ({"seed_resize": (512,)}, "seed_resize"),
        ({"eta": -1}, "eta"),
    ],
)
def test_bad_values_name_field_value_and_remedy(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(RequestError) as caught:
        request(**fields)
    assert caught.value.field == name
    assert caught.value.remedy
    assert str(caught.value).startswith(f"{name}=")
    assert len(str(caught.value)) < 300


def test_a_request_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        request().steps = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        request(overrides={"eta_ddim": 1.0}).overrides["eta_ddim"] = 0.0  # type: ignore[index]


def test_lists_and_numbers_of_the_reference_are_understood() -> None:
    made = request(prompt=["a", "b"], resize_mode="crop", masked_content="noise", seed=[1, 2])
    assert made.prompt == ("a", "b")
    assert made.resize_mode is ResizeMode.CROP
    assert made.masked_content is MaskedContent.NOISE
    assert made.seed == (1, 2)


def test_json_both_ways() -> None:
    made = request(
        prompt=("a", "b"),
        batch_size=2,
        mask=picture(mode="L"),
        soft_inpainting=SoftInpainting(mask_influence=0.25),
        seed_resize=(64, 32),
        overrides={"randn_source": "NV"},
        resize_mode=ResizeMode.LATENT,
    )
    text = json.dumps(made.to_json(), allow_nan=False)
    back = Img2ImgRequest.from_json(json.loads(text))
    for each in dataclasses.fields(made):
        if each.name not in ("images", "mask"):
            assert getattr(back, each.name) == getattr(made, each.name), each.name
    assert np.array_equal(np.asarray(back.images[0]), np.asarray(made.images[0]))
    assert back.mask is not None
    assert made.mask is not None
    assert np.array_equal(np.asarray(back.mask), np.asarray(made.mask))


def test_json_names_the_nearest_field() -> None:
    with pytest.raises(RequestError, match="did you mean 'strength'"):
        Img2ImgRequest.from_json({"images": [picture()], "strenght": 0.5})
    with pytest.raises(RequestError, match="source picture"):
        Img2ImgRequest.from_json({"prompt": "a"})
    with pytest.raises(RequestError, match="base64"):
        Img2ImgRequest.from_json({"images": ["not base64!"]})
    with pytest.raises(RequestError, match="base64"):
        Img2ImgRequest.from_json({"images": ["aGVsbG8="]})  # valid base64, no picture


def test_changes_are_validated_again() -> None:
    assert request().with_changes(steps=3).steps == 3
    with pytest.raises(RequestError, match="steps"):
        request().with_changes(steps=-3)
    with pytest.raises(RequestError, match="no such field"):
        request().with_changes(stepz=-3)  # type: ignore[call-arg]


GIVEN: tuple[Any, ...] = (picture(), (picture(),), [picture()], np.zeros((8, 8, 3), np.uint8))
NOT_GIVEN: tuple[Any, ...] = ((), [], None)


@pytest.mark.parametrize("images", [*GIVEN, *NOT_GIVEN], ids=lambda each: type(each).__name__)
def test_every_request_is_one_of_two_kinds_and_all_ways_to_ask_agree(images: Any) -> None:
    made = PaintRequest(images=images, prompt="a lake")
    expected = Img2ImgRequest if made.has_source else Txt2ImgRequest
    assert made.has_source is any(images is each for each in GIVEN)
    assert type(made) is expected and made.kind == expected.__name__.removesuffix("Request").lower()
    assert isinstance(made, Img2ImgRequest) is made.has_source
    assert isinstance(made, Txt2ImgRequest) is not made.has_source


@pytest.mark.parametrize(
    "made", [request(prompt="x"), Txt2ImgRequest(prompt="x", hires=Hires(scale=1.5))], ids=["i", "t"]
)
def test_a_request_keeps_its_kind_however_it_is_copied(made: PaintRequest) -> None:
    for copy in (deepcopy(made), pickle.loads(pickle.dumps(made)), made.with_changes(steps=made.steps)):
        assert type(copy) is type(made) and copy.to_json() == made.to_json()
    for reader in (PaintRequest, type(made)):
        again = reader.from_json(json.loads(json.dumps(made.to_json())))
        assert type(again) is type(made) and again.to_json() == made.to_json()
    assert PaintRequest(**{name: getattr(made, name) for name in made.field_names()}) == made


def test_json_of_earlier_versions_is_read() -> None:
    """They wrote every field of the kind: a txt2img job its unused ones, an img2img job no `hires`."""
    old = {**Txt2ImgRequest(prompt="x").to_json(), "strength": 1.0}
    assert {name: old[name] for name in ("images", "mask", "strength", "hires")} == {
        "images": [],
        "mask": None,
        "strength": 1.0,
        "hires": None,
    }
    assert PaintRequest.from_json(old) == Txt2ImgRequest(prompt="x")
    assert "hires" not in request().to_json()
    assert type(PaintRequest.from_json(request().to_json())) is Img2ImgRequest


def test_a_new_picture_of_a_recipe_that_names_a_blend() -> None:
    """Without a mask it means nothing; the default was another one when the first recipes were written."""
    assert Txt2ImgRequest.from_json({"prompt": "x", "blend": "plain"}).prompt == "x"


@pytest.mark.parametrize("kind", [PaintRequest, Txt2ImgRequest])
@pytest.mark.parametrize("name", sorted(SOURCE_FIELDS - {"images", "blend"}))
def test_without_a_source_what_is_about_one_is_refused(kind: type[PaintRequest], name: str) -> None:
    other: dict[str, Any] = {
        "strength": 0.5,
        "mask": picture(),
        "latent_mask": picture(),
        "strength_map": picture(),
        "resize_mode": "crop",
        "masked_content": "fill",
        "soft_inpainting": SoftInpainting(),
        "round_mask": False,
        "image_cfg_scale": 2.0,
    }
    value = other.get(name, True if name in ("invert_mask", "only_masked", "color_correction") else 7)
    with pytest.raises(RequestError, match="leave it out, since txt2img has no source, or give a source") as caught:
        kind(prompt="x", **{name: value})
    assert caught.value.field == name


@pytest.mark.parametrize("kind", [PaintRequest, Img2ImgRequest])
def test_with_a_source_there_is_no_second_pass(kind: type[PaintRequest]) -> None:
    with pytest.raises(RequestError, match="only a job without a source has a second pass") as caught:
        kind(images=(picture(),), hires=Hires())
    assert caught.value.field == "hires"
    assert kind(images=(picture(),), hires=None).hires is None


def test_a_kind_asked_for_by_name_is_not_changed_into_the_other() -> None:
    with pytest.raises(RequestError, match="images"):
        Img2ImgRequest.from_json({"prompt": "x"})
    with pytest.raises(RequestError, match="images"):
        Txt2ImgRequest(images=(picture(),))  # type: ignore[call-arg]
    with pytest.raises(RequestError, match="images"):
        request().with_changes(images=())
