"""`--webui DIR`: the folder of an installed webui, used as it lies by every command that paints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from overpaint.cli import main
from overpaint.cli.options import GivenOptions
from overpaint.settings import Settings
from tests.unit.command import Capture, adapter, asked_for, header_only, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]


@pytest.fixture
def webui(painter: FakePainter) -> Path:
    """An installation with a checkpoint, a LoRA, styles and options of its own."""
    root = Path("webui").absolute()
    for name in ("Stable-diffusion", "Lora", "ESRGAN"):
        (root / "models" / name).mkdir(parents=True)
    (root / "embeddings").mkdir()
    header_only("tiny-sd15", root / "models/Stable-diffusion/dreams.safetensors")
    header_only("tiny-sd15", root / "models/Stable-diffusion/real.safetensors")
    adapter("ink", folder=root / "models/Lora")
    (root / "styles.csv").write_text('name,prompt,negative_prompt\nwash,"{prompt}, ink wash",photo\n')
    options = {"sd_model_checkpoint": "real.safetensors [abc]", "CLIP_stop_at_last_layers": 2, "sd_unet": "x"}
    (root / "config.json").write_text(json.dumps(options))
    return root


def tree(root: Path) -> dict[str, object]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else sorted(path.iterdir()))
        for path in [root, *root.rglob("*")]
    }


def settings_of(painter: FakePainter) -> Settings:
    settings = painter.settings[-1]
    assert settings is not None
    return settings


def test_all_of_it_is_used_and_nothing_is_written(webui: Path, painter: FakePainter, capsys: Capture) -> None:
    before = tree(webui)
    line = ["a cat", "--style", "wash", "--lora", "ink:0.5", "-o", "cat2.png", "--webui", "webui"]
    assert main(["paint", "cat.png", *line]) == 0
    settings = settings_of(painter)
    assert settings.sd_model_checkpoint == str(webui / "models/Stable-diffusion/real.safetensors")
    assert (settings.CLIP_stop_at_last_layers, settings.lora_dir) == (2, str(webui / "models/Lora"))
    assert asked_for(painter).styles == ("wash",)
    told = capsys.readouterr().err
    assert f"overpaint: options of {webui}: sd_model_checkpoint=" in told
    assert "CLIP_stop_at_last_layers=2" in told
    assert f"left out there: sd_unet (`overpaint settings --webui {webui}` says why)" in told
    for quiet in ("-q", "--json"):
        assert main(["txt2img", "a cat", "-o", f"{quiet}.png", "--webui", "webui", quiet]) == 0
        assert capsys.readouterr().err == ""
    assert main(["plan", "cat.png", "--webui", "webui"]) == 0
    assert main(["batch", "webui", "out", "--webui", "webui"]) == 0
    assert tree(webui) == before


def test_the_line_beats_our_settings_and_those_beat_theirs(
    webui: Path, painter: FakePainter, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("OVERPAINT_CONFIG", "mine.toml")
    Path("mine.toml").write_text(f'webui = "{webui}"\n[set]\nCLIP_stop_at_last_layers = 3\n')
    assert main(["paint", "cat.png", "-o", "1.png"]) == 0
    assert settings_of(painter).CLIP_stop_at_last_layers == 3
    assert "CLIP_stop" not in capsys.readouterr().err
    assert main(["paint", "cat.png", "-o", "2.png", "--set", "CLIP_stop_at_last_layers=4", "--model", "dreams"]) == 0
    assert settings_of(painter).CLIP_stop_at_last_layers == 4
    assert asked_for(painter).checkpoint is None
    Path("others").mkdir()
    assert GivenOptions({"models": "others"}, {"webui": str(webui)}).settings().models_dir == "others"
    named = GivenOptions({"webui": str(webui)}, {"models": "others"}).settings()
    assert named.models_dir == str(webui / "models/Stable-diffusion")


def test_a_repeated_picture_keeps_its_options(webui: Path, painter: FakePainter, capsys: Capture) -> None:
    assert main(["paint", "cat.png", "-o", "x.png", "-q"]) == 0
    assert main(["again", "x.png", "-o", "y.png", "--webui", "webui"]) == 0
    settings = settings_of(painter)
    assert (settings.CLIP_stop_at_last_layers, settings.sd_model_checkpoint) == (1, None)
    assert settings.lora_dir == str(webui / "models/Lora")
    assert "options" not in capsys.readouterr().err


def test_results_do_not_fall_into_it(
    webui: Path, painter: FakePainter, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = tree(webui)
    monkeypatch.chdir(webui / "models")
    for line in (["paint", "../../cat.png"], ["upscale", "../../cat.png"], ["loopback", "../../cat.png"]):
        assert main([*line, "--webui", ".."]) == 2
        assert (
            f"--output: we are inside {webui}, where nothing is written unasked; name a place"
            in capsys.readouterr().err
        )
    assert main(["paint", "../../cat.png", "-o", "../../done.png", "--webui", ".."]) == 0
    assert tree(webui) == before


def test_no_installation(painter: FakePainter, capsys: Capture) -> None:
    assert main(["paint", "cat.png", "--webui", "."]) == 2
    assert capsys.readouterr().err == (
        "overpaint: --webui '.': it is no installation of the webui: it has no folder models/Stable-diffusion; "
        "--models takes any folder of models\n"
    )
    assert not painter.requests


def test_what_it_holds(webui: Path, capsys: Capture) -> None:
    assert main(["models", "--webui", "webui"]) == 0
    assert "dreams.safetensors" in capsys.readouterr().out
    for kind, told in (("lora", "<lora:ink:1>"), ("style", "--style wash"), ("embedding", "no embedding in")):
        assert main(["models", "--webui", "webui", "--kind", kind]) == 0
        assert told in capsys.readouterr().out


def test_what_becomes_of_its_options(webui: Path, capsys: Capture) -> None:
    assert main(["settings", "--webui", "webui"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["CLIP_stop_at_last_layers", "2", "counts"] in rows
    assert ["sd_unet", "x", "there", "is", "no", "such", "option", "here"] in rows
    assert main(["settings", "clip", "--webui", "webui", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["settings"]
    assert only == {"name": "CLIP_stop_at_last_layers", "value": 2, "taken": True, "reason": ""}
    (webui / "config.json").unlink()
    assert main(["settings", "--webui", "webui"]) == 0
    assert capsys.readouterr().out == "no option was changed there\n"


def test_defaults_of_its_page_hold_where_the_line_says_nothing(
    webui: Path, painter: FakePainter, capsys: Capture
) -> None:
    chosen = {
        "customscript/sampler.py/img2img/Sampling steps/value": 31,
        "img2img/CFG Scale/value": 5.0,
        "img2img/Mask blur/value": 9,
        "txt2img/Width/value": 256,
    }
    (webui / "ui-config.json").write_text(json.dumps(chosen))
    before = tree(webui)
    assert main(["paint", "cat.png", "-o", "1.png", "--webui", "webui", "--cfg", "6"]) == 0
    asked = asked_for(painter)
    assert (asked.steps, asked.cfg_scale, asked.mask_blur_x) == (31, 6.0, 4)
    assert "overpaint: defaults of its img2img tab: steps=31\n" in capsys.readouterr().err
    assert main(["paint", "cat.png", "-o", "2.png", "--mask", "all", "--webui", "webui"]) == 0
    assert (asked_for(painter).mask_blur_x, asked_for(painter).mask_blur_y) == (9, 9)
    assert "defaults of its inpaint tab: steps=31, cfg_scale=5.0, mask_blur_x=9" in capsys.readouterr().err
    assert main(["txt2img", "a cat", "-o", "3.png", "--webui", "webui"]) == 0
    assert (asked_for(painter).width, asked_for(painter).steps) == (256, None)
    assert "defaults of its txt2img tab: width=256\n" in capsys.readouterr().err
    assert main(["plan", "cat.png", "--webui", "webui"]) == 0
    told = capsys.readouterr()
    assert "defaults of its img2img tab: steps=31" in told.err and "steps          24\n" in told.out
    assert main(["again", "1.png", "-o", "4.png", "--webui", "webui"]) == 0
    assert asked_for(painter).cfg_scale == 6.0
    assert "tab" not in capsys.readouterr().err
    assert main(["paint", "cat.png", "-o", "5.png"]) == 0
    assert asked_for(painter).steps is None
    assert tree(webui) == before
