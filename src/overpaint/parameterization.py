"""What a network's answer means, and how noise is written, in the words of one kind of sampler. Torch-free.

    parameterization_of(sampler, model, settings) -> over sigmas, or over timesteps

Over sigmas x = x0 + sigma n, and samplers are sent D, the denoised picture (Karras et al. 2022, arXiv:2206.00364).
Over timesteps x = sqrt(a) x0 + sqrt(1 - a) n with the cumulative alpha a, and samplers are sent eps, the guided noise
(Ho et al. 2020, arXiv:2006.11239; Song et al. 2020, arXiv:2010.02502). v is of Salimans and Ho (2022),
arXiv:2202.00512, and LCM of Luo et al. (2023), arXiv:2310.04378. Flow models predict n - x0; `flow_levels` tells how
their levels are sigmas. F is the network's output for the input c_in x.

A `level` below is whatever the sampler speaks of: a sigma, or a timestep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from overpaint.errors import RequestError
from overpaint.flow_levels import FlowTable
from overpaint.models.families import ModelSpec
from overpaint.predictions import LCM, PREDICTIONS, Predicted
from overpaint.sampler_table import SamplerSpec
from overpaint.schedules import (
    Floats,
    NoiseTable,
    ScheduleOptions,
    sigmas_for,
    start_index,
    timestep_start,
    timesteps_for,
)
from overpaint.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

# -- what a pass asks, and what it gets --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PassLength:
    """How long a pass is, and on which schedule it lies."""

    sampler: SamplerSpec
    scheduler: str
    steps: int  # of the full schedule
    t_enc: int  # the pass walks t_enc + 1 of them
    from_noise: bool
    is_sdxl: bool
    settings: Settings
    strength: float | None = None  # where a walk may start between two steps; None: it starts at one, as t_enc says
    tokens: int = 0  # of the picture, for families whose levels follow its size


@dataclass(frozen=True)
class Walk:
    """The full schedule, the part of it that a pass walks, and where that starts."""

    schedule: Floats  # sigmas descending, or timesteps ascending
    used: tuple[float, ...]
    start: float  # the level the source is noised to; from noise alone: the factor on that noise
    notes: Mapping[str, object] = field(default_factory=dict)  # infotext fields of the schedule
    t_enc: int | None = None  # where the pass walks another number of steps than it was told


class Parameterization(Protocol):
    """One kind of sampler with one kind of model."""

    @property
    def table(self) -> NoiseTable:
        """The levels of noise that the model knows."""
        ...

    @property
    def blends_input(self) -> bool:
        """Whether a mask is blended into the question, not into the answer (BLEND-2)."""
        ...

    def answered_by(self, model: ModelSpec) -> Parameterization:
        """The same for a sampler that goes on with another model's answers."""
        ...

    def walk(self, length: PassLength) -> Walk:
        """Where a pass goes, and where it starts (STEP-4, STEP-5)."""
        ...

    def visits(self, used: Sequence[float]) -> int:
        """How many levels of a walk the network is asked about."""
        ...

    def passed(self, used: Sequence[float], level: float) -> int:
        """How many steps of a walk lie behind a level."""
        ...

    def place(self, level: float) -> int:
        """The nearest entry of the table."""
        ...

    def sigma(self, level: float) -> float:
        """How much noise a level has, as a sigma."""
        ...

    def is_all_noise(self, level: float) -> bool:
        """Whether nothing of a picture is left at a level: x is noise times the level there."""
        ...

    def noised(self, x0: Tensor, n: Tensor, level: float, extra: float = 0.0) -> Tensor:
        """A picture with noise of a level; `extra` adds a share of the same noise (STEP-6)."""
        ...

    def c_in(self, level: float) -> float:
        """The factor on the network's input."""
        ...

    def time(self, level: float) -> float:
        """What the network is told of a level."""
        ...

    def reply(self, F: Tensor, x: Tensor, level: float) -> Tensor:
        """What a network's output for x tells the sampler."""
        ...

    def clean(self, reply: Tensor, x: Tensor, level: float) -> Tensor:
        """The picture that a reply stands for."""
        ...

    def reply_for(self, x0: Tensor, x: Tensor, level: float) -> Tensor:
        """The reply that stands for a picture: `clean` backwards."""
        ...


# -- what samplers speak of --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OverSigmas:
    """x = x0 + sigma n; samplers are sent D."""

    table: NoiseTable
    predicted: Predicted
    blends_input: bool = field(default=False, init=False)

    def answered_by(self, model: ModelSpec) -> OverSigmas:
        # The LCM sampler reads every model's answers in its own way.
        return self if self.predicted is LCM else replace(self, predicted=PREDICTIONS[model.prediction])

    def walk(self, length: PassLength) -> Walk:
        """All of the schedule from noise, whose last level's own scale is the factor; else its end."""
        settings, quirks = length.settings, length.settings.quirks
        options = _schedule_options(settings, is_sdxl=length.is_sdxl)
        table = self.table.for_pass(length.tokens, length.steps)
        schedule, notes = sigmas_for(
            length.scheduler, length.steps, table, options, sampler=length.sampler, quirks=quirks
        )
        if not length.from_noise and length.strength is not None and isinstance(table, FlowTable):
            used = table.start_between(schedule.tolist(), length.strength)
            return Walk(schedule, used, used[0], notes, t_enc=len(used) - 2)
        if not length.from_noise:
            used = tuple(float(each) for each in schedule[start_index(schedule, length.steps, length.t_enc, quirks) :])
            return Walk(schedule, used, used[0], notes)
        used = tuple(float(each) for each in schedule)
        if settings.sgm_noise_multiplier and not self.is_all_noise(used[0]):
            return Walk(schedule, used, math.sqrt(1 + used[0] ** 2), {**notes, "SGM noise multiplier": True})
        return Walk(schedule, used, used[0], notes)

    def visits(self, used: Sequence[float]) -> int:
        return len(used) - 1  # the last sigma is only arrived at

    def passed(self, used: Sequence[float], level: float) -> int:
        return max(0, sum(each > level for each in used))

    def place(self, level: float) -> int:
        return int(np.abs(self.table.sigmas - level).argmin())

    def sigma(self, level: float) -> float:
        return level

    def is_all_noise(self, level: float) -> bool:
        return level >= self.predicted.all_noise

    def noised(self, x0: Tensor, n: Tensor, level: float, extra: float = 0.0) -> Tensor:
        x = n * level if self.is_all_noise(level) else x0 + n * level
        return x + n * extra if extra > 0 else x

    def c_in(self, level: float) -> float:
        return self.predicted.c_in(level)

    def time(self, level: float) -> float:
        return self.predicted.time(self.table, level)

    def reply(self, F: Tensor, x: Tensor, level: float) -> Tensor:
        return self.predicted.denoised(F, x, level, self.time(level))

    def clean(self, reply: Tensor, x: Tensor, level: float) -> Tensor:
        return reply

    def reply_for(self, x0: Tensor, x: Tensor, level: float) -> Tensor:
        return x0


@dataclass(frozen=True)
class OverTimesteps:
    """x = sqrt(a) x0 + sqrt(1 - a) n; samplers are sent eps."""

    table: NoiseTable
    eps: Callable[[Tensor, Tensor, float], Tensor]
    blends_input: bool = False
    timestep_is_sigma: bool = False  # the reference takes one for the other

    def answered_by(self, model: ModelSpec) -> OverTimesteps:
        return replace(self, eps=_eps_of(model))

    def walk(self, length: PassLength) -> Walk:
        """The timesteps know no schedule types; a pass without steps visits none (STEP-10)."""
        if length.steps == 0:
            return Walk(np.zeros(0, dtype=np.float32), (), 0.0)
        extra = 1 if length.settings.always_discard_next_to_last_sigma else 0
        timesteps = timesteps_for(length.steps + extra)
        schedule = np.asarray(timesteps, dtype=np.float32)
        if length.from_noise:
            return Walk(schedule, tuple(float(each) for each in timesteps), 1.0)
        level, used = timestep_start(timesteps, length.t_enc, length.settings.quirks)
        return Walk(schedule, tuple(float(each) for each in used), float(level))

    def visits(self, used: Sequence[float]) -> int:
        return len(used)

    def passed(self, used: Sequence[float], level: float) -> int:
        return max(0, len(used) - 1 - sum(each < level for each in used))

    def place(self, level: float) -> int:
        return int(level)

    def sigma(self, level: float) -> float:
        if self.timestep_is_sigma:
            return level
        a = self._alpha(level)
        return math.sqrt((1 - a) / a)

    def is_all_noise(self, level: float) -> bool:
        return False

    def noised(self, x0: Tensor, n: Tensor, level: float, extra: float = 0.0) -> Tensor:
        a = self._alpha(level)
        x = math.sqrt(a) * x0 + math.sqrt(1 - a) * n
        return x + n * (extra * math.sqrt(a)) if extra > 0 else x

    def c_in(self, level: float) -> float:
        return 1.0

    def time(self, level: float) -> float:
        return level

    def reply(self, F: Tensor, x: Tensor, level: float) -> Tensor:
        return self.eps(F, x, self._alpha(level))

    def clean(self, reply: Tensor, x: Tensor, level: float) -> Tensor:
        a = self._alpha(level)
        return (x - math.sqrt(1 - a) * reply) / math.sqrt(a)

    def reply_for(self, x0: Tensor, x: Tensor, level: float) -> Tensor:
        a = self._alpha(level)
        return (x - math.sqrt(a) * x0) / math.sqrt(1 - a)

    def _alpha(self, level: float) -> float:
        """At the whole timestep below; 93.99999999999997 is 94 in the precision that networks are told it in."""
        return float(self.table.alphas_cumprod[int(np.float32(level))])


# -- one with the other ------------------------------------------------------------------------------------------------


def parameterization_of(
    sampler: SamplerSpec, model: ModelSpec, settings: Settings, *, late: bool = False
) -> Parameterization:
    """What a sampler and a model make together. `late`: options about the table do not count yet (SIG-11)."""
    if sampler.family == "timestep" and PREDICTIONS[model.prediction].eps is None:
        remedy = f"it walks Stable Diffusion's timesteps, which a {model.title} model does not have; the nearest is "
        raise RequestError("sampler", sampler.name, remedy + sampler.near)
    return _OVER[sampler.family](model, settings, late)


def _eps_of(model: ModelSpec) -> Callable[[Tensor, Tensor, float], Tensor]:
    eps = PREDICTIONS[model.prediction].eps
    if eps is None:
        raise RequestError("refiner", model.title, "it cannot go on where a sampler over timesteps began")
    return eps


def _over_sigmas(model: ModelSpec, settings: Settings, late: bool) -> Parameterization:
    predicted = PREDICTIONS[model.prediction]
    return OverSigmas(predicted.table(model, Settings() if late else settings), predicted)


def _over_sigmas_of_lcm(model: ModelSpec, settings: Settings, late: bool) -> Parameterization:
    if model.is_flow:  # its pictures are not scaled, and it knows more than 50 levels
        return _over_sigmas(model, settings, late)
    return OverSigmas(LCM.table(model, Settings() if late else settings), LCM)


def _over_timesteps(model: ModelSpec, settings: Settings, late: bool) -> Parameterization:
    """NOTE: these samplers read the table as it is now, whatever is late."""
    table, quirks = PREDICTIONS[model.prediction].table(model, settings), settings.quirks
    return OverTimesteps(
        table,
        _eps_of(model),
        blends_input=quirks.timestep_blend_on_input,
        timestep_is_sigma=quirks.timestep_is_sigma,
    )


_OVER: Mapping[Literal["k", "timestep", "lcm"], Callable[[ModelSpec, Settings, bool], Parameterization]] = {
    "k": _over_sigmas,
    "lcm": _over_sigmas_of_lcm,
    "timestep": _over_timesteps,
}


def _schedule_options(settings: Settings, *, is_sdxl: bool) -> ScheduleOptions:
    return ScheduleOptions(
        sigma_min=settings.sigma_min,
        sigma_max=settings.sigma_max,
        rho=settings.rho,
        old_karras=settings.use_old_karras_scheduler_sigmas,
        beta_alpha=settings.beta_dist_alpha,
        beta_beta=settings.beta_dist_beta,
        is_sdxl=is_sdxl,
        discard=settings.always_discard_next_to_last_sigma,
    )
