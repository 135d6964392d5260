"""REF-1, REF-2: when a refiner takes over, and that the sampler goes on as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from overpaint.models.families import SD1_SPEC
from overpaint.painting.denoise import Denoiser
from overpaint.painting.drive import Run
from overpaint.painting.guidance import Guidance
from overpaint.painting.refining import hand_over, is_due, refined
from overpaint.painting.texts import ImageCond, ScheduledCond, TextCond, Texts
from overpaint.planning.plans import OtherModel, Plan, RefinerPlan
from overpaint.samplers import Query, Sampler
from overpaint.text.prompt import schedule
from tests.unit.toy_job import SANE, planned

STEPS = 10
LATENT = torch.zeros(1, 4, 2, 2)


def refiner(at: float, by_steps: bool) -> RefinerPlan:
    other = OtherModel(Path("refiner.safetensors"), "refiner", replace(SD1_SPEC, prediction="v"))
    return RefinerPlan(other, at, by_steps, {"Refiner": "refiner"})


def texts(value: float) -> tuple[ImageCond, ...]:
    one = ScheduledCond(schedule("x", STEPS, quirks=SANE.quirks), (TextCond(torch.full((4, 3), value)),))
    return (ImageCond(((one, 1.0),), one),)


def run(of: Plan) -> Run:
    def walk() -> Sampler:
        for sigma in of.sampler.used[:-1]:
            yield Query(LATENT, sigma)
        return LATENT

    guidance = Guidance.of(of.sampler, of.spec, SANE)
    return Run(walk(), Denoiser(of.sampler, guidance, Texts(texts(1.0), SANE)), LATENT)


def calls_before(at: float, by_steps: bool) -> int:
    """How many calls are the job's own model's."""
    made = run(planned(sampler="Euler", steps=STEPS, strength=1))
    for call in range(STEPS):
        if is_due(made, refiner(at, by_steps)):
            return call
        made.answer(made.denoiser.estimate(made.query, made.calls, [LATENT[0], LATENT[0]]))  # type: ignore[arg-type]
    return STEPS


@pytest.mark.parametrize(("at", "calls"), [(0.0, 0), (0.5, 5), (0.8, 8), (0.85, 9)])
def test_by_steps_it_takes_over_after_that_part_of_the_calls(at: float, calls: int) -> None:  # REF-1
    assert calls_before(at, by_steps=True) == calls


def test_by_timesteps_it_takes_over_where_the_noise_is_that_far_gone() -> None:  # REF-1
    of = planned(sampler="Euler", steps=STEPS, strength=1)
    places = [of.sampler.parameterization.place(sigma) for sigma in of.sampler.used[:-1]]
    expected = next(i for i, place in enumerate(places) if (999 - place) / 1000 >= 0.5)
    assert calls_before(0.5, by_steps=False) == expected
    assert calls_before(1.0, by_steps=False) == STEPS


def test_the_pass_as_the_refiner_sees_it() -> None:  # REF-2
    of = planned(sampler="Euler", steps=STEPS)
    seen = refined(of, refiner(0.5, True))
    assert seen.spec.prediction == "v" and seen.checkpoint == Path("refiner.safetensors")
    assert seen.refiner is None and seen.controls == () and seen.images is of.images
    assert seen.sampler.used == of.sampler.used


def test_after_the_hand_over_other_texts_and_another_meaning_count() -> None:  # REF-2
    of = planned(sampler="Euler", steps=STEPS, strength=1)
    made, other = run(of), refiner(0.0, True)
    query, seen = made.query, refined(of, other)
    hand_over(made, seen, other, texts(2.0), None)
    assert made.query is query and made.calls == 0
    assert made.denoiser.texts.positive(0)[0].context[0, 0] == 2
    assert made.denoiser.meaning is seen.sampler.parameterization
    assert made.notes["Refiner"] == "refiner"
