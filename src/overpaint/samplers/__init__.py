"""Samplers as generators: `denoised = yield Query(x, sigma)`, and the final state is returned.

A sampler knows neither model nor device, progress or cancel. One loop drives any number of them; closing a generator
cancels it. NOTE: no `with` may span a `yield`: grad mode and autocast are the thread's and would leak to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    heun,
    lcm,
    restart,
)
from overpaint.samplers.timestep import ddim, ddim_cfgpp, plms, visits
from overpaint.samplers.unipc import DEFAULT_OPTIONS, UniPCOptions, unipc
from overpaint.settings import Quirks

__all__ = ["Churn", "Draw", "Path", "Query", "Sampler", "UniPCOptions", "make", "no_steps"]

_BY_NAME: Mapping[str, Callable[..., Sampler]] = {
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
    "DDIM": ddim,
    "DDIM CFG++": ddim_cfgpp,
    "PLMS": plms,
    "LCM": lcm,
}


_STOP_EARLY = (dpm_fast, dpm_adaptive)  # these end at the last sigma but one


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
    quirks = quirks or Quirks()
    if spec.family == "timestep":
        timesteps = [int(t) for t in walk]
        if spec.name == "UniPC":
            return unipc(
                x,
                timesteps,
                alphas_cumprod,
                options=unipc_options,
                t_start=1.0 if from_noise else None,
                lower_order_when_short=not quirks.short_runs_fail,
                stray_weight=quirks.unipc_stray_weight,
            )
        return _over_timesteps(spec, x, timesteps, alphas_cumprod, noise, eta, quirks)
    sampler = _BY_NAME[spec.name]
    if sampler in _STOP_EARLY and len(walk) < (2 if quirks.short_runs_fail else 3):
        return denoise(x, walk)
    if spec.brownian and path is None:
        raise ValueError(f"{spec.name} takes its noise from a Brownian path; give `path`")
    by_noise: dict[str, dict[str, Any]] = {"stream": {"noise": noise}, "brownian": {"path": path}, "none": {}}
    by_churn: dict[str, dict[str, Any]] = {"all": {"churn": churn}, "noise": {"s_noise": churn.noise}, "none": {}}
    by_eta = {"eta": eta} if spec.takes_eta else {}
    return sampler(x, walk, **by_noise[spec.noise], **by_churn[spec.churn], **by_eta)


def no_steps(spec: SamplerSpec, x: Tensor, *, quirks: Quirks) -> Sampler:
    """Any sampler on a schedule without steps: no call is made, and the state stays what it is (STEP-10)."""
    if quirks.short_runs_fail and (spec.name == "UniPC" or _BY_NAME[spec.name] in _STOP_EARLY):
        raise SamplingError(f"{spec.name}: the schedule has no steps; raise the strength")
    yield from ()  # makes this a generator
    return x


def _over_timesteps(
    spec: SamplerSpec,
    x: Tensor,
    timesteps: Sequence[int],
    alphas_cumprod: NDArray[np.float32],
    noise: Draw,
    eta: float,
    quirks: Quirks,
) -> Sampler:
    steps = visits(timesteps, alphas_cumprod, skip_last=quirks.skip_last_timestep)
    if spec.noise == "none":
        return _BY_NAME[spec.name](x, steps)
    return _BY_NAME[spec.name](x, steps, noise=noise, eta=eta)
