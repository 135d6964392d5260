"""Scripts at the contract's door: soft inpainting runs, what asks for nothing passes, all else is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from overpaint.contract.scripts import scripts_of, soft_inpainting
from overpaint.errors import RequestError
from overpaint.parts import SoftInpainting


def scripts(is_img2img: bool = True, **given: Any) -> SoftInpainting | None:
    job = SimpleNamespace(**{"script_args": None, "alwayson_scripts": None, "scripts": None, **given})
    return scripts_of(job, is_img2img=is_img2img)


def test_soft_inpainting_by_position() -> None:  # SOFT-1
    assert scripts() is None
    assert scripts(alwayson_scripts={"Soft Inpainting": {"args": [True, 2, 0.25]}}) == SoftInpainting(
        schedule_bias=2, preservation_strength=0.25
    )
    assert scripts(alwayson_scripts={"soft inpainting": {"args": [False, 2]}}) is None
    assert soft_inpainting(()) is None and soft_inpainting([True]) == SoftInpainting()


@pytest.mark.parametrize("nothing", [{}, {"args": []}, {"args": [False, 1, "x"]}, {"args": [{"enabled": False}]}, None])
def test_a_script_that_asks_for_nothing_passes(nothing: Any) -> None:
    assert scripts(alwayson_scripts={"Any": nothing}) is None


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"alwayson_scripts": {"ControlNet": {"args": [{"model": "x"}]}}}, "has no ControlNets"),
        ({"alwayson_scripts": {"Seed": {"args": [1]}}}, "use the job's own fields"),
        ({"alwayson_scripts": {"soft inpaintin": {"args": [True]}}}, "did you mean 'Soft inpainting'"),
        ({"alwayson_scripts": {"X": {"args": [True]}}}, "do not run here"),
        ({"alwayson_scripts": {"soft inpainting": {"args": 5}}}, "a list of arguments by position"),
        ({"scripts": "any"}, "do not run here"),
        ({"script_args": [1]}, "do not run here"),
    ],
)
def test_what_does_not_run_is_refused(given: dict[str, Any], remedy: str) -> None:
    with pytest.raises(RequestError, match=remedy):
        scripts(**given)


def test_soft_inpainting_is_for_img2img_only() -> None:
    with pytest.raises(RequestError, match="works in img2img only"):
        scripts(is_img2img=False, alwayson_scripts={"soft inpainting": {"args": [True]}})
