"""HIRES: the second pass's plan. Its size, its texts, its steps; and that its mistakes are named as its own."""

from __future__ import annotations

from typing import Any

import pytest

from overpaint.errors import RequestError
from overpaint.planning.canvas_pixels import Geometry
from overpaint.planning.hires import LATENT_UPSCALES, hires_sizes
from overpaint.planning.plan import Plan, plan
from overpaint.request import Hires, Txt2ImgRequest
from overpaint.settings import Settings


def planned(*, settings: Settings | None = None, **fields: Any) -> Plan:
    given = {"width": 64, "height": 48, "seed": 3, "steps": 6, "sampler": "Euler", "prompt": "a cat", **fields}
    return plan(Txt2ImgRequest(**given), settings or Settings())


@pytest.mark.parametrize(
    ("given", "enlarged", "kept"),
    [
        ({"scale": 1.5}, (96, 72), (96, 72)),
        ({"width": 128}, (128, 96), (128, 96)),
        ({"height": 96}, (128, 96), (128, 96)),
        ({"width": 128, "height": 128}, (170, 128), (128, 128)),  # covers both sides, and is cut
        ({"width": 160, "height": 96}, (160, 120), (160, 96)),
    ],
)
def test_sizes(given: dict[str, Any], enlarged: tuple[int, int], kept: tuple[int, int]) -> None:
    assert hires_sizes(Geometry(64, 48, 64, 48), Hires(**given)) == (enlarged, kept)


def test_the_second_pass_is_a_plan_of_its_own() -> None:
    made = planned(hires=Hires(scale=2, steps=4, strength=0.5, sampler="DDIM", prompt="a dog"))
    assert made.hires is not None
    second = made.hires.plan
    assert (second.geometry.width, second.geometry.height) == (128, 96)
    assert (second.sampler.spec.name, second.sampler.steps_asked) == ("DDIM", 4)
    assert [each.prompt for each in second.images] == ["a dog"]
    assert [each.seed for each in second.images] == [each.seed for each in made.images] == [3]
    assert second.sampler.steps_before == made.sampler.prompt_steps
    assert second.hires is None and second.request.hires is None
    assert made.strength == made.hires.strength == 0.5


def test_what_is_left_out_is_the_first_pass_s() -> None:
    made = planned(hires=Hires())
    assert made.hires is not None
    second = made.hires.plan
    assert [each.prompt for each in second.images] == ["a cat"]
    assert (second.sampler.spec.name, second.sampler.steps_asked) == ("Euler", 6)
    assert made.hires.upscaler == LATENT_UPSCALES["Latent"]


@pytest.mark.parametrize(
    ("hires", "field"),
    [
        ({"sampler": "nobody's"}, "hires.sampler"),
        ({"scheduler": "none of them"}, "hires.scheduler"),
        ({"upscaler": "unknown"}, "hires.upscaler"),
        ({"scale": 16}, "hires.width x height"),
        ({"prompt": ("a", "b")}, "hires.prompt"),
    ],
)
def test_mistakes_are_the_second_pass_s_own(hires: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError) as caught:
        planned(hires=Hires(**hires), settings=Settings(max_pixels_per_pass=100_000))
    assert caught.value.field == field


def test_passes_are_cut_into_batches_alike() -> None:
    made = planned(hires=Hires(prompt=("a", "b", "c")), prompt=("x", "y", "z"), batch_size=3)
    assert made.hires is not None
    assert [len(each) for each in made.batches] == [len(each) for each in made.hires.plan.batches]
