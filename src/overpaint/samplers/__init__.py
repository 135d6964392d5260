"""Samplers as generators: `denoised = yield Query(x, sigma)`, and the final state is returned.

A sampler knows neither model nor device, progress or cancel. One loop drives any number of them; closing a generator
cancels it. NOTE: no `with` may span a `yield`: grad mode and autocast are the thread's and would leak to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.sampler_table import SamplerSpec
from overpaint.samplers.adaptive import dpm_adaptive, dpm_fast
from overpaint.samplers.multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde, lms
from overpaint.samplers.query import NO_CHURN, Churn, Draw, Path, Query, Sampler
from overpaint.samplers.single import (
    denoise,
    dpm2,
    dpm2_a,
    dpmpp_2s_a,
    dpmpp_sde,
    euler,
    euler_a,
    from_all_noise,
    heun,
    lcm,
    restart,
)
from overpaint.samplers.timestep import TimestepPair, ddim, ddim_cfgpp, plms, visits
from overpaint.samplers.unipc import DEFAULT_OPTIONS, UniPCOptions, unipc
from overpaint.settings import Quirks

__all__ = ["Churn", "Draw", "Path", "Query", "Sampler", "UniPCOptions", "from_all_noise", "make", "no_steps"]

_OVER_SIGMAS: Mapping[str, Callable[..., Sampler]] = {
    "DPM++ 2M": dpmpp_2m,
    "DPM++ SDE": dpmpp_sde,
    "DPM++ 2M SDE": dpmpp_2m_sde,
    "DPM++ 2M SDE Heun": partial(dpmpp_2m_sde, solver="heun"),
    "DPM++ 2S a": dpmpp_2s_a,
    "DPM++ 3M SDE": dpmpp_3m_sde,
    "Euler a": euler_a,
    "Euler": euler,
    "LMS": lms,
    "Heun": heun,
    "DPM2": dpm2,
    "DPM2 a": dpm2_a,
    "DPM fast": dpm_fast,
    "DPM adaptive": dpm_adaptive,
    "Restart": restart,
    "LCM": lcm,
}
_STOP_EARLY = (dpm_fast, dpm_adaptive)  # these end at the last sigma but one


@dataclass(frozen=True)
class _Given:
    """What a sampler may use beside its state and its walk."""

    alphas_cumprod: NDArray[np.float32]
    noise: Draw
    path: Path | None
    eta: float
    churn: Churn
    unipc_options: UniPCOptions
    from_noise: bool
    quirks: Quirks


def make(
    spec: SamplerSpec,
    x: Tensor,
    walk: Sequence[float],
    *,
    alphas_cumprod: NDArray[np.float32],
    noise: Draw,
    path: Path | None = None,
    eta: float = 1.0,
    churn: Churn = NO_CHURN,
    unipc_options: UniPCOptions = DEFAULT_OPTIONS,
    from_noise: bool = False,
    quirks: Quirks | None = None,
) -> Sampler:
    """Start a sampler at state `x`.

    `walk` is what img2img leaves of the schedule: sigmas descending, or timesteps ascending. `noise` draws for all of
    `x`; a Brownian sampler takes `path` instead. Parameters that do not reach a sampler (PAR-1, PAR-2) are ignored.
    """
    given = _Given(alphas_cumprod, noise, path, eta, churn, unipc_options, from_noise, quirks or Quirks())
    if spec.name in _OVER_TIMESTEPS:
        return _OVER_TIMESTEPS[spec.name](x, [int(t) for t in walk], given)
    return _over_sigmas(spec, x, walk, given)


def _over_sigmas(spec: SamplerSpec, x: Tensor, walk: Sequence[float], given: _Given) -> Sampler:
    sampler, churn = _OVER_SIGMAS[spec.name], given.churn
    if sampler in _STOP_EARLY and len(walk) < (2 if given.quirks.short_runs_fail else 3):
        return denoise(x, walk)
    if spec.brownian and given.path is None:
        raise ValueError(f"{spec.name} takes its noise from a Brownian path; give `path`")
    by_noise: dict[str, dict[str, Any]] = {
        "stream": {"noise": given.noise},
        "brownian": {"path": given.path},
        "none": {},
    }
    by_churn: dict[str, dict[str, Any]] = {"all": {"churn": churn}, "noise": {"s_noise": churn.noise}, "none": {}}
    by_eta = {"eta": given.eta} if spec.takes_eta else {}
    return sampler(x, walk, **by_noise[spec.noise], **by_churn[spec.churn], **by_eta)


def no_steps(spec: SamplerSpec, x: Tensor, *, quirks: Quirks) -> Sampler:
    """Any sampler on a schedule without steps: no call is made, and the state stays what it is (STEP-10)."""
    if quirks.short_runs_fail and (spec.name == "UniPC" or _OVER_SIGMAS.get(spec.name) in _STOP_EARLY):
        raise SamplingError(f"{spec.name}: the schedule has no steps; raise the strength")
    yield from ()  # makes this a generator
    return x


def _ddim(sampler: Callable[..., Sampler], x: Tensor, timesteps: Sequence[int], given: _Given) -> Sampler:
    return sampler(x, _visits(timesteps, given), noise=given.noise, eta=given.eta)


def _plms(x: Tensor, timesteps: Sequence[int], given: _Given) -> Sampler:
    return plms(x, _visits(timesteps, given))


def _unipc(x: Tensor, timesteps: Sequence[int], given: _Given) -> Sampler:
    return unipc(
        x,
        timesteps,
        given.alphas_cumprod,
        options=given.unipc_options,
        t_start=1.0 if given.from_noise else None,
        lower_order_when_short=not given.quirks.short_runs_fail,
        stray_weight=given.quirks.unipc_stray_weight,
    )


def _visits(timesteps: Sequence[int], given: _Given) -> list[TimestepPair]:
    return visits(timesteps, given.alphas_cumprod, skip_last=given.quirks.skip_last_timestep)


_OVER_TIMESTEPS: Mapping[str, Callable[[Tensor, Sequence[int], _Given], Sampler]] = {
    "DDIM": partial(_ddim, ddim),
    "DDIM CFG++": partial(_ddim, ddim_cfgpp),
    "PLMS": _plms,
    "UniPC": _unipc,
}
