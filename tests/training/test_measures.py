"""Figures that mean what they say: seams, layouts, and the card they are written into."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.card import CARD, section, write_card
from training.evaluate import seam_figures
from training.masks import around
from training.measures import alike, edges, in_cells, lightness, psnr, ring, step_across
from training.scenes.art import DrawnArt
from training.scenes.labels import Item, Labels
from training.scenes.scene import render

BOX = (0.25, 0.25, 0.75, 0.75)
FACETS = ("place", "time", "weather", "style", "paint", "thing")


def test_decibels_and_likeness() -> None:
    dark, light = np.zeros((8, 8, 3), dtype=np.uint8), np.full((8, 8, 3), 255, dtype=np.uint8)
    assert psnr(dark, light) == pytest.approx(0)
    slope = np.arange(64.0).reshape(8, 8)
    assert alike(slope, 3 * slope + 2) == pytest.approx(1) and alike(slope, -slope) == pytest.approx(-1)
    assert alike(dark[..., 0] * 1.0, light[..., 0] * 1.0) == 1 and alike(slope, np.zeros((8, 8))) == 0


def test_a_layout_survives_softness_but_not_another_scene() -> None:
    first, second = (
        lightness(render((9, number), 64, DrawnArt(), Labels(place=place, items=(Item("fox"),))).pixels)
        for number, place in ((1, "road"), (2, "forest"))
    )
    soft = np.repeat(np.repeat(in_cells(first, 2), 2, axis=0), 2, axis=1)
    assert alike(edges(in_cells(first)), edges(in_cells(soft))) > 0.99
    assert alike(edges(in_cells(first)), edges(in_cells(second))) < 0.5


def test_a_ring_lies_outside_and_ends_at_the_picture() -> None:
    mask = around(BOX, 32)
    assert ring(mask, 2).sum() == 20 * 20 - 16 * 16 and not (ring(mask, 2) & mask).any()
    corner = around((0, 0, 0.5, 0.5), 32)
    assert ring(corner, 2).sum() == 18 * 18 - 16 * 16


def test_a_pasted_box_has_a_step_and_a_smooth_picture_none() -> None:
    smooth = np.repeat(np.linspace(0, 60, 32)[:, None], 32, axis=1)
    pasted = smooth + 100.0 * around(BOX, 32)
    assert step_across(pasted, BOX) > step_across(smooth, BOX) + 80
    assert step_across(smooth, (0, 0, 1, 1)) == 0  # no side lies within the picture


def test_a_seam_is_told_from_the_codecs_own_error() -> None:
    source = np.full((1, 32, 32, 3), 100, dtype=np.uint8)
    mask = around(BOX, 32)
    painted = source.copy()
    painted[0][mask] = 220
    rebuilt = source + np.uint8(10)
    figures = seam_figures(painted, source, rebuilt, [mask], [BOX])
    assert figures["beside the mask, dB"] > 90 and figures["codec there, dB"] == pytest.approx(28.13, abs=0.01)
    assert figures["step across the border"] > 100 and figures["step there in the source"] == 0


def _figures() -> dict[str, dict[str, float]]:
    by_strength = {"codec alone": 0.9, "0.2": 0.8, "0.3": 0.7, "1.0": 0.2}
    inpainting = {"thing": 0.5, "beside the mask, dB": 30.0, "codec there, dB": 29.0}
    inpainting |= {"step across the border": 20.0, "step there in the source": 18.0}
    shares = dict.fromkeys(FACETS, 0.875)
    return {
        "prompts": {"count": 40},
        "codec, dB": {"mean": 26.5, "median": 26.0, "photo": 25.0},
        "error of the first guess": {"right caption": 0.3, "no caption": 0.6, "wrong caption": 1.1},
        "judge on true pictures": shares,
        "judge, through the codec": shares,
        "txt2img": shares,
        "img2img at 0.75": shares,
        "likeness by strength": by_strength,
        "layout by strength": by_strength,
        "fine edges by strength": by_strength,
        "inpainting": inpainting,
    }


def test_the_card_is_written_from_the_figures(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(_figures()))
    (tmp_path / "evaluation-inpaint.json").write_text(json.dumps({"inpainting": _figures()["inpainting"]}))
    card = tmp_path / "card.md"
    card.write_text("before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n")
    write_card(tmp_path, card)
    text = card.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| codec, mean PSNR | 26.5 dB (photo 25.0) | 26 dB |" in text
    assert "88, 88, 88, 88, 88, 88 %" in text and "| inpainting sibling: the thing asked for | 50 % | 60 % |" in text
    assert "<!-- figures: begin -->" in CARD.read_text("utf-8") and section(tmp_path) in text
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(ValueError, match="put the two lines"):
        write_card(tmp_path, tmp_path / "bare.md")
