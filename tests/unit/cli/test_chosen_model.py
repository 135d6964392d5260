"""Which checkpoint a command paints with."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from overpaint.cli import main, session
from overpaint.cli.chosen_model import model_painted_with
from overpaint.cli.options import GivenOptions
from overpaint.errors import CheckpointError
from overpaint.files.metadata import encode_picture, read_infotext
from overpaint.models.built_in import default_path
from overpaint.models.hashes import old_hash, sha256_of
from overpaint.settings import Settings
from tests.unit.cli.mistakes_folder import checkpoint
from tests.unit.command import Capture, adapter, painter
from tests.unit.fake_painter import FakePainter, drawing

__all__ = ["painter"]

WEBUI = Path("webui/models/Stable-diffusion")


@pytest.fixture
def opened(painter: FakePainter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that engines were opened with; "" is the built-in one."""
    names: list[str] = []

    def open_engine(asked: GivenOptions, settings: Settings, progress: object) -> FakePainter:
        names.append(asked.text("model"))
        return painter

    monkeypatch.setattr(session, "open_engine", open_engine)
    return names


def true_model(path: Path) -> Path:
    """A checkpoint that is one, and not the built-in one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(load_file(default_path()), path, {"modelspec.title": path.stem, "overpaint.text_heads": "[2]"})
    return path


class TestAFolderOfModels:
    def test_the_only_one_paints(self, opened: list[str]) -> None:
        model = true_model(WEBUI / "dreams.safetensors")
        adapter("ink", folder=Path("webui/models/Lora"))
        assert main(["paint", "cat.png", "--models", "webui"]) == 0
        assert Path(opened[-1]).samefile(model)
        assert main(["paint", "cat.png", "--models", "webui", "--model", "overpaint-mini"]) == 0
        assert opened[-1] == "overpaint-mini"

    def test_of_several_one_has_to_be_named(self, opened: list[str], capsys: Capture) -> None:
        true_model(WEBUI / "sdxl/paper.safetensors")
        checkpoint(WEBUI / "dreams.safetensors")
        for command in (["paint", "cat.png"], ["txt2img", "moon"], ["plan", "cat.png"], ["batch", ".", "out"]):
            assert main([*command, "--models", "webui"]) == 2
            assert "name one of the 2 models" in capsys.readouterr().err
        assert opened == []
        for name in ("paper", "sdxl/paper", "sdxl/paper.safetensors", "paper.safetensors"):
            assert main(["paint", "cat.png", "--models", "webui", "--model", name]) == 0
            assert opened[-1] == name

    def test_one_without_checkpoints_is_told(self, opened: list[str], capsys: Capture) -> None:
        adapter("ink", folder=Path("webui/models/Lora"))
        assert main(["paint", "cat.png", "--models", "webui"]) == 0
        assert "holds no checkpoint, so overpaint-mini paints" in capsys.readouterr().err
        assert opened == [""]

    def test_files_where_they_belong_get_no_advice(self, painter: FakePainter, capsys: Capture) -> None:
        checkpoint(Path("models/dreams.safetensors"))  # beside the folders of other kinds
        adapter("ink", folder=Path("models/Lora"))
        for line in (["models"], ["--models", "models"]):
            assert main(["models", *line]) == 0
            told = capsys.readouterr().out
            assert "dreams" in told and "ink" not in told
        assert main(["models", "models", "--kind", "lora"]) == 0
        assert "<lora:ink:1>" in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["ink", "ink.safetensors", "sub/ink", "sub/ink.safetensors"])
    def test_loras_and_vaes_are_named_alike(self, painter: FakePainter, name: str) -> None:
        adapter("ink", folder=Path("webui/models/Lora/sub"))
        adapter("ink", folder=Path("webui/models/VAE/sub"))
        line = ["paint", "cat.png", "--models", "webui", "--lora", name, "--vae", name]
        assert main(line) == 0


class TestAgain:
    def test_the_model_is_found_by_its_hash(self, opened: list[str], painter: FakePainter) -> None:
        model = true_model(WEBUI / "dreams.safetensors")
        painter.model = type(painter.model)("dreams", sha256_of(model)[:10])
        assert main(["paint", "cat.png", "--models", "webui", "-o", "x.png"]) == 0
        model.rename(WEBUI / "renamed.safetensors")
        assert main(["again", "x.png", "--models", "webui"]) == 0
        assert Path(opened[-1]).name == "renamed.safetensors"

    def test_another_file_of_its_name_is_refused(
        self, opened: list[str], painter: FakePainter, capsys: Capture
    ) -> None:
        true_model(WEBUI / "dreams.safetensors")
        painter.model = type(painter.model)("dreams", "0123456789")
        assert main(["paint", "cat.png", "--models", "webui", "-o", "x.png"]) == 0
        assert main(["again", "x.png", "--models", "webui"]) == 3
        told = capsys.readouterr().err
        assert "was painted with dreams [0123456789]" in told and "is another file of that name" in told
        assert len(opened) == 1
        assert main(["again", "x.png", "--models", "webui", "--any-model"]) == 0

    def test_the_built_in_one_is_always_known(self, opened: list[str]) -> None:
        assert main(["paint", "cat.png", "-o", "x.png"]) == 0
        assert main(["again", "x.png"]) == 0
        assert Path(opened[-1]) == default_path()

    def test_hashes_of_2022(self, painter: FakePainter) -> None:
        model = Path("old/dreams.ckpt")
        model.parent.mkdir()
        model.write_bytes(bytes(3 << 20))
        assert model_painted_with("", old_hash(model), Settings(models_dir="old")) == str(model.absolute())
        with pytest.raises(CheckpointError, match="not in old"):
            model_painted_with("dreams", "ffffffff", Settings(models_dir="old"))

    def test_a_name_without_a_hash(self, painter: FakePainter) -> None:
        Path("sd/mine/unet").mkdir(parents=True)
        Path("sd/mine/model_index.json").write_text("{}")
        assert model_painted_with("mine", "", Settings(models_dir="sd")) == str(Path("sd/mine").absolute())


class TestInfotexts:
    TEXT = "moon\nSteps: 12, Sampler: Euler, Seed: 1, Size: 32x24, {more}Version: v1.10.1"

    def noise(self, painter: FakePainter) -> str:
        settings = painter.settings[-1]
        assert settings is not None
        return settings.randn_source

    def test_the_references_noise_is_chosen_and_said(self, painter: FakePainter, capsys: Capture) -> None:
        Path("x.txt").write_text(self.TEXT.format(more=""))
        assert main(["again", "x.txt"]) == 0
        assert self.noise(painter) == "NV"
        assert "names no RNG" in capsys.readouterr().err
        assert main(["again", "x.txt", "--set", "randn_source=CPU"]) == 0
        assert self.noise(painter) == "CPU"
        Path("x.txt").write_text(self.TEXT.format(more="RNG: CPU, "))
        assert main(["again", "x.txt"]) == 0
        assert "names no RNG" not in capsys.readouterr().err.splitlines()[-1]

    def test_info_reads_them_too(self, painter: FakePainter, capsys: Capture) -> None:
        Path("x.txt").write_text(self.TEXT.format(more=""))
        assert main(["info", "x.txt", "--json"]) == 0
        account = json.loads(capsys.readouterr().out)
        assert (account["prompt"], account["parameters"]["Seed"]) == ("moon", "1")

    def test_fields_without_effect_are_named(self, painter: FakePainter, capsys: Capture) -> None:
        more = "ADetailer model: face.pt, ADetailer confidence: 0.3, Face restoration: CodeFormer, "
        Path("x.png").write_bytes(encode_picture(drawing(), "png", infotext=self.TEXT.format(more=more)))
        assert main(["again", "x.png"]) == 0
        assert "have no effect here: ADetailer ..., Face restoration" in capsys.readouterr().err

    def test_our_own_have_none(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "moon", "--mask", "mask.png", "--only-masked", "--soft", "-o", "x.png"]) == 0
        capsys.readouterr()
        assert main(["info", "x.png"]) == 0
        text = capsys.readouterr().out.split("\nsource:")[0]
        Path("x.txt").write_text(text)
        assert main(["again", "x.txt", "--picture", "cat.png", "--mask", "mask.png"]) == 0
        assert "no effect" not in capsys.readouterr().err


def send(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """What comes in on stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


class TestStreams:
    def test_from_stdin_to_stdout(self, painter: FakePainter, monkeypatch: pytest.MonkeyPatch) -> None:
        out = io.BytesIO()
        send(monkeypatch, Path("cat.png").read_bytes())
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out))
        assert main(["paint", "-", "moon", "-o", "-"]) == 0
        assert out.getvalue().startswith(b"\x89PNG")
        assert painter.requests[-1].images[0].size == (32, 24)
        assert not list(Path().glob("*painted*"))

    def test_nothing_comes_in(self, painter: FakePainter, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
        send(monkeypatch, b"")
        assert main(["paint", "-", "moon"]) == 3
        assert "stdin: nothing came in" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["x.png", "x.jpg.overpaint.json", "x.txt", "marked.txt"])
    def test_again_from_stdin(self, painter: FakePainter, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        assert main(["paint", "cat.png", "moon", "--seed", "7", "-o", "x.png"]) == 0
        assert main(["paint", "cat.png", "moon", "--seed", "7", "-o", "x.jpg"]) == 0
        infotext = read_infotext(Path("x.png"))[0] or ""
        Path("x.txt").write_text(infotext, encoding="utf-8")
        Path("marked.txt").write_text(f"\n{infotext}\r\n", encoding="utf-8-sig")
        send(monkeypatch, Path(name).read_bytes())
        source = ["--picture", "cat.png"] if name.endswith("txt") else []
        assert main(["again", "-", *source]) == 0
        request = painter.requests[-1]
        assert (request.prompt, request.seed, request.images[0].size) == ("moon", 7, (32, 24))
        assert Path("again.png").is_file()
        send(monkeypatch, Path(name).read_bytes())
        assert main(["info", "-"]) == 0
        if source == []:
            assert main(["again", name]) == 0  # a recipe is read from its own file, too
            assert painter.requests[-1].seed == 7

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"", "stdin: nothing came in"),
            (b"{}", "recipe"),
            (b"[" * 100_000, "stdin: it holds neither a recipe nor an infotext"),
            (b"{" * 100_000, "stdin: its recipe is not a JSON object"),
            (b"a moon", "stdin: it holds neither a recipe nor an infotext"),
            (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        ],
    )
    def test_again_of_something_else(
        self, painter: FakePainter, monkeypatch: pytest.MonkeyPatch, capsys: Capture, data: bytes, told: str
    ) -> None:
        send(monkeypatch, data)
        assert main(["again", "-"]) in (2, 3)
        assert told in capsys.readouterr().err
        send(monkeypatch, data)
        assert main(["again", "-", "--picture", "-"]) == 2
        assert "stdin can be one file only" in capsys.readouterr().err

    def test_what_was_painted_is_shown(self, painter: FakePainter, monkeypatch: pytest.MonkeyPatch) -> None:
        shown: list[str] = []
        monkeypatch.setattr("typer.launch", lambda path: shown.append(path))
        assert main(["paint", "cat.png", "--open"]) == 0
        assert shown == ["cat-painted.png"]


def test_a_batch_names_what_it_leaves_out(painter: FakePainter, capsys: Capture) -> None:
    Path("in").mkdir()
    for name in ("a.bmp", "b.gif", "d.png"):
        drawing().save(f"in/{name}")
    Path("in/c.jxl").write_bytes(b"x")
    assert main(["batch", "in", "out", "moon", "--seed", "3"]) == 0
    told = capsys.readouterr()
    assert "left out: c.jxl" in told.err
    assert [line.split()[0] for line in told.out.splitlines()] == ["a.png", "b.png", "d.png"]
