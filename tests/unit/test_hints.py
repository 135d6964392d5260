"""The name that was meant."""

from __future__ import annotations

import pytest

from overpaint.hints import closest, did_you_mean, listed
from overpaint.sampler_table import SAMPLERS


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("xloar", ["xloraboth", "xloha", "xlora"], "xlora"),
        ("dpmpp_2m", [each.name for each in SAMPLERS], "DPM++ 2M"),
        ("EULER-A", [each.name for each in SAMPLERS], "Euler a"),
        ("canny", ["control_v11p_sd15_canny", "control_v11f1p_sd15_depth"], "control_v11p_sd15_canny"),
        ("nothing like it", ["xlora"], None),
        ("", ["xlora"], None),
        ("x", [], None),
    ],
)
def test_the_closest(name: str, known: list[str], meant: str | None) -> None:
    assert closest(name, known) == meant


def test_other_names_lead_to_the_one_that_is_shown() -> None:
    assert did_you_mean("k_eulr", {"Euler": "Euler", "k_euler": "Euler", "heun": "Heun"}) == "did you mean 'Euler'?"


def test_long_lists_end_in_how_many_more_there_are() -> None:
    assert listed(map(str, range(23))) == "0, 1, 2, 3, 4, 5, 6, 7 ... and 15 more"
    assert (listed("abc"), listed([])) == ("a, b, c", "")
