"""What a plan makes of a strength map: levels, steps, and the mask that black in it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.planning.plan import Plan
from overpaint.planning.preflight import account_of, network_calls
from overpaint.planning.strength_levels import told
from overpaint.request import Img2ImgRequest, ResizeMode
from tests.unit.painting.test_regions import map_of, plan_with

SOURCE = Image.new("RGB", (64, 64), "teal")


def levels(**fields: Any) -> list[dict[str, float | int]]:
    return list(told(plan_with("Euler", **fields).levels))


def test_each_strength_tells_its_steps_and_its_part() -> None:
    found = levels(strength_map=map_of(255, 128, 0, 0), mask_blur_x=0, mask_blur_y=0)
    assert found == [
        {"strength": 0.8, "steps": 9, "share": 25.0},
        {"strength": 0.4016, "steps": 5, "share": 25.0},
        {"strength": 0.0, "steps": 0, "share": 50.0},
    ]
    assert account_of(plan_with("Euler", strength_map=map_of(255, 128)))["strengths"][1]["steps"] == 5
    assert account_of(plan_with("Euler"))["strengths"] == []


def test_strengths_that_start_at_one_step_are_one_level() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)))
    plan = plan_with("Euler", strength_map=ramp)
    assert [each.sampler.t_enc for each in plan.levels] == sorted({each.sampler.t_enc for each in plan.levels})[::-1]
    assert len(plan.levels) == 8 and np.sum([each.cells for each in plan.levels], axis=0).max() == 1
    for each in plan.levels:
        assert each.sampler.used == plan.sampler.used[-len(each.sampler.used) :]


def test_black_in_a_map_is_a_mask_of_its_own() -> None:
    plan = plan_with("Euler", strength_map=map_of(255, 0), mask_blur_x=0, mask_blur_y=0, invert_mask=True)
    assert plan.mask is not None and plan.mask.overlay.getbbox() == (0, 0, 32, 64)
    assert plan.request.mask is None and plan.warnings == ()
    assert plan_with("Euler", strength_map=map_of(255, 1)).mask is None
    own = Image.new("L", (64, 64), 255)
    assert (found := plan_with("Euler", strength_map=map_of(255, 0), mask=own).mask) is not None
    assert found.overlay.getbbox() == (0, 0, 64, 64)


def test_a_black_map_changes_nothing() -> None:
    plan = plan_with("Euler", strength_map=map_of(0))
    assert plan.unchanged == "strength 0 changes nothing"


def test_the_ceiling_is_that_of_the_lightest_place() -> None:
    plan = plan_with("Euler", strength_map=map_of(128, 64), strength=1.0)
    assert plan.sampler.used == plan_with("Euler", strength=128 / 255).sampler.used
    assert [each.sampler.evaluations for each in plan.levels] == [6, 3]


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 96, "height": 40},
        {"width": 96, "height": 40, "resize_mode": ResizeMode.CROP},
        {"width": 96, "height": 40, "resize_mode": ResizeMode.FILL},
        {"width": 96, "height": 40, "resize_mode": ResizeMode.LATENT},
        {"width": 61, "height": 35},
        {"only_masked": True, "padding": 4, "width": 64, "height": 64},
        {"images": (Image.new("RGB", (128, 128)),)},
    ],
)
def test_a_map_goes_the_way_of_the_picture(fields: dict[str, Any]) -> None:
    plan = plan_with("Euler", strength_map=map_of(255, 255, 60, 0), mask_blur_x=0, mask_blur_y=0, **fields)
    wide, high = plan.geometry.latent_size
    assert plan.levels and all(each.cells.shape == (high, wide) for each in plan.levels)
    assert plan.levels[0].cells[high // 2, 0] and not plan.levels[0].cells[high // 2, -1]


def test_calls_are_foretold_where_the_levels_meet() -> None:
    def calls(sampler: str, **fields: Any) -> int | None:
        return network_calls(plan_with(sampler, strength_map=map_of(255, 102), **fields))

    assert calls("Euler") == 9 and calls("DPM++ 2M") == 9
    assert calls("PLMS") is calls("DPM fast") is calls("Euler", s_churn=3.0) is None


def test_it_is_written_down() -> None:
    plan: Plan = plan_with("Euler", strength_map=map_of(255, 102))
    assert plan.notes["Strength map"] is True
    again = Img2ImgRequest.from_json(plan.request.to_json())
    assert again.strength_map is not None and again.strength_map.tobytes() == map_of(255, 102).tobytes()
