"""Which sampler walks where: the schedule, its start, and every parameter resolved. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from overpaint.errors import RequestError
from overpaint.models.families import ModelSpec
from overpaint.request import Img2ImgRequest
from overpaint.sampler_table import SamplerSpec, normalise
from overpaint.schedules import (
    NoiseTable,
    ScheduleOptions,
    img2img_steps,
    sigmas_for,
    start_index,
    timestep_start,
    timesteps_for,
)
from overpaint.settings import Settings

LONGEST_SCHEDULE = 10_000


@dataclass(frozen=True)
class SamplerPlan:
    """Which sampler walks where, with every parameter resolved."""

    spec: SamplerSpec
    scheduler: str
    table: NoiseTable
    schedule: NDArray[np.float32]  # the full schedule: sigmas, or timesteps ascending
    used: tuple[float, ...]  # the part this job walks: sigmas descending, or timesteps ascending
    start: float  # sigma, or timestep, the source is noised to
    steps_asked: int
    steps: int  # of the full schedule
    t_enc: int
    cfg_scale: float
    image_cfg_scale: float | None
    eta: float
    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float
    s_min_uncond: float
    noise_multiplier: float

    @property
    def evaluations(self) -> int:
        """Iterations of the sampler's loop; what progress counts."""
        return self.t_enc + 1

    @property
    def step_multiplier(self) -> int:
        """Second-order samplers count prompt steps twice (TAB-3)."""
        return 2 if self.spec.second_order else 1

    @property
    def prompt_steps(self) -> int:
        """The step number that prompt schedules refer to (SCHED-4): the request's, not the shortened one."""
        return self.steps_asked * self.step_multiplier


def plan_sampler(
    request: Img2ImgRequest, settings: Settings, spec: ModelSpec, in_force: Settings
) -> tuple[SamplerPlan, Mapping[str, object]]:
    sampler, scheduler = normalise(request.sampler, request.scheduler, quirks=settings.quirks)
    steps, t_enc = _steps(request, settings)
    notes: Mapping[str, object] = {}
    if sampler.family == "timestep":
        table = _table(settings)
        schedule, used, start = _timestep_walk(steps, t_enc, request, settings)
    else:
        late = settings.quirks.late_schedule_tables and not _same_tables(settings, in_force)
        table = _table(Settings() if late else settings, lcm=sampler.family == "lcm")
        schedule, notes = sigmas_for(
            scheduler, steps, table, _schedule_options(settings, spec), sampler=sampler, quirks=settings.quirks
        )
        first = start_index(schedule, steps, t_enc, settings.quirks)
        used = tuple(float(each) for each in schedule[first:])
        start = used[0]
    is_edit = spec.conditioning == "edit"
    return SamplerPlan(
        spec=sampler,
        scheduler=scheduler,
        table=table,
        schedule=schedule,
        used=used,
        start=start,
        steps_asked=request.steps,
        steps=steps,
        t_enc=t_enc,
        cfg_scale=float(request.cfg_scale) * sampler.cfg_factor,
        image_cfg_scale=request.image_cfg_scale if is_edit else None,
        eta=_eta(request, settings, sampler),
        noise_multiplier=_noise_multiplier(request, settings),
        **_churn(request, settings),
    ), notes


def _steps(request: Img2ImgRequest, settings: Settings) -> tuple[int, int]:
    """STEP-3; with fixed steps a small strength asks for a long schedule, and strength 0 for none at all (STEP-10)."""
    steps, t_enc = img2img_steps(request.steps, request.strength, settings.img2img_fix_steps and request.strength > 0)
    if steps > LONGEST_SCHEDULE:
        remedy = f"with img2img_fix_steps, steps / strength may be {LONGEST_SCHEDULE} at most; raise it"
        raise RequestError("strength", request.strength, remedy)
    return steps, t_enc


def _timestep_walk(
    steps: int, t_enc: int, request: Img2ImgRequest, settings: Settings
) -> tuple[NDArray[np.float32], tuple[float, ...], float]:
    extra = 1 if settings.always_discard_next_to_last_sigma else 0
    timesteps = timesteps_for(steps + extra)
    start, used = timestep_start(timesteps, t_enc, settings.quirks)
    return np.asarray(timesteps, dtype=np.float32), tuple(float(each) for each in used), float(start)


def _same_tables(a: Settings, b: Settings) -> bool:
    """Late tables (SIG-11): an option counts once the job before had it too; switching it off counts at once."""
    names = ("use_downcasted_alpha_bar", "sd_noise_schedule")
    return all(getattr(a, name) == getattr(b, name) for name in names)


def _table(settings: Settings, lcm: bool = False) -> NoiseTable:
    table = NoiseTable.default()
    if settings.sd_noise_schedule == "Zero Terminal SNR":
        table = NoiseTable.zero_terminal_snr()
    if settings.use_downcasted_alpha_bar:
        table = table.downcasted()
    if settings.enable_quantization:
        table = replace(table, quantized=True)
    return table.lcm() if lcm else table


def _schedule_options(settings: Settings, spec: ModelSpec) -> ScheduleOptions:
    return ScheduleOptions(
        sigma_min=settings.sigma_min,
        sigma_max=settings.sigma_max,
        rho=settings.rho,
        old_karras=settings.use_old_karras_scheduler_sigmas,
        beta_alpha=settings.beta_dist_alpha,
        beta_beta=settings.beta_dist_beta,
        is_sdxl=spec.is_sdxl,
        discard=settings.always_discard_next_to_last_sigma,
    )


def _eta(request: Img2ImgRequest, settings: Settings, sampler: SamplerSpec) -> float:
    """PAR-1."""
    option = settings.eta_ddim if sampler.family == "timestep" else settings.eta_ancestral
    return option if request.eta is None else float(request.eta)


CHURN = {  # option: (built-in default, infotext key)
    "s_churn": (0.0, "Sigma churn"),
    "s_tmin": (0.0, "Sigma tmin"),
    "s_tmax": (0.0, "Sigma tmax"),
    "s_noise": (1.0, "Sigma noise"),
}


def _churn(request: Img2ImgRequest, settings: Settings) -> dict[str, float]:
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


def _noise_multiplier(request: Img2ImgRequest, settings: Settings) -> float:
    """STEP-1: the reference reads the option when the request is made, before any override."""
    if request.noise_multiplier is not None:
        return float(request.noise_multiplier)
    if settings.quirks.early_noise_multiplier and "initial_noise_multiplier" in request.overrides:
        return 1.0
    return settings.initial_noise_multiplier
