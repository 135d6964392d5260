"""CFG: how far a picture is led, by whom, and which calls go without the negative text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from overpaint.models.families import SD1_SPEC
from overpaint.painting.guidance import Guidance, as_long_as, guided, guided_three_ways
from overpaint.settings import Settings
from tests.unit.toy_job import SANE, planned


def guidance(settings: Settings = SANE, **fields: float) -> Guidance:
    return Guidance.of(planned(settings, steps=10, strength=1, **fields).sampler, SD1_SPEC, settings)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_text_is_the_textbook_s_formula() -> None:  # CFG-2
    uncond, positive = noise(2, 4, 3, 3), noise(2, 4, 3, 3, seed=1)
    result = guided(uncond, positive, [0, 1], [1.0, 1.0], 7.5)
    assert torch.allclose(result, uncond + 7.5 * (positive - uncond))
    assert torch.allclose(guided(uncond, positive, [0, 1], [1.0, 1.0], 1.0), positive, atol=1e-6)


def test_sub_prompts_add_up_by_their_weights_each_in_its_picture() -> None:  # CFG-2
    uncond, positive = noise(2, 4, 2, 2), noise(3, 4, 2, 2, seed=1)
    result = guided(uncond, positive, [0, 0, 1], [1.0, -0.5, 2.0], 3.0)
    first = uncond[0] + 3 * (positive[0] - uncond[0]) - 1.5 * (positive[1] - uncond[0])
    assert torch.allclose(result[0], first, atol=1e-5)
    assert torch.allclose(result[1], uncond[1] + 6 * (positive[2] - uncond[1]), atol=1e-5)


def test_guidance_that_keeps_lengths_turns_each_token_alone() -> None:
    """Against the formula on packed tokens, at a size that is no multiple of a token."""
    result, own, share = (noise(2, 4, 5, 6, seed=seed) for seed in range(3))
    found = share - as_long_as(result, own, share, 2)
    for rows in (slice(0, 2), slice(2, 4), slice(4, 5)):
        for columns in (slice(0, 2), slice(4, 6)):
            turned, plain, kept = (each[:, :, rows, columns] for each in (share - result, share - own, found))
            lengths = (torch.linalg.vector_norm(each, dim=(1, 2, 3)) for each in (plain, turned))
            of_plain, of_turned = lengths
            assert torch.allclose(kept, turned * (of_plain / of_turned)[:, None, None, None], atol=1e-5)


def test_three_ways_are_two_where_the_picture_has_no_say_of_its_own() -> None:  # CFG-3
    nothing, image, both = (noise(1, 4, 2, 2, seed=seed) for seed in range(3))
    assert torch.allclose(guided_three_ways(nothing, image, both, 1.0, 1.0), both, atol=1e-6)
    assert torch.equal(guided_three_ways(nothing, image, image, 5.0, 0.0), nothing)
    same = guided_three_ways(nothing, nothing, both, 4.0, 9.0)
    assert torch.allclose(same, guided(nothing, both, [0], [1.0], 4.0), atol=1e-5)


def test_below_a_sigma_every_second_call_goes_without_the_negative() -> None:  # CFG-5
    quiet = guidance(s_min_uncond=2.0)
    assert [quiet.skips_negative(1.0, call) for call in range(4)] == [False, True, False, True]
    assert not any(quiet.skips_negative(3.0, call) for call in range(4))
    assert quiet.notes(1.0, 1) == {"NGMS": 2.0} and quiet.notes(1.0, 0) == {}
    every = guidance(SANE.with_changes({"s_min_uncond_all": True}), s_min_uncond=2.0)
    assert all(every.skips_negative(1.0, call) for call in range(4))
    assert every.notes(1.0, 0) == {"NGMS": 2.0, "NGMS all steps": True}


def test_the_first_part_of_the_calls_may_go_without_it() -> None:  # CFG-6
    early = guidance(SANE.with_changes({"skip_early_cond": 0.25}))
    assert early.calls == 10
    assert [early.skips_negative(9.0, call) for call in range(5)] == [True, True, True, False, False]
    assert early.notes(9.0, 0) == {"Skip Early CFG": 0.25} and early.notes(9.0, 4) == {}


def test_the_last_part_of_the_calls_may_go_without_it() -> None:
    late = guidance(SANE.with_changes({"skip_late_cond": 0.25}))
    assert [late.skips_negative(0.5, call) for call in range(10)] == [False] * 8 + [True] * 2
    assert late.notes(0.5, 8) == {"Skip Late CFG": 0.25} and late.notes(0.5, 7) == {}
    assert all(guidance(SANE.with_changes({"skip_late_cond": 1})).skips_negative(9.0, call) for call in range(10))
    assert not any(guidance().skips_negative(0.0, call) for call in range(12))


@pytest.mark.parametrize(("asked", "scale"), [(None, None), (1.0, None), (1.5, 1.5), (0.0, 1.0)])
def test_only_an_edit_model_listens_to_its_picture(asked: float | None, scale: float | None) -> None:
    sampler = replace(planned(steps=4).sampler, image_cfg_scale=asked, s_min_uncond=2.0)
    edit = replace(SD1_SPEC, conditioning="edit")
    made = Guidance.of(sampler, edit, SANE)
    assert made.image_scale == scale and made.quiet_below == 0
    assert Guidance.of(sampler, SD1_SPEC, SANE).image_scale is None
