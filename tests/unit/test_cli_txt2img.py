"""The command: new pictures, second passes, and what hangs on a model. With a painter that needs no weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from overpaint.cli import main
from overpaint.cli.flags import as_flags
from overpaint.cli.options import GivenOptions
from overpaint.errors import CheckpointError, OverpaintError, RequestError
from overpaint.files.metadata import encode_picture, read_infotext, read_recipe
from overpaint.models.hashes import network_hash
from overpaint.parts import Hires, Lora
from overpaint.request import Img2ImgRequest, Txt2ImgRequest
from overpaint.settings import Quirks
from tests.unit.command import Capture, adapter, asked_for, header_only, painter
from tests.unit.fake_painter import FakePainter, drawing

__all__ = ["painter"]

SMALL = ["--size", "32x24", "--seed", "7"]


def hires_of(painter: FakePainter) -> Hires | None:
    request = asked_for(painter)
    assert isinstance(request, Txt2ImgRequest)
    return request.hires


class TestTxt2Img:
    def test_a_text_is_enough(self, painter: FakePainter, capsys: Capture) -> None:
        for expected in ("txt2img.png", "txt2img-1.png"):  # nothing is overwritten
            assert main(["txt2img", "a moon", "--seed", "7"]) == 0
            assert capsys.readouterr().out == f"{expected}  seed 7\n"
        assert asked_for(painter) == Txt2ImgRequest(prompt="a moon", seed=7)
        assert main(["txt2img", "--prompt", "a moon", "--seed", "7", "-o", "option.png"]) == 0
        assert Path("option.png").read_bytes() == Path("txt2img.png").read_bytes()
        text, _ = read_infotext(Path("txt2img.png"))
        assert text is not None
        assert "Size: 512x512" in text
        assert "Denoising strength" not in text

    def test_all_options_of_the_second_pass(self, painter: FakePainter) -> None:
        line = (
            "--hires-size 64x48 --hires-upscaler Lanczos --hires-steps 4 --hires-strength 0.5 --hires-sampler Heun "
            "--hires-scheduler karras --hires-prompt sun --hires-negative rain"
        )
        assert main(["txt2img", "moon", *SMALL, *line.split()]) == 0
        assert hires_of(painter) == Hires(
            width=64,
            height=48,
            upscaler="Lanczos",
            steps=4,
            strength=0.5,
            sampler="Heun",
            scheduler="karras",
            prompt="sun",
            negative_prompt="rain",
        )

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("", None),
            ("--no-hires", None),
            ("--hires", Hires()),
            ("--hires-scale 1.5", Hires(scale=1.5)),
            ("--hires --hires-steps 3", Hires(steps=3)),
            ("--hires-size 64x", Hires(width=64)),
            ("--hires-size X48", Hires(height=48)),
        ],
    )
    def test_any_of_them_switches_it_on(self, painter: FakePainter, line: str, expected: Hires | None) -> None:
        assert main(["txt2img", "moon", *SMALL, *line.split()]) == 0
        assert hires_of(painter) == expected

    def test_several_pictures_are_numbered(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["txt2img", "moon", *SMALL, "--count", "2", "-o", "x.jpg"]) == 0
        assert capsys.readouterr().out == "x-1.jpg  seed 7\nx-2.jpg  seed 8\n"
        assert read_recipe(Path("x-2.jpg")) is not None

    def test_json(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["txt2img", "moon", *SMALL, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["pictures"][0]["path"] == "txt2img.png"


class TestControls:
    @pytest.fixture(autouse=True)
    def networks(self, painter: FakePainter) -> None:
        """Files by which they are called; nothing of them is read."""
        for name in ("canny", "depth"):
            Path(name).touch()

    def test_the_picture_is_opened_and_kept_by_name(self, painter: FakePainter) -> None:
        line = ["--control", "canny=mask.png,weight=0.5,end=0.6,pre=invert", "--control", "depth=cat.png"]
        assert main(["paint", "cat.png", "moon", *line, "-o", "x.png"]) == 0
        first, second = asked_for(painter).controls
        assert (first.model, first.weight, first.end, first.preprocessor) == ("canny", 0.5, 0.6, "invert")
        assert (first.image.size, second.model) == ((32, 24), "depth")
        recipe = read_recipe(Path("x.png"))
        assert recipe is not None
        assert [each["path"] for each in recipe["controls"]] == ["mask.png", "cat.png"]

    def test_again(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["txt2img", "moon", *SMALL, "--control", "canny=mask.png,weight=0.5", "-o", "x.png"]) == 0
        assert main(["again", "x.png"]) == 0
        assert Path("x-again.png").read_bytes() == Path("x.png").read_bytes()
        (unit,) = asked_for(painter).controls
        assert (unit.model, unit.weight, unit.image.size) == ("canny", 0.5, (32, 24))
        shutil.move("mask.png", "elsewhere.png")
        assert main(["again", "x.png"]) == 2
        assert "--control 'mask.png': it is not there any more; give --control" in capsys.readouterr().err
        assert main(["again", "x.png", "--control", "depth=elsewhere.png"]) == 0
        (unit,) = asked_for(painter).controls
        assert (unit.model, unit.weight) == ("depth", 1.0)


class TestAgain:
    def test_a_new_picture_and_its_second_pass(self, painter: FakePainter) -> None:
        line = [
            "--hires-size",
            "64x48",
            "--hires-steps",
            "4",
            "--negative",
            "rain",
            "--sampler",
            "Euler",
            "--reference",
        ]
        assert main(["txt2img", "moon", *SMALL, *line, "-o", "x.png"]) == 0
        first, settings = asked_for(painter), painter.settings[-1]
        assert main(["again", "x.png"]) == 0
        assert asked_for(painter) == first.with_changes(noise_multiplier=1.0, steps=20, cfg_scale=7.0)
        assert painter.settings[-1] == settings
        assert Path("x-again.png").read_bytes() == Path("x.png").read_bytes()

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("--hires", Hires(width=64, height=48, steps=4)),
            ("--hires-steps 9", Hires(width=64, height=48, steps=9)),
            ("--hires-scale 3", Hires(scale=3, steps=4)),  # in the place of the size
            ("--hires-size 96x", Hires(width=96, steps=4)),
            ("--no-hires", None),
        ],
    )
    def test_with_another_second_pass(self, painter: FakePainter, line: str, expected: Hires | None) -> None:
        assert main(["txt2img", "moon", *SMALL, "--hires-size", "64x48", "--hires-steps", "4", "-o", "x.png"]) == 0
        assert main(["again", "x.png", *line.split()]) == 0
        assert hires_of(painter) == expected

    @pytest.mark.parametrize("line", ["--picture cat.png", "--mask mask.png", "--strength 0.5"])
    def test_a_new_picture_has_no_source(self, painter: FakePainter, capsys: Capture, line: str) -> None:
        assert main(["txt2img", "moon", *SMALL, "-o", "x.png"]) == 0
        assert main(["again", "x.png", *line.split()]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"overpaint: {line.split()[0]}")
        assert "leave it out" in told

    def test_a_picture_painted_over_has_no_second_pass(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "moon", "-o", "x.png"]) == 0
        assert main(["again", "x.png", "--hires-scale", "2"]) == 2
        assert "only a picture painted from noise" in capsys.readouterr().err
        assert main(["again", "x.png", "--no-hires"]) == 0

    def test_a_changed_lora_is_told(self, painter: FakePainter, capsys: Capture) -> None:
        adapter("ink", folder=Path("loras")), adapter("oil", folder=Path("loras"))
        folder = ["--set", "lora_dir=loras"]
        assert main(["paint", "cat.png", "moon <lora:oil:0.5>", "--lora", "ink:0.8", *folder, "-o", "x.png"]) == 0
        capsys.readouterr()
        assert main(["again", "x.png", *folder]) == 0
        assert capsys.readouterr().err == ""
        assert asked_for(painter).loras == (Lora(name="ink", weight=0.8),)
        adapter("ink", 2.0, Path("loras"))
        assert main(["again", "x.png", *folder]) == 0
        told = capsys.readouterr().err
        assert "warning: lora ink: the picture was painted with" in told
        assert "oil" not in told
        assert main(["again", "x.png", *folder, "--lora", "oil", "--json"]) == 0
        assert asked_for(painter).loras == (Lora(name="oil"),)
        Path("loras/ink.safetensors").unlink()
        assert main(["again", "x.png", *folder]) == 2
        assert "there is no such LoRA; known: oil" in capsys.readouterr().err


INFOTEXT = (
    "a moon\nNegative prompt: sun\nSteps: 12, Sampler: Euler a, Schedule type: Karras, CFG scale: 6.5, Seed: 99, "
    "Size: 40x32, Model hash: aaaa"
)


class TestPicturesOfTheReference:
    def write(self, more: str, prompt: str = "a moon") -> None:
        text = f"{INFOTEXT.replace('a moon', prompt, 1)}{more}, Version: v1.10.1"
        Path("old.png").write_bytes(encode_picture(drawing(), "png", infotext=text))

    def test_without_a_source(self, painter: FakePainter) -> None:
        self.write(", RNG: CPU")
        assert main(["again", "old.png", "--any-model", "--steps", "13"]) == 0
        request, settings = asked_for(painter), painter.settings[-1]
        assert request == Txt2ImgRequest(
            prompt="a moon",
            negative_prompt="sun",
            steps=13,
            sampler="Euler a",
            scheduler="Karras",
            cfg_scale=6.5,
            seed=99,
            width=40,
            height=32,
            clip_skip=1,
        )
        assert settings is not None
        assert (settings.quirks, settings.randn_source) == (Quirks.reference(), "CPU")

    def test_with_a_second_pass(self, painter: FakePainter) -> None:
        self.write(", Denoising strength: 0.6, Hires upscale: 1.5, Hires steps: 4, Hires upscaler: Latent (bicubic)")
        assert main(["again", "old.png", "--any-model", "--hires-steps", "5"]) == 0
        assert hires_of(painter) == Hires(scale=1.5, steps=5, strength=0.6, upscaler="Latent (bicubic)")

    def test_a_source_is_refused(self, painter: FakePainter, capsys: Capture) -> None:
        self.write("")
        assert main(["again", "old.png", "--picture", "cat.png"]) == 2
        assert "painted from noise" in capsys.readouterr().err

    def test_loras_are_found_by_their_hashes(self, painter: FakePainter, capsys: Capture) -> None:
        digest = network_hash(adapter("mine", folder=Path("loras")))
        Path("loras/broken.safetensors").write_bytes(b"no header")
        self.write(f', Lora hashes: "theirs: {digest}"', "a moon <lora:theirs:0.5>")
        assert main(["again", "old.png", "--any-model", "--set", "lora_dir=loras"]) == 0
        assert asked_for(painter).prompt == "a moon <lora:mine:0.5>"
        self.write(', Lora hashes: "mine: 0123456789ab"', "a moon <lora:mine:0.5>")
        assert main(["again", "old.png", "--any-model", "--set", "lora_dir=loras"]) == 0
        assert "lora mine: the picture was painted with 0123456789ab" in capsys.readouterr().err


class TestPlan:
    def test_a_second_pass_for_machines(self, painter: FakePainter, capsys: Capture) -> None:
        line = "plan moon --txt2img --size 64x48 --steps 8 --sampler Euler --seed 3 --count 2 --hires-size 128x128"
        assert main([*line.split(), "--hires-steps", "5", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["source"], told["repainted"], told["size"]) == (None, None, [64, 48])
        assert (told["hires"]["enlarged"], told["hires"]["size"]) == ([170, 128], [128, 128])
        assert (told["hires"]["upscaler"], told["hires"]["steps"]) == ("Latent", 5)
        assert told["network_calls"] == 2 * (8 + 5)
        assert (told["refiner"], told["networks"], told["controls"]) == (None, [], [])
        assert painter.requests == []

    def test_a_second_pass_for_people(self, painter: FakePainter, capsys: Capture) -> None:
        line = "plan moon --txt2img --size 64x48 --hires-scale 1.5 --hires-upscaler Lanczos"
        assert main([*line.split(), "--hires-strength", "0"]) == 0
        told = capsys.readouterr().out
        assert "96x72 by Lanczos" in told
        assert "enlarged only" in told
        assert "source" not in told and "repainted" not in told

    def test_what_hangs_on_the_model(self, painter: FakePainter, capsys: Capture) -> None:
        adapter("ink"), adapter("canny", folder=Path("controls"))
        folders = ["--set", "lora_dir=.", "--set", "controlnet_dir=controls"]
        line = [
            "plan",
            "cat.png",
            "moon <lora:ink:0.5>",
            "--lora",
            "ink:0.8:0.25",
            "--control",
            "canny=mask.png,end=0.5",
        ]
        assert main([*line, *folders]) == 0
        told = capsys.readouterr().out
        assert "weight 0.5: ink.safetensors" in told
        assert "weight 0.8, text 0.25: ink.safetensors" in told
        assert "canny, weight 1, 0 to 0.5: controls/canny.safetensors" in told
        assert main([*line, *folders, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["networks"]) == 2
        assert main([*line, *folders[:2]]) == 3
        assert "--control model 'canny': there is no such file; give --models FOLDER" in capsys.readouterr().err

    def test_an_upscaler_is_known_by_name(self, painter: FakePainter, capsys: Capture) -> None:
        adapter("4x-Sharp")  # nothing of it is read
        line = ["plan", "moon", "--txt2img", "--set", "esrgan_dir=.", "--hires-upscaler"]
        assert main([*line, "4x-Sharp"]) == 0
        assert main([*line, "4x-Sharq"]) == 2
        assert "did you mean '4x-Sharp'?" in capsys.readouterr().err

    def test_a_refiner(self, painter: FakePainter, capsys: Capture) -> None:
        header_only("tiny-sd15", Path("late.safetensors"))
        assert main(["plan", "cat.png", "--refiner", "late.safetensors", "--refiner-at", "0.6"]) == 0
        assert "late from 0.6 on, in the first pass" in capsys.readouterr().out
        assert main(["plan", "cat.png", "--refiner", "later.safetensors"]) == 3
        assert "--refiner 'later.safetensors': there is no such file" in capsys.readouterr().err


class TestFolders:
    @pytest.fixture
    def models(self, painter: FakePainter) -> Path:
        for name in ("Stable-diffusion", "Lora", "VAE", "VAE-approx", "ESRGAN", "ControlNet", "hypernetworks"):
            Path("webui/models", name).mkdir(parents=True)
        Path("webui/embeddings").mkdir()
        return Path("webui/models")

    @pytest.mark.parametrize("root", ["webui", "webui/models", "webui/models/"])
    def test_a_whole_folder_of_models(self, models: Path, root: str) -> None:
        settings = GivenOptions({"models": root}).settings()
        assert Path(settings.models_dir) == models / "Stable-diffusion"
        assert Path(settings.lora_dir) == models / "Lora"
        assert Path(settings.vae_dir) == models / "VAE"
        assert Path(settings.taesd_dir) == models / "VAE-approx"
        assert Path(settings.esrgan_dir) == models / "ESRGAN"
        assert Path(settings.controlnet_dir) == models / "ControlNet"
        assert Path(settings.hypernetwork_dir) == models / "hypernetworks"
        assert Path(settings.embeddings_dir).samefile("webui/embeddings")

    def test_a_folder_of_checkpoints(self, painter: FakePainter) -> None:
        Path("there/sd15").mkdir(parents=True)
        Path("embeddings").mkdir()  # of somebody else
        settings = GivenOptions({"models": "there"}).settings()
        assert (settings.models_dir, settings.lora_dir, settings.embeddings_dir) == ("there", "", "")

    def test_an_option_beats_it(self, models: Path) -> None:
        settings = GivenOptions({"models": "webui", "set": ["lora_dir=mine"]}).settings()
        assert (settings.lora_dir, Path(settings.vae_dir)) == ("mine", models / "VAE")

    def test_the_environment(self, models: Path, painter: FakePainter, monkeypatch: pytest.MonkeyPatch) -> None:
        adapter("ink", folder=models / "Lora")
        monkeypatch.setenv("OVERPAINT_MODELS", "webui")
        assert main(["txt2img", "moon", *SMALL, "--lora", "ink"]) == 0
        settings = painter.settings[-1]
        assert settings is not None
        assert Path(settings.lora_dir) == models / "Lora"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RequestError("loras[1].weight", 200, "give less"), "--lora weight 200: give less"),
        (RequestError("loras", 3, "give a list"), "--lora 3: give a list"),
        (RequestError("controls[0].image", 3, "give a picture"), "--control image 3: give a picture"),
        (RequestError("hires.checkpoint", "x", "there is none"), "--hires-model 'x': there is none"),
        (RequestError("refiner", "x", "there is none"), "--refiner 'x': there is none"),
        (RequestError("checkpoint", "x", "there is none"), "--model 'x': there is none"),
        (RequestError("--picture", None, "give it"), "--picture: give it"),
        (RequestError("max_images", 3, "give less"), "--set max_images=3: give less"),
        (CheckpointError("controls[0].model='x': there is none"), "--control model 'x': there is none"),
        (CheckpointError("refiner='x': there is none"), "--refiner 'x': there is none"),
        (CheckpointError("x.safetensors: a = b"), "x.safetensors: a = b"),
        (OverpaintError("a\nb"), "a b"),
    ],
)
def test_errors_in_the_words_of_the_command(error: OverpaintError, told: str) -> None:
    assert as_flags(error) == told


def test_a_source_makes_the_request_an_img2img_one(painter: FakePainter) -> None:
    assert main(["paint", "cat.png"]) == 0
    assert type(asked_for(painter)) is Img2ImgRequest
