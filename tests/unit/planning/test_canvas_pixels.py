"""A plan decides by sizes and boxes; its pictures are made once, when they are first used, and come out the same."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.errors import RequestError
from overpaint.planning import canvas_pixels
from overpaint.planning.plan import Plan, plan
from overpaint.planning.plans import Surroundings
from overpaint.planning.preflight import account_of
from overpaint.request import MaskedContent, ResizeMode
from overpaint.settings import Quirks, Settings
from tests.unit.toy_job import REFERENCE, SANE, asked, box_mask, noisy_picture, planned

BOTH = pytest.mark.parametrize("settings", [SANE, REFERENCE], ids=["sane", "reference"])
MASKED: dict[str, Any] = {"mask": box_mask(32, 32, (4, 4, 20, 24)), "mask_blur_x": 2, "mask_blur_y": 2}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever was done to pixels to make a canvas or its mask ready."""
    done: list[str] = []
    for name in ("resize_image", "make_overlay", "fill_masked", "color_target", "latent_mask", "overlay_mask_whole"):
        genuine = getattr(canvas_pixels, name)

        def noted(*given: Any, name: str = name, genuine: Any = genuine, **named: Any) -> Any:
            done.append(name)
            return genuine(*given, **named)

        monkeypatch.setattr(canvas_pixels, name, noted)
    return done


@BOTH
@pytest.mark.parametrize(
    "fields",
    [
        {"width": 64, "height": 48},
        {"width": 64, "height": 48, "resize_mode": ResizeMode.LATENT},
        {**MASKED, "width": 64, "height": 48, "only_masked": True, "padding": 2},
        {**MASKED, "color_correction": True, "masked_content": MaskedContent.FILL, "width": 64},
        {**MASKED, "latent_mask": box_mask(32, 32, (0, 0, 9, 9))},
    ],
    ids=["whole", "latent", "only masked", "filled", "latent mask"],
)
def test_planning_makes_no_picture(settings: Settings, fields: dict[str, Any], made: list[str]) -> None:
    decided = planned(settings, **fields)
    assert not made
    account_of(decided)  # which tells how much of the picture may change
    assert set(made) <= {"resize_image", "overlay_mask_whole"}
    assert len(made) <= (2 if "mask" in fields and "only_masked" not in fields else 0)


@BOTH
def test_each_picture_is_made_once(settings: Settings, made: list[str]) -> None:
    decided = planned(settings, **MASKED, color_correction=True, masked_content=MaskedContent.FILL, width=64, height=48)
    pictures_of(decided)
    first = list(made)
    assert pictures_of(decided) and made == first
    assert first.count("color_target") == first.count("fill_masked") == first.count("latent_mask") == 1


@BOTH
@pytest.mark.parametrize("only_masked", [False, True])
def test_pictures_come_out_the_same_whenever_they_are_made(settings: Settings, only_masked: bool) -> None:
    fields = {**MASKED, "color_correction": True, "masked_content": MaskedContent.FILL, "only_masked": only_masked}
    early, late = (planned(settings, **fields, width=48, height=40) for _ in range(2))
    before = pictures_of(early)
    account_of(late)
    assert (
        in_numbers(pictures_of(late))
        == in_numbers(before)
        == in_numbers(pictures_of(pickle.loads(pickle.dumps(early))))
    )
    assert in_numbers(pictures_of(pickle.loads(pickle.dumps(late)))) == in_numbers(before)


def test_a_network_that_enlarges_runs_when_the_picture_is_wanted_and_goes_into_no_pickle() -> None:
    runs: list[float] = []

    def enlarge(image: Image.Image, scale: float) -> Image.Image:  # a closure, which no pickle could hold
        runs.append(scale)
        return image.resize((round(image.width * scale), round(image.height * scale)))

    settings = Settings(upscaler_for_img2img="mine")
    request = asked(images=(noisy_picture(32, 32),), width=64, height=64)
    decided = plan(request, settings, known=Surroundings(upscalers={"mine": enlarge}))
    assert not runs
    encoded = decided.canvases[0].encoded
    assert decided.canvases[0].encoded is encoded and len(runs) == 1
    again = pickle.loads(pickle.dumps(decided))
    assert again.upscaler is None and again.canvases[0].job.upscaler is None
    assert again.canvases[0].encoded.tobytes() == encoded.tobytes() and len(runs) == 1


def test_colours_that_are_given_take_the_place_of_the_sources() -> None:
    canvas = planned(color_correction=True).canvases[0]
    given = np.zeros((4, 4, 3), np.uint8)
    assert canvas.has_target and canvas.target is not None
    assert replace(canvas, given_target=given).target is given
    bare = planned().canvases[0]
    assert (bare.has_target, bare.target) == (False, None)
    assert replace(bare, given_target=given).has_target


@pytest.mark.parametrize("floors", [False, True])
@pytest.mark.parametrize("mode", list(ResizeMode))
@pytest.mark.parametrize("only_masked", [False, True])
def test_the_size_of_what_is_encoded_is_known_before_it_is_made(
    floors: bool, mode: ResizeMode, only_masked: bool
) -> None:
    settings = Settings(quirks=Quirks(floor_odd_sizes=floors))
    fields = {**MASKED, "images": (noisy_picture(30, 35),), "mask": box_mask(30, 35, (3, 3, 20, 20))}
    canvas = planned(settings, **fields, only_masked=only_masked, resize_mode=mode, width=41, height=53).canvases[0]
    assert canvas.encoded_size == canvas.encoded.size


def test_a_latent_mask_that_cannot_fill_is_refused_before_anything_is_made(made: list[str]) -> None:  # MASK-10
    fields = {**MASKED, "latent_mask": Image.new("L", (48, 48), 255), "masked_content": MaskedContent.FILL}
    with pytest.raises(RequestError, match=r"latent_mask='48x48': to fill masked content it must be 32x32"):
        planned(REFERENCE, **fields)
    assert not made


def pictures_of(decided: Plan) -> dict[str, Any]:
    """Everything that is made of a plan."""
    canvas, mask = decided.canvases[0], decided.mask
    found = {name: getattr(canvas, name) for name in ("target", "overlay", "base", "encoded")}
    return found | {name: getattr(mask, name) for name in ("latent", "change", "pixel", "overlay") if mask is not None}


def in_numbers(pictures: dict[str, Any]) -> dict[str, Any]:
    return {name: None if each is None else np.asarray(each).tolist() for name, each in pictures.items()}
