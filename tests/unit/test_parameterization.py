"""SIG-5 to SIG-7, STEP-4 to STEP-6, LCM-1: what samplers and models say to each other; diffusers is the oracle."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint import parameterization
from overpaint.errors import RequestError
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.parameterization import LCM, OverSigmas, PassLength, Predicted, Walk, parameterization_of
from overpaint.sampler_table import SAMPLERS
from overpaint.samplers import Query, make
from overpaint.schedules import NoiseTable
from overpaint.settings import Quirks, Settings

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own

SPEC = {each.name: each for each in SAMPLERS}
V_SPEC = replace(SD1_SPEC, prediction="v")
FLOW_SPEC = replace(SD1_SPEC, prediction=cast(Any, "flow"))
MODELS = {"epsilon": SD1_SPEC, "v_prediction": V_SPEC}
SHIFT = 3.0


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


# -- a kind of model that is not there yet -----------------------------------------------------------------------------


def flow_table(model: ModelSpec, settings: Settings) -> NoiseTable:
    """Rectified flow, x_s = (1 - s) x0 + s n, with s shifted; k = s / (1 - s) is its sigma. s = 1 would be infinite."""
    t = np.linspace(0.001, 0.9999, 1000)
    s = SHIFT * t / (1 + (SHIFT - 1) * t)
    k = (s / (1 - s)).astype(np.float32)
    return NoiseTable((1 / (1 + k**2)).astype(np.float32), k, np.log(k))


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    row = Predicted(
        table=flow_table,
        time=lambda table, k: k / (1 + k),
        c_in=lambda k: 1 / (1 + k),
        denoised=lambda F, x, k, s: x / (1 + k) - s * F,
        eps=None,
    )
    monkeypatch.setitem(cast(Any, parameterization.PREDICTIONS), "flow", row)
    return FLOW_SPEC


def velocity(x: Tensor, s: float) -> Tensor:
    return torch.tanh(x) * (1 + s)


def test_a_flow_model_would_be_one_row(flow: ModelSpec) -> None:
    """Euler over k is Euler over s (Lipman et al. 2023, arXiv:2210.02747), with nothing but a row added."""
    diffusers = pytest.importorskip("diffusers")
    ours = parameterization_of(SPEC["Euler"], flow, Settings())
    walk = walked("Euler", flow, steps=8, t_enc=5, scheduler="Simple")
    x0 = states(3)

    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    theirs.set_timesteps(sigmas=[ours.time(each) for each in walk.used[:-1]])
    s = ours.time(walk.start)
    flowing = (1 - s) * x0 + s * N
    for t, at in zip(theirs.timesteps, theirs.sigmas, strict=False):
        flowing = theirs.step(velocity(flowing, float(at)), t, flowing).prev_sample

    start = ours.noised(x0, N, walk.start)
    assert torch.allclose(start * ours.c_in(walk.start), (1 - s) * x0 + s * N, rtol=1e-5, atol=1e-6)
    run = make(SPEC["Euler"], start, walk.used, alphas_cumprod=ours.table.alphas_cumprod, noise=lambda: N)
    query: Query = next(run)
    try:
        while True:
            output = velocity(query.x * ours.c_in(query.sigma), ours.time(query.sigma))
            query = run.send(ours.reply(output, query.x, query.sigma))
    except StopIteration as end:
        assert torch.allclose(end.value, flowing, rtol=1e-4, atol=1e-5)


def test_samplers_over_timesteps_refuse_a_model_they_cannot_use(flow: ModelSpec) -> None:
    with pytest.raises(RequestError, match="such as Euler"):
        parameterization_of(SPEC["DDIM"], flow, Settings())
    assert isinstance(parameterization_of(SPEC["LCM"], flow, Settings()), OverSigmas)
    assert LCM.eps is None
