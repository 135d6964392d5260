"""TAB, NAME: the tables of samplers and schedules, and what their names may look like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overpaint.errors import RequestError
from overpaint.sampler_table import SAMPLERS, SCHEDULERS, normalise
from overpaint.settings import Quirks

AS_REFERENCE = Quirks(unknown_names_fall_back=True)


def names(sampler: str | None, scheduler: str | None, *, quirks: Quirks | None = None) -> str:
    spec, label = normalise(sampler, scheduler, quirks=quirks)
    return f"{spec.name}/{label}"


def test_samplers_are_listed_as_the_reference_lists_them(parity: Path) -> None:  # TAB-1
    recorded = json.loads((parity / "api" / "GET_samplers.json").read_text())
    ours = [{"name": s.name, "aliases": list(s.aliases), "options": s.options} for s in SAMPLERS]
    assert ours == recorded


def test_schedulers_are_listed_as_the_reference_lists_them(parity: Path) -> None:  # SCH
    recorded = json.loads((parity / "api" / "GET_schedulers.json").read_text())
    ours = [
        {
            "name": s.name,
            "label": s.label,
            "aliases": list(s.aliases) or None,
            "default_rho": -1.0 if s.default_rho is None else s.default_rho,
            "need_inner_model": s.needs_model,
        }
        for s in SCHEDULERS
    ]
    assert ours == recorded


def test_recorded_names(parity: Path) -> None:  # NAME-1
    recorded = json.loads((parity / "unit" / "sampler_names.json").read_text())
    assert recorded
    for sampler, scheduler, _, _, *wanted in recorded:
        assert names(sampler, scheduler, quirks=AS_REFERENCE).rsplit("/", 1) == wanted, (sampler, scheduler)


@pytest.mark.parametrize(
    ("sampler", "scheduler", "meant"),
    [
        ("DPM++ 2M Karras", None, "DPM++ 2M/Karras"),
        ("DPM++ SDE Karras", "Uniform", "DPM++ SDE/Karras"),
        ("Euler sgm_uniform", None, "Euler/SGM Uniform"),
        ("Euler SGM Uniform", None, "DPM++ 2M/Uniform"),
        ("euler a", None, "DPM++ 2M/Automatic"),
        ("Euler", "bogus", "Euler/Automatic"),
        ("DDIM DDIM", None, "DDIM/DDIM"),
        ("UniPC Karras", None, "UniPC/Karras"),
        (None, None, "DPM++ 2M/Automatic"),
    ],
)
def test_examples_of_the_reference(sampler: str | None, scheduler: str | None, meant: str) -> None:  # NAME-3
    assert names(sampler, scheduler, quirks=AS_REFERENCE) == meant


@pytest.mark.parametrize(
    ("sampler", "scheduler", "meant"),
    [
        ("euler a", None, "Euler a/Automatic"),
        ("k_euler_ancestral", "", "Euler a/Automatic"),
        ("Euler SGM Uniform", None, "Euler/SGM Uniform"),
        ("euler  sgmuniform", "automatic", "Euler/SGM Uniform"),
        ("dpm++ 2m karras", "Automatic", "DPM++ 2M/Karras"),
        ("DPM++ 2M Karras", "karras", "DPM++ 2M/Karras"),
        ("Euler", "ALIGN YOUR STEPS", "Euler/Align Your Steps"),
        ("DDIM", None, "DDIM/Automatic"),
        (None, "simple", "DPM++ 2M/Simple"),
    ],
)
def test_names_are_read_kindly(sampler: str | None, scheduler: str | None, meant: str) -> None:  # NAME-4
    assert names(sampler, scheduler) == meant


def test_every_name_and_alias_finds_its_sampler() -> None:
    for each in SAMPLERS:
        for name in (each.name, *each.aliases):
            assert normalise(name.upper(), None) == (each, "Automatic")


@pytest.mark.parametrize(
    ("sampler", "scheduler", "hint"),
    [
        ("Eular a", None, "'Euler a'"),
        ("Euler", "karas", "'Karras'"),
        ("qqqq", None, "choose one of"),
        ("Euler Karras", "Simple", "already names another"),
    ],
)
def test_unknown_names_are_errors_that_help(sampler: str, scheduler: str | None, hint: str) -> None:
    with pytest.raises(RequestError, match=r"sampler=|scheduler=") as caught:
        normalise(sampler, scheduler)
    assert hint in str(caught.value)
