"""Masks in words: what they mean, and where a mistake in them is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from overpaint import masks
from overpaint.errors import MaskTextError, OverpaintError
from overpaint.masks.language import is_expression
from overpaint.masks.vocabulary import SHAPES, STEPS

SIZE = (320, 240)
PICTURE = Image.linear_gradient("L").resize(SIZE).convert("RGB")
BOX = (20, 30, 200, 180)


def drawn(text: str) -> Image.Image:
    return masks.draw(text, PICTURE)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("all", masks.everything(SIZE)),
        ("none", masks.nothing(SIZE)),
        ("alpha", masks.everything(SIZE)),
        ("rectangle 20,30,200,180", masks.rectangle(SIZE, BOX)),
        ("rect 20, 30, 200, 180", masks.rectangle(SIZE, BOX)),
        ("rectangle 0%,0%,50%,25%", masks.rectangle(SIZE, (0, 0, 160, 60))),
        ("ellipse -20,30,200,180", masks.ellipse(SIZE, (-20, 30, 200, 180))),
        ("polygon 1,2 90,9.5 50%,200", masks.polygon(SIZE, [(1, 2), (90, 9.5), (160, 200)])),
        ("stroke 9,9 100,50 radius 7 softness 50%", masks.stroke(SIZE, [(9, 9), (100, 50)], 7, 0.5)),
        ("stroke 9,9", masks.stroke(SIZE, [(9, 9)], 16, 0)),
        ("colour #808080 tolerance 20", masks.from_colour(PICTURE, "#808080", 20)),
        ("color gray tolerance 10%", masks.from_colour(PICTURE, "gray", 25.5)),
        ("wand 10,120", masks.wand(PICTURE, (10, 120))),
        ("all | grow 8", masks.everything(SIZE)),
        (
            "ellipse 20,30,200,180 | grow 8 | feather 12",
            masks.feather(masks.grow(masks.ellipse(SIZE, BOX), 8), 12),
        ),
        ("ellipse 20,30,200,180|shrink 3|feather in 4", masks.feather_in(masks.shrink(masks.ellipse(SIZE, BOX), 3), 4)),
        ("rectangle 20,30,200,180 | feather 6 out", masks.feather_out(masks.rectangle(SIZE, BOX), 6)),
        ("all - ellipse 20,30,200,180 | invert", masks.ellipse(SIZE, BOX)),
        ("none + (all - ellipse 20,30,200,180)", masks.invert(masks.ellipse(SIZE, BOX))),
        ("all & rectangle 20,30,200,180 | threshold", masks.rectangle(SIZE, BOX)),
        ("rectangle 20,30,200,180 - rectangle 60,60,90,90 | fill-holes", masks.rectangle(SIZE, BOX)),
        ("rectangle 20,30,200,180 + rect 1,1,3,3 | drop-specks 5", masks.rectangle(SIZE, BOX)),
        ("rectangle 20,30,200,180 | threshold 50%", masks.rectangle(SIZE, BOX)),
    ],
)
def test_words_mean_what_the_functions_do(text: str, meant: Image.Image) -> None:
    assert drawn(text).tobytes() == meant.tobytes()


def test_it_is_read_from_left_to_right() -> None:
    grown_first = drawn("rect 9,9,30,30 | grow 5 + rect 50,50,60,60")
    all_grown = drawn("rect 9,9,30,30 + rect 50,50,60,60 | grow 5")
    assert grown_first.getbbox() == (4, 4, 60, 60) and all_grown.getbbox() == (4, 4, 65, 65)
    assert drawn("rect 50,50,60,60 + (rect 9,9,30,30 | grow 5)").tobytes() == grown_first.tobytes()


def test_names_are_files_of_a_folder(tmp_path: Path) -> None:
    masks.rectangle(SIZE, BOX).save(tmp_path / "a mask.png")
    changed = PICTURE.copy()
    changed.paste(0, (100, 100, 120, 130))
    changed.save(tmp_path / "after.png")
    text = "file 'a mask.png' & difference after.png tolerance 3"
    assert masks.draw(text, PICTURE, masks.files_in(tmp_path)).getbbox() == (100, 100, 120, 130)
    assert masks.names_in(text) == ["a mask.png", "after.png"]
    with pytest.raises(MaskTextError, match=r"nothing\.png: there is no such file"):
        masks.draw("file nothing.png", PICTURE, masks.files_in(tmp_path))
    Image.new("L", (3, 3)).save(tmp_path / "small.png")
    with pytest.raises(MaskTextError, match="it is 3x3; give a mask of the picture's size, 320x240"):
        masks.draw("file small.png", PICTURE, masks.files_in(tmp_path))


@pytest.mark.parametrize(
    ("text", "wrong", "said"),
    [
        ("elipse 1,2,30,40", "elipse", "did you mean 'ellipse'?"),
        ("ellipse 1,2,30 | grow 8", "1,2,30", "4 numbers belong together and here are 3: ellipse LEFT,TOP"),
        ("ellipse 1,2,30,40 | grw 8", "grw", "did you mean 'grow'?"),
        ("ellipse 1,2,30,40 | grow", "grow", "the form is: grow PIXELS"),
        ("ellipse 1,2,30,40 | grow 3,4", "3,4", "one number belongs together and here are 2"),
        ("ellipse 1,2,30,40 | grow 10%", "10%", "give a number of pixels, not a part"),
        ("ellipse 1,2,30,40 | grow 99999", "grow 99999", "from 0 to 1000"),
        ("ellipse 1,2,30,40 grow 3", "grow", "put | before grow"),
        ("ellipse 1,2,30,40 rect 1,1,2,2", "rect", "it does not belong here"),
        ("ellipse 1,2,30,40 | ellipse 1,2,3,4", "ellipse", "makes a mask; put +, - or & before it"),
        ("grow 3", "grow", "is done to a mask; put | before it"),
        ("ellipse 1,2,30,40 |", "the end", "a step belongs here: invert, grow"),
        ("(ellipse 1,2,30,40", "(", "this bracket is not closed"),
        ("ellipse 1,2,30,40)", ")", "without one that opens"),
        ("ellipse 1,,2,3", ",", "a number belongs after this comma"),
        ("stroke 1,2 radus 4", "radus", "did you mean 'radius'?"),
        ("stroke 1,2 radius 4 radius 5", "radius", "radius is given twice"),
        ("stroke 1,2 radius", "stroke 1,2 radius", "the form is: stroke"),
        ("polygon 1,2 3,4", "polygon 1,2 3,4", "the form is: polygon X,Y X,Y X,Y"),
        ("rect 1,1,9,9 § 3", "§", "nothing that can stand here"),
        ("rect 900,900,950,950", "rect 900,900,950,950", "it lies outside the picture of 320x240"),
        ("wand 5,999", "wand 5,999", "it lies outside the picture of 320x240"),
        ("", "the end", "a shape belongs here: all, none"),
        ("(" * 30 + "all", "(", "brackets go 20 deep at most"),
        ("all" + " | invert" * 600, "invert", "give at most 500 shapes and steps"),
    ],
)
def test_a_mistake_is_shown_with_its_place(text: str, wrong: str, said: str) -> None:
    with pytest.raises(MaskTextError) as caught:
        drawn(text)
    error = caught.value
    assert said in str(error) and "\n" not in str(error)
    assert (text[error.start : error.end] or "the end") == wrong and error.field == "mask"
    shown, marks = error.pointer.splitlines()
    place = marks.index("^")
    assert shown[place : place + len(marks.strip())] == text[error.start : error.end][: len(marks.strip())]


@given(st.text(alphabet="elipsgrow0123456789,.%|+-&()# '\"invert", max_size=60))
def test_any_text_is_a_mask_or_one_complaint(text: str) -> None:
    small = Image.new("RGB", (20, 20))
    try:
        assert masks.draw(text, small).size == (20, 20)
    except OverpaintError as error:
        assert "\n" not in str(error)


def test_every_word_tells_its_form() -> None:
    for name, word in {**SHAPES, **STEPS}.items():
        assert word.usage.split()[0] == name and word.meaning.endswith(".")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("ellipse 1,2,3,4", True),
        ("elipse 1,2,3,4 | grow 3", True),
        ("elipse 1,2,3,4", True),
        ("(all)", True),
        ("alpha", True),
        ("alpha|invert", True),
        ("mask.png", False),
        ("ellipse.png", False),
        ("my mask.png", False),
        ("folder/ellipse 3.png", False),
        ("C:\\masks\\a.png", False),
        ("-", False),
        ("", False),
    ],
)
def test_words_are_told_from_names_of_files(text: str, is_one: bool) -> None:
    assert is_expression(text) == is_one


def test_a_file_comes_before_words(tmp_path: Path) -> None:
    assert masks.means_mask("alpha", tmp_path)
    (tmp_path / "alpha").write_bytes(b"")
    assert (
        not masks.means_mask("alpha", tmp_path)
        and not masks.means_mask(None)
        and masks.means_mask("all | " + "x" * 9999)
    )
