"""Every sampler, started as a job starts it: what it asks, how it stops, and that it reaches an exact solution."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.painting.brownian import BrownianNoise
from overpaint.sampler_table import SAMPLERS, SamplerSpec, normalise
from overpaint.samplers import Churn, Query, Sampler, UniPCOptions, make
from overpaint.schedules import NoiseTable, ScheduleOptions, img2img_steps, sigmas_for, start_index, timesteps_for
from overpaint.schedules import timestep_start as start_of_timesteps
from overpaint.settings import Quirks
from tests.unit.samplers.toy import START, ToyNoise, drive, toy_sigmas

ALPHAS = NoiseTable.default().alphas_cumprod
SPEC = {each.name: each for each in SAMPLERS}
OVER_SIGMAS = [each for each in SAMPLERS if each.family != "timestep"]
OVER_TIMESTEPS = [each for each in SAMPLERS if each.family == "timestep"]
USED = list(timesteps_for(10)[:8])
AS_REFERENCE = Quirks.reference()


def started(spec: SamplerSpec, x: Tensor = START, **more: Any) -> Sampler:
    walk = USED if spec.family == "timestep" else toy_sigmas()
    noise = ToyNoise()
    return make(spec, x, more.pop("walk", walk), alphas_cumprod=ALPHAS, noise=noise, path=noise, **more)


def by_name(spec: SamplerSpec) -> str:
    return spec.name


@pytest.mark.parametrize("spec", SAMPLERS, ids=by_name)
def test_a_sampler_can_be_stopped_anywhere(spec: SamplerSpec) -> None:
    sampler = started(spec)
    query = next(sampler)
    sampler.send(torch.zeros(2, *query.x.shape) if query.parts else torch.zeros_like(query.x))
    sampler.close()
    assert inspect.getgeneratorstate(sampler) == inspect.GEN_CLOSED
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("spec", SAMPLERS, ids=by_name)
def test_what_was_asked_is_not_changed_afterwards(spec: SamplerSpec) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def answer(query: Query) -> Tensor:
        seen.append((query.x, query.x.clone()))
        return torch.zeros(2, *query.x.shape) if query.parts else torch.zeros_like(query.x)

    drive(started(spec), answer)
    assert all(torch.equal(now, then) for now, then in seen)


@pytest.mark.parametrize("spec", OVER_SIGMAS, ids=by_name)
def test_a_known_picture_is_reached_exactly(spec: SamplerSpec) -> None:
    """Where the denoised picture is always c, dx/dsigma = (x - c)/sigma has the solution c + (x - c) sigma/sigma_0."""
    colour = torch.full_like(START, 0.3)
    sigmas = toy_sigmas()
    end = sigmas[-2] / sigmas[0] if spec.name in ("DPM fast", "DPM adaptive") else 0.0
    run = drive(started(spec, eta=0.0), lambda query: colour)
    assert torch.allclose(run.result, colour + (START - colour) * end, atol=1e-5)


@pytest.mark.parametrize("spec", OVER_TIMESTEPS, ids=by_name)
def test_a_known_picture_is_reached_exactly_over_timesteps(spec: SamplerSpec) -> None:
    colour = torch.full_like(START, 0.3)
    logs = np.append(np.log(ALPHAS.astype(float)), 0)

    def answer(query: Query) -> Tensor:
        whole = int(query.sigma)
        part = query.sigma - whole
        alpha = math.exp((1 - part) * logs[whole] + part * logs[whole + 1])
        eps = (query.x - colour * math.sqrt(alpha)) / math.sqrt(1 - alpha)
        return torch.stack([eps, eps]) if query.parts else eps

    run = drive(started(spec, eta=0.0), answer)
    if spec.name != "UniPC":  # which ends at the noise level of timestep 0
        assert torch.allclose(run.result, colour, atol=1e-5)
        return
    first, last = (float(ALPHAS[t]) for t in (USED[-1], 0))
    eps = (START - colour * math.sqrt(first)) / math.sqrt(1 - first)
    assert torch.allclose(run.result, colour * math.sqrt(last) + eps * math.sqrt(1 - last), atol=1e-4)


def gaussian(query: Query) -> Tensor:
    """The posterior mean for pictures of unit variance."""
    return query.x / (1 + query.sigma**2)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("Euler", 0.025), ("Heun", 5e-4), ("DPM2", 5e-4), ("LMS", 5e-4), ("DPM++ 2M", 5e-4)],
)
def test_a_linear_equation_is_solved_to_the_samplers_order(name: str, limit: float) -> None:
    """dx/dsigma = x sigma/(1 + sigma^2) has the solution x = x_0 sqrt((1 + sigma^2)/(1 + sigma_0^2))."""
    sigmas = toy_sigmas(60)
    run = drive(make(SPEC[name], START, sigmas, alphas_cumprod=ALPHAS, noise=lambda: torch.zeros_like(START)), gaussian)
    exact = START / math.sqrt(1 + sigmas[0] ** 2)
    assert float(((run.result - exact) / exact).abs().max()) < limit


@pytest.mark.parametrize("name", [each.name for each in OVER_SIGMAS if each.name != "LCM"])
def test_noise_that_is_added_is_taken_away(name: str) -> None:
    """Pictures of unit variance come out with unit variance, whatever the sampler adds on its way."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 4, 40, 40)
    sigmas = toy_sigmas(60)
    x = torch.randn(shape, generator=generator) * math.sqrt(1 + sigmas[0] ** 2)
    path = BrownianNoise(1, sigmas[-2], sigmas[0], shape)
    sampler = make(
        SPEC[name],
        x,
        sigmas,
        alphas_cumprod=ALPHAS,
        noise=lambda: torch.randn(shape, generator=generator),
        path=path,
        churn=Churn(4.0),
    )
    assert float(drive(sampler, gaussian).result.std()) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("spec", OVER_SIGMAS, ids=by_name)
def test_no_step_is_no_call(spec: SamplerSpec) -> None:  # STEP-10
    run = drive(started(spec, walk=[0.0]))
    assert run.asked == []
    assert torch.equal(run.result, START)


@pytest.mark.parametrize("spec", OVER_SIGMAS, ids=by_name)
def test_one_step_is_one_call(spec: SamplerSpec) -> None:  # STEP-4
    run = drive(started(spec, walk=[0.5, 0.0]), lambda query: torch.ones_like(query.x))
    assert run.asked == [0.5]
    assert torch.allclose(run.result, torch.ones_like(START), atol=1e-6)


@pytest.mark.parametrize("name", ["DPM fast", "DPM adaptive"])
def test_the_reference_cannot_take_a_single_step(name: str) -> None:  # STEP-4
    with pytest.raises(SamplingError, match="eta must be 0 for reverse sampling"):
        drive(started(SPEC[name], walk=[0.5, 0.0], quirks=AS_REFERENCE))


@pytest.mark.parametrize("used", [0, 1, 2])
def test_short_runs_of_unipc(used: int) -> None:  # TUP-5
    with pytest.raises(SamplingError, match="UniPC order must be < sampling steps"):
        drive(started(SPEC["UniPC"], walk=USED[:used], quirks=AS_REFERENCE))
    run = drive(started(SPEC["UniPC"], walk=USED[:used]), lambda query: query.x * 0.1)
    assert len(run.asked) == used
    assert run.result.isfinite().all()


@pytest.mark.parametrize("spec", OVER_TIMESTEPS[:3], ids=by_name)
def test_the_reference_never_visits_the_lowest_timestep(spec: SamplerSpec) -> None:  # STEP-5
    def answer(query: Query) -> Tensor:
        return torch.zeros(2, *query.x.shape) if query.parts else torch.zeros_like(query.x)

    assert drive(started(spec), answer).asked[-1] == 1
    assert drive(started(spec, quirks=AS_REFERENCE), answer).asked[-1] == 101
    assert torch.equal(drive(started(spec, walk=[], quirks=AS_REFERENCE)).result, START)


def test_a_brownian_sampler_needs_a_path() -> None:
    with pytest.raises(ValueError, match="give `path`"):
        make(SPEC["DPM++ SDE"], START, toy_sigmas(), alphas_cumprod=ALPHAS, noise=ToyNoise())


def test_eta_and_churn_reach_whom_they_should() -> None:  # PAR-1, PAR-2
    for spec in OVER_SIGMAS:
        plain = drive(started(spec)).result
        changed = {
            "eta": (drive(started(spec, eta=0.3)).result, spec.takes_eta),
            "amount": (drive(started(spec, churn=Churn(amount=3.0))).result, spec.churn == "all"),
            "noise": (drive(started(spec, churn=Churn(3.0, noise=0.5))).result, spec.churn != "none"),
        }
        for what, (result, expected) in changed.items():
            assert torch.equal(result, plain) != expected, (spec.name, what)


def walk_of(case: dict[str, Any]) -> tuple[SamplerSpec, list[float], np.ndarray[Any, Any]]:
    """What `plan` would hand to the sampler of a recorded case."""
    params, options = case["params"], case.get("opts") or {}
    spec, label = normalise(params["sampler_name"], params.get("scheduler"), quirks=AS_REFERENCE)
    steps, t_enc = img2img_steps(params["steps"], params["denoising_strength"], options.get("img2img_fix_steps", False))
    table = NoiseTable.default().lcm() if spec.family == "lcm" else NoiseTable.default()
    if spec.family == "timestep":
        _, used = start_of_timesteps(timesteps_for(steps), t_enc, AS_REFERENCE)
        return spec, [float(t) for t in used], table.alphas_cumprod
    schedule = ScheduleOptions(is_sdxl=case["checkpoint"] == "tiny-sdxl")
    sigmas, _ = sigmas_for(label, steps, table, schedule, sampler=spec, quirks=AS_REFERENCE)
    return (
        spec,
        [float(each) for each in sigmas[start_index(sigmas, steps, t_enc, AS_REFERENCE) :]],
        table.alphas_cumprod,
    )


def test_recorded_noise_levels_of_every_call(parity: Path) -> None:  # STEP-4, STEP-5, UPD, TUP
    tables_of_another_job = ("sd_noise_schedule", "use_downcasted_alpha_bar")
    prefixes = ("sampler", "sched_", "strength_", "steps_", "fix_steps", "eta_", "churn_", "unipc_", "sdxl_")
    compared = set()
    for case in json.loads((parity / "cases.json").read_text()):
        options = case.get("opts") or {}
        of_interest = case["name"].startswith(prefixes) and not case.get("expect_error")
        if not of_interest or any(each in options for each in tables_of_another_job):
            continue
        spec, walk, alphas = walk_of(case)
        if spec.adaptive:  # its calls depend on the answers
            continue
        with np.load(parity / "goldens" / case["name"] / "data.npz") as recorded:
            asked = recorded["cfg_sigma"][:, 0] if "cfg_sigma" in recorded else np.zeros(0)
        eta = case["params"].get("eta")
        s_max = options.get("s_tmax") or math.inf
        unipc = {name.removeprefix("uni_pc_"): value for name, value in options.items() if name.startswith("uni_pc_")}
        run = drive(
            make(
                spec,
                START,
                walk,
                alphas_cumprod=alphas,
                noise=ToyNoise(),
                path=ToyNoise(),
                eta=float(spec.family != "timestep") if eta is None else eta,
                churn=Churn(options.get("s_churn", 0.0), t_max=s_max),
                unipc_options=UniPCOptions(**unipc),
                quirks=AS_REFERENCE,
            ),
            lambda query: torch.zeros(2, 1, 4, 1, 1) if query.parts else torch.zeros(1, 4, 1, 1),
        )
        np.testing.assert_allclose(run.asked, asked, rtol=1e-6, atol=1e-6, err_msg=case["name"])
        compared.add(spec.name)
    assert compared == set(SPEC) - {"DPM adaptive"}
