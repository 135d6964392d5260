"""`overpaint compare` and `overpaint sheet`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.cli import main
from overpaint.cli.captions import caption_of, caption_words
from overpaint.files.metadata import encode_picture, read_infotext, read_recipe
from tests.unit.command import Capture, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]


@pytest.fixture(autouse=True)
def pair(painter: FakePainter) -> None:
    """cat.png, and after.png in which four pixels inside the mask and one outside it differ."""
    with Image.open("cat.png") as opened:
        after = opened.convert("RGB")
    for place in ((10, 10), (11, 10), (10, 11), (11, 11), (1, 2)):
        red, green, blue = after.getpixel(place)  # type: ignore[misc]
        after.putpixel(place, ((red + 40) % 256, green, blue))
    after.save("after.png")


def told(capsys: Capture, *line: str, code: int = 0) -> dict[str, Any]:
    assert main([*line, "--json"]) == code
    account: dict[str, Any] = json.loads(capsys.readouterr().out)
    return account


class TestCompare:
    def test_the_figures(self, capsys: Capture) -> None:
        account = told(capsys, "compare", "cat.png", "after.png", "--mask", "mask.png", "--mask-blur", "0")
        assert (account["changed"], account["inside"], account["outside"]) == (5, 4, 1)
        assert (account["box"], account["sheet"]) == ([1, 2, 12, 12], None)
        assert account["seam"]["coverage"] > 0
        assert main(["compare", "cat.png", "after.png", "--mask", "rectangle 8,8,24,20"]) == 0
        said = capsys.readouterr().out
        assert "changed      5 of 768 pixels" in said
        assert "outside it   1 pixels" in said or "outside it   0 pixels" in said

    def test_the_same_picture(self, capsys: Capture) -> None:
        assert main(["compare", "cat.png", "cat.png"]) == 0
        assert capsys.readouterr().out == "changed  0 of 768 pixels, 0 %\n"

    def test_the_soft_edge_of_a_mask_is_no_outside(self, capsys: Capture) -> None:
        hard, soft = (
            told(capsys, "compare", "cat.png", "after.png", "--mask", "rectangle 9,9,10,10", "--mask-blur", blur)
            for blur in ("0", "4")
        )
        assert (hard["outside"], soft["outside"]) == (5, 1)

    @pytest.mark.parametrize("mask", [[], ["--mask", "mask.png"]])
    def test_the_sheet(self, capsys: Capture, mask: list[str]) -> None:
        assert main(["compare", "cat.png", "after.png", "-o", "sheets/", *mask]) == 0
        assert capsys.readouterr().out.endswith("sheets/cat-compared.png\n")
        with Image.open("sheets/cat-compared.png") as sheet:
            shown = np.asarray(sheet.convert("RGB")).astype(int)
        columns = 4 if mask else 3
        gap, cell = 25, 512
        assert shown.shape[1] == columns * (cell + gap) + gap
        assert (shown[:gap] == 255).all() and (shown[:, :gap] == 255).all()
        for number in range(columns):
            left = gap + number * (cell + gap)
            assert (shown[gap : gap + cell, left : left + cell] < 250).any()
        last = shown[gap : gap + cell, -gap - cell : -gap]
        assert (np.ptp(last, axis=-1) > 60).any()  # the difference glows
        assert main(["compare", "cat.png", "after.png", "-o", "sheets/"]) == 0
        assert len(list(Path("sheets").iterdir())) == 2  # no file is replaced

    @pytest.mark.parametrize(
        ("line", "code", "message"),
        [
            ("compare cat.png small.png", 2, "AFTER 'small.png': the pictures have different sizes, 32x24 and 5x5"),
            ("compare cat.png after.png --mask small.png", 2, "--mask 'small.png': it is 5x5, the pictures are 32x24"),
            ("compare cat.png gone.png", 3, "gone.png: there is no such file"),
            ("compare cat.png after.png --open", 2, "--open: there is no file to open; name the sheet"),
            ("compare - -", 2, "AFTER '-': stdin can be one file only"),
            ("compare cat.png after.png -o -", 2, "--output '-': a sheet is written to a file; give its name"),
            ("compare cat.png after.png --mask-blur -1", 2, "--mask-blur -1: give 0 or more"),
        ],
    )
    def test_mistakes(self, capsys: Capture, line: str, code: int, message: str) -> None:
        Image.new("RGB", (5, 5)).save("small.png")
        assert main(line.split()) == code
        assert message in capsys.readouterr().err


class TestSheet:
    @pytest.fixture(autouse=True)
    def results(self, pair: None, capsys: Capture) -> None:
        """Two painted pictures, one in a format that holds no recipe, and one that nobody painted."""
        Path("out").mkdir()
        assert main(["paint", "cat.png", "a moon over hills", "--seed", "7", "--steps", "9", "-o", "out/a2.png"]) == 0
        assert main(["paint", "cat.png", "a sun", "--seed", "8", "--strength", "0.5", "-o", "out/a10.jpg"]) == 0
        Image.new("L", (64, 16), 90).save("out/b.png")
        capsys.readouterr()

    def test_captions_come_from_the_pictures(self, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
        from overpaint.sequences import contact

        seen: list[list[str]] = []
        made = contact.contact_sheet

        def watched(pictures: Any, captions: Any, **more: Any) -> Image.Image:
            seen.extend(map(list, captions))
            return made(pictures, captions, **more)

        monkeypatch.setattr(contact, "contact_sheet", watched)
        account = told(capsys, "sheet", "out", "-o", "out/sheet.png")
        assert account["pictures"] == ["out/a2.png", "out/a10.jpg", "out/b.png"]
        assert seen == [
            ["a2.png", "seed 7, 9 steps, DPM++ 2M, CFG 7, strength 0.75", "a moon over hills"],
            ["a10.jpg", "seed 8, 20 steps, DPM++ 2M, CFG 7, strength 0.5", "a sun"],
            ["b.png"],
        ]
        with Image.open("out/sheet.png") as sheet:
            assert list(sheet.size) == account["size"]
        again = told(capsys, "sheet", "out", "-o", "out/sheet.png", "--overwrite", "--captions", "prompt,size")
        assert again["pictures"] == account["pictures"]  # the sheet is not on itself
        assert seen[3:] == [["a moon over hills", "32x24"], ["a sun", "32x24"], ["64x16"]]

    def test_a_picture_without_infotext_tells_by_its_recipe(self) -> None:
        recipe = read_recipe(Path("out/a2.png"))
        assert recipe is not None
        bare = encode_picture(Image.new("RGB", (32, 24)), "png", recipe=recipe)
        Path("bare.png").write_bytes(bare)
        assert read_infotext(bare)[0] is None
        lines = caption_of(Path("bare.png"), None, caption_words("settings,prompt"))
        assert lines == ["seed 7, 9 steps, DPM++ 2M, CFG 7, strength 0.75", "a moon over hills"]

    def test_one_that_cannot_be_read_keeps_its_place(self, capsys: Capture) -> None:
        Path("out/a3.png").write_bytes(b"no picture")
        account = told(capsys, "sheet", "out", "-o", "s.png")
        assert account["pictures"][1] == "out/a3.png"
        assert len(account["problems"]) == 1 and "a3.png" in account["problems"][0]
        assert main(["sheet", "out", "-o", "t.png"]) == 0
        assert "warning: out/a3.png" in capsys.readouterr().err

    def test_the_layout(self, capsys: Capture) -> None:
        line = ["--columns", "2", "--cell", "64", "--captions", "none"]
        account = told(capsys, "sheet", "out", "-o", "s.png", *line)
        assert account["size"] == [2 * (64 + 8) + 8, 2 * (64 + 8) + 8]
        with Image.open("s.png") as sheet:
            shown = sheet.convert("RGB")
        assert shown.getpixel((8 + 32, 8 + 64 + 8 + 32)) == (90, 90, 90)  # the third, in the middle of its place
        assert shown.getpixel((100, 8 + 64 + 8 + 32)) == (255, 255, 255)

    def test_files_folders_and_folders_below(self, capsys: Capture) -> None:
        Path("out/deep").mkdir()
        Path("out/.hidden").mkdir()
        for place in ("out/deep/z.png", "out/.hidden/h.png"):
            Image.new("RGB", (8, 8)).save(place)
        account = told(capsys, "sheet", "cat.png", "out", "cat.png", "-o", "s.png", "-r")
        assert account["pictures"] == ["cat.png", "out/a2.png", "out/a10.jpg", "out/b.png", "out/deep/z.png"]

    @pytest.mark.parametrize(
        ("line", "code", "message"),
        [
            ("sheet gone", 3, "gone: there is no such file or folder"),
            ("sheet empty", 3, "empty: there are no pictures in it; --recursive looks into sub-folders"),
            ("sheet out --captions seeds", 2, "--captions 'seeds': give some of name, settings, prompt, model, size"),
            ("sheet out --cell 9", 2, "--cell 9: give 32 to 2048 pixels"),
            ("sheet out --columns 0", 2, "--columns 0: give at least 1"),
            ("sheet out -o -", 2, "--output '-': a sheet is written to a file"),
            ("sheet out --show --json", 2, "--show: --json prints JSON and nothing else"),
        ],
    )
    def test_mistakes(self, capsys: Capture, line: str, code: int, message: str) -> None:
        Path("empty").mkdir()
        assert main(line.split()) == code
        assert message in capsys.readouterr().err

    def test_too_many(self, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("overpaint.cli.looking_commands._MOST_PICTURES", 2)
        assert main(["sheet", "out"]) == 2
        assert "FOLDER '3 pictures': a sheet holds 2; make several" in capsys.readouterr().err
        monkeypatch.setattr("overpaint.cli.looking_commands._MOST_PICTURES", 9)
        monkeypatch.setattr("overpaint.cli.looking_commands._MOST_PIXELS", 30_000)
        assert main(["sheet", "out"]) == 2
        assert (
            "--cell 256: 3 pictures of that size are too much for a sheet; give at most 95" in capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("line", "size"),
    [("outpaint cat.png --left 8 --bottom 16", (40, 40)), ("enlarge cat.png --scale 2 --tile 64", (64, 48))],
)
@pytest.mark.parametrize("name", ["made.png", "made.jpg"])
def test_what_a_tool_painted_is_painted_again_by_it(
    painter: FakePainter, line: str, size: tuple[int, int], name: str
) -> None:
    assert main([*line.split(), "a lake", "--seed", "3", "-o", name, "-q"]) == 0
    first = painter.requests[-1]
    assert main(["again", name, "-o", "again.png", "-q"]) == 0
    again = painter.requests[-1]
    assert (again.width, again.height, again.strength, again.seed) == (*size, first.strength, 3)
    assert again.images[0].tobytes() == first.images[0].tobytes()
    assert (again.mask is None) is (first.mask is None)
    assert again.mask is None or first.mask is None or again.mask.tobytes() == first.mask.tobytes()
    with Image.open("again.png") as painted:
        assert painted.size == size
    assert main(["again", name, "at night", "--strength", "0.5", "-o", "night.png", "-q"]) == 0
    assert (painter.requests[-1].prompt, painter.requests[-1].strength) == ("at night", 0.5)
