"""STEP-4 to STEP-6: where a walk starts, what every picture draws, and that a picture does not depend on its batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.painting.drive import Run
from overpaint.painting.sampling import BatchTensors, Streams, drawn_noise, final_latents, start_runs
from overpaint.painting.texts import ImageCond, ScheduledCond, TextCond
from overpaint.planning.plan import Plan, plan
from overpaint.request import Txt2ImgRequest
from overpaint.text.prompt import schedule
from tests.unit.toy_job import SANE, planned

SHAPE = (4, 4, 4)
INIT = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5))


def tensors(init: Tensor = INIT, nmask: Tensor | None = None) -> BatchTensors:
    one = ScheduledCond(schedule("x", 4, quirks=SANE.quirks), (TextCond(torch.zeros(4, 3)),))
    return BatchTensors(
        init=init, nmask=nmask, image_conditioning=None, texts=(ImageCond(((one, 1.0),), one),) * len(init)
    )


def streams(*seeds: int) -> Streams:
    return Streams(seeds, seeds, 0.0)


def first(of: Plan, given: BatchTensors, seeds: Streams, **more: Any) -> list[Tensor]:
    runs: list[Run] = start_runs(of, given, seeds, **more)
    return [run.query.x for run in runs if run.query is not None]


def test_a_source_is_noised_to_the_first_sigma() -> None:  # STEP-4
    of = planned(sampler="Euler", strength=0.5, steps=8)
    (x,) = first(of, tensors(), streams(1, 2))
    noise = drawn_noise(of, tensors(), streams(1, 2))
    assert torch.allclose(x, INIT + noise * of.sampler.start, atol=1e-5)


def test_the_multiplier_and_extra_noise() -> None:  # STEP-1, STEP-5
    of = planned(SANE.with_changes({"img2img_extra_noise": 0.25}), sampler="Euler", strength=0.5, noise_multiplier=0.5)
    (x,) = first(of, tensors(), streams(1, 2))
    noise = drawn_noise(of, tensors(), streams(1, 2)) * 0.5
    assert torch.allclose(x, INIT + noise * (of.sampler.start + 0.25), atol=1e-5)


def test_without_a_source_it_is_noise_alone() -> None:  # STEP-6
    of = plan(Txt2ImgRequest(width=32, height=32, sampler="Euler", steps=4), SANE)
    given = tensors(torch.zeros(1, *SHAPE))
    (x,) = first(of, given, streams(7))
    assert torch.equal(x, drawn_noise(of, given, streams(7)) * of.sampler.start)


def test_found_noise_takes_the_place_of_the_drawn() -> None:  # SCR-6
    of = planned(sampler="Euler", strength=0.5)
    found = torch.ones_like(INIT)
    (x,) = first(of, tensors(), streams(1, 2), found=found)
    assert torch.allclose(x, INIT + found * of.sampler.start, atol=1e-5)


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ SDE", "DDIM"])
def test_a_picture_draws_the_same_alone_and_among_others(sampler: str) -> None:  # JOB-7
    of = planned(sampler=sampler, strength=0.75, batch_size=2)
    (both,) = first(of, tensors(), streams(1, 2))
    (alone,) = first(of, tensors(INIT[1:]), streams(2))
    assert torch.equal(both[1:], alone)


def test_exact_jobs_and_adaptive_samplers_walk_one_by_one() -> None:
    assert len(first(planned(batch_size=2, exact=True), tensors(), streams(1, 2))) == 2
    assert len(first(planned(batch_size=2, sampler="DPM adaptive"), tensors(), streams(1, 2))) == 2
    assert len(first(planned(batch_size=2), tensors(), streams(1, 2))) == 1


def test_the_kept_part_is_the_source_in_the_end() -> None:  # BLEND-3
    mask = torch.zeros(SHAPE)
    mask[:, :2] = 1
    of, given = planned(sampler="Euler", strength=0.5), tensors(nmask=mask)
    runs = start_runs(of, given, streams(1, 2))
    for run in runs:
        run.latent = torch.full_like(run.start, 9.0)
    result = final_latents(of, given, runs)
    assert torch.equal(result[:, :, 2:], INIT[:, :, 2:]) and (result[:, :, :2] == 9).all()
