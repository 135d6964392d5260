"""Pictures as a terminal's text: each kind is read back by a reader of its own, written from the protocols' pages."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from overpaint.pixels.for_terminals import as_blocks, as_iterm2, as_kitty, as_sixel, fitted_cells


@pytest.fixture
def picture() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.convert("RGB").tobytes() == other.convert("RGB").tobytes()


def test_kitty(picture: Image.Image) -> None:
    text = as_kitty(picture, 15, 6)
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert "".join(f"\x1b_G{head};{data}\x1b\\" for head, data in parts) + "\n" == text
    heads = [dict(each.split("=") for each in head.split(",")) for head, _ in parts]
    assert heads[0] == {"a": "T", "f": "100", "q": "2", "c": "15", "r": "6", "m": "1"}
    assert [each["m"] for each in heads] == ["1"] * (len(heads) - 1) + ["0"]
    assert all(len(data) <= 4096 for _, data in parts)
    data = base64.b64decode("".join(data for _, data in parts))
    assert same(Image.open(io.BytesIO(data)), picture)


def test_iterm2(picture: Image.Image) -> None:
    found = re.fullmatch(r"\x1b\]1337;File=([^:]*):([^\x07]*)\x07\n", as_iterm2(picture, 15, 6))
    assert found is not None
    data = base64.b64decode(found[2])
    told = dict(each.split("=") for each in found[1].split(";"))
    assert told == {"inline": "1", "size": str(len(data)), "width": "15", "height": "6", "preserveAspectRatio": "1"}
    assert same(Image.open(io.BytesIO(data)), picture)


def test_sixel(picture: Image.Image) -> None:
    small = picture.resize((33, 20))
    shown = decoded_sixel(as_sixel(small, (33, 20)))
    assert shown.shape == (20, 33, 3)
    expected = np.asarray(small.quantize(256).convert("RGB")).astype(int)
    assert np.abs(shown - expected).max() <= 2  # a sixel's colours are per cents


def decoded_sixel(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """What a terminal draws."""
    found = re.fullmatch(r'\x1bP0;1q"1;1;(\d+);(\d+)(.*)\x1b\\\n', text, re.DOTALL)
    assert found is not None
    wide, high = int(found[1]), int(found[2])
    canvas = np.full((high + 6, wide, 3), -1, np.int64)
    palette: dict[int, tuple[int, ...]] = {}
    colour, x, top = 0, 0, 0
    for define, index, run, letter, control in re.findall(
        r"#(\d+;2;\d+;\d+;\d+)|#(\d+)|(!\d+)?([?-~])|([$-])", found[3]
    ):
        if define:
            number, _, *levels = map(int, define.split(";"))
            palette[number] = tuple(round(each * 2.55) for each in levels)
        elif index:
            colour = int(index)
        elif control:
            x, top = 0, top + (6 if control == "-" else 0)
        else:
            count = int(run[1:]) if run else 1
            for bit in range(6):
                if (ord(letter) - 63) >> bit & 1:
                    canvas[top + bit, x : x + count] = palette[colour]
            x += count
    assert (canvas[high:] == -1).all()
    return canvas[:high]


@pytest.mark.parametrize("unicode", [True, False])
def test_blocks(picture: Image.Image, unicode: bool) -> None:
    text = as_blocks(picture, 12, 5, unicode=unicode)
    lines = text.split("\n")
    assert len(lines) == 6 and lines[-1] == ""
    size = (12, 10 if unicode else 5)
    expected = np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
    rows: list[list[list[int]]] = []
    for line in lines[:-1]:
        assert line.endswith("\x1b[0m")
        upper, lower = [], []
        now = {"38": [0, 0, 0], "48": [0, 0, 0]}
        for kind, levels, letter in re.findall(r"\x1b\[(38|48);2;([\d;]+)m|(\u2580| )", line):
            if letter:
                upper.append(now["38"])
                lower.append(now["48"])
            else:
                now[kind] = list(map(int, levels.split(";")))
        rows += [upper, lower] if unicode else [lower]
    assert (np.array(rows) == expected).all()
    assert text.isascii() is not unicode


def test_the_older_table_of_colours() -> None:
    shown = as_blocks(Image.new("RGB", (1, 2), (255, 0, 0)), 1, 1, "256")
    assert shown == "\x1b[38;5;196m\x1b[48;5;196m\u2580\x1b[0m\n"


def test_transparent_parts_are_gray(picture: Image.Image) -> None:
    clear = Image.new("RGBA", (1, 2), (255, 0, 0, 0))
    assert as_blocks(clear, 1, 1) == "\x1b[38;2;128;128;128m\x1b[48;2;128;128;128m\u2580\x1b[0m\n"


@pytest.mark.parametrize(
    ("size", "room", "cells"),
    [
        ((1600, 800), (80, 40), (80, 20)),
        ((100, 1600), (80, 20), (2, 20)),
        ((80, 32), (80, 40), (10, 2)),
        ((1, 1), (80, 24), (1, 1)),
    ],
)
def test_the_room_of_a_picture(size: tuple[int, int], room: tuple[int, int], cells: tuple[int, int]) -> None:
    assert fitted_cells(Image.new("RGB", size), *room, (8, 16)) == cells
