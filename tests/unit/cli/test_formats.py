"""`--format` of the tools, what is told of it, and how a sequence goes on in a format that loses something."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import overpaint
from overpaint.cli import main
from overpaint.deep import deep_array
from overpaint.files.formats import media_type_of
from overpaint.files.metadata import encode_picture
from overpaint.sequences.kept import EXACT, JOURNAL
from tests.unit.command import Capture, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]

MEDIA = {"png": "image/png", "tif": "image/tiff", "jpg": "image/jpeg", "webp": "image/webp", "avif": "image/avif"}


def kind_of(path: Path) -> str | None:
    return media_type_of(path.read_bytes())


@pytest.mark.parametrize("ending", MEDIA)
def test_tools_of_one_picture(ending: str, painter: FakePainter, capsys: Capture) -> None:
    for line, name in (("outpaint cat.png --left 8", "cat-outpainted"), ("enlarge cat.png", "cat-enlarged")):
        assert main([*line.split(), "--format", ending, "-q"]) == 0
        assert capsys.readouterr().out == f"{name}.{ending}\n"
        assert kind_of(Path(f"{name}.{ending}")) == MEDIA[ending]
    assert main(["upscale", "cat.png", "--format", ending, "-q"]) == 0
    assert kind_of(Path(f"cat-upscaled.{ending}")) == MEDIA[ending]


@pytest.mark.parametrize("ending", MEDIA)
def test_tools_of_many(ending: str, painter: FakePainter, capsys: Capture) -> None:
    assert main(["grid", "cat.png", "--x", "steps=1,2", "--format", ending, "-o", "cells", "-q"]) == 0
    assert main(["loopback", "cat.png", "--loops", "2", "--format", ending, "-o", "loops", "-q"]) == 0
    files = [path for folder in ("cells", "loops") for path in Path(folder).glob(f"*.{ending}")]
    assert {path.stem for path in files} == {"grid", "cell-1", "cell-2", "loop-1", "loop-2"}
    assert {kind_of(path) for path in files} == {MEDIA[ending]}
    assert not Path("cells", EXACT).exists() and not Path("loops", EXACT).exists()


def test_what_was_cut_off_goes_on_from_exact_pictures(painter: FakePainter, capsys: Capture) -> None:
    line = ["loopback", "cat.png", "--loops", "4", "--seed", "5", "--format", "jpg", "-q"]
    assert main([*line, "-o", "whole"]) == 0
    sources = [request.images[0].tobytes() for request in painter.requests]
    assert main([*line, "-o", "cut"]) == 0
    journal = Path("cut", JOURNAL)
    head, first, second, *_ = journal.read_text().splitlines()
    Path("cut", EXACT).mkdir()
    for name, number in (("loop-1", 5), ("loop-2", 6)):  # as they lie there before the end; the painter's own colours
        flat = Image.new("RGB", (32, 24), (number, 0, 9))
        Path("cut", EXACT, f"{name}.png").write_bytes(encode_picture(flat, "png"))
    import hashlib

    lines = [json.loads(each) for each in (first, second)]
    for line_, name in zip(lines, ("loop-1", "loop-2"), strict=True):
        line_["exact"] = [hashlib.sha256(Path("cut", EXACT, f"{name}.png").read_bytes()).hexdigest()]
    journal.write_text("\n".join([head, *map(json.dumps, lines)]) + "\n")
    before, done = Path("cut/loop-1.jpg").read_bytes(), len(painter.requests)
    assert main([*line, "-o", "cut"]) == 0
    assert len(painter.requests) == done + 2
    assert [each.images[0].tobytes() for each in painter.requests[done:]] == sources[2:]
    assert Path("cut/loop-1.jpg").read_bytes() == before
    assert not Path("cut", EXACT).exists()
    assert main([*line, "-o", "cut"]) == 0  # and once it is finished, nothing is painted again
    assert len(painter.requests) == done + 2


def test_another_format_is_another_sequence(painter: FakePainter, capsys: Capture) -> None:
    line = ["loopback", "cat.png", "--loops", "2", "-o", "out", "-q"]
    assert main(line) == 0
    assert main([*line, "--format", "jpg"]) == 2
    assert "another sequence was kept there" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["outpaint cat.png --left 8", "enlarge cat.png", "upscale cat.png"])
def test_a_name_that_says_another_is_refused(line: str, painter: FakePainter, capsys: Capture) -> None:
    assert main([*line.split(), "-o", "x.png", "--format", "jpg"]) == 2
    assert "the name x.png says another one" in capsys.readouterr().err
    assert not Path("x.png").exists() and painter.requests == []
    assert main([*line.split(), "--format", "psd"]) == 2
    assert "choose one of png" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["grid cat.png --x steps=1,2", "loopback cat.png"])
def test_an_unknown_format_is_refused_before_painting(line: str, painter: FakePainter, capsys: Capture) -> None:
    assert main([*line.split(), "--format", "psd"]) == 2
    assert "--format 'psd': choose one of png" in capsys.readouterr().err
    assert painter.requests == [] and not list(Path().glob("cat-*"))


def test_what_a_format_loses_is_told(painter: FakePainter, capsys: Capture) -> None:
    Image.new("RGBA", (32, 24), (9, 9, 9, 40)).save("clear.png")
    assert main(["outpaint", "clear.png", "--left", "8", "--format", "jpg"]) == 0
    assert "JPEG packs every pixel anew" in capsys.readouterr().err


def deep_source(channels: int = 3) -> Path:
    values = np.linspace(0, 65_535, 16 * 12 * channels).reshape(12, 16, channels).astype(np.uint16)
    path = Path("deep.tif")
    path.write_bytes(encode_picture(deep_array(values), "tif"))
    return path


@pytest.mark.parametrize("channels", [3, 4])
def test_upscaling_keeps_16_bits(channels: int, painter: FakePainter, capsys: Capture) -> None:
    assert main(["upscale", str(deep_source(channels)), "--scale", "1.5"]) == 0
    assert capsys.readouterr() == ("deep-upscaled.tif  24x18\n", "")
    found = overpaint.samples(overpaint.open_picture("deep-upscaled.tif"))
    assert found.shape == (18, 24, channels) and found.dtype == np.uint16
    assert len(np.unique(found % 257)) > 50  # more than 8 bits of them
    assert main(["upscale", "deep.tif", "--scale", "1.5", "--format", "jpg"]) == 0
    assert "JPEG holds 8 bits per channel, so the picture's 16 are rounded" in capsys.readouterr().err


def test_it_shows_what_it_made(painter: FakePainter, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert main(["upscale", "cat.png", "--show"]) == 0
    assert "stdout is no terminal that shows pictures" in capsys.readouterr().err
    assert main(["upscale", "cat.png", "--show", "--json"]) == 2
    assert main(["upscale", "cat.png", "-o", "-"]) == 2
    assert "written to files" in capsys.readouterr().err


def test_the_seam_of_tools_is_in_their_json(painter: FakePainter, capsys: Capture) -> None:
    assert main(["outpaint", "cat.png", "--left", "8", "--json"]) == 0
    (picture,) = json.loads(capsys.readouterr().out)["pictures"]
    assert picture == {"path": "cat-outpainted.png"}  # the painter here measures none


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("outpaint cat.png --left 0", "--left, --top, --right, --bottom 0: the picture does not grow"),
        ("outpaint cat.png --left 100000", "--left 100000: give a value from 0 to 16384"),
        ("outpaint cat.png --to 16x16", "--to '16x16': the picture has 32x24"),
        ("outpaint cat.png --aspect 1:1 --anchor middle", "--anchor 'middle': choose one of"),
        ("outpaint cat.png --left 8 --start fog", "--start 'fog': choose one of"),
        ("enlarge cat.png --scale 99", "--scale 99"),
        ("enlarge cat.png --tile 8", "--tile 8"),
        ("loopback cat.png --loops 0", "--loops 0"),
        ("loopback cat.png --curve round", "--curve 'round': choose one of"),
        ("loopback cat.png --final-strength 2", "--final-strength 2"),
        ("grid cat.png --x stepz=1,2", "--x, --y, --z 'stepz': did you mean 'steps'?"),
        ("grid cat.png --x steps=", "--x, --y, --z 'steps=': it needs at least one value"),
        (
            "grid cat.png --x steps=1-100 --y cfg_scale=1-100",
            "--x, --y, --z '10000 cells (100 x 100 x 1)': at most 2000",
        ),
        ("grid cat.png", "--x: give at least one axis"),
    ],
)
def test_bad_input_is_told_in_flags_and_nothing_is_lost(
    line: str, said: str, painter: FakePainter, capsys: Capture
) -> None:
    before = sorted(Path().rglob("*"))
    assert main(line.split()) == 2
    told = capsys.readouterr()
    assert told.out == "" and said in told.err and told.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before and painter.requests == []
