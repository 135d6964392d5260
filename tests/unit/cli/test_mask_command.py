"""`overpaint mask`, and masks in words on the other commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from overpaint import masks
from overpaint.cli import main
from tests.unit.command import Capture, asked_for, painter
from tests.unit.fake_painter import FakePainter, drawing

__all__ = ["painter"]


def test_a_mask_is_drawn_shown_and_counted(painter: FakePainter, capsys: Capture) -> None:
    text = "rectangle 0,0,16,24 | feather in 2"
    assert main(["mask", "cat.png", text, "-o", "half.png", "--show"]) == 0
    assert Image.open("half.png").tobytes() == masks.draw(text, drawing()).tobytes()
    assert Image.open("half-shown.png").tobytes() == masks.overlay(drawing(), masks.draw(text, drawing())).tobytes()
    assert "% of 32x24  half-shown.png" in capsys.readouterr().out
    assert main(["mask", "cat.png", "rectangle 0,0,16,24", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"path": "cat-mask.png", "size": [32, 24], "coverage": 50.0, "box": [0, 0, 16, 24], "shown": None}


def test_nothing_is_overwritten_unasked(painter: FakePainter, capsys: Capture) -> None:
    before = Path("mask.png").read_bytes()
    assert main(["mask", "cat.png", "all", "-o", "mask.png"]) == 2
    assert "it exists" in capsys.readouterr().err and Path("mask.png").read_bytes() == before
    assert main(["mask", "cat.png", "all", "-o", "mask.png", "--overwrite"]) == 0
    assert Path("mask.png").read_bytes() != before


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["mask", "cat.png"], "EXPRESSION"),
        (["paint", "cat.png", "moon", "--mask"], "--mask"),
        (["plan", "cat.png", "--mask"], "--mask"),
    ],
)
def test_a_typo_is_shown_with_its_place(painter: FakePainter, capsys: Capture, command: list[str], named: str) -> None:
    assert main([*command, "ellipse 1,2,20,20 | grw 8"]) == 2
    complaint, shown, marks = capsys.readouterr().err.splitlines()
    assert complaint == f"overpaint: {named} 'grw': did you mean 'grow'? (at character 21)"
    assert shown == "  ellipse 1,2,20,20 | grw 8" and marks == " " * (2 + 20) + "^^^"
    assert not painter.requests and not list(Path().glob("*-mask*"))


def test_a_shape_outside_the_picture_is_named_as_the_command_has_it(painter: FakePainter, capsys: Capture) -> None:
    assert main(["mask", "cat.png", "rectangle 90,90,99,99"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("overpaint: EXPRESSION 'rectangle 90,90,99,99': it lies outside the picture of 32x24")
    assert "  ^^^" in told


def test_the_words_are_listed(painter: FakePainter, capsys: Capture) -> None:
    assert main(["mask", "--words"]) == 0
    told = capsys.readouterr().out
    assert "ellipse LEFT,TOP,RIGHT,BOTTOM" in told and "feather [in|out] PIXELS" in told
    assert main(["mask", "cat.png"]) == 2
    assert "--words lists them" in capsys.readouterr().err


def test_commands_take_words_for_a_mask(painter: FakePainter, capsys: Capture) -> None:
    text = "ellipse 4,4,28,20 | grow 2"
    assert main(["paint", "cat.png", "moon", "--mask", text, "--seed", "3", "-o", "a.png"]) == 0
    assert asked_for(painter).mask == masks.draw(text, drawing())
    assert main(["plan", "cat.png", "moon", "--mask", text, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["repainted"] > 50
    assert main(["again", "a.png", "--strength", "0.3"]) == 0
    again = asked_for(painter)
    assert again.mask is not None and again.mask.tobytes() == masks.threshold(masks.draw(text, drawing())).tobytes()
    assert main(["again", "a.png", "--mask", "all"]) == 0
    assert asked_for(painter).mask == masks.everything((32, 24))
    assert main(["paint", "cat.png", "--mask", "rectangle 90,90,99,99"]) == 2
    assert "it lies outside the picture of 32x24" in capsys.readouterr().err


def test_a_batch_takes_words_for_all_its_masks(painter: FakePainter, capsys: Capture) -> None:
    Path("in").mkdir()
    drawing().save("in/a.png")
    assert main(["batch", "in", "out", "moon", "--masks", "rectangle 0,0,9,9"]) == 0
    found = asked_for(painter).mask
    assert found is not None and found.getbbox() == (0, 0, 9, 9)
    assert main(["batch", "in", "out", "--masks", "rectangle 0,0,9"]) == 2
    assert "4 numbers belong together" in capsys.readouterr().err


def test_a_file_of_that_name_is_the_mask(painter: FakePainter) -> None:
    Path("mask.png").rename("alpha")
    assert main(["paint", "cat.png", "--mask", "alpha"]) == 0
    found = asked_for(painter).mask
    assert found is not None and found.getbbox() == (8, 8, 24, 20)


def test_a_strength_map_may_be_words_or_a_file_and_is_repeated(painter: FakePainter, capsys: Capture) -> None:
    text = "rectangle 0,0,16,24 | feather in 6"
    assert main(["paint", "cat.png", "moon", "--strength-map", text, "--seed", "3", "-o", "a.png"]) == 0
    drawn = masks.draw(text, drawing())
    assert asked_for(painter).strength_map == drawn and asked_for(painter).mask is None
    assert main(["again", "a.png", "-o", "b.png"]) == 0
    again = asked_for(painter).strength_map
    assert again is not None and again.tobytes() == drawn.tobytes()
    drawn.save("map.png")
    assert main(["paint", "cat.png", "--strength-map", "map.png", "-o", "c.png"]) == 0
    Path("map.png").unlink()
    assert main(["again", "c.png", "-o", "e.png"]) == 0  # a small one is in the recipe itself
    kept = asked_for(painter).strength_map
    assert kept is not None and kept.tobytes() == drawn.tobytes()
    assert main(["again", "c.png", "--strength-map", "all", "-o", "d.png"]) == 0
    assert asked_for(painter).strength_map == masks.everything((32, 24))
    assert main(["txt2img", "moon", "--strength-map", "all"]) == 2


def test_a_plan_tells_the_steps_of_each_strength(painter: FakePainter, capsys: Capture) -> None:
    text = "rectangle 0,0,16,24"
    assert main(["plan", "cat.png", "moon", "--strength-map", text, "--mask-blur", "0", "--strength", "0.5"]) == 0
    told = capsys.readouterr().out
    assert "strength 0.5   11 steps, 50.0 % of the picture" in told and "stays as it is, 50.0 %" in told
