"""What a tool would do, before anything is painted: `--plan`, and the same as `overpaint plan TOOL`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from overpaint.cli import main
from tests.hollow_files import hollow_flux
from tests.unit.command import Capture, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]

SIDE = 64  # of cat.png
LINES = [
    ("outpaint", "moon --left 64", ["outpaint"], f"{2 * SIDE}x{SIDE}"),
    ("enlarge", "moon --scale 2", ["enlarge"], f"{2 * SIDE}x{2 * SIDE}"),
    ("loopback", "moon --loops 2", ["loop 1", "loop 2"], f"{SIDE}x{SIDE}"),
    ("grid", "moon --x steps=2,3", ["steps 2", "steps 3"], f"{SIDE}x{SIDE}"),
]


@pytest.fixture(autouse=True)
def cat(painter: FakePainter) -> None:
    Image.new("RGB", (SIDE, SIDE), "teal").save("cat.png")


@pytest.mark.parametrize(("tool", "rest", "steps", "size"), LINES)
def test_every_step_is_told_and_nothing_is_painted(
    tool: str, rest: str, steps: list[str], size: str, painter: FakePainter, capsys: Capture
) -> None:
    before = sorted(Path().iterdir())
    told = []
    for line in (f"{tool} cat.png {rest} --plan", f"plan {tool} cat.png {rest}"):
        assert main(line.split()) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    for step in steps:
        assert step in told[0]
    assert told[0].count(size) == len(steps)
    assert not painter.requests and sorted(Path().iterdir()) == before


def test_it_is_told_to_programs_too(capsys: Capture) -> None:
    assert main(["plan", "grid", "cat.png", "moon", "--x", "steps=2,3", "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    assert [each["step"] for each in account["steps"]] == ["steps 2", "steps 3"]


def test_a_picture_of_that_name_is_a_picture(painter: FakePainter, capsys: Capture) -> None:
    Path("cat.png").rename("grid")
    assert main(["plan", "grid", "moon"]) == 0
    assert "network calls" in capsys.readouterr().out


def test_what_is_wrong_is_told_by_the_plan(capsys: Capture) -> None:
    assert main(["plan", "grid", "cat.png", "--x", "seed=1-100", "--y", "steps=1-100"]) == 2
    assert "10000 cells (100 x 100 x 1)" in capsys.readouterr().err


def test_memory_of_a_device_that_is_named(tmp_path: Path, capsys: Capture) -> None:
    """For another machine than this one; of files whose headers alone are read, for they hold nothing else."""
    path = str(hollow_flux(tmp_path))
    assert main(["plan", "cat.png", "moon", "--model", path, "--device-memory", "16GB"]) == 0
    told = capsys.readouterr().out
    assert "device 17.2 GB, of which" in " ".join(told.split())
    assert "the text encoders leave after encoding: 9.77 GB" in told
    assert main(["plan", "cat.png", "moon", "--model", path, "--device-memory", "8GB", "--json"]) == 0
    placement = json.loads(capsys.readouterr().out)["placement"]
    assert (placement["weights"], placement["fits"]) == ("stored", True) and placement["streamed_blocks"] > 10
