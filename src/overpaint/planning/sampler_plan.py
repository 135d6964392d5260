"""Which sampler walks where: the schedule, its start, and every parameter resolved. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overpaint.errors import RequestError
from overpaint.models.families import ModelSpec
from overpaint.parameterization import Parameterization, PassLength, parameterization_of
from overpaint.request import PaintRequest, decided
from overpaint.sampler_table import SamplerSpec, normalise
from overpaint.schedules import NoiseTable, img2img_steps
from overpaint.settings import Settings

LONGEST_SCHEDULE = 10_000


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a pass starts: from its source, or from noise alone."""

    strength: float | None  # None: from noise
    every_step: bool = False  # walk as many steps as asked, whatever the strength
    at_a_step: bool = False  # start at one of the schedule's levels, never between two
    steps_before: int = 0  # prompt steps of the pass before: the schedules of a second pass go on counting

    @classmethod
    def of(cls, request: PaintRequest, settings: Settings) -> Start:
        """Of a job's first pass."""
        strength = decided(request.strength) if request.has_source else None
        return cls(strength=strength, every_step=settings.img2img_fix_steps)

    @property
    def from_noise(self) -> bool:
        return self.strength is None


@dataclass(frozen=True)
class SamplerPlan:
    """Which sampler walks where, with every parameter resolved."""

    spec: SamplerSpec
    scheduler: str
    parameterization: Parameterization  # what the sampler and the model say to each other
    schedule: NDArray[np.float32]  # the full schedule: sigmas, or timesteps ascending
    used: tuple[float, ...]  # the part this job walks: sigmas descending, or timesteps ascending
    start: float  # sigma, or timestep, the source is noised to; from noise alone: the factor on that noise
    steps_asked: int
    steps: int  # of the full schedule
    t_enc: int
    cfg_scale: float
    image_cfg_scale: float | None
    guidance: float | None  # what the network is told; None: it is told none
    eta: float
    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float
    s_min_uncond: float
    noise_multiplier: float
    from_noise: bool = False
    steps_before: int = 0  # prompt steps of the pass before, which a second pass's schedules go on counting from

    @property
    def takes_steps(self) -> bool:
        """False where every step was asked for at strength 0: that schedule has none (STEP-10)."""
        return self.steps > 0

    @property
    def table(self) -> NoiseTable:
        """The levels of noise that the model knows."""
        return self.parameterization.table

    @property
    def evaluations(self) -> int:
        """Iterations of the sampler's loop; what progress counts."""
        return self.t_enc + 1 if self.takes_steps else 0

    @property
    def step_multiplier(self) -> int:
        """Second-order samplers count prompt steps twice (TAB-3)."""
        return 2 if self.spec.second_order else 1

    @property
    def prompt_steps(self) -> int:
        """The step number that prompt schedules refer to (SCHED-4): the request's, not the shortened one."""
        return self.steps_asked * self.step_multiplier


def plan_sampler(
    request: PaintRequest,
    settings: Settings,
    spec: ModelSpec,
    in_force: Settings,
    start: Start | None = None,
    tokens: int = 0,
) -> tuple[SamplerPlan, Mapping[str, object]]:
    """`tokens` of the picture count for families whose levels of noise follow its size."""
    start = start or Start.of(request, settings)
    sampler, scheduler = normalise(request.sampler, request.scheduler, quirks=settings.quirks)
    steps, t_enc = _steps(request, start)
    is_img2img = not (start.from_noise or start.steps_before)
    late = settings.quirks.late_schedule_tables and is_img2img and not _same_tables(settings, in_force)
    parameterization = parameterization_of(sampler, spec, settings, late=late)
    length = PassLength(
        sampler=sampler,
        scheduler=scheduler,
        steps=steps,
        t_enc=t_enc,
        from_noise=start.from_noise,
        is_sdxl=spec.is_sdxl,
        settings=settings,
        strength=None if start.at_a_step or settings.quirks.flow_starts_at_a_step else start.strength,
        tokens=tokens,
    )
    walk = parameterization.walk(length)
    weighs_picture = spec.conditioning == "edit" and not spec.sees_pictures
    return SamplerPlan(
        spec=sampler,
        scheduler=scheduler,
        parameterization=parameterization,
        schedule=walk.schedule,
        used=walk.used,
        start=walk.start,
        steps_asked=decided(request.steps),
        steps=steps,
        t_enc=t_enc if walk.t_enc is None else walk.t_enc,
        cfg_scale=float(decided(request.cfg_scale)) * sampler.cfg_factor,
        image_cfg_scale=request.image_cfg_scale if weighs_picture else None,
        guidance=spec.guidance if spec.guidance is None or request.guidance is None else float(request.guidance),
        eta=_eta(request, settings, sampler),
        noise_multiplier=1.0 if start.from_noise or start.steps_before else _noise_multiplier(request, settings),
        from_noise=start.from_noise,
        steps_before=start.steps_before,
        **_churn(request, settings),
    ), walk.notes


def _steps(request: PaintRequest, start: Start) -> tuple[int, int]:
    """STEP-3; with fixed steps a small strength asks for a long schedule, and strength 0 for none at all (STEP-10)."""
    asked = decided(request.steps)
    if start.strength is None:
        return asked, asked - 1
    steps, t_enc = img2img_steps(asked, start.strength, start.every_step)
    if steps > LONGEST_SCHEDULE:
        remedy = f"with fixed steps, steps / strength may be {LONGEST_SCHEDULE} at most; raise it"
        raise RequestError("strength", start.strength, remedy)
    return steps, t_enc


def _same_tables(a: Settings, b: Settings) -> bool:
    """Late tables (SIG-11): an option counts once the job before had it too; switching it off counts at once."""
    names = ("use_downcasted_alpha_bar", "sd_noise_schedule")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _eta(request: PaintRequest, settings: Settings, sampler: SamplerSpec) -> float:
    """PAR-1."""
    option: float = getattr(settings, sampler.eta_option)
    return option if request.eta is None else float(request.eta)


ETA = {  # option: (built-in default, infotext key)
    "eta_ancestral": (1.0, "Eta"),
    "eta_ddim": (0.0, "Eta DDIM"),
}


CHURN = {  # option: (built-in default, infotext key)
    "s_churn": (0.0, "Sigma churn"),
    "s_tmin": (0.0, "Sigma tmin"),
    "s_tmax": (0.0, "Sigma tmax"),
    "s_noise": (1.0, "Sigma noise"),
}


def _churn(request: PaintRequest, settings: Settings) -> dict[str, float]:
    """PAR-3: the request's value, unless the reference's accident lets a changed option win."""
    values: dict[str, float] = {}
    for name, (default, _) in CHURN.items():
        asked, option = getattr(request, name), getattr(settings, name)
        option_wins = settings.quirks.options_beat_request and option != default
        values[name] = float(option if asked is None or option_wins else asked)
    values["s_tmax"] = values["s_tmax"] or math.inf
    asked = request.s_min_uncond
    values["s_min_uncond"] = float(settings.s_min_uncond if asked is None else asked)
    return values


def _noise_multiplier(request: PaintRequest, settings: Settings) -> float:
    """STEP-1: the reference reads the option when the request is made, before any override."""
    if request.noise_multiplier is not None:
        return float(request.noise_multiplier)
    if settings.quirks.early_noise_multiplier and "initial_noise_multiplier" in request.overrides:
        return 1.0
    return settings.initial_noise_multiplier
