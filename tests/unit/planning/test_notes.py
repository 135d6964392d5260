"""What a plan warns of: what was asked and has no effect."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from overpaint.models.built_in import DATA, built_in_names, built_in_path, default_path, words_of
from overpaint.planning.plan import plan
from overpaint.planning.plans import Surroundings
from overpaint.planning.preflight import account_of
from overpaint.request import Img2ImgRequest, Txt2ImgRequest
from overpaint.settings import Settings
from tests.unit.fake_painter import drawing


def warnings_of(known: Surroundings | None = None, **fields: Any) -> tuple[str, ...]:
    return plan(Img2ImgRequest(images=(drawing(),), **fields), known=known).warnings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("only_masked", True),
        ("padding", 4),
        ("masked_content", "noise"),
        ("invert_mask", True),
        ("round_mask", False),
        ("mask_blur_x", 9),
    ],
)
def test_what_is_about_a_mask_does_nothing_without_one(name: str, value: object) -> None:
    given: dict[str, Any] = {name: value}
    (warning,) = warnings_of(**given)
    assert warning == f"{name}: it does nothing without a mask; give one, or leave it out"
    mask = Image.new("L", (32, 24))
    mask.paste(255, (8, 8, 24, 20))
    assert warnings_of(**given, mask=mask) == ()


def test_nothing_is_said_of_what_was_left_alone() -> None:
    assert warnings_of() == ()
    assert plan(Txt2ImgRequest(prompt="x")).warnings == ()


def test_gray_that_is_rounded_is_told_with_what_it_selects() -> None:
    mask = Image.linear_gradient("L").resize((32, 24))
    decided = plan(Img2ImgRequest(images=(drawing(),), mask=mask))
    (warning,) = decided.warnings
    told = account_of(decided)["repainted"]
    assert 0 < told <= 100
    assert warning.startswith(f"mask: its gray is read as black or white; {told} % of the picture may change")
    assert plan(Img2ImgRequest(images=(drawing(),), mask=mask, round_mask=False)).warnings == ()


def test_the_edge_of_a_brush_is_no_gray_mask() -> None:
    mask = Image.new("L", (256, 192))
    mask.paste(255, (50, 50, 200, 150))
    soft = mask.resize((128, 96), Image.Resampling.BICUBIC).rotate(7, Image.Resampling.BICUBIC)
    assert plan(Img2ImgRequest(images=(drawing((128, 96)),), mask=soft)).warnings == ()


class TestWords:
    KNOWN = Surroundings(words=frozenset({"a", "forest", "lake", "castle"}))

    def test_unknown_ones_are_named(self) -> None:
        (warning,) = warnings_of(
            self.KNOWN, prompt="a (Cyberpunk:1.2) city AND a lake, [neon::0.5] <lora:x:1>", use_networks=False
        )
        assert (
            warning
            == "prompt: the built-in model does not know 'cyberpunk', 'city', 'neon'; it knows castle, forest, lake"
        )

    def test_known_and_little_ones_are_not(self) -> None:
        assert warnings_of(self.KNOWN, prompt="a forest near a lake BREAK 4") == ()
        assert warnings_of(prompt="a cyberpunk city") == ()  # nobody knows what other models know

    def test_only_models_of_the_package_have_a_list(self, tmp_path: Any) -> None:
        words = words_of(default_path())
        assert {"forest", "watercolor", "car"} < words and "cyberpunk" not in words
        assert all(words_of(built_in_path(name, cache=tmp_path / "x")) for name in built_in_names()[:1])
        assert words_of(tmp_path / "overpaint-mini.safetensors") == frozenset()
        assert (DATA / "words.txt").is_file()


def test_the_settings_of_a_site_do_not_matter() -> None:
    assert plan(Img2ImgRequest(images=(drawing(),)), Settings.reference()).warnings == ()
