"""Where a refiner takes over (REF-1), and what a run goes on with then (REF-2)."""

from __future__ import annotations

from dataclasses import replace

from overpaint.painting.drive import Run
from overpaint.painting.guidance import Guidance
from overpaint.painting.texts import ImageCond, TextCond, Texts
from overpaint.planning.plans import Plan, RefinerPlan

LAST_TIMESTEP = 999


def is_due(run: Run, refiner: RefinerPlan) -> bool:
    """Whether the run's next call belongs to the refiner."""
    return run.query is not None and _fraction(run, refiner) >= refiner.switch_at


def _fraction(run: Run, refiner: RefinerPlan) -> float:
    """How much of the way lies behind: of the calls, or of the model's timesteps."""
    assert run.query is not None
    sampler = run.denoiser.sampler
    if refiner.by_steps:
        return run.calls / (sampler.evaluations * sampler.step_multiplier)
    return (LAST_TIMESTEP - sampler.parameterization.place(run.query.sigma)) / 1000


def refined(plan: Plan, refiner: RefinerPlan) -> Plan:
    """The same pass as the refiner sees it."""
    spec = refiner.model.spec
    sampler = replace(plan.sampler, parameterization=plan.sampler.parameterization.answered_by(spec))
    return replace(
        plan,
        spec=spec,
        checkpoint=refiner.model.path,
        sampler=sampler,
        refiner=None,
        controls=(),
        shortcuts=plan.shortcuts.with_model(spec, plan.settings),
    )


def hand_over(run: Run, plan: Plan, refiner: RefinerPlan, texts: tuple[ImageCond, ...], empty: TextCond | None) -> None:
    """The sampler goes on as it was; from here on another model answers it."""
    guidance = Guidance.of(plan.sampler, plan.spec, plan.settings)
    run.denoiser = replace(
        run.denoiser,
        sampler=plan.sampler,
        guidance=guidance,
        texts=Texts(texts, plan.settings, empty),
        shortcuts=plan.shortcuts,
    )
    run.deep_maps.forget()
    run.notes.update(refiner.notes)
