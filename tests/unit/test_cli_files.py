"""Where the command writes, and in which formats."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from overpaint.cli import main
from overpaint.files.metadata import read_recipe
from tests.unit.command import Capture, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]


def reopened(path: str) -> Image.Image:
    return Image.open(io.BytesIO(Path(path).read_bytes()))


@pytest.mark.parametrize("output", ["new/", "new/deep/"])
def test_a_folder_that_is_not_there_is_made(painter: FakePainter, output: str) -> None:
    assert main(["paint", "cat.png", "-o", output]) == 0
    assert main(["paint", "cat.png", "-o", output]) == 0
    assert sorted(each.name for each in Path(output).iterdir()) == ["cat-painted-1.png", "cat-painted.png"]


def test_a_file_in_a_folder_that_is_not_there_is_refused(painter: FakePainter, capsys: Capture) -> None:
    assert main(["paint", "cat.png", "-o", "new/x.png"]) == 2
    assert "its folder does not exist; make it first, or end the path in a slash" in capsys.readouterr().err
    assert not Path("new").exists()
    assert painter.requests == []


def test_upscale_makes_its_folder_too(painter: FakePainter) -> None:
    assert main(["upscale", "cat.png", "mask.png", "-o", "large/"]) == 0
    assert len(list(Path("large").iterdir())) == 2


@pytest.mark.parametrize(("name", "kind"), [("x.tif", "TIFF"), ("x.tiff", "TIFF"), ("x.bmp", "BMP")])
def test_tiff_and_bmp_are_written_and_painted_again(painter: FakePainter, name: str, kind: str) -> None:
    assert main(["paint", "cat.png", "a moon", "--seed", "5", "-o", name]) == 0
    assert reopened(name).format == kind
    recipe = read_recipe(Path(name))
    assert recipe is not None and recipe["source"]["path"] == "cat.png"
    assert main(["again", name, "-o", "again.png"]) == 0
    assert (painter.requests[-1].prompt, painter.requests[-1].seed) == ("a moon", 5)


def tables(path: str) -> object:
    return reopened(path).quantization  # type: ignore[attr-defined]


def test_quality(painter: FakePainter) -> None:
    for quality in (95, 40):
        Image.new("RGB", (32, 24)).save(f"q{quality}.jpg", quality=quality)
    assert main(["paint", "cat.png", "-o", "usual.jpg"]) == 0
    assert main(["paint", "cat.png", "-o", "small.jpg", "--quality", "40"]) == 0
    assert main(["upscale", "cat.png", "-o", "large.jpg", "--quality", "40"]) == 0
    assert (tables("usual.jpg"), tables("small.jpg")) == (tables("q95.jpg"), tables("q40.jpg"))
    assert tables("large.jpg") == tables("q40.jpg")


@pytest.mark.parametrize("quality", ["0", "101", "-5"])
def test_a_quality_that_there_is_not_is_refused(painter: FakePainter, capsys: Capture, quality: str) -> None:
    assert main(["paint", "cat.png", "--quality", quality, "-o", "x.jpg"]) == 2
    said = f"overpaint: --quality {quality}: give a quality from 1 to 100\n"
    assert capsys.readouterr().err == said
    assert not Path("x.jpg").exists()
