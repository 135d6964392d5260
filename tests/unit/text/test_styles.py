"""Styles: merging, files, and finding them again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overpaint.errors import SettingError
from overpaint.text.styles import Style, apply_styles, extract_styles, find_styles, load_styles, merge_style

FRAMED = Style("framed", "painting of {prompt}, oil", "photo")
PLAIN = Style("plain", "masterpiece", "")
NEGATIVE = Style("negative", "", "blurry, {prompt}")
EMPTY = Style("empty", "", "")


@pytest.mark.parametrize(
    ("style", "prompt", "merged"),
    [  # STY-2
        ("a, {prompt}, b", "x", "a, x, b"),
        ("style", "x", "x, style"),
        ("style", "", "style"),
        ("", "x", "x"),
        ("", " x ", "x"),
        (" s ", " x ", "x, s"),
        ("{prompt} and {prompt}", "q", "q and q"),
    ],
)
def test_merge(style: str, prompt: str, merged: str) -> None:  # STY-1
    assert merge_style(style, prompt) == merged


def test_styles_apply_in_order() -> None:  # STY-2
    chosen = find_styles(["plain", "nowhere", "framed"], (FRAMED, PLAIN))
    assert chosen == (PLAIN, Style("nowhere", "", ""), FRAMED)
    assert apply_styles(" cat", [style.prompt for style in chosen]) == "painting of cat, masterpiece, oil"


def test_files(tmp_path: Path) -> None:  # STY-3
    file = tmp_path / "styles.csv"
    rows = 'name,prompt,negative_prompt\nframed,"painting of {prompt}, oil",photo\n#off,x,y\nplain,masterpiece\n'
    file.write_text(rows, encoding="utf-8-sig")
    assert load_styles(file) == (FRAMED, PLAIN)
    old = tmp_path / "zz_old.csv"
    old.write_text("name,text\nplain,masterpiece\n", encoding="utf-8")
    assert load_styles([str(old), file]) == (PLAIN, FRAMED, PLAIN)
    assert load_styles(tmp_path / "none.csv") == ()


def test_a_wildcard_announces_each_file(tmp_path: Path) -> None:  # STY-3
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(f"name,prompt,negative_prompt\n{name}1,x,\n", encoding="utf-8")
    styles = load_styles(tmp_path / "*.csv")
    assert [style.name for style in styles] == [" A ".center(40, "-"), "a1", " B ".center(40, "-"), "b1"]
    assert styles[0].prompt is None
    assert styles[0].negative_prompt is None


def test_a_broken_file_names_its_remedy(tmp_path: Path) -> None:
    file = tmp_path / "styles.csv"
    file.write_bytes(b"name,prompt\n\xff\xfe,\xff\n")
    with pytest.raises(SettingError, match="UTF-8 CSV"):
        load_styles(file)


def test_extraction() -> None:  # STY-4
    styles = (EMPTY, FRAMED, PLAIN, NEGATIVE)
    assert extract_styles("painting of cat, masterpiece, oil", "bad, photo", styles) == (
        *("cat", "bad"),
        ("plain", "framed"),
    )
    assert extract_styles("cat", "blurry, bad", styles) == ("cat", "bad", ("negative",))
    assert extract_styles("painting of cat, oil", "", styles) == ("painting of cat, oil", "", ())
    assert extract_styles("masterpiece", "", styles) == ("", "", ("plain",))


def test_a_frame_needs_room_for_both_sides() -> None:  # STY-4
    overlapping = Style("o", "ab{prompt}bc", "")
    assert extract_styles("abc", "", [overlapping]) == ("abc", "", ())
    assert extract_styles("abbc", "", [overlapping]) == ("", "", ("o",))


@given(st.text(st.sampled_from("xyz ,"), max_size=8), st.permutations([FRAMED, PLAIN]))
def test_what_was_applied_is_found(prompt: str, chosen: list[Style]) -> None:
    merged = apply_styles(prompt, [style.prompt for style in chosen])
    negative = apply_styles("", [style.negative_prompt for style in chosen])
    bare, bare_negative, names = extract_styles(merged, negative, [FRAMED, PLAIN])
    assert set(names) == {"framed", "plain"}
    assert bare_negative == ""
    assert bare.strip(", ") == prompt.strip(", ")


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_any_style_can_be_tried(style: str, prompt: str, negative: str) -> None:
    styles = [Style("s", style, negative), Style("t", f"{style}{{prompt}}", None)]
    names = extract_styles(merge_style(style, prompt), negative, styles)[2]
    assert len(names) <= 2
