"""Which sampler walks where: steps, start, and which of request, option and default decides each parameter."""

from __future__ import annotations

import math
from typing import Any

import pytest

from overpaint.errors import RequestError
from overpaint.models.families import SD1_SPEC
from overpaint.models.usual import as_usual
from overpaint.planning.sampler_plan import LONGEST_SCHEDULE, SamplerPlan, Start, plan_sampler
from overpaint.request import PaintRequest, Txt2ImgRequest
from overpaint.settings import Settings
from tests.unit.toy_job import REFERENCE, SANE, asked


def of(settings: Settings = SANE, request: PaintRequest | None = None, **fields: Any) -> SamplerPlan:
    whole = as_usual(request or asked(**fields), SD1_SPEC, settings.max_steps)
    made, _ = plan_sampler(whole, settings, SD1_SPEC, settings)
    return made


@pytest.mark.parametrize(("strength", "evaluations"), [(1.0, 20), (0.75, 16), (0.5, 11), (0.0, 1)])
def test_strength_says_how_many_of_the_steps_are_walked(strength: float, evaluations: int) -> None:  # STEP-3
    made = of(steps=20, strength=strength, sampler="Euler")
    assert made.steps == 20 and made.evaluations == evaluations
    assert len(made.used) == evaluations + 1 and made.used[-1] == 0
    assert made.start == made.used[0] and not made.from_noise


def test_fixed_steps_walk_as_many_as_asked() -> None:  # STEP-10
    fixed = SANE.with_changes({"img2img_fix_steps": True})
    assert of(fixed, steps=20, strength=0.5, sampler="Euler").evaluations == 20
    assert not of(fixed, steps=20, strength=0, sampler="Euler").takes_steps
    with pytest.raises(RequestError, match=rf"strength=.*{LONGEST_SCHEDULE} at most"):
        of(fixed, steps=100, strength=0.001, sampler="Euler")


def test_without_a_source_it_starts_from_noise() -> None:
    made = of(request=Txt2ImgRequest(steps=8, sampler="Euler"))
    assert made.from_noise and made.evaluations == 8 and made.noise_multiplier == 1
    assert Start.of(Txt2ImgRequest(), SANE).strength is None
    assert Start.of(asked(strength=0.3), SANE) == Start(strength=0.3)


def test_second_order_samplers_count_prompt_steps_twice() -> None:  # TAB-3
    assert of(sampler="Heun", steps=5).prompt_steps == 10
    assert of(sampler="Euler", steps=5).prompt_steps == 5


def test_the_request_decides_before_the_option() -> None:  # PAR-1, PAR-3
    settings = SANE.with_changes({"eta_ancestral": 0.5, "s_churn": 3.0, "initial_noise_multiplier": 0.9})
    assert (of(settings, sampler="Euler a").eta, of(settings, sampler="Euler a", eta=0.2).eta) == (0.5, 0.2)
    assert (of(settings).s_churn, of(settings, s_churn=1.0).s_churn) == (3.0, 1.0)
    assert (of(settings).noise_multiplier, of(settings, noise_multiplier=0.7).noise_multiplier) == (0.9, 0.7)


def test_in_the_reference_a_changed_option_beats_the_request() -> None:  # PAR-3
    settings = REFERENCE.with_changes({"s_churn": 3.0})
    assert of(settings, s_churn=1.0).s_churn == 3.0
    assert of(REFERENCE, s_churn=1.0).s_churn == 1.0


def test_a_largest_sigma_of_zero_means_none() -> None:
    assert of().s_tmax == math.inf and of(s_tmax=0).s_tmax == math.inf and of(s_tmax=2.5).s_tmax == 2.5


def test_guidance_is_scaled_by_the_sampler_and_a_picture_s_is_for_edit_models() -> None:
    assert of(cfg_scale=5).cfg_scale == 5
    assert of(cfg_scale=5, sampler="DDIM CFG++").cfg_scale == pytest.approx(0.4)
    assert of(image_cfg_scale=1.5).image_cfg_scale is None
