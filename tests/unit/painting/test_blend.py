"""BLEND, SOFT: the kept part of the source is in every prediction, and exactly in what comes out."""

from __future__ import annotations

import pytest
import torch

from overpaint.painting.blend import MaskBlend, soft_blend
from overpaint.request import SoftInpainting
from overpaint.samplers import Query
from tests.unit.toy_job import planned

INIT = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
LATENT = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))
MASK = torch.zeros(4, 6, 5)
MASK[:, :3] = 1


def test_white_is_new_and_black_is_the_source() -> None:  # BLEND-1, BLEND-3
    mixed = MaskBlend(INIT, MASK).apply(LATENT, 5.0)
    assert torch.equal(mixed[:, :, :3], LATENT[:, :, :3]) and torch.equal(mixed[:, :, 3:], INIT[:, :, 3:])
    assert torch.equal(MaskBlend(INIT, MASK).final(LATENT), mixed)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_the_picture_in_an_answer_keeps_the_source(sampler: str) -> None:  # BLEND-2, BLEND-4
    plan = planned(sampler=sampler, strength=1).sampler
    meaning, place = plan.parameterization, plan.used[len(plan.used) // 2]
    blend, query = MaskBlend(INIT, MASK), Query(LATENT * 3, place)
    if meaning.blends_input:
        assert torch.equal(blend.question(query, meaning)[:, :, 3:], INIT[:, :, 3:])
        return
    assert torch.equal(blend.question(query, meaning), query.x)
    reply = meaning.reply_for(torch.full_like(INIT, 0.25), query.x, place)
    shown = meaning.clean(blend.answer(reply, query, meaning), query.x, place)
    assert torch.allclose(shown[:, :, 3:], INIT[:, :, 3:], atol=1e-4)
    assert torch.allclose(shown[:, :, :3], torch.full_like(INIT[:, :, :3], 0.25), atol=1e-4)


def test_a_soft_mask_of_black_and_white_is_a_hard_one() -> None:  # SOFT-2
    mixed = soft_blend(INIT, LATENT, MASK, 1.5, SoftInpainting())
    assert torch.allclose(mixed, MaskBlend(INIT, MASK).apply(LATENT, 1.5), atol=1e-3)


def test_soft_magnitudes_lie_between_those_of_both() -> None:  # SOFT-2
    half = torch.full_like(MASK, 0.5)
    plain = MaskBlend(INIT, half).apply(LATENT, 1.0)
    soft = soft_blend(INIT, LATENT, half, 1.0, SoftInpainting())
    of_plain, of_soft, *both = (each.norm(dim=1) for each in (plain, soft, INIT, LATENT))
    assert (of_soft > of_plain).float().mean() > 0.95  # interpolation alone loses some
    assert (of_soft <= torch.maximum(*both) * 1.001).all() and (of_soft >= torch.minimum(*both) * 0.999).all()


def test_after_soft_sampling_nothing_is_put_back() -> None:  # SOFT-3
    assert MaskBlend(INIT, MASK, SoftInpainting()).final(LATENT) is LATENT
