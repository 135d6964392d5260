"""Grids: axes from text, cells in an order that loads no model twice, sheets, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, ImageChops

from overpaint.errors import RequestError
from overpaint.parts import Hires, Lora
from overpaint.request import Txt2ImgRequest
from overpaint.sequences.axes import GridAxis, axis_of
from overpaint.sequences.grid import PictureGrid
from overpaint.sequences.scripts import script_sequence
from overpaint.sequences.sheets import labelled_sheet
from overpaint.sequences.story import StepResult
from overpaint.settings import Settings
from tests.unit.toy_job import asked, noisy_picture


def plot(*args: Any, **fields: Any) -> PictureGrid:
    """The reference's plot, the arguments that are not given at their defaults."""
    defaults = ["Nothing", "", []] * 3 + [True, False, False, False, False, False, False, 0, False]
    defaults[: len(args)] = args
    grid = script_sequence("X/Y/Z plot", defaults, asked(**fields), Settings.reference())
    assert isinstance(grid, PictureGrid)
    return grid


def painted(grid: PictureGrid, count: int | None = None) -> list[StepResult]:
    picture = noisy_picture(16, 16)
    count = len(grid) if count is None else count
    return [StepResult(pictures=(picture,), infotexts=(f"cat\nSteps: 4, Seed: {n}, Version: 1",)) for n in range(count)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("steps=10,20, 30", (10, 20, 30)),
        ("steps=1-5", (1, 2, 3, 4, 5)),
        ("steps=10-5 (-3)", (10, 7)),
        ("steps=1-10 [4]", (1, 4, 7, 10)),
        ("steps=2, 4-5", (2, 4, 5)),
        ("cfg_scale=1-3 (+0.5)", (1, 1.5, 2, 2.5, 3)),
        ("strength=0.2-0.8[4]", (0.2, 0.4, 0.6, 0.8)),
        ("sampler=Euler, DPM++ 2M", ("Euler", "DPM++ 2M")),
        ('replace=cat,"dog, brown"', ("cat", "dog, brown")),
        ("only_masked=true,no", (True, False)),
        ("size=64x32, 32 x 64", ((64, 32), (32, 64))),
        ("styles=a+b,c", (("a", "b"), ("c",))),
        ("lora ink=0,0.5", (0.0, 0.5)),
        ("rho=5,7", (5.0, 7.0)),
        ("order=a,b", (("a", "b"), ("b", "a"))),
    ],
)
def test_axes_from_text(text: str, values: tuple[Any, ...]) -> None:
    axis = axis_of(text)
    assert axis is not None
    assert axis.values == values


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("stepps=1,2", "did you mean 'steps'"),
        ("steps=", "axis='steps=': it needs at least one value"),
        ({"steps": []}, "at least one value"),
        ("steps", "FIELD=VALUE"),
        ("steps=a", "whole numbers"),
        ("steps=1-5 (-1)", "never reaches"),
        ("cfg_scale=x", "give numbers"),
        ("batch_size=1,2", "axis='batch_size'"),
        ("images=1", "axis='images'"),
        ("size=64", "512x768"),
        ("exact=maybe", "true or false"),
        (("steps", 5), "a list of values"),
        (5, "a field and its values"),
        ("lora =1", "axis="),
        ("steps=1-100000", "at most 1000"),
        ("order=a,b,c,d,e,f,g", "at most 6"),
    ],
)
def test_axes_that_are_refused(given: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        axis_of(given)


def test_what_cells_ask_for() -> None:
    grid = PictureGrid(
        request=asked(prompt="a cat, red", loras=(Lora(name="ink", weight=1.0),)),
        x=axis_of("replace=cat,dog"),
        y=axis_of({"lora ink": [0.2, 0.4]}),
        z=axis_of("rho=5,7"),
    )
    last = grid.step(7, []).request
    assert (last.prompt, last.loras, dict(last.overrides)) == (
        "a dog, red",
        (Lora(name="ink", weight=0.4),),
        {"rho": 7},
    )
    assert grid.step(0, []).label == "replace cat, lora ink 0.2, rho 5"
    ordered = PictureGrid(request=asked(prompt="a, b"), x=axis_of("order=a,b"))
    assert [ordered.step(n, []).request.prompt for n in range(2)] == ["a, b", "b, a"]


def test_cells_of_one_model_are_painted_together() -> None:
    grid = PictureGrid(request=asked(), x=axis_of("checkpoint=one,two"), y=axis_of("steps=1-3"))
    models = [grid.step(n, []).request.checkpoint for n in range(6)]
    assert models == ["one"] * 3 + ["two"] * 3
    done = [StepResult(pictures=(noisy_picture(8, 8, seed=n),), infotexts=(f"cell {n}",)) for n in range(6)]
    shown = grid.assembled(done, Settings())
    assert shown.infotexts[shown.first :] == tuple(f"cell {n}" for n in (0, 3, 1, 4, 2, 5))


def test_axes_of_a_second_pass() -> None:
    request = Txt2ImgRequest(prompt="a", hires=Hires())
    grid = PictureGrid(request=request, x=axis_of("hires.steps=3,5"), y=axis_of("strength=0.3,0.6"))
    last = grid.step(3, []).request
    assert isinstance(last, Txt2ImgRequest)
    assert last.hires is not None
    assert (last.hires.steps, last.hires.strength) == (5, 0.6)
    with pytest.raises(RequestError, match="no second pass"):
        PictureGrid(request=asked(), x=axis_of("hires.scale=2,3"))


def test_too_many_cells_are_refused_with_their_count() -> None:
    with pytest.raises(RequestError, match=r"10000 cells \(100 x 100 x 1\)"):
        PictureGrid(request=asked(), x=axis_of("seed=1-100"), y=axis_of("steps=1-100"))


def test_two_axes_about_one_field_and_words_that_are_not_there() -> None:
    with pytest.raises(RequestError, match="two axes are about one field"):
        PictureGrid(request=asked(), x=axis_of("steps=1,2"), y=axis_of("steps=3,4"))
    with pytest.raises(RequestError, match="neither prompt nor negative prompt has it"):
        PictureGrid(request=asked(prompt="a cat"), x=axis_of("replace=dog,cat"))
    with pytest.raises(RequestError, match="cfg_scale"):
        PictureGrid(request=asked(), x=GridAxis(field="cfg_scale", values=(-1000.0, 1)))


def test_the_references_plot() -> None:
    grid = plot("Steps", "1-2", [], "Prompt S/R", "cat, dog, cow", [], "Denoising", "0.5, 1", [], prompt="cat")
    assert len(grid) == 12
    shown = grid.assembled(painted(grid), Settings.reference())
    assert (shown.first, len(shown.images)) == (1, 1)
    assert shown.images[0].width > 4 * 16
    assert 'Script: X/Y/Z plot, X Type: Steps, X Values: "1, 2", Y Type: Prompt S/R' in shown.infotexts[0]
    assert shown.infotexts[0].endswith(", Version: 1")
    args = ["Steps", "1-2", [], "Nothing", "", [], "Denoising", "0.5,1", [], False, True, True]
    assert [each.size for each in plot(*args).assembled(painted(grid, 4), Settings()).images] == [
        (2 * 2 * 16 + 4, 16),
        (32, 16),
        (32, 16),
        *[(16, 16)] * 4,
    ]


def test_seeds_of_the_references_plot() -> None:
    varied = ["Steps", "1-2", [], "CFG Scale", "1,2", [], "Nothing", "", [], True, True, False, False, True, True]
    grid = plot(*varied, seed=10)
    assert [grid.step(n, []).request.seed for n in range(4)] == [10, 11, 12, 13]
    random = plot("Seed", "-1,-1,5", [])
    seeds = [random.step(n, []).request.seed for n in range(3)]
    assert -1 not in seeds
    assert seeds[2] == 5
    assert plot(10, "", ["Euler a"]).step(0, []).request.checkpoint == "Euler a"
    with pytest.raises(RequestError, match="not offered here"):
        plot("Face restore", "a")


def test_a_sheet_of_what_was_painted_before_a_stop() -> None:
    grid = plot("Steps", "1-3", [])
    assert len(grid.assembled(painted(grid, 2), Settings()).images) == 1
    assert grid.assembled([], Settings()).images == ()


@pytest.mark.parametrize("legend", ["", "Steps: 3"])
def test_a_sheet_with_titles_beside_its_rows_has_room_on_every_side(legend: str) -> None:
    red = [Image.new("RGB", (80, 60), "red")] * 4
    sheet = labelled_sheet(red, ["1", "2"], ["a", "b"], titles=("steps", ""), legend=legend)
    box = ImageChops.difference(sheet, Image.new("RGB", sheet.size, "white")).getbbox()
    assert box is not None
    left, top, right, bottom = box
    assert min(left, top, sheet.width - right, sheet.height - bottom) >= 4
    assert labelled_sheet(red, ["", ""], ["", ""]).size == (160, 120)


def test_the_legend_says_what_cells_have_in_common() -> None:
    grid = PictureGrid(request=asked(), x=axis_of("steps=1,2"))
    assert grid._legend("a cat\nSteps: 1, Sampler: Euler, Version: 3") == "a cat\nSampler: Euler"
