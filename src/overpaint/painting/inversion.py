"""The noise that a picture could have come from: Euler's walk, taken from the picture up to the noise (SCR-6)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from overpaint.painting.denoise import Denoiser
from overpaint.painting.drive import Run
from overpaint.painting.guidance import Guidance
from overpaint.painting.sampling import BatchTensors
from overpaint.painting.texts import Texts
from overpaint.planning.plans import NoiseInversion, Plan
from overpaint.samplers import Query, Sampler
from overpaint.samplers.query import to_d


def start_inversion(inversion: NoiseInversion, tensors: BatchTensors) -> Run:
    """The walk from the sources of a batch, guided by the texts that describe them."""
    plan = inversion.plan
    sigmas = sorted(float(each) for each in plan.sampler.schedule)
    walk = (adjusted_walk if inversion.sigma_adjustment else plain_walk)(tensors.init, sigmas)
    denoiser = Denoiser(
        sampler=plan.sampler,
        guidance=Guidance.of(plan.sampler, plan.spec, plan.settings),
        texts=Texts(tensors.texts, plan.settings, tensors.empty_text),
        image_conditioning=tensors.image_conditioning,
        references=tensors.references,
    )
    return Run(walk, denoiser, tensors.init)


def plain_walk(x: Tensor, sigmas: Sequence[float]) -> Sampler:
    """Upwards, each step by the slope at its end; what comes out has a deviation of 1."""
    for below, sigma in pairwise(sigmas):
        denoised = yield Query(x, sigma)
        x = x + to_d(x, sigma, denoised) * (sigma - below)
    return x / x.std()


def adjusted_walk(x: Tensor, sigmas: Sequence[float]) -> Sampler:
    """Upwards, each step by the slope at its start; the first noise level is where it starts."""
    for below, sigma in pairwise(sigmas[1:]):
        denoised = yield Query(x, below)
        x = x + to_d(x, below, denoised) * (sigma - below)
    return x / sigmas[-1]


def mixed(inversion: NoiseInversion, plan: Plan, found: Tensor, drawn: Tensor, init: Tensor) -> Tensor:
    """What the sources are noised with: found noise and drawn noise, less what the sources themselves bring."""
    share = inversion.randomness
    noise = ((1 - share) * found + share * drawn) / (share**2 + (1 - share) ** 2) ** 0.5
    highest = max(float(each) for each in plan.sampler.schedule)
    rest: Tensor = noise - init / highest
    return rest
