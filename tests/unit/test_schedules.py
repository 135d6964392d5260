"""SIG, SCH, TS, STEP: noise levels, schedules, and where img2img starts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.errors import RequestError
from overpaint.sampler_table import SAMPLERS, SCHEDULERS, normalise
from overpaint.schedules import (
    NoiseTable,
    ScheduleOptions,
    img2img_steps,
    sigmas_for,
    start_index,
    timestep_start,
    timesteps_for,
)
from overpaint.settings import Quirks
from tests.conftest import needs_whole_set

TABLE = NoiseTable.default()
AS_REFERENCE = Quirks.reference()
LABELS = [each.label for each in SCHEDULERS]
SAMPLER = {each.name: each for each in SAMPLERS}


def test_the_models_levels() -> None:  # SIG-1, SIG-2
    assert TABLE.alphas_cumprod[[0, 500, 999]] == pytest.approx([0.99914998, 0.27633268, 0.00466010], rel=2e-6)
    expected = [0.02916753, 0.04131448, 1.61827886, 14.52627563, 14.61464214]
    assert TABLE.sigmas[[0, 1, 500, 998, 999]] == pytest.approx(expected, rel=2e-7)


def test_zero_terminal_snr() -> None:  # SIG-10
    table = NoiseTable.zero_terminal_snr()
    expected = [0.02916753, 0.04206696, 1.77455736, 2254.2354, 4518.7637]
    assert table.sigmas[[0, 1, 500, 998, 999]] == pytest.approx(expected, rel=1e-6)
    assert table.alphas_cumprod[999] == np.float32(4.8973451890853435e-08)


def test_downcasted_levels_are_half_precision_numbers() -> None:  # SIG-9
    table = NoiseTable.default().downcasted()
    for values in (table.alphas_cumprod, table.sigmas, table.log_sigmas):
        assert values.dtype == np.float32
        assert np.array_equal(values, values.astype(np.float16))
    assert table.sigma_max == pytest.approx(14.61, rel=2e-3)


def test_recorded_levels(parity: Path) -> None:  # SIG-1 to SIG-4
    with np.load(parity / "unit" / "schedules_tiny-sd15.npz") as recorded:
        assert np.array_equal(TABLE.alphas_cumprod, recorded["alphas_cumprod"])
        np.testing.assert_allclose(TABLE.sigmas, recorded["model_sigmas"], rtol=2e-7)
        np.testing.assert_allclose(
            TABLE.sigma_to_t(recorded["sigma_to_t_in"]), recorded["sigma_to_t_out"], rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("table", [TABLE, TABLE.lcm(), replace(TABLE, quantized=True)], ids=["k", "lcm", "quantized"])
def test_sigma_and_timestep_are_inverse(table: NoiseTable) -> None:  # SIG-3, SIG-4, LCM-1
    t = np.arange(table.first, 1000, table.stride)
    assert np.allclose(table.sigma_to_t(table.t_to_sigma(t)), t, atol=2e-3)
    np.testing.assert_allclose(table.t_to_sigma(t), table.sigmas, rtol=1e-6)


def test_interpolation_between_timesteps() -> None:  # SIG-3, SIG-4
    assert TABLE.t_to_sigma(0.5) == pytest.approx(math.sqrt(TABLE.sigmas[0] * TABLE.sigmas[1]))
    assert TABLE.sigma_to_t([0.001, 1e9]).tolist() == [0.0, 999.0]
    between = float(TABLE.t_to_sigma(400.3))
    assert float(TABLE.sigma_to_t(between)) == pytest.approx(400.3, abs=1e-3)
    assert float(replace(TABLE, quantized=True).sigma_to_t(between)) == 400


def test_lcm_knows_fifty_levels() -> None:  # LCM-1
    table = TABLE.lcm()
    assert table.sigmas.shape == (50,)
    assert float(table.sigma_to_t(100.0)) == 999
    assert float(table.t_to_sigma(5.0)) == pytest.approx(table.sigma_min)


@pytest.mark.parametrize("model", ["tiny-sd15", "tiny-sdxl"])
def test_recorded_schedules(parity: Path, model: str) -> None:  # SCH-0 to SCH-14, TS-1
    options = ScheduleOptions(is_sdxl=model == "tiny-sdxl")
    with np.load(parity / "unit" / f"schedules_{model}.npz") as recorded:
        keys = [key for key in recorded.files if "|" in key]
        assert len(keys) == 477
        for key in keys:
            name, label, steps = key.split("|")
            spec, label = normalise(name, label)
            if spec.family == "timestep":
                assert timesteps_for(int(steps)) == tuple(recorded[key]), key
                continue
            table = TABLE.lcm() if spec.family == "lcm" else TABLE
            got, _ = sigmas_for(label, int(steps), table, options, sampler=spec, quirks=AS_REFERENCE)
            np.testing.assert_allclose(got, recorded[key], rtol=1e-6, err_msg=key)


@needs_whole_set
def test_recorded_schedules_of_whole_jobs(parity: Path) -> None:  # SIG-9, SIG-10, STEP-3
    tables = {
        "downcast_alphas_second_run": TABLE.downcasted(),
        "sched_ztsnr_second_run": NoiseTable.zero_terminal_snr(),
    }
    cases = {each["name"]: each for each in json.loads((parity / "cases.json").read_text())}
    for name, table in tables.items():
        params = cases[name]["params"]
        spec, label = normalise(params["sampler_name"], params["scheduler"])
        got, _ = sigmas_for(label, params["steps"], table, sampler=spec)
        with np.load(parity / "goldens" / name / "data.npz") as recorded:
            np.testing.assert_allclose(got, recorded["schedule_0"], rtol=1e-6, err_msg=name)


CHECKED = {  # SCH-16, n=10
    "Uniform": "14.61464 7.83988 4.60917 2.91831 1.95016 1.34493 0.93236 0.62498 0.36866 0.02917 0",
    "Karras": "14.61464 9.10293 5.4784 3.16861 1.74942 0.91408 0.44692 0.2014 0.08191 0.02917 0",
    "Exponential": "14.61464 7.32488 3.67124 1.84003 0.92223 0.46222 0.23167 0.11611 0.0582 0.02917 0",
    "SGM Uniform": "14.61464 8.30717 5.09241 3.32507 2.27973 1.61558 1.16286 0.83188 0.57119 0.3437 0",
    "KL Optimal": "14.61463 4.56504 2.63289 1.78645 1.29477 0.96159 0.71163 0.50942 0.33564 0.17835 0.02917",
    "Align Your Steps": "14.615 6.11351 3.56511 2.39387 1.64996 1.13579 0.74252 0.44501 0.16921 0.029 0",
    "Simple": "14.61464 8.3028 5.08776 3.32108 2.27646 1.61289 1.16058 0.82986 0.56928 0.34167 0",
    "DDIM": "8.39069 5.13443 3.34776 2.29285 1.62369 1.16822 0.83565 0.57405 0.34619 0.04131 0",
    "Beta": "14.61464 13.92779 12.49098 10.59761 8.44244 6.20137 4.0462 2.15283 0.71602 0.02917 0",
}
CHECKED["Automatic"] = CHECKED["Normal"] = CHECKED["Uniform"]
CHECKED["Polyexponential"] = CHECKED["Exponential"]


@pytest.mark.parametrize("label", LABELS)
def test_ten_steps(label: str) -> None:  # SCH-16
    got, _ = sigmas_for(label, 10, TABLE, quirks=AS_REFERENCE)
    assert got.dtype == np.float32
    assert got == pytest.approx([float(each) for each in CHECKED[label].split()], abs=6e-6)


@given(label=st.sampled_from(LABELS), steps=st.integers(1, 150))
def test_a_sane_schedule_falls_to_zero_in_as_many_steps_as_asked(label: str, steps: int) -> None:
    got, _ = sigmas_for(label, steps, TABLE)
    assert len(got) == steps + 1
    assert got[-1] == 0
    assert (np.diff(got) < 0).all()


def test_accidents_of_two_schedules() -> None:  # SCH-7, SCH-11, STEP-4
    assert len(sigmas_for("DDIM", 30, TABLE, quirks=AS_REFERENCE)[0]) == 32
    kept, _ = sigmas_for("KL Optimal", 8, TABLE, quirks=AS_REFERENCE)
    assert len(kept) == 9
    assert kept[-1] == np.float32(TABLE.sigma_min)


def test_discarding_the_penultimate_sigma() -> None:  # SCH-14
    whole, _ = sigmas_for("Karras", 9, TABLE)
    discarded, notes = sigmas_for("Karras", 8, TABLE, ScheduleOptions(discard=True))
    assert np.array_equal(discarded, np.delete(whole, -2))
    assert list(notes.items()) == [("Discard penultimate sigma", True), ("Schedule type", "Karras")]
    by_sampler, notes = sigmas_for("Automatic", 8, TABLE, sampler=SAMPLER["DPM2"])
    assert np.array_equal(by_sampler, discarded)
    assert dict(notes) == {"Schedule type": "Karras"}


def test_what_the_infotext_says() -> None:  # SCH-13, PAR of section 4
    assert sigmas_for("Automatic", 8, TABLE, sampler=SAMPLER["Euler"])[1] == {}
    options = ScheduleOptions(sigma_min=0.1, sigma_max=9.5, rho=5.0)
    got, notes = sigmas_for("Automatic", 8, TABLE, options, sampler=SAMPLER["DPM++ 2M"])
    assert list(notes.items()) == [
        ("Schedule type", "Karras"),
        ("Schedule min sigma", 0.1),
        ("Schedule max sigma", 9.5),
        ("Schedule rho", 5.0),
    ]
    assert got[[0, -2]] == pytest.approx([9.5, 0.1], rel=1e-6)
    _, notes = sigmas_for("Beta", 8, TABLE)
    assert list(notes.items())[1:] == [("Beta schedule alpha", 0.6), ("Beta schedule beta", 0.6)]
    same = ScheduleOptions(sigma_min=TABLE.sigma_min, rho=7.0)
    assert sigmas_for("Karras", 8, TABLE, same)[1] == {"Schedule type": "Karras"}


def test_options_that_move_the_ends() -> None:
    old, _ = sigmas_for("Karras", 8, TABLE, ScheduleOptions(old_karras=True))
    assert old[[0, -2]] == pytest.approx([10, 0.1], rel=1e-6)
    for label in ("Align Your Steps", "Uniform", "Simple", "DDIM"):
        moved, _ = sigmas_for(label, 8, TABLE, ScheduleOptions(sigma_max=9.5))
        assert np.array_equal(moved, sigmas_for(label, 8, TABLE)[0])
    no_rho, notes = sigmas_for("Exponential", 8, TABLE, ScheduleOptions(rho=3.0))
    assert "Schedule rho" not in notes
    assert np.array_equal(no_rho, sigmas_for("Exponential", 8, TABLE)[0])


def test_zero_steps_and_unknown_labels() -> None:  # STEP-10
    assert sigmas_for("Karras", 0, TABLE)[0].tolist() == [0.0]
    with pytest.raises(RequestError, match="scheduler='karras': choose one of Automatic"):
        sigmas_for("karras", 8, TABLE)


def test_recorded_step_arithmetic(parity: Path) -> None:  # STEP-3
    cases = json.loads((parity / "unit" / "img2img_steps.json").read_text())
    assert len(cases) == 224
    for case in cases:
        assert list(img2img_steps(case["steps"], case["strength"], case["fix"])) == case["result"], case


def test_where_sigmas_start() -> None:  # STEP-4
    schedule, _ = sigmas_for("Karras", 10, TABLE)
    first = start_index(schedule, 10, 7)
    assert len(schedule) - 1 - first == 8
    assert start_index(schedule, 10, 7, AS_REFERENCE) == first == 2
    long, _ = sigmas_for("DDIM", 30, TABLE, quirks=AS_REFERENCE)
    assert len(long) - 1 - start_index(long, 30, 20, AS_REFERENCE) == 22
    exact, _ = sigmas_for("DDIM", 30, TABLE)
    assert len(exact) - 1 - start_index(exact, 30, 20) == 21
    assert start_index(sigmas_for("Karras", 0, TABLE)[0], 0, 5, AS_REFERENCE) == 0


def test_timesteps() -> None:  # TS-1
    assert timesteps_for(20) == tuple(range(1, 952, 50))
    assert (len(timesteps_for(30)), timesteps_for(30)[-1]) == (31, 991)
    assert len(timesteps_for(150)) == 167
    assert timesteps_for(1000)[-2:] == (999, 999)
    for steps in (0, 1001):
        with pytest.raises(RequestError, match="steps="):
            timesteps_for(steps)


def test_where_timesteps_start() -> None:  # STEP-5
    steps = timesteps_for(10)
    assert timestep_start(steps, 7, AS_REFERENCE) == (701, (1, 101, 201, 301, 401, 501, 601))
    assert timestep_start(steps, 7) == (701, (1, 101, 201, 301, 401, 501, 601, 701))
    assert timestep_start(steps, 0, AS_REFERENCE) == (1, ())
