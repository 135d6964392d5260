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


# -- which format ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "made"),
    [
        ("cat.png", [], "cat-painted.png"),
        ("cat.jpg", [], "cat-painted.png"),
        ("cat.tif", [], "cat-painted.tif"),
        ("cat.bmp", [], "cat-painted.bmp"),
        ("exact.webp", [], "exact-painted.webp"),
        ("lossy.webp", [], "lossy-painted.png"),
        ("cat.tif", ["--format", "JPG"], "cat-painted.jpg"),
        ("cat.png", ["--format", "tif", "-o", "new/"], "new/cat-painted.tif"),
        ("cat.png", ["--format", "tif", "-o", "x.tif"], "x.tif"),
    ],
)
def test_the_format_is_that_of_the_name_or_asked_for_or_the_sources_own(
    painter: FakePainter, source: str, options: list[str], made: str
) -> None:
    with Image.open("cat.png") as cat:
        for name in ("cat.jpg", "cat.tif", "cat.bmp"):
            cat.convert("RGB").save(name)
        cat.save("exact.webp", lossless=True)
        cat.save("lossy.webp", lossless=False)
    before = set(Path().rglob("*"))
    assert main(["paint", source, *options, "-q"]) == 0
    pictures = {each for each in set(Path().rglob("*")) - before if each.suffix not in (".json", "")}
    assert pictures == {Path(made)}
    kind = {"tif": "TIFF", "jpg": "JPEG"}.get(made.rpartition(".")[2], made.rpartition(".")[2].upper())
    assert reopened(made).format == kind


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "xcf"], "--format 'xcf': choose one of png, jpg, jpeg, webp, avif, tif, tiff, bmp, heic, heif"),
        (["--format", "png", "-o", "x.jpg"], "--format 'png': the name x.jpg says another one; leave out one of them"),
    ],
)
def test_formats_that_cannot_be(painter: FakePainter, capsys: Capture, options: list[str], said: str) -> None:
    assert main(["paint", "cat.png", *options]) == 2
    assert capsys.readouterr().err == f"overpaint: {said}\n"
    assert painter.requests == []


def test_a_lossy_file_says_that_what_lies_outside_the_mask_changes(painter: FakePainter, capsys: Capture) -> None:
    assert main(["paint", "cat.png", "--mask", "mask.png", "-o", "x.jpg"]) == 0
    said = "x.jpg: JPEG packs every pixel anew, so those outside the mask change a little; use PNG or TIFF"
    assert said in capsys.readouterr().err
    for command in (["paint", "cat.png", "-o", "y.jpg"], ["paint", "cat.png", "--mask", "mask.png", "-o", "z.png"]):
        assert main(command) == 0
        assert "packs every pixel" not in capsys.readouterr().err
