"""Noise levels of a model, sequences of them (schedules), and where img2img starts in one.

A sigma is the noise's standard deviation beside the unscaled picture (Karras et al. 2022, arXiv:2206.00364); a timestep
is an index into the model's training schedule. Arithmetic is float32 in PyTorch's order of operations: the 7th power of
a Karras schedule multiplies every rounding by seven.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overpaint.beta import beta_quantile
from overpaint.errors import RequestError, SettingError
from overpaint.sampler_table import SCHEDULERS, SamplerSpec, SchedulerSpec
from overpaint.settings import Quirks

Floats = NDArray[np.float32]

TIMESTEPS = 1000
_ZERO_SNR_END = 4.8973451890853435e-08  # SIG-10: not quite zero, so that sigma stays finite


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """The noise levels a model was trained on, and the map between them and timesteps (SIG).

    `sigmas[j]` belongs to timestep `first + j * stride`. With `quantized`, a sigma's timestep is the nearest of these.
    """

    alphas_cumprod: Floats  # (1000,)
    sigmas: Floats  # (1000,), or (50,) for LCM
    log_sigmas: Floats
    first: int = 0
    stride: int = 1
    quantized: bool = False
    half: bool = False  # computed in half precision (SIG-9)

    @classmethod
    def default(cls) -> NoiseTable:
        """The schedule of Stable Diffusion 1, 2 and XL (SIG-1, SIG-2)."""
        betas = np.linspace(0.00085**0.5, 0.0120**0.5, TIMESTEPS) ** 2
        return cls.from_alphas(np.cumprod(1 - betas).astype(np.float32))

    @classmethod
    def zero_terminal_snr(cls) -> NoiseTable:
        """The same, shifted so that the last level is pure noise (SIG-10; Lin et al. 2023, arXiv:2305.08891)."""
        root = np.sqrt(cls.default().alphas_cumprod)
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        alphas = root**2
        alphas[-1] = _ZERO_SNR_END
        return cls.from_alphas(alphas)

    @classmethod
    def from_alphas(cls, alphas: NDArray[Any]) -> NoiseTable:
        """The table of the given cumulative alphas, computed in their own precision."""
        sigmas, logs = _sigmas(alphas)
        return cls(alphas.astype(np.float32), sigmas, logs, half=alphas.dtype == np.float16)

    def downcasted(self) -> NoiseTable:
        """The table as it comes out in half precision (SIG-9)."""
        return replace(self.from_alphas(self.alphas_cumprod.astype(np.float16)), quantized=self.quantized)

    def lcm(self) -> NoiseTable:
        """The 50 levels a latent consistency model knows (LCM-1)."""
        alphas = self.alphas_cumprod[19::20].astype(np.float16 if self.half else np.float32)
        sigmas, logs = _sigmas(alphas)
        return replace(self, sigmas=sigmas, log_sigmas=logs, first=19, stride=20, quantized=True)

    def for_pass(self, tokens: int, steps: int) -> NoiseTable:
        """The levels as a pass over so many tokens meets them; those of Stable Diffusion are always the same."""
        return self

    @property
    def measure(self) -> NoiseTable:
        """The same levels in the measure that schedules are made in."""
        return self

    def in_sigmas(self, schedule: Floats) -> Floats:
        """A schedule made in that measure, as sigmas."""
        return schedule

    @property
    def has_own_schedule(self) -> bool:
        """Whether the model's own schedule goes before a sampler's own, where none is asked for."""
        return False

    def own_schedule(self, steps: int) -> Floats:
        """The model's own schedule of so many steps, in the measure that schedules are made in."""
        first, last = self.first, self.first + self.stride * (len(self.sigmas) - 1)
        return _ending_in_zero(self.t_to_sigma(_linspace(last, first, steps)))

    @property
    def sigma_min(self) -> float:
        """The least noise the model knows."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """The most noise the model knows."""
        return float(self.sigmas[-1])

    def t_to_sigma(self, t: ArrayLike) -> Floats:
        """Sigmas of timesteps, whole or not, interpolated in the logarithm (SIG-3)."""
        last = len(self.sigmas) - 1
        index = np.clip((np.asarray(t, np.float32) - np.float32(self.first)) / np.float32(self.stride), 0, last)
        low, high = np.floor(index).astype(int), np.ceil(index).astype(int)
        w = (index - np.floor(index)).astype(np.float32)
        return _exp((np.float32(1) - w) * self.log_sigmas[low] + w * self.log_sigmas[high])

    def sigma_to_t(self, sigma: ArrayLike) -> Floats:
        """Timesteps of sigmas (SIG-4): interpolated, or the nearest the table has."""
        logs = _log(np.asarray(sigma, np.float32))
        if self.quantized:
            nearest = np.abs(logs[..., None] - self.log_sigmas).argmin(axis=-1)
            return np.asarray(nearest * self.stride + self.first, np.float32)
        low = np.clip(np.searchsorted(self.log_sigmas, logs, side="right") - 1, 0, len(self.sigmas) - 2)
        below, above = self.log_sigmas[low], self.log_sigmas[low + 1]
        w = np.clip((below - logs) / (below - above), 0, 1).astype(np.float32)
        return np.asarray((np.float32(1) - w) * low.astype(np.float32) + w * (low + 1).astype(np.float32), np.float32)


def _sigmas(alphas: NDArray[Any]) -> tuple[Floats, Floats]:
    one = alphas.dtype.type(1)
    with np.errstate(over="ignore"):  # half precision ends at 65504
        sigmas = np.minimum(np.sqrt((one - alphas) / alphas), np.finfo(alphas.dtype).max)
    logs = np.log(sigmas.astype(np.float64)).astype(alphas.dtype)
    return sigmas.astype(np.float32), logs.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """What a site may change about schedules; zero means: as the model or the schedule has it."""

    sigma_min: float = 0.0
    sigma_max: float = 0.0
    rho: float = 0.0
    old_karras: bool = False  # 0.1 and 10 for the ends of every schedule that has a formula
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    is_sdxl: bool = False
    discard: bool = False  # leave the penultimate sigma out, whatever the sampler


@dataclass(frozen=True)
class _Ends:
    """What a schedule's formula gets: the ends, the curve, the model's table."""

    low: float
    high: float
    rho: float
    table: NoiseTable
    options: ScheduleOptions
    quirks: Quirks


def sigmas_for(
    scheduler: str,
    steps: int,
    table: NoiseTable,
    options: ScheduleOptions | None = None,
    *,
    sampler: SamplerSpec | None = None,
    quirks: Quirks | None = None,
) -> tuple[Floats, Mapping[str, object]]:
    """A schedule of `steps` steps, from the most noise down to 0, and what the infotext says about it (SCH).

    `scheduler` is a label; "Automatic" means the sampler's own schedule, or else the model's.
    """
    options, quirks = options or ScheduleOptions(), quirks or Quirks()
    discard = options.discard or (sampler is not None and sampler.discard_penultimate)
    notes: dict[str, object] = {"Discard penultimate sigma": True} if options.discard else {}
    spec = _resolve(scheduler, None if table.has_own_schedule else sampler)
    table_of_levels = table.measure
    if spec.name == "automatic":
        ends = _Ends(table_of_levels.sigma_min, table_of_levels.sigma_max, 0.0, table_of_levels, options, quirks)
    else:
        notes["Schedule type"] = spec.label
        ends, said = _ends(spec, table_of_levels, options, quirks)
        notes.update(said)
    if steps <= 0:  # STEP-10: nothing but the end; the infotext names the schedule all the same
        return np.zeros(1, np.float32), notes
    formula = _FORMULAS["uniform" if spec.name == "automatic" else spec.name]
    sigmas = table.in_sigmas(np.asarray(formula(steps + 1 if discard else steps, ends), np.float32))
    return np.delete(sigmas, -2) if discard else sigmas, notes


def _resolve(scheduler: str, sampler: SamplerSpec | None) -> SchedulerSpec:
    spec = next((each for each in SCHEDULERS if each.label == scheduler), None)
    if spec is None:
        raise RequestError("scheduler", scheduler, f"choose one of {', '.join(each.label for each in SCHEDULERS)}")
    if spec.name == "automatic" and sampler is not None and sampler.default_scheduler is not None:
        spec = next(each for each in SCHEDULERS if each.name == sampler.default_scheduler)
    return spec


def _ends(
    spec: SchedulerSpec, table: NoiseTable, options: ScheduleOptions, quirks: Quirks
) -> tuple[_Ends, dict[str, object]]:
    notes: dict[str, object] = {}
    low, high = (0.1, 10.0) if options.old_karras else (table.sigma_min, table.sigma_max)
    rho = spec.default_rho or 0.0
    if options.sigma_min not in (0, table.sigma_min):
        low = notes["Schedule min sigma"] = options.sigma_min
    if options.sigma_max not in (0, table.sigma_max):
        high = notes["Schedule max sigma"] = options.sigma_max
    if spec.default_rho is not None and options.rho not in (0, rho):
        rho = notes["Schedule rho"] = options.rho
    if spec.name == "beta":
        notes |= {"Beta schedule alpha": options.beta_alpha, "Beta schedule beta": options.beta_beta}
    return _Ends(low, high, rho, table, options, quirks), notes


def _linspace(start: float, stop: float, count: int) -> Floats:
    """PyTorch's: a float32 step, counted from the nearer end, rounded once after multiply and add."""
    if count < 2:
        return np.full(count, start, np.float32)
    first, last, i = np.float32(start), np.float32(stop), np.arange(count)
    step = float((last - first) / np.float32(count - 1))
    return np.where(i < count // 2, float(first) + step * i, float(last) - step * i[::-1]).astype(np.float32)


def _exp(x: Floats) -> Floats:
    """Rounded once; numpy's float32 `exp` and `log` differ between machines."""
    return np.exp(x.astype(np.float64)).astype(np.float32)


def _log(x: Floats) -> Floats:
    return np.log(x.astype(np.float64)).astype(np.float32)


def _ending_in_zero(sigmas: Floats) -> Floats:
    return np.append(sigmas, np.float32(0))


def _uniform(n: int, ends: _Ends) -> Floats:
    return ends.table.own_schedule(n)


def _karras(n: int, ends: _Ends) -> Floats:
    """Karras et al. 2022, equation 5."""
    return _ending_in_zero(karras(n, ends.low, ends.high, ends.rho))


def karras(n: int, low: float, high: float, rho: float = 7.0) -> Floats:
    """The `n` sigmas of Karras et al. 2022, equation 5, without the final 0."""
    root_low, root_high = low ** (1 / rho), high ** (1 / rho)
    ramp = _linspace(0, 1, n) * np.float32(root_low - root_high)
    return ((np.float32(root_high) + ramp).astype(np.float64) ** rho).astype(np.float32)


def _exponential(n: int, ends: _Ends) -> Floats:
    return _ending_in_zero(_exp(_linspace(math.log(ends.high), math.log(ends.low), n)))


def _polyexponential(n: int, ends: _Ends) -> Floats:
    ramp = (_linspace(1, 0, n).astype(np.float64) ** ends.rho).astype(np.float32)
    span = np.float32(math.log(ends.high) - math.log(ends.low))
    return _ending_in_zero(_exp(ramp * span + np.float32(math.log(ends.low))))


def _sgm_uniform(n: int, ends: _Ends) -> Floats:
    first, last = (float(ends.table.sigma_to_t(each)) for each in (ends.high, ends.low))
    return _ending_in_zero(ends.table.t_to_sigma(_linspace(first, last, n + 1)[:-1]))


def _normal(n: int, ends: _Ends) -> Floats:
    first, last = (float(ends.table.sigma_to_t(each)) for each in (ends.high, ends.low))
    return _ending_in_zero(ends.table.t_to_sigma(_linspace(first, last, n)))


def _kl_optimal(n: int, ends: _Ends) -> Floats:
    """Sabour et al. 2024 (arXiv:2404.14507), equation 10: levels that halve the divergence step by step."""
    # NOTE: near a right angle the tangent multiplies an error of the angle by 200, so each is rounded only once.
    low, high = (np.float32(math.atan(np.float32(each))) for each in (ends.low, ends.high))
    count = n if ends.quirks.kl_optimal_keeps_noise else n - 1
    w = np.arange(count + 1, dtype=np.float32) / np.float32(max(count, 1))
    angles = w * low + (np.float32(1) - w) * high
    sigmas = np.tan(angles.astype(np.float64)).astype(np.float32)
    return sigmas if ends.quirks.kl_optimal_keeps_noise else _ending_in_zero(sigmas)


_ALIGNED = {  # SCH-8, the optimised levels of Sabour et al. 2024
    False: (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    True: (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


def _align_your_steps(n: int, ends: _Ends) -> Floats:
    if ends.table.has_own_schedule:
        raise RequestError("scheduler", "Align Your Steps", "its levels are of SD 1 and SDXL; choose Automatic")
    levels = np.array(_ALIGNED[ends.options.is_sdxl])
    if n != len(levels):
        places = np.linspace(0, 1, len(levels))
        levels = np.exp(np.interp(np.linspace(0, 1, n), places, np.log(levels[::-1])))[::-1]
    return _ending_in_zero(levels.astype(np.float32))


def _simple(n: int, ends: _Ends) -> Floats:
    sigmas = ends.table.sigmas
    stride = len(sigmas) / n
    return _ending_in_zero(sigmas[[-1 - int(k * stride) for k in range(n)]])


def _ddim(n: int, ends: _Ends) -> Floats:
    """Every (1000 // n)-th level from the second one up; the reference may find more than n (STEP-4)."""
    sigmas = ends.table.sigmas
    found = sigmas[1 :: max(len(sigmas) // n, 1)]
    return _ending_in_zero((found if ends.quirks.long_ddim_schedule else found[:n])[::-1])


def _beta(n: int, ends: _Ends) -> Floats:
    """Quantiles of a beta distribution (Lee et al. 2024, arXiv:2407.12173)."""
    a, b = ends.options.beta_alpha, ends.options.beta_beta
    if min(a, b) <= 0:
        name, value = ("beta_dist_alpha", a) if a <= 0 else ("beta_dist_beta", b)
        raise SettingError(name, value, "give a number above 0")
    x = np.array([beta_quantile(float(y), a, b) for y in 1 - np.linspace(0, 1, n)])
    return _ending_in_zero((ends.low + x * (ends.high - ends.low)).astype(np.float32))


_FORMULAS: Mapping[str, Callable[[int, _Ends], Floats]] = {
    "uniform": _uniform,
    "karras": _karras,
    "exponential": _exponential,
    "polyexponential": _polyexponential,
    "sgm_uniform": _sgm_uniform,
    "kl_optimal": _kl_optimal,
    "align_your_steps": _align_your_steps,
    "simple": _simple,
    "normal": _normal,
    "ddim": _ddim,
    "beta": _beta,
}


def img2img_steps(steps: int, strength: float, fix_steps: bool = False) -> tuple[int, int]:
    """How many steps the schedule has, and how many of them lie before the start's own (STEP-3).

    By default a strength of 0.75 walks 75 % of the asked steps; with `fix_steps` all of them, on a finer schedule.
    """
    strength = min(strength, 0.999)
    if fix_steps:
        return (int(steps / strength) if strength > 0 else 0), steps - 1
    return steps, int(strength * steps)


def start_index(schedule: Floats, steps: int, t_enc: int, quirks: Quirks | None = None) -> int:
    """Where in a schedule of sigmas img2img starts, so that `t_enc + 1` steps remain (STEP-4)."""
    if quirks is not None and quirks.long_ddim_schedule:
        return max(steps - t_enc - 1, 0)  # NOTE: a schedule longer than `steps` thus starts too early
    return max(len(schedule) - 1 - (t_enc + 1), 0)


def timesteps_for(steps: int) -> tuple[int, ...]:
    """The timesteps of DDIM and its kin, ascending from 1; some more than `steps` where 1000 is no multiple (TS-1)."""
    if not 1 <= steps <= TIMESTEPS:
        raise RequestError("steps", steps, f"the timestep samplers take 1 to {TIMESTEPS}")
    return tuple(min(t + 1, TIMESTEPS - 1) for t in range(0, TIMESTEPS, TIMESTEPS // steps))


def timestep_start(timesteps: tuple[int, ...], t_enc: int, quirks: Quirks | None = None) -> tuple[int, tuple[int, ...]]:
    """The timestep the source is noised to, and the timesteps the sampler is given, ascending (STEP-5).

    The source is noised to the first timestep that is evaluated. The reference (`skip_last_timestep`) noises it one
    higher, and its samplers never visit the lowest one.
    """
    skip = quirks is not None and quirks.skip_last_timestep
    return timesteps[t_enc], timesteps[: t_enc if skip else t_enc + 1]
