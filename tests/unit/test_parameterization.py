"""SIG-5 to SIG-7, STEP-4 to STEP-6, LCM-1: what samplers and models say to each other; diffusers is the oracle."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.errors import RequestError
from overpaint.flow_levels import share_of_noise
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.models.shifts import ConstantShift, StepShift, TokenShift
from overpaint.parameterization import OverSigmas, PassLength, Walk, parameterization_of
from overpaint.predictions import LCM
from overpaint.sampler_table import SAMPLERS
from overpaint.samplers import Query, from_all_noise, make
from overpaint.schedules import NoiseTable
from overpaint.settings import Quirks, Settings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own

SPEC = {each.name: each for each in SAMPLERS}
V_SPEC = replace(SD1_SPEC, prediction="v")
FLOW_SPEC = replace(SD1_SPEC, prediction="flow")
MODELS = {"epsilon": SD1_SPEC, "v_prediction": V_SPEC}


def states(seed: int) -> Tensor:
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(seed))


X, F, N = states(0), states(1), states(2)


def walked(sampler: str, model: ModelSpec = SD1_SPEC, *, steps: int = 10, t_enc: int = 6, **said: Any) -> Walk:
    options = {"scheduler": "Automatic", "from_noise": False, "settings": Settings(), **said}
    meaning = parameterization_of(SPEC[sampler], model, options["settings"])
    length = PassLength(sampler=SPEC[sampler], steps=steps, t_enc=t_enc, is_sdxl=False, **options)
    return meaning.walk(length)


def scheduler(kind: str, prediction: str) -> Any:
    diffusers = pytest.importorskip("diffusers")
    beta = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": prediction}
    return getattr(diffusers, f"{kind}Scheduler")(**beta)


# -- over sigmas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", MODELS)
def test_over_sigmas_against_diffusers(prediction: str) -> None:  # SIG-5, SIG-6
    theirs = scheduler("EulerDiscrete", prediction)
    theirs.set_timesteps(10)
    ours = parameterization_of(SPEC["Euler"], MODELS[prediction], Settings())
    for t, sigma in zip(theirs.timesteps, theirs.sigmas[:-1].tolist(), strict=True):
        assert ours.time(sigma) == pytest.approx(float(t), abs=0.01)
        assert torch.allclose(X * ours.c_in(sigma), theirs.scale_model_input(X, t), atol=1e-6)
        denoised = theirs.step(F, t, X).pred_original_sample
        assert torch.allclose(ours.reply(F, X, sigma), denoised, rtol=1e-5, atol=1e-5)
        noised = theirs.add_noise(X, N, t[None])
        assert torch.allclose(ours.noised(X, N, sigma), noised, rtol=1e-5, atol=1e-5)


def test_a_reply_over_sigmas_is_the_picture() -> None:
    ours = parameterization_of(SPEC["Euler"], SD1_SPEC, Settings())
    assert ours.clean(F, X, 2.0) is F
    assert ours.reply_for(F, X, 2.0) is F
    assert ours.sigma(2.0) == 2.0


@pytest.mark.parametrize("model", [SD1_SPEC, V_SPEC], ids=["eps", "v"])
def test_lcm_reads_every_model_in_its_own_way(model: ModelSpec) -> None:  # LCM-1
    ours = parameterization_of(SPEC["LCM"], model, Settings())
    assert len(ours.table.sigmas) == 50
    t = 519.0
    sigma = float(ours.table.t_to_sigma(t))
    scaled = t / 0.1  # timestep scaling 10, as in the authors' configuration
    c_skip, c_out = 0.25 / (scaled**2 + 0.25), scaled / math.sqrt(scaled**2 + 0.25)
    assert torch.allclose(ours.reply(F, X, sigma), c_skip * X + c_out * (X - sigma * F), rtol=1e-5, atol=1e-5)
    assert ours.answered_by(V_SPEC) is ours


# -- over timesteps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", MODELS)
@pytest.mark.parametrize("t", [1, 401, 981])
def test_over_timesteps_against_diffusers(prediction: str, t: int) -> None:  # SIG-7, STEP-5
    theirs = scheduler("DDIM", prediction)
    theirs.set_timesteps(10)
    theirs.config["clip_sample"] = False
    theirs.register_to_config(clip_sample=False)
    ours = parameterization_of(SPEC["DDIM"], MODELS[prediction], Settings())
    assert ours.time(float(t)) == t
    assert ours.c_in(float(t)) == 1.0
    eps = ours.reply(F, X, float(t))
    assert torch.allclose(ours.clean(eps, X, float(t)), theirs.step(F, t, X).pred_original_sample, rtol=1e-4, atol=1e-4)
    noised = theirs.add_noise(X, N, torch.tensor([t]))
    assert torch.allclose(ours.noised(X, N, float(t)), noised, rtol=1e-5, atol=1e-5)


def test_a_reply_for_a_picture_stands_for_it() -> None:  # BLEND-2
    ours = parameterization_of(SPEC["DDIM"], SD1_SPEC, Settings())
    x = ours.noised(F, N, 401.0)
    assert torch.allclose(ours.reply_for(F, x, 401.0), N, rtol=1e-4, atol=1e-4)
    assert torch.allclose(ours.clean(ours.reply_for(F, x, 401.0), x, 401.0), F, rtol=1e-4, atol=1e-4)


def test_how_much_noise_a_timestep_has() -> None:  # CFG-5, SOFT-2: the reference takes its number for a sigma
    sane = parameterization_of(SPEC["DDIM"], SD1_SPEC, Settings())
    assert sane.sigma(401.0) == pytest.approx(float(NoiseTable.default().sigmas[401]), rel=1e-5)
    assert not sane.blends_input
    settings = Settings(quirks=Quirks(timestep_is_sigma=True, timestep_blend_on_input=True))
    reference = parameterization_of(SPEC["DDIM"], SD1_SPEC, settings)
    assert reference.sigma(401.0) == 401.0
    assert reference.blends_input
    assert not parameterization_of(SPEC["Euler"], SD1_SPEC, settings).blends_input


# -- noise, table, walk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "level"), [("Euler", 2.0), ("DDIM", 401.0)])
def test_extra_noise_is_a_share_of_the_same_picture(sampler: str, level: float) -> None:  # STEP-6
    """Once x is divided by what its picture was multiplied by, both kinds of sampler have gained the same."""
    ours = parameterization_of(SPEC[sampler], SD1_SPEC, Settings())
    gained = ours.noised(X, N, level, extra=0.1) - ours.noised(X, N, level)
    picture = ours.noised(X, torch.zeros_like(N), level) / X
    assert torch.allclose(gained / picture, 0.1 * N, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sampler", ["Euler", "LCM", "DDIM"])
def test_options_change_the_table(sampler: str) -> None:  # SIG-9 to SIG-11
    plain, changed = Settings(), Settings(sd_noise_schedule="Zero Terminal SNR")
    tables = [parameterization_of(SPEC[sampler], SD1_SPEC, each).table for each in (plain, changed)]
    assert not np.array_equal(tables[0].alphas_cumprod, tables[1].alphas_cumprod)
    late = parameterization_of(SPEC[sampler], SD1_SPEC, changed, late=True).table
    of_now = tables[1] if sampler == "DDIM" else tables[0]
    assert np.array_equal(late.alphas_cumprod, of_now.alphas_cumprod)


def test_a_walk_over_sigmas() -> None:  # STEP-4
    found = walked("Euler")
    assert found.used == tuple(found.schedule[3:].tolist())
    assert found.start == found.used[0]
    assert len(found.used) == 8
    from_noise = walked("Euler", from_noise=True)
    assert from_noise.used == tuple(from_noise.schedule.tolist())
    assert from_noise.start == from_noise.used[0]
    sgm = walked("Euler", from_noise=True, settings=Settings(sgm_noise_multiplier=True))
    assert sgm.start == pytest.approx(math.sqrt(1 + sgm.used[0] ** 2))
    assert sgm.notes["SGM noise multiplier"] is True


def test_a_walk_over_timesteps() -> None:  # STEP-5
    found = walked("DDIM")
    assert list(found.used) == [1, 101, 201, 301, 401, 501, 601]
    assert found.start == 601
    skipping = walked("DDIM", settings=Settings(quirks=Quirks(skip_last_timestep=True)))
    assert (skipping.used[-1], skipping.start) == (501, 601)
    assert walked("DDIM", from_noise=True).start == 1.0


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_a_walk_without_steps_goes_nowhere(sampler: str) -> None:  # STEP-10
    found = walked(sampler, steps=0, t_enc=3)
    assert (found.start, sum(found.used)) == (0.0, 0.0)


@pytest.mark.parametrize(("sampler", "levels"), [("Euler", (4.0, 2.0, 1.0, 0.0)), ("DDIM", (1.0, 101.0, 201.0))])
def test_where_on_a_walk(sampler: str, levels: tuple[float, ...]) -> None:
    ours = parameterization_of(SPEC[sampler], SD1_SPEC, Settings())
    asked = levels[:-1] if sampler == "Euler" else levels[::-1]
    assert ours.visits(levels) == 3
    assert [ours.passed(levels, each) for each in asked] == [0, 1, 2]


def test_places_in_the_table() -> None:  # REF-1
    over_sigmas, over_timesteps = (parameterization_of(SPEC[name], SD1_SPEC, Settings()) for name in ("Euler", "DDIM"))
    sigma = float(over_sigmas.table.sigmas[700])
    assert over_sigmas.place(sigma * 1.0001) == 700
    assert over_timesteps.place(700.9) == 700


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_another_model_may_answer(sampler: str) -> None:  # REF-2
    ours = parameterization_of(SPEC[sampler], SD1_SPEC, Settings())
    level = 401.0 if sampler == "DDIM" else 2.0
    other, own = ours.answered_by(V_SPEC), parameterization_of(SPEC[sampler], V_SPEC, Settings())
    assert other.table is ours.table
    assert torch.equal(other.reply(F, X, level), own.reply(F, X, level))
    assert not torch.equal(other.reply(F, X, level), ours.reply(F, X, level))


# -- flow models -------------------------------------------------------------------------------------------------------


def velocity(x: Tensor, s: float) -> Tensor:
    return torch.tanh(x) * (1 + s)


def ended(run: Any, ours: OverSigmas) -> Tensor:
    """Where a sampler comes to whose model answers with `velocity`."""
    query: Query = next(run)
    try:
        while True:
            output = velocity(query.x * ours.c_in(query.sigma), ours.time(query.sigma))
            query = run.send(ours.reply(output, query.x, query.sigma))
    except StopIteration as end:
        result: Tensor = end.value
        return result


def flowed(x: Tensor, shares: list[float]) -> Tensor:
    """The same by diffusers' scheduler, from (1 - s) x0 + s n on."""
    theirs = pytest.importorskip("diffusers").FlowMatchEulerDiscreteScheduler(shift=1.0)
    theirs.set_timesteps(sigmas=shares)
    for t, at in zip(theirs.timesteps, theirs.sigmas, strict=False):
        x = theirs.step(velocity(x, float(at)), t, x).prev_sample
    return x


@pytest.mark.parametrize("strength", [1.0, 0.62])
def test_euler_over_k_is_euler_over_s(strength: float) -> None:
    """Lipman et al. 2023, arXiv:2210.02747: the sampler is the same one, and from noise alone no digit is lost."""
    ours = parameterization_of(SPEC["Euler"], FLOW_SPEC, Settings())
    assert isinstance(ours, OverSigmas)
    walk = walked("Euler", FLOW_SPEC, steps=8, strength=strength)
    x0, shares = states(3), [ours.time(each) for each in walk.used[:-1]]
    assert (shares[0] == 1.0) == (strength == 1.0) == ours.is_all_noise(walk.start)
    start, s = ours.noised(x0, N, walk.start), shares[0]
    assert torch.allclose(start * ours.c_in(walk.start), (1 - s) * x0 + s * N, rtol=1e-5, atol=1e-6)
    going = partial(make, SPEC["Euler"], alphas_cumprod=ours.table.alphas_cumprod, noise=lambda: N)
    run = from_all_noise(start, walk.used, going) if strength == 1.0 else going(start, walk.used)
    assert torch.allclose(ended(run, ours), flowed((1 - s) * x0 + s * N, shares), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [4, 9, 20])
def test_levels_of_a_constant_shift(shift: float, steps: int) -> None:
    """NOTE: without given sigmas diffusers shifts its levels twice; the paper, and its own pipelines, do it once."""
    theirs = pytest.importorskip("diffusers").FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    walk = walked("Euler", replace(FLOW_SPEC, shift=ConstantShift(shift)), steps=steps, from_noise=True)
    assert np.allclose([share_of_noise(each) for each in walk.used], theirs.sigmas.tolist(), rtol=1e-5)


@pytest.mark.parametrize("tokens", [256, 1024, 4096])
@pytest.mark.parametrize("terminal", [0.0, 0.02])
def test_levels_of_a_shift_by_tokens(tokens: int, terminal: float) -> None:
    told = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift_terminal": terminal or None}
    theirs = pytest.importorskip("diffusers").FlowMatchEulerDiscreteScheduler(**told)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8), mu=0.5 + 0.65 * (tokens - 256) / (4096 - 256))
    model = replace(FLOW_SPEC, shift=TokenShift(terminal=terminal))
    walk = walked("Euler", model, steps=8, from_noise=True, tokens=tokens)
    assert np.allclose([share_of_noise(each) for each in walk.used], theirs.sigmas.tolist(), rtol=1e-5)


@pytest.mark.parametrize("tokens", [1024, 4096, 8100])
@pytest.mark.parametrize("steps", [4, 50])
def test_a_shift_by_tokens_and_steps(tokens: int, steps: int) -> None:
    pytest.importorskip("diffusers")
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    assert math.log(StepShift().of(tokens, steps)) == pytest.approx(compute_empirical_mu(tokens, steps), rel=1e-6)


def test_the_smallest_change_of_strength_changes_the_start_a_little() -> None:
    """Between two strengths next to each other no level jumps; with the quirk there are as many starts as steps."""
    model = replace(FLOW_SPEC, shift=ConstantShift(3.0))
    starts = [walked("Euler", model, steps=8, strength=i / 200).start for i in range(1, 200)]
    shares = np.array([share_of_noise(each) for each in starts])
    assert np.allclose(shares, [3 * t / (1 + 2 * t) for t in np.arange(1, 200) / 200], rtol=1e-5)
    whole = {walked("Euler", model, steps=8, t_enc=int(i / 200 * 8)).start for i in range(1, 200)}
    assert len(whole) == 8


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.51, 0.99])
def test_a_walk_takes_the_steps_that_its_strength_leaves(strength: float) -> None:
    walk = walked("Euler", FLOW_SPEC, steps=8, strength=strength)
    assert walk.t_enc is not None
    assert walk.t_enc + 1 == len(walk.used) - 1 == math.ceil(strength * 8)
    assert list(walk.used) == sorted(walk.used, reverse=True)
    assert walk.used[-1] == 0


@pytest.mark.parametrize("name", ["DDIM", "DDIM CFG++", "PLMS", "UniPC"])
def test_samplers_over_timesteps_name_the_nearest(name: str) -> None:
    with pytest.raises(RequestError, match=rf"sampler='{re.escape(name)}'.*the nearest is (Euler|LMS|DPM\+\+ 2M)"):
        parameterization_of(SPEC[name], FLOW_SPEC, Settings())
    assert LCM.eps is None


def test_a_schedule_of_other_models_is_refused() -> None:
    with pytest.raises(RequestError, match=r"Align Your Steps.*choose Automatic"):
        walked("Euler", FLOW_SPEC, scheduler="Align Your Steps")


@pytest.mark.parametrize("scheduler_name", ["Karras", "Exponential", "Beta", "Simple", "Normal", "SGM Uniform", "DDIM"])
def test_schedules_are_made_over_the_share_of_noise(scheduler_name: str) -> None:
    walk = walked("Euler", FLOW_SPEC, steps=10, scheduler=scheduler_name, from_noise=True)
    shares = [share_of_noise(each) for each in walk.used]
    assert len(shares) == 11
    assert all(a > b for a, b in pairwise(shares))
    assert shares[0] >= 0.9
    assert shares[-1] == 0


def test_an_option_shifts_every_size_alike() -> None:
    model = replace(FLOW_SPEC, shift=TokenShift())
    asked: dict[str, Any] = {"steps": 4, "from_noise": True, "settings": Settings(flow_shift=2.0)}
    assert walked("Euler", model, tokens=256, **asked).used == walked("Euler", model, tokens=4096, **asked).used
