"""The help pages: every option in its group, every example a line that works, every summary whole."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from overpaint.cli import app, main
from overpaint.cli.help import EXAMPLES, GROUPS
from overpaint.cli.mistakes import INSTEAD
from overpaint.settings import OPTION_NAMES, option_meanings
from tests.unit.cli.mistakes_folder import checkpoint
from tests.unit.command import Capture, painter
from tests.unit.fake_painter import FakePainter, drawing

__all__ = ["painter"]

COMMANDS: dict[str, Any] = dict(get_command(app).commands)  # type: ignore[attr-defined]
PAINTING = ("paint", "txt2img", "again", "batch", "plan")


@pytest.mark.parametrize("name", PAINTING)
def test_every_option_is_in_a_group(name: str) -> None:
    grouped = {each for names in GROUPS.values() for each in names}
    options = {each.name for each in COMMANDS[name].params if each.param_type_name == "option"}
    assert options - grouped <= {"new"}


def test_no_option_is_in_two_groups() -> None:
    assert sum(map(len, GROUPS.values())) == len({each for names in GROUPS.values() for each in names})


def test_summaries_fit(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert set(COMMANDS) < set(told.split())
    assert "..." not in told.replace("[ARGS]...", "")


def test_a_page_is_grouped_and_has_three_examples(capsys: Capture) -> None:
    assert main(["paint", "--help"]) == 0
    told = capsys.readouterr().out
    places = [told.index(f"\n{title}:") for title in ("Picture", "Mask", "Strength and steps", "Models", "Output")]
    assert places == sorted(places)
    assert told.count("  overpaint paint ") == 3


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_a_line_that_works(painter: FakePainter, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overpaint.service.serve.serve", lambda config, told: 0)
    checkpoint(Path("webui/models/Stable-diffusion/dreams.safetensors"))
    monkeypatch.setattr("overpaint.planning.preflight.check", lambda *_, **__: None)  # that one has no true header
    for folder in ("photos", "masks"):
        Path(folder).mkdir()
        drawing().save(f"{folder}/a.png")
    for name in ("photo.png", "mask.png"):
        drawing().save(name)
    Path("rows.jsonl").write_text('{"picture": "photo.png"}\n')
    Path("infotext.txt").write_text("moon\nSteps: 9, Sampler: Euler, Seed: 1, Size: 32x24, Denoising strength: 0.5")
    assert main(["paint", "photo.png", "moon", "-o", "painted.png"]) == 0
    Path("webui/models/Lora").mkdir()
    assert main(shlex.split(line.replace("~/webui/models", "webui").replace("~/webui", "webui"))[1:]) == 0


def test_what_other_programs_call_an_option_leads_to_one_that_is_there() -> None:
    ours = {flag for each in COMMANDS.values() for one in each.params for flag in one.opts}
    assert {each.split()[0] for each in INSTEAD.values()} < ours
    assert not INSTEAD.keys() & ours


def test_every_setting_says_what_it_is_for(capsys: Capture) -> None:
    assert option_meanings().keys() == OPTION_NAMES
    assert main(["settings", "randn"]) == 0
    assert capsys.readouterr().out.startswith("randn_source=GPU  (GPU | CPU | NV)\n    Whose random numbers")
    assert main(["settings", "zzz"]) == 0
    assert "no option has 'zzz'" in capsys.readouterr().out


def test_the_built_in_models_words_are_listed(painter: FakePainter, capsys: Capture) -> None:
    assert main(["info", "overpaint-mini"]) == 0
    assert "words it knows: a airplane among" in capsys.readouterr().out


def test_completion(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_OVERPAINT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "overpaint paint --stre")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == ["--strength-map", "--strength"]


def test_no_help_points_at_a_file_that_is_not_installed() -> None:
    texts = [one.help or "" for each in COMMANDS.values() for one in each.params]
    texts += [each.help or "" for each in COMMANDS.values()]
    assert not [each for each in texts if "docs/" in each or "README" in each]
