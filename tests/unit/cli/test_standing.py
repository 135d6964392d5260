"""overpaint.toml and the environment: what holds for all commands of a user."""

from __future__ import annotations

from pathlib import Path

import pytest

from overpaint.cli import main
from overpaint.cli.options import GivenOptions
from overpaint.cli.standing import KEYS, config_path, standing_values
from overpaint.errors import RequestError
from overpaint.settings import Settings
from tests.unit.command import Capture, adapter, asked_for, painter
from tests.unit.fake_painter import FakePainter

__all__ = ["painter"]


@pytest.fixture
def config(painter: FakePainter, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVERPAINT_CONFIG", "mine.toml")
    return Path("mine.toml")


def settings_of(painter: FakePainter) -> Settings:
    settings = painter.settings[-1]
    assert settings is not None
    return settings


def test_an_option_beats_the_environment_and_that_the_file(
    config: Path, painter: FakePainter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        adapter(name)
    config.write_text('vae = "one.safetensors"\n[set]\nrandn_source = "NV"\njpeg_quality = 95\n')
    assert main(["paint", "cat.png"]) == 0
    assert (settings_of(painter).sd_vae, settings_of(painter).randn_source) == ("one.safetensors", "NV")
    monkeypatch.setenv("OVERPAINT_VAE", "two.safetensors")
    assert main(["paint", "cat.png"]) == 0
    assert settings_of(painter).sd_vae == "two.safetensors"
    assert main(["paint", "cat.png", "--vae", "three.safetensors", "--set", "randn_source=CPU"]) == 0
    assert (settings_of(painter).sd_vae, settings_of(painter).randn_source) == ("three.safetensors", "CPU")
    assert settings_of(painter).jpeg_quality == 95


def test_a_picture_is_repeated_as_it_was(config: Path, painter: FakePainter) -> None:
    config.write_text("")
    assert main(["paint", "cat.png", "-o", "x.png"]) == 0
    config.write_text('reference = true\n[set]\nrandn_source = "NV"\nlora_dir = "loras"\n')
    assert main(["again", "x.png"]) == 0
    settings = settings_of(painter)
    assert (settings.randn_source, settings.lora_dir) == ("GPU", "loras")
    assert settings.quirks == Settings().quirks
    assert asked_for(painter).prompt == ""


def test_the_demo_is_the_built_in_models(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = GivenOptions({}, {"model": "dreams", "vae": "nice.pt", "device": "cpu", "set": {"randn_source": "NV"}})
    alone = asked.machine_alone()
    assert (alone.text("model"), alone.text("device"), alone.settings().randn_source) == ("", "cpu", "GPU")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('modle = "x"', "mine.toml: modle='x': there is no such key; did you mean 'model'?"),
        ("model = 3", "mine.toml: model=3: give a text in quotes"),
        ("[set]\nrandn_sorce = 'NV'", "mine.toml: [set] randn_sorce='NV': did you mean 'randn_source'?"),
        ("[set]\nrandn_source = 'NVIDIA'", "mine.toml: [set] randn_source='NVIDIA': choose one of GPU, CPU, NV"),
        ("model = ", "overpaint.toml='mine.toml': it is not TOML"),
    ],
)
def test_what_is_wrong_in_the_file(config: Path, capsys: Capture, text: str, told: str) -> None:
    config.write_text(text)
    assert main(["paint", "cat.png"]) == 2
    assert capsys.readouterr().err.startswith(f"overpaint: {told}")


def test_a_file_that_is_named_has_to_be_there(config: Path) -> None:
    with pytest.raises(RequestError, match="there is no such file"):
        standing_values()


def test_every_key_has_its_variable(painter: FakePainter, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, (kind, variable, _) in KEYS.items():
        monkeypatch.setenv(variable, "yes" if kind is bool else f"my {key}")
        assert standing_values()[key] == (True if kind is bool else f"my {key}")
    monkeypatch.setenv("OVERPAINT_REFERENCE", "perhaps")
    with pytest.raises(RequestError, match="set it to true or false"):
        standing_values()


def test_the_platforms_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVERPAINT_CONFIG", raising=False)
    path = config_path()
    assert path is not None and path.name == "overpaint.toml" and path.parent.name == "overpaint"
