"""Where a refiner takes over (REF-1), and what a run goes on with then (REF-2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from overpaint.painting.denoise import ImageCond, TextCond
from overpaint.painting.drive import Run
from overpaint.planning.plans import Plan, RefinerPlan

LAST_TIMESTEP = 999


def is_due(run: Run, refiner: RefinerPlan) -> bool:
    """Whether the run's next call belongs to the refiner."""
    return run.query is not None and _fraction(run, refiner) >= refiner.switch_at


def _fraction(run: Run, refiner: RefinerPlan) -> float:
    """How much of the way lies behind: of the calls, or of the model's timesteps."""
    assert run.query is not None
    sampler = run.denoiser.plan
    if refiner.by_steps:
        return run.calls / (sampler.evaluations * sampler.step_multiplier)
    if sampler.spec.family == "timestep":
        timestep = int(run.query.sigma)
    else:
        timestep = int(np.abs(sampler.table.sigmas - run.query.sigma).argmin())
    return (LAST_TIMESTEP - timestep) / 1000


def refined(plan: Plan, refiner: RefinerPlan) -> Plan:
    """The same pass as the refiner sees it."""
    return replace(plan, spec=refiner.model.spec, checkpoint=refiner.model.path, refiner=None, controls=())


def hand_over(run: Run, plan: Plan, refiner: RefinerPlan, texts: tuple[ImageCond, ...], empty: TextCond | None) -> None:
    """The sampler goes on as it was; from here on another model answers it."""
    run.denoiser = replace(run.denoiser, spec=plan.spec, texts=texts, empty_text=empty)
    run.notes.update(refiner.notes)
