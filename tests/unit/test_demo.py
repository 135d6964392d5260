"""`overpaint demo`: what it plans, that every part can be painted, and that its sheet is kept and never replaced."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from PIL import Image

from overpaint import demo
from overpaint.cli import main
from overpaint.demo import SIDE, gallery, painted, sheet
from overpaint.models.built_in import default_path
from overpaint.models.what_is import spec_of
from overpaint.planning.plan import plan
from overpaint.planning.preflight import network_calls
from overpaint.request import MaskedContent, PaintRequest, Txt2ImgRequest, decided
from overpaint.settings import Settings
from tests.unit.command import Capture, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]

MOST_CALLS = 200  # of the network: what keeps it below a minute


def test_the_plan_shows_every_way_of_painting() -> None:
    autumn, winter, inpainted, outpainted, varied, styled = gallery()
    strengths = [decided(each.strength) for each in autumn.requests]
    assert len(strengths) >= 3 and strengths == sorted(strengths)
    for row, season in ((autumn, "autumn"), (winter, "winter")):  # a grid: one axis across, one down
        assert [each.strength for each in row.requests] == strengths
        assert {each.prompt for each in row.requests} == {f"a photo of a forest in {season}"} and season in row.title
        assert [each.images for each in row.requests] == [row.pictures] * len(strengths)
    (colours,) = inpainted.requests
    assert colours.mask is inpainted.pictures[1] and colours.masked_content is MaskedContent.ORIGINAL
    (wider,) = outpainted.requests
    narrow, canvas = outpainted.pictures
    assert (wider.images, wider.masked_content) == ((canvas,), MaskedContent.ORIGINAL) and wider.mask is not None
    assert wider.mask.getpixel((0, 0)) == 255 and wider.mask.getpixel((SIDE // 2, SIDE // 2)) == 0
    old = wider.mask.point(lambda value: 255 - value)
    black = Image.new("RGB", canvas.size)
    assert Image.composite(canvas, black, old).tobytes() == Image.composite(narrow, black, old).tobytes()
    assert varied.requests[0].variation_strength == 0
    assert {(each.seed, each.variation_seed) for each in varied.requests} == {(7, 8)}
    (styles,) = styled.requests
    assert isinstance(styles, Txt2ImgRequest) and len(set(styles.prompt)) == styles.batch_size == 5


def test_it_is_planned_at_the_models_own_size_without_a_warning() -> None:
    spec, calls = spec_of(default_path(), header_only=True), 0
    for row in gallery():
        assert len(row.captions) == len(row.pictures) + row.wanted
        for request in row.requests:
            decided = plan(request, Settings(), spec)
            assert (decided.geometry.pass_width, decided.geometry.pass_height) == (SIDE, SIDE)
            assert not decided.warnings
            calls += network_calls(decided) or 0
    assert calls < MOST_CALLS


def test_every_picture_is_on_the_sheet() -> None:
    def paint(request: PaintRequest) -> list[Image.Image]:
        return [Image.new("RGB", (SIDE, SIDE), "red")] * request.batch_size

    rows = tuple(painted(gallery(), paint))
    assert all(len(row.pictures) == len(row.captions) and not row.requests for row in rows)
    page = sheet(rows)
    reds = sum(count for count, colour in page.getcolors(page.width * page.height) or () if colour == (255, 0, 0))
    assert reds == sum(row.wanted for row in gallery()) * demo._TILE**2


def test_the_command(painter: FakePainter, capsys: Capture) -> None:
    assert main(["demo"]) == 0
    assert capsys.readouterr().out.startswith("overpaint-demo.png  painted in ")
    assert len(painter.requests) == sum(len(row.requests) for row in gallery())
    first = Path("overpaint-demo.png").read_bytes()
    assert main(["demo", "--to", "new", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sheet"] == str(Path("new", "overpaint-demo.png"))
    assert main(["demo"]) == 0
    assert "overpaint-demo-1.png" in capsys.readouterr().out
    assert Path("overpaint-demo.png").read_bytes() == first


def test_opening_is_asked_for(painter: FakePainter, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    assert main(["demo", "-q"]) == 0 and not opened
    assert main(["demo", "-q", "--open"]) == 0
    assert opened == ["overpaint-demo-1.png"]


def test_a_file_where_the_folder_should_be(painter: FakePainter, capsys: Capture) -> None:
    assert main(["demo", "--to", "cat.png"]) == 2
    assert "--to 'cat.png': it is a file" in capsys.readouterr().err
    assert not painter.requests


def test_stopped_half_way(painter: FakePainter, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    painter._on_step = lambda step: signal.raise_signal(signal.SIGINT) if step == 5 else None
    assert main(["demo"]) == 130
    assert "the sheet is written when all of it is painted" in capsys.readouterr().err
    assert not Path("overpaint-demo.png").exists()


def test_the_readme_shows_such_a_sheet() -> None:
    root = Path(__file__).resolve().parents[2]
    kept = root / "docs/images/demo.png"
    assert "](docs/images/demo.png)" in (root / "README.md").read_text(encoding="utf-8")
    rows = tuple(painted(gallery(), lambda request: [Image.new("RGB", (SIDE, SIDE))] * request.batch_size))
    with Image.open(kept) as shown:
        assert shown.size == sheet(rows).size
    assert kept.stat().st_size < 700_000
