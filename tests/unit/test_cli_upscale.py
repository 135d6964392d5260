"""The command `overpaint upscale`."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from overpaint.cli import main, session
from overpaint.events import Control, Stop
from overpaint.files.metadata import encode_picture, read_infotext
from overpaint.models.upscaler_files import LoadedUpscaler, load_upscaler
from overpaint.painting import upscaling
from tests.unit.esrgan import compact_state

Capture = pytest.CaptureFixture[str]
INFOTEXT = "a cat\nSteps: 20, Sampler: Euler, Seed: 3"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to stand in, with two pictures and an upscaler's file."""
    monkeypatch.chdir(tmp_path)
    exif = Image.Exif()
    exif[0x010E] = "mine"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8))
    Path("cat.png").write_bytes(encode_picture(picture, "png", infotext=INFOTEXT, exif=exif.tobytes()))
    picture.convert("RGBA").save("dog.png")
    Path("models").mkdir()
    torch.save({"params": compact_state(scale=2)}, "models/Small_x2.pth")
    return tmp_path


def size_of(path: str) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_background_is_put_behind_a_jpeg(here: Path, capsys: Capture) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 255, 0)).save("clear.png")
    assert main(["upscale", "clear.png", "-o", "x.jpg"]) == 0
    assert "warning: x.jpg: JPEG holds no transparency" in capsys.readouterr().err
    with Image.open("x.jpg") as picture:
        assert np.asarray(picture).min() > 247


def test_twice_as_large(here: Path, capsys: Capture) -> None:
    assert main(["upscale", "cat.png"]) == 0
    assert capsys.readouterr().out == "cat-upscaled.png  40x24\n"
    text, items = read_infotext(Path("cat-upscaled.png"))
    assert text == INFOTEXT
    assert items["postprocessing"] == "Postprocess upscale by: 2, Postprocess upscaler: Lanczos"
    with Image.open("cat-upscaled.png") as picture:
        assert picture.size == (40, 24) and picture.getexif()[0x010E] == "mine"


def test_a_network_by_name_and_by_path(here: Path, capsys: Capture) -> None:
    line = "upscale cat.png dog.png --upscaler small_X2 --set esrgan_dir=models --scale 3 -o ."
    assert main(line.split()) == 0
    assert capsys.readouterr().out == "cat-upscaled.png  60x36\ndog-upscaled.png  60x36\n"
    line = "upscale cat.png --upscaler models/Small_x2.pth --scale 3 --device cpu -o other.png --json"
    assert main(line.split()) == 0
    account = json.loads(capsys.readouterr().out)
    assert account["pictures"][0] == {
        "path": "other.png",
        "width": 60,
        "height": 36,
        "done": {"Postprocess upscale by": 3.0, "Postprocess upscaler": "Small_x2"},
        "infotext": INFOTEXT,
        "warnings": [],
    }
    assert account["stopped"] is False
    assert Path("cat-upscaled.png").read_bytes() == Path("other.png").read_bytes()
    with Image.open("dog-upscaled.png") as picture:
        assert picture.mode == "RGBA"


def test_to_a_size_with_two(here: Path, capsys: Capture) -> None:
    line = "upscale cat.png --size 64x64 --no-crop --second Nearest --visibility 0.25 -o x.jpg"
    assert main(line.split()) == 0
    assert size_of("x.jpg") == (106, 64)
    assert read_infotext(Path("x.jpg"))[0] == INFOTEXT
    assert main(["upscale", "cat.png", "--size", "64x64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["pictures"][0]["width"] == 64


def test_nothing_is_overwritten_unasked(here: Path, capsys: Capture) -> None:
    Path("sub").mkdir()
    Path("sub/cat.png").write_bytes(Path("dog.png").read_bytes())
    for _ in range(2):
        assert main(["upscale", "cat.png"]) == 0
    assert size_of("cat-upscaled-1.png") == (40, 24)
    assert main(["upscale", "cat.png", "-o", "cat-upscaled.png"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    line = "upscale cat.png sub/cat.png --scale 3 --overwrite --json"
    assert main(line.split()) == 0  # two of one name do not replace each other
    paths = [each["path"] for each in json.loads(capsys.readouterr().out.splitlines()[-1])["pictures"]]
    assert paths == ["cat-upscaled.png", "cat-upscaled-2.png"] and size_of("cat-upscaled.png") == (60, 36)


def test_without_infotexts(here: Path) -> None:
    assert main(["upscale", "cat.png", "--set", "enable_pnginfo=false"]) == 0
    assert read_infotext(Path("cat-upscaled.png"))[0] is None


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("cat.png --upscaler Gone", 2, "--upscaler 'Gone': give one of None, Lanczos, Nearest; files are looked for"),
        ("cat.png --second Gone", 2, "--second 'Gone'"),
        ("cat.png --scale 2 --size 9x9", 2, "--size '9x9': give --scale or --size"),
        ("cat.png --size 9", 2, "--size '9': give width x height"),
        ("cat.png --scale 0", 2, "--scale 0.0: give a value"),
        ("cat.png --second Nearest --visibility 2", 2, "--visibility 2"),
        ("cat.png --scale 64 --set max_source_pixels=9", 3, "max_source_pixels=9"),
        ("cat.png --size 64000x64000", 2, "--size (64000, 64000): images[0] would become"),
        ("gone.png", 3, "gone.png: there is no such file"),
        ("cat.png dog.png -o x.png", 2, "--output 'x.png': for several pictures give a folder"),
        ("cat.png -o gone/x.png", 2, "its folder does not exist"),
        ("cat.png -o x.txt", 2, "--output 'x.txt'"),
        ("models/Small_x2.pth", 3, "models/Small_x2.pth"),
        ("cat.png --upscaler broken.pth", 3, "broken.pth: "),
        ("cat.png --upscaler models/Small_x2.pth --device moon", 2, "--device 'moon'"),
        ("", 2, "PICTURE"),
    ],
)
def test_what_cannot_be_done(here: Path, capsys: Capture, line: str, code: int, message: str) -> None:
    Path("broken.pth").write_bytes(b"no model")
    before = sorted(here.rglob("*"))
    assert main(["upscale", *line.split()]) == code
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(("tile", "finished"), [(192, ["cat-upscaled.png  40x24"]), (16, [])])
def test_a_stop_keeps_what_was_finished(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tile: int, finished: list[str]
) -> None:
    control = Control()

    def stopping(path: Path, device: torch.device) -> LoadedUpscaler:
        loaded = load_upscaler(path, device)
        loaded.network.register_forward_hook(lambda *_: control.ask(Stop.CANCEL))
        return loaded

    monkeypatch.setattr(session, "stoppable", lambda: nullcontext(control))
    monkeypatch.setattr(upscaling, "load_upscaler", stopping)
    line = f"upscale cat.png dog.png --upscaler models/Small_x2.pth --set ESRGAN_tile={tile}"
    assert main(line.split()) == 130
    out, err = capsys.readouterr()
    assert out.splitlines() == finished and f"stopped; {len(finished)} of 2 pictures were finished" in err
    assert len(list(here.glob("*-upscaled.png"))) == len(finished)


def test_help_and_resampling_need_no_torch(here: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from overpaint.cli import main; main(['upscale', '--help']);"
        "print([name for name in ('numpy', 'PIL', 'yaml') if name in sys.modules]);"
        "sys.exit(main(['upscale', 'cat.png', '--upscaler', 'Nearest']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "[]\ncat-upscaled.png  40x24\n" in ran.stdout and "Exit codes" in ran.stdout
