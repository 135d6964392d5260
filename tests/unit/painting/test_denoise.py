"""SIG-5 to SIG-7, CFG, BLEND, SOFT-2: from a sampler's question to rows, and from outputs to the guided prediction."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.models.families import SD1_SPEC
from overpaint.painting.blend import MaskBlend, soft_blend
from overpaint.painting.denoise import Denoiser, Estimate
from overpaint.painting.guidance import Guidance
from overpaint.painting.texts import ImageCond, ScheduledCond, TextCond, Texts
from overpaint.planning.plan import plan
from overpaint.request import SoftInpainting
from overpaint.samplers import Query
from overpaint.settings import Settings
from overpaint.text.prompt import schedule
from tests.unit.toy_job import REFERENCE, SANE, asked

SHAPE = (4, 2, 3)
V_SPEC = replace(SD1_SPEC, prediction="v")
EDIT_SPEC = replace(SD1_SPEC, conditioning="edit")


def text(value: float, tokens: int = 77) -> TextCond:
    return TextCond(torch.full((tokens, 5), value))


def always(value: float, tokens: int = 77) -> ScheduledCond:
    return ScheduledCond(schedule("x", 4, quirks=SANE.quirks), (text(value, tokens),))


def guided_by(*weighted: tuple[float, float], negative: float = -1.0) -> ImageCond:
    return ImageCond(tuple((always(value), weight) for value, weight in weighted), always(negative))


def denoiser(
    *texts: ImageCond,
    settings: Settings = SANE,
    spec: Any = SD1_SPEC,
    blend: MaskBlend | None = None,
    image_conditioning: Tensor | None = None,
    empty_text: TextCond | None = None,
    **fields: Any,
) -> Denoiser:
    request = asked(**{"sampler": "Euler", "steps": 10, **fields})
    sampler = plan(request, settings, spec).sampler
    guidance = Guidance.of(sampler, spec, settings)
    return Denoiser(sampler, guidance, Texts(texts, settings, empty_text), blend, image_conditioning)


def states(batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed))


def outputs(count: int, seed: int = 5) -> list[Tensor]:
    return list(states(count, seed))


def close(a: Tensor, b: Tensor) -> bool:
    return bool(torch.allclose(a, b, atol=1e-5, rtol=1e-5))


# -- rows --------------------------------------------------------------------------------------------------------------


def test_rows_are_all_texts_of_all_pictures_then_the_negatives() -> None:  # CFG-1
    made = denoiser(guided_by((1, 1), (2, 0.5)), guided_by((3, 1), negative=-3))
    x = states(2)
    rows = made.rows(Query(x, 2.0), 0)
    assert [float(row.cond.context[0, 0]) for row in rows] == [1, 2, 3, -1, -3]
    c_in = 1 / math.sqrt(5)
    for row, owner in zip(rows, (0, 0, 1, 0, 1), strict=True):
        assert close(row.x, x[owner] * c_in)  # SIG-5
        assert row.timestep == pytest.approx(float(made.sampler.table.sigma_to_t(2.0)))


def test_timestep_rows_are_not_scaled() -> None:  # SIG-7
    made = denoiser(guided_by((1, 1)), sampler="DDIM")
    x = states()
    row = made.rows(Query(x, 401.0), 0)[0]
    assert close(row.x, x[0])
    assert row.timestep == 401.0


def test_image_conditioning_follows_the_latent() -> None:  # COND-3, CFG-1
    extra = states(2, 9)
    made = denoiser(guided_by((1, 1)), guided_by((2, 1)), image_conditioning=extra)
    rows = made.rows(Query(states(2), 1.0), 0)
    assert [row.x.shape[0] for row in rows] == [8] * 4
    for row, owner in zip(rows, (0, 1, 0, 1), strict=True):
        assert torch.equal(row.x[4:], extra[owner])


def test_texts_change_with_the_call() -> None:  # SCHED, CFG-9
    entries = schedule("[a:b:2]", 4, quirks=SANE.quirks)
    changing = ScheduledCond(entries, (text(1), text(2)))
    made = denoiser(ImageCond(((changing, 1.0),), always(-1)))
    shown = [float(made.rows(Query(states(), 1.0), call)[0].cond.context[0, 0]) for call in range(4)]
    assert shown == [1, 1, 2, 2]


# -- guidance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 7.5, -2.0])
def test_guidance(scale: float) -> None:  # CFG-2
    made = denoiser(guided_by((1, 1), (2, 0.5)), guided_by((3, 1)), cfg_scale=scale)
    x, given = states(2), outputs(5)
    found = made.estimate(Query(x, 2.0), 0, given)
    denoised = [x[i] - 2.0 * out for i, out in zip((0, 0, 1, 0, 1), given, strict=True)]  # SIG-5
    first = denoised[3] + scale * (denoised[0] - denoised[3]) + 0.5 * scale * (denoised[1] - denoised[3])
    second = denoised[4] + scale * (denoised[2] - denoised[4])
    assert close(found.guided, torch.stack([first, second]))
    assert close(found.uncond, torch.stack(denoised[3:]))
    assert close(found.conditional, torch.stack([denoised[0], denoised[2]]))  # INT-2


def test_v_prediction() -> None:  # SIG-6
    made = denoiser(guided_by((1, 1)), spec=V_SPEC, cfg_scale=1)
    x, (v, u), s = states(), outputs(2), 3.0
    expected = v * (-s / math.sqrt(s * s + 1)) + x[0] / (s * s + 1)
    assert close(made.estimate(Query(x, s), 0, [v, u]).guided[0], expected)


def test_v_prediction_over_timesteps() -> None:  # SIG-7
    made = denoiser(guided_by((1, 1)), spec=V_SPEC, cfg_scale=1, sampler="DDIM")
    x, (v, u) = states(), outputs(2)
    a = float(made.sampler.table.alphas_cumprod[401])
    expected = math.sqrt(a) * v + math.sqrt(1 - a) * x[0]
    assert close(made.estimate(Query(x, 401.0), 0, [v, u]).guided[0], expected)


def test_lcm() -> None:  # LCM-1
    made = denoiser(guided_by((1, 1)), sampler="LCM", cfg_scale=1)
    x, (eps, u), s = states(), outputs(2), 2.0
    q = 10 * float(made.sampler.table.sigma_to_t(s))
    c_skip, c_out = 0.25 / (q * q + 0.25), q / math.sqrt(q * q + 0.25)
    assert close(made.estimate(Query(x, s), 0, [eps, u]).guided[0], c_out * (x[0] - s * eps) + c_skip * x[0])


def test_edit_guidance() -> None:  # CFG-3
    made = denoiser(
        guided_by((1, 1)), spec=EDIT_SPEC, image_conditioning=states(1, 9), cfg_scale=7.0, image_cfg_scale=1.5
    )
    x, given = states(), outputs(3)
    rows = made.rows(Query(x, 2.0), 0)
    assert [float(row.cond.context[0, 0]) for row in rows] == [1, -1, -1]
    assert not rows[2].x[4:].any()
    assert rows[1].x[4:].any()
    text_and_image, image_only, nothing = (x[0] - 2.0 * each for each in given)
    expected = nothing + 7.0 * (text_and_image - image_only) + 1.5 * (image_only - nothing)
    assert close(made.estimate(Query(x, 2.0), 0, given).guided[0], expected)


@pytest.mark.parametrize("scale", [None, 1.0])
def test_edit_models_without_a_scale_of_their_own(scale: float | None) -> None:  # CFG-3
    made = denoiser(guided_by((1, 1)), spec=EDIT_SPEC, image_conditioning=states(1, 9), image_cfg_scale=scale)
    assert len(made.rows(Query(states(), 2.0), 0)) == 2


def test_edit_guidance_refuses_and() -> None:  # CFG-3
    with pytest.raises(SamplingError, match="AND"):
        denoiser(guided_by((1, 1), (2, 1)), spec=EDIT_SPEC, image_conditioning=states(1, 9), image_cfg_scale=1.5)


# -- calls without the negative ----------------------------------------------------------------------------------------


def test_quiet_calls_skip_the_negative() -> None:  # CFG-5, CFG-6
    made = denoiser(guided_by((1, 1), (2, 0.5)), s_min_uncond=1.0)
    x = states()
    counts = {(sigma, call): len(made.rows(Query(x, sigma), call)) for sigma in (2.0, 1.0, 0.5) for call in (0, 1)}
    assert counts == {(2.0, 0): 3, (2.0, 1): 3, (1.0, 0): 3, (1.0, 1): 3, (0.5, 0): 3, (0.5, 1): 2}
    assert made.notes(Query(x, 0.5), 1) == {"NGMS": 1.0}
    assert made.notes(Query(x, 0.5), 0) == {}
    given = outputs(2)
    first, second = (x[0] - 0.5 * each for each in given)
    assert close(made.estimate(Query(x, 0.5), 1, given).guided[0], first + 0.5 * (second - first))


def test_all_quiet_calls_skip() -> None:  # CFG-5
    made = denoiser(guided_by((1, 1)), settings=Settings(s_min_uncond_all=True), s_min_uncond=1.0)
    assert len(made.rows(Query(states(), 0.5), 0)) == 1
    assert made.notes(Query(states(), 0.5), 0) == {"NGMS": 1.0, "NGMS all steps": True}


def test_early_calls_skip() -> None:  # CFG-5
    made = denoiser(guided_by((1, 1)), settings=Settings(skip_early_cond=0.25), steps=8, strength=1)
    skipped = [len(made.rows(Query(states(), 5.0), call)) == 1 for call in range(8)]
    assert skipped == [call / 8 <= 0.25 for call in range(8)]
    assert made.notes(Query(states(), 5.0), 0) == {"Skip Early CFG": 0.25}


def test_a_sigma_threshold_over_timesteps() -> None:  # CFG-5: the reference compares it with the timestep number
    query = Query(states(), 401.0)
    assert len(denoiser(guided_by((1, 1)), sampler="DDIM", s_min_uncond=3.0).rows(query, 1)) == 1
    reference = denoiser(guided_by((1, 1)), sampler="DDIM", s_min_uncond=3.0, settings=REFERENCE)
    assert len(reference.rows(query, 1)) == 2


# -- texts of different length -----------------------------------------------------------------------------------------


def lengths(made: Denoiser) -> list[int]:
    return [len(row.cond.context) for row in made.rows(Query(states(), 1.0), 0)]


def test_lengths_are_left_alone() -> None:  # CFG-7
    long = ImageCond(((always(1, 154), 1.0),), always(-1))
    assert lengths(denoiser(long)) == [154, 77]
    assert denoiser(long).notes(Query(states(), 1.0), 0) == {}


def test_padding_with_the_empty_text() -> None:  # CFG-7
    settings = Settings(pad_cond_uncond=True)
    long = ImageCond(((always(1, 231), 1.0),), always(-1))
    made = denoiser(long, settings=settings, empty_text=text(9))
    assert lengths(made) == [231, 231]
    assert made.rows(Query(states(), 1.0), 0)[1].cond.context[:, 0].tolist() == [-1.0] * 77 + [9.0] * 154
    assert made.notes(Query(states(), 1.0), 0) == {"Pad conds": True}
    short = ImageCond(((always(1), 1.0),), always(-1, 154))
    assert lengths(denoiser(short, settings=settings, empty_text=text(9))) == [154, 154]


def test_padding_with_the_last_vector() -> None:  # CFG-7
    settings = Settings(pad_cond_uncond_v0=True)
    long, short = ImageCond(((always(1, 154), 1.0),), always(-1)), ImageCond(((always(1), 1.0),), always(-1, 154))
    made = denoiser(long, settings=settings)
    assert lengths(made) == [154, 154]
    assert made.rows(Query(states(), 1.0), 0)[1].cond.context[:, 0].tolist() == [-1.0] * 154
    assert lengths(denoiser(short, settings=settings)) == [77, 77]
    assert made.notes(Query(states(), 1.0), 0) == {"Pad conds v0": True}


def test_a_neighbours_long_text_pads_only_in_the_reference() -> None:  # CFG-8
    pair = ImageCond(((always(1), 1.0), (always(2, 154), 1.0)), always(-1))
    assert lengths(denoiser(pair)) == [77, 154, 77]
    assert lengths(denoiser(pair, settings=REFERENCE)) == [154, 154, 77]


# -- the mask ----------------------------------------------------------------------------------------------------------

INIT = states(1, 3)
NMASK = torch.zeros(SHAPE)
NMASK[:, :, 1:] = 1


def test_the_kept_part_is_put_into_every_prediction() -> None:  # BLEND-1
    made = denoiser(guided_by((1, 1)), blend=MaskBlend(INIT, NMASK))
    bare = denoiser(guided_by((1, 1)))
    x, given = states(), outputs(2)
    plain, blended = (each.estimate(Query(x, 2.0), 0, given).guided for each in (bare, made))
    assert torch.equal(blended[..., 0], INIT[..., 0])
    assert torch.equal(blended[..., 1:], plain[..., 1:])
    assert torch.equal(made.rows(Query(x, 2.0), 0)[0].x, bare.rows(Query(x, 2.0), 0)[0].x)


def test_the_reference_blends_the_input_of_timestep_samplers() -> None:  # BLEND-2
    made = denoiser(guided_by((1, 1)), sampler="DDIM", settings=REFERENCE, blend=MaskBlend(INIT, NMASK), cfg_scale=1)
    x, given = states(), outputs(2)
    row = made.rows(Query(x, 401.0), 0)[0]
    assert torch.equal(row.x[..., 0], INIT[0, ..., 0])
    assert torch.equal(row.x[..., 1:], x[0, ..., 1:])
    assert close(made.estimate(Query(x, 401.0), 0, given).guided[0], given[0])


def test_sane_timestep_samplers_aim_at_the_source() -> None:  # BLEND-2
    made = denoiser(guided_by((1, 1)), sampler="DDIM", blend=MaskBlend(INIT, NMASK), cfg_scale=1)
    x, given, query = states(), outputs(2), Query(states(), 401.0)
    assert torch.equal(made.rows(query, 0)[0].x, x[0])
    eps = made.estimate(query, 0, given).guided
    assert close(made.clean(query, eps)[..., 0], INIT[..., 0])
    assert close(eps[0][..., 1:], given[0][..., 1:])


def test_final_blend() -> None:  # BLEND-3, SOFT-3
    latent = states(1, 8)
    assert torch.equal(MaskBlend(INIT, NMASK).final(latent)[..., 0], INIT[..., 0])
    assert torch.equal(MaskBlend(INIT, NMASK).final(latent)[..., 1:], latent[..., 1:])
    assert MaskBlend(INIT, NMASK, SoftInpainting()).final(latent) is latent


def test_soft_blend() -> None:  # SOFT-2, by the formula in float64
    a, b = states(1, 1), states(1, 2)
    nmask = torch.rand(SHAPE[1:], generator=torch.Generator().manual_seed(4)).expand(SHAPE)
    soft = SoftInpainting(schedule_bias=1.5, preservation_strength=0.7, transition_contrast_boost=3)
    sigma = 0.8
    found = soft_blend(a, b, nmask, sigma, soft)
    t = nmask.double() ** (sigma**1.5 * 0.7)
    mixed = a.double() * (1 - t) + b.double() * t
    norm_a, norm_b, norm = (each.double().norm(dim=1, keepdim=True) for each in (a, b, mixed))
    wanted = (norm_a**3 * (1 - t[:1]) + norm_b**3 * t[:1]) ** (1 / 3)
    np.testing.assert_allclose(found.numpy(), (mixed * wanted / (norm + 1e-5)).numpy(), rtol=2e-5, atol=2e-6)


def test_soft_blend_at_its_ends() -> None:
    a, b = states(1, 1), states(1, 2)
    soft = SoftInpainting()
    assert torch.allclose(soft_blend(a, b, torch.ones(SHAPE), 1.0, soft), b, rtol=1e-4)
    assert torch.allclose(soft_blend(a, b, torch.zeros(SHAPE), 1.0, soft), a, rtol=1e-4)


def test_clean_of_a_timestep_sampler() -> None:  # INT-2, TUP-1
    made = denoiser(guided_by((1, 1)), sampler="DDIM")
    x0, eps = states(1, 1), states(1, 2)
    a = float(made.sampler.table.alphas_cumprod[401])
    x = math.sqrt(a) * x0 + math.sqrt(1 - a) * eps
    assert close(made.clean(Query(x, 401.0), eps), x0)
    assert denoiser(guided_by((1, 1))).clean(Query(x, 2.0), eps) is eps


def test_an_estimate_does_not_share_memory_with_what_it_was_made_of() -> None:
    made = denoiser(guided_by((1, 1)), cfg_scale=7)
    found: Estimate = made.estimate(Query(states(), 2.0), 0, outputs(2))
    before = found.uncond.clone()
    found.guided.zero_()
    assert torch.equal(found.uncond, before)
