"""The command, with a painter that needs no weights."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overpaint.cli import COMMANDS, main, session
from overpaint.cli.option_values import read_option
from overpaint.cli.options import HIRES_OPTIONS, JOB_OPTIONS, PROMPT_OPTION, REQUEST_OPTIONS
from overpaint.cli.output import Meter, say
from overpaint.cli.reference import reference_page
from overpaint.errors import CheckpointError, RequestError, SaveError
from overpaint.files.metadata import encode_picture, read_infotext, read_recipe
from overpaint.parts import Hires, Lora, SoftInpainting
from overpaint.request import (
    PICTURE_FIELDS,
    SOURCE_FIELDS,
    Img2ImgRequest,
    MaskedContent,
    PaintRequest,
    ResizeMode,
)
from overpaint.settings import OPTION_NAMES, Quirks, Settings
from tests.unit.command import Capture, adapter, asked_for, header_only, painter
from tests.unit.fake_painter import FakePainter, drawing

__all__ = ["painter"]

DOCS = Path(__file__).resolve().parents[2] / "docs"


class TestPaint:
    def test_a_picture_and_a_text(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "a dog", "--seed", "7"]) == 0
        assert capsys.readouterr().out == "cat-painted.png  seed 7\n"
        assert (asked_for(painter).prompt, asked_for(painter).seed) == ("a dog", 7)
        text, _ = read_infotext(Path("cat-painted.png"))
        assert text is not None and text.startswith("a dog\nSteps: 20")
        with Image.open("cat-painted.png") as picture:
            assert picture.getexif()[0x010E] == "my drawing"

    def test_all_options_reach_the_request(self, painter: FakePainter) -> None:
        line = (
            "paint cat.png moon --mask mask.png --negative sun --strength 0.5 --size 64x48 --resize crop --invert-mask "
            "--mask-blur 3 --no-round-mask --only-masked --padding 8 --fill noise --soft --seed 1 --variation-seed 2 "
            "--variation-strength 0.1 --seed-resize 32x16 --count 2 --batch-size 2 --sampler Euler --scheduler karras "
            "--steps 9 --cfg 5.5 --image-cfg 1.5 --eta 0.5 --s-churn 1 --s-tmin 2 --s-tmax 3 --s-noise 1.1 "
            "--s-min-uncond 0.2 --noise-multiplier 0.9 --clip-skip 2 --color-correction --tiling --no-networks --exact "
            "--set lora_dir=. --lora ink:0.8:0.5 --lora oil --refiner-at 0.6"
        )
        adapter("ink"), adapter("oil")
        assert main(line.split()) == 0
        request = asked_for(painter)
        assert request.mask is not None
        expected = Img2ImgRequest(
            images=request.images,
            prompt="moon",
            negative_prompt="sun",
            strength=0.5,
            width=64,
            height=48,
            resize_mode=ResizeMode.CROP,
            mask=request.mask,
            invert_mask=True,
            mask_blur_x=3,
            mask_blur_y=3,
            round_mask=False,
            only_masked=True,
            padding=8,
            masked_content=MaskedContent.NOISE,
            soft_inpainting=SoftInpainting(),
            seed=1,
            variation_seed=2,
            variation_strength=0.1,
            seed_resize=(32, 16),
            iterations=2,
            batch_size=2,
            sampler="Euler",
            scheduler="karras",
            steps=9,
            cfg_scale=5.5,
            image_cfg_scale=1.5,
            eta=0.5,
            s_churn=1.0,
            s_tmin=2.0,
            s_tmax=3.0,
            s_noise=1.1,
            s_min_uncond=0.2,
            noise_multiplier=0.9,
            clip_skip=2,
            color_correction=True,
            tiling=True,
            use_networks=False,
            exact=True,
            loras=(Lora(name="ink", weight=0.8, text_weight=0.5), Lora(name="oil")),
            refiner_switch_at=0.6,
        )
        assert request == expected

    def test_every_field_has_its_option(self) -> None:
        reached = {name for each in (PROMPT_OPTION, *REQUEST_OPTIONS, *HIRES_OPTIONS) for name in each.fields}
        elsewhere = (PICTURE_FIELDS - {"references"}) | {"overrides", "checkpoint"}  # arguments, --set, --model
        parts = {f"hires.{each.name}" for each in dataclasses.fields(Hires)}
        assert reached == (PaintRequest.field_names() | parts) - elsewhere

    def test_options_about_a_source_are_marked(self) -> None:
        marked = {name for each in REQUEST_OPTIONS if each.of_source for name in each.fields}
        assert marked == (SOURCE_FIELDS - PICTURE_FIELDS) | {"noise_multiplier"}

    def test_settings(self, painter: FakePainter) -> None:
        line = "paint cat.png --reference --set randn_source=NV --set eta_noise_seed_delta=31337 --vae nice.pt"
        assert main(line.split()) == 0
        settings = painter.settings[-1]
        assert settings is not None
        assert (settings.quirks, settings.randn_source) == (Quirks.reference(), "NV")
        assert (settings.eta_noise_seed_delta, settings.sd_vae) == (31337, "nice.pt")

    def test_nothing_is_overwritten_unless_asked(self, painter: FakePainter, capsys: Capture) -> None:
        for expected in ("cat-painted.png", "cat-painted-1.png"):
            assert main(["paint", "cat.png"]) == 0
            assert capsys.readouterr().out.startswith(expected)
        before = Path("cat.png").read_bytes()
        assert main(["paint", "cat.png", "-o", "cat.png"]) == 2
        assert "it exists; give --overwrite" in capsys.readouterr().err
        assert Path("cat.png").read_bytes() == before
        assert main(["paint", "cat.png", "-o", "cat-painted.png", "--overwrite", "--seed", "3"]) == 0
        assert capsys.readouterr().out == "cat-painted.png  seed 3\n"

    def test_several_pictures_are_numbered(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "--count", "2", "--seed", "4", "-o", "x.png"]) == 0
        assert capsys.readouterr().out == "x-1.png  seed 4\nx-2.png  seed 5\n"

    @pytest.mark.parametrize("suffix", ["jpg", "webp"])
    def test_other_formats_have_the_recipe_beside(self, painter: FakePainter, suffix: str) -> None:
        assert main(["paint", "cat.png", "a dog", "-o", f"x.{suffix}"]) == 0
        assert sorted(Path().glob("x*")) == [Path(f"x.{suffix}"), Path(f"x.{suffix}.overpaint.json")]
        text, _ = read_infotext(Path(f"x.{suffix}"))
        assert text is not None and text.startswith("a dog")
        assert read_recipe(Path(f"x.{suffix}")) is not None

    def test_no_notes_inside_where_they_are_not_wanted(self, painter: FakePainter) -> None:
        assert main(["paint", "cat.png", "-o", "x.png", "--set", "enable_pnginfo=false"]) == 0
        assert (read_infotext(Path("x.png"))[0], read_recipe(Path("x.png"))) == (None, None)

    def test_json_is_all_there_is_on_stdout(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "--seed", "7", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["pictures"][0] | {"infotext": "", "subseed": 0} == {
            "path": "cat-painted.png",
            "seed": 7,
            "subseed": 0,
            "infotext": "",
        }
        assert (told["stopped"], told["model"]) == (False, {"name": "overpaint-mini", "hash": painter.model.hash})

    def test_warnings_are_told_beside(self, painter: FakePainter, capsys: Capture) -> None:
        Image.new("L", (32, 24)).save("blank.png")
        assert main(["paint", "cat.png", "--mask", "blank.png"]) == 0
        assert "overpaint: warning: --mask: it selects no pixel" in capsys.readouterr().err
        assert main(["paint", "cat.png", "--mask", "blank.png", "--quiet"]) == 0
        assert capsys.readouterr().err == ""


class TestStopping:
    def test_ctrl_c_keeps_what_is_finished(self, painter: FakePainter, capsys: Capture) -> None:
        painter._on_step = lambda step: signal.raise_signal(signal.SIGINT) if step == 5 else None
        assert main(["paint", "cat.png", "--count", "3", "--seed", "1", "-o", "x.png"]) == 130
        told = capsys.readouterr()
        assert told.out == "x-1.png  seed 1\n"
        assert "stopped; 1 of 3 pictures were finished" in told.err
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_twice_ends_at_once(self, painter: FakePainter, capsys: Capture) -> None:
        def twice(step: int) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        painter._on_step = twice
        assert main(["paint", "cat.png"]) == 130
        assert capsys.readouterr().out == ""

    def test_while_the_model_loads(
        self, painter: FakePainter, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        def slow(asked: object, settings: object, progress: Any) -> FakePainter:
            signal.raise_signal(signal.SIGINT)
            progress(1, 100)
            raise AssertionError("it went on loading")

        monkeypatch.setattr(session, "open_engine", slow)
        assert main(["paint", "cat.png"]) == 130

    def test_a_batch(self, painter: FakePainter, capsys: Capture) -> None:
        painter._on_step = lambda step: signal.raise_signal(signal.SIGINT) if step == 4 else None
        assert main(["batch", ".", "out"]) == 130
        assert "1 painted, 0 skipped, 0 failed, 1 left" in capsys.readouterr().err
        assert main(["batch", ".", "out"]) == 0
        assert "1 painted, 1 skipped, 0 failed" in capsys.readouterr().err


class TestErrors:
    @pytest.mark.parametrize(
        ("line", "code", "message"),
        [
            ("paint cat.png --strength 2", 2, "--strength 2.0: give a value from 0 to 1"),
            ("paint cat.png --strength nan", 2, "--strength nan: give a value"),
            ("paint cat.png --steps 0", 2, "--steps 0: give a value from 1"),
            ("paint cat.png --steps 1001", 2, "--steps 1001: give at most 1000"),
            ("paint cat.png --steps many", 2, "--steps"),
            ("paint cat.png --sampler eulr", 2, "did you mean 'Euler'?"),
            ("paint cat.png --fill sky", 2, "--fill 'sky': choose one of fill, original"),
            ("paint cat.png --size 640", 2, "--size '640': give width x height"),
            ("paint cat.png --size 0x8", 2, "--size 0: give a value from 1"),
            ("paint cat.png --lora nice", 2, "there is no such LoRA; none is known; give --models FOLDER"),
            ("paint cat.png --lora a:b", 2, "--lora 'a:b': give NAME, NAME:WEIGHT"),
            ("paint cat.png --lora a:1:2:3", 2, "--lora 'a:1:2:3': give NAME"),
            ("paint cat.png --lora a:101", 2, "--lora weight 101.0: give a value from -100"),
            ("paint cat.png --control a", 2, "--control 'a': give MODEL=PICTURE"),
            ("paint cat.png --control a=", 2, "give MODEL=PICTURE"),
            ("paint cat.png --control a=mask.png,wieght=1", 2, "'wieght' is none of weight, start, end, pre"),
            ("paint cat.png --control a=mask.png,weight=x", 2, "weight is a number"),
            ("paint cat.png --control a=mask.png,pre=depth", 2, "--control preprocessor 'depth': choose one of"),
            ("paint cat.png --control a=mask.png,start=0.5,end=0.2", 2, "--control end 0.2: give a value from 0.5"),
            ("paint cat.png --control a=gone.png", 3, "gone.png: there is no such file"),
            ("paint cat.png --refiner-at 2", 2, "--refiner-at 2.0: give a value from 0 to 1"),
            ("paint cat.png --models gone", 2, "--models 'gone': there is no such folder"),
            ("paint cat.png --hires", 2, "has no such option, `txt2img`"),
            ("plan cat.png --hires", 2, "only a picture painted from noise has a second pass"),
            ("plan cat.png moon --txt2img", 2, "with --txt2img give one text"),
            ("plan moon --txt2img --mask mask.png", 2, "a new picture has no mask"),
            ("plan moon --txt2img --strength 0.5", 2, "--strength 0.5: leave it out, since txt2img has no source"),
            ("plan moon", 3, "moon"),
            ("txt2img", 2, "PROMPT"),
            ("txt2img moon --strength 0.5", 2, "has no such option, `paint`"),
            ("txt2img moon --mask mask.png", 2, "has no such option, `paint`"),
            ("txt2img moon --hires-scale 20", 2, "--hires-scale 20.0: give a value from 0.0625 to 16"),
            ("txt2img moon --hires-strength nan", 2, "--hires-strength nan: give a value"),
            ("txt2img moon --hires-steps 0", 2, "--hires-steps 0: give a value from 1"),
            ("txt2img moon --hires-size 0x", 2, "--hires-size 0: give a value from 1"),
            ("txt2img moon --hires-size x", 2, "--hires-size 'x': give width x height"),
            ("txt2img moon --hires-size 640", 2, "--hires-size '640': give width x height"),
            (
                "txt2img moon --hires-size 640x480 --hires-scale 2",
                2,
                "--hires-size '640x480': give it or --hires-scale",
            ),
            ("txt2img moon --no-hires --hires-steps 2", 2, "--no-hires: leave it out"),
            (
                "txt2img moon --hires-upscaler nice",
                2,
                "--hires-upscaler 'nice': there is no such upscaler; known: Latent",
            ),
            ("txt2img moon --hires-sampler eulr", 2, "did you mean 'Euler'?"),
            ("txt2img moon -o gone/x.png", 2, "its folder does not exist"),
            ("paint cat.png --style nice", 2, "--style 'nice': there is no such style"),
            ("paint cat.png --set random_source=1", 2, "random_source='1': did you mean 'randn_source'?"),
            ("paint cat.png --set randn_source=NVIDIA", 2, "choose one of GPU, CPU, NV"),
            ("paint cat.png --set max_steps=x", 2, "give a whole number"),
            ("paint cat.png --set tiling=perhaps", 2, "say true or false"),
            ("paint cat.png --set tiling", 2, "give OPTION=VALUE"),
            ("paint cat.png -o x.tga", 2, "ends in one of .png"),
            ("paint cat.png -o gone/x.png", 2, "its folder does not exist"),
            ("paint cat.png --sede 4", 2, "there is no such option; did you mean --seed?"),
            ("paint", 2, "PICTURE"),
            ("repaint cat.png", 2, "there is no such command; did you mean 'paint'?"),
            ("paint gone.png", 3, "gone.png"),
            ("paint notes.txt", 3, "notes.txt: the picture cannot be opened"),
            ("paint cat.png --mask notes.txt", 3, "notes.txt: the picture cannot be opened"),
            ("paint cat.png --mask wide.png", 2, "--mask '90x10': give a mask of the picture's shape"),
            ("again cat.png", 3, "neither a recipe nor an infotext"),
            ("again gone.png", 3, "there is no such file"),
            ("info gone.png", 3, "there is no such file"),
            ("batch gone out", 3, "there is no such folder or manifest"),
            ("batch . out --format tga", 2, "choose one of png"),
            ("models gone", 3, "there is no such folder"),
            ("models --kind lora", 2, "DIR: name the folder, or give --models FOLDER or --set lora_dir=..."),
            ("models --kind checkpoints", 2, "--kind 'checkpoints': choose one of checkpoint, lora"),
            ("batch . out --hires-scale 2", 2, "only a picture painted from noise has a second pass"),
        ],
    )
    def test_one_line_and_the_right_code(
        self, painter: FakePainter, capsys: Capture, line: str, code: int, message: str
    ) -> None:
        Path("notes.txt").write_text("no picture")
        drawing((90, 10)).save("wide.png")
        assert main(line.split()) == code
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("overpaint: ") and told.err.count("\n") == 1
        assert message in told.err
        assert sorted(Path().glob("*painted*")) == []

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (CheckpointError("model.ckpt: it is cut off; download it again"), 3),
            (SaveError("x.png: the disk is full"), 4),
            (RuntimeError("CUDA out\nof memory"), 1),
        ],
    )
    def test_while_painting(self, painter: FakePainter, capsys: Capture, error: Exception, code: int) -> None:
        def fail(step: int) -> None:
            raise error

        painter._on_step = fail
        assert main(["paint", "cat.png", "--json"]) == code
        told = capsys.readouterr()
        assert json.loads(told.out)["error"]["code"] == code
        assert told.err.count("\n") == 1

    def test_json_names_the_field(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "--cfg", "nan", "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["field"] == "cfg_scale"

    def test_the_traceback_is_there_for_those_who_ask(
        self, painter: FakePainter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OVERPAINT_DEBUG", "1")
        with pytest.raises(RequestError):
            main(["paint", "cat.png", "--strength", "2"])


class TestPlan:
    def test_for_machines(self, painter: FakePainter, capsys: Capture) -> None:
        line = (
            "plan cat.png moon --mask mask.png --only-masked --padding 2 --mask-blur 0 --size 64x64 --seed 3 --count 2"
        )
        assert main([*line.split(), "--strength", "0.5", "--sampler", "Heun", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["crop"] is not None and told["crop"][0] <= 6
        assert (told["source"], told["size"], told["network_size"]) == ([32, 24], [64, 64], [64, 64])
        assert [each["seed"] for each in told["pictures"]] == [3, 4]
        assert told["repainted"] == 25.0
        assert (told["steps"], told["network_calls"]) == (11, 2 * 21)  # STEP-2, twice a step but the last
        assert painter.requests == []

    def test_for_people(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["plan", "cat.png", "--strength", "0"]) == 0
        told = capsys.readouterr().out
        assert "strength 0 changes nothing" in told and "a new one each time" in told

    def test_of_a_header(self, painter: FakePainter, capsys: Capture) -> None:
        header_only("tiny-sd15-edit", Path("edit.safetensors"))
        assert main(["plan", "cat.png", "--model", "edit.safetensors", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == "InstructPix2Pix"


USED: Any = {"steps": 20, "cfg_scale": 7.0}  # where nothing was asked


class TestAgain:
    def test_the_same_and_otherwise(self, painter: FakePainter, capsys: Capture) -> None:
        line = "paint cat.png moon --mask mask.png --seed 9 --resize crop --strength 0.5 --reference -o x.png"
        assert main([*line.split(), "--set", "eta_noise_seed_delta=5"]) == 0
        first, settings = asked_for(painter), painter.settings[-1]
        Path("mask.png").unlink()  # it is in the recipe
        assert main(["again", "x.png"]) == 0
        assert painter.settings[-1] == settings
        assert asked_for(painter) == first.with_changes(mask=asked_for(painter).mask, noise_multiplier=1.0, **USED)
        assert asked_for(painter).mask is not None
        assert Path("x-again.png").read_bytes() == Path("x.png").read_bytes()
        assert main(["again", "x.png", "--strength", "0.3", "--prompt", "sun", "--no-reference", "-o", "y.png"]) == 0
        assert (asked_for(painter).strength, asked_for(painter).prompt) == (0.3, "sun")
        assert asked_for(painter).resize_mode is ResizeMode.CROP
        assert painter.settings[-1] is not None and painter.settings[-1].quirks == Quirks.none()

    def test_from_beside(self, painter: FakePainter) -> None:
        assert main(["paint", "cat.png", "moon", "--steps", "7", "-o", "x.jpg"]) == 0
        assert main(["again", "x.jpg"]) == 0
        assert (asked_for(painter).prompt, asked_for(painter).steps) == ("moon", 7)

    def test_a_changed_source_is_refused(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "-o", "x.png"]) == 0
        drawing(color=(1, 1, 1)).save("cat.png")
        assert main(["again", "x.png"]) == 2
        assert "it changed since" in capsys.readouterr().err
        assert main(["again", "x.png", "--picture", "cat.png"]) == 0

    def test_another_model_is_told(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "-o", "x.png"]) == 0
        Path("x.png").rename("y.png")
        painter.model = type(painter.model)("other", "fedcba9876")
        assert main(["paint", "cat.png", "-o", "x.png"]) == 0
        assert main(["again", "x.png"]) == 3
        assert "was painted with other [fedcba9876]" in capsys.readouterr().err
        painter.model = type(painter.model)("mine", "0123456789")
        assert main(["again", "x.png", "--any-model"]) == 0
        assert "painted with fedcba9876, this is mine [0123456789]" in capsys.readouterr().err

    def test_pictures_of_the_reference(self, painter: FakePainter, capsys: Capture) -> None:
        text = (
            "a moon\nNegative prompt: sun\nSteps: 12, Sampler: Euler a, Schedule type: Karras, CFG scale: 6.5, "
            "Seed: 99, Size: 40x32, Model hash: aaaa, Model: dreams, "
            "Denoising strength: 0.4, Clip skip: 2, RNG: CPU, Version: v1.10.1"
        )
        Path("old.png").write_bytes(encode_picture(drawing(), "png", infotext=text))
        assert main(["again", "old.png"]) == 2
        assert "--picture" in capsys.readouterr().err
        assert main(["again", "old.png", "--picture", "cat.png", "--steps", "13"]) == 3
        assert "was painted with dreams [aaaa]" in capsys.readouterr().err
        assert main(["again", "old.png", "--picture", "cat.png", "--steps", "13", "--any-model"]) == 0
        request, settings = asked_for(painter), painter.settings[-1]
        assert (request.prompt, request.negative_prompt, request.seed) == ("a moon", "sun", 99)
        assert (request.steps, request.sampler, request.scheduler) == (13, "Euler a", "Karras")
        assert (request.width, request.height, request.strength) == (40, 32, 0.4)
        assert settings is not None and settings.quirks == Quirks.reference()
        assert (settings.randn_source, settings.CLIP_stop_at_last_layers) == ("CPU", 2)

    def test_an_infotext_with_a_mask_needs_the_mask(self, painter: FakePainter, capsys: Capture) -> None:
        text = "moon\nSteps: 12, Sampler: Euler, Seed: 1, Size: 32x24, Denoising strength: 0.4, Mask blur: 3"
        Path("old.png").write_bytes(encode_picture(drawing(), "png", infotext=text))
        assert main(["again", "old.png", "--picture", "cat.png"]) == 2
        assert "does not hold it" in capsys.readouterr().err
        assert main(["again", "old.png", "--picture", "cat.png", "--mask", "mask.png"]) == 0
        assert (asked_for(painter).mask_blur_x, asked_for(painter).mask is not None) == (3, True)

    def test_an_infotext_with_a_controlnet_needs_its_picture(self, painter: FakePainter, capsys: Capture) -> None:
        text = (
            "moon\nSteps: 12, Sampler: Euler, Seed: 1, Size: 32x24, "
            'ControlNet 0: "Module: canny, Model: lines [0123abcd], Weight: 0.7, Resize Mode: Crop and Resize, '
            "Processor Res: 512, Threshold A: 50, Threshold B: 200, Guidance Start: 0, Guidance End: 0.5, "
            'Pixel Perfect: False, Control Mode: ControlNet is more important, Hr Option: Both", Version: v1.10.1'
        )
        Path("old.png").write_bytes(encode_picture(drawing(), "png", infotext=text))
        assert main(["again", "old.png"]) == 2
        said = capsys.readouterr().err
        assert "--control lines=PICTURE,weight=0.7,end=0.5,pre=canny,low=50,mode=control" in said
        told = said.partition("--control ")[2].split()[0]
        nets = Path("nets")
        nets.mkdir()
        (nets / "lines.safetensors").touch()
        line = ["again", "old.png", "--control", told.replace("PICTURE", "cat.png"), "--set", f"controlnet_dir={nets}"]
        assert main(line) == 0
        (unit,) = asked_for(painter).controls
        assert (unit.model, unit.weight, unit.end, unit.mode) == ("lines", 0.7, 0.5, "control")
        assert (unit.preprocessor, unit.canny_low, unit.canny_high) == ("canny", 50, 200)


class TestBatch:
    def test_people_and_the_exit_code(self, painter: FakePainter, capsys: Capture) -> None:
        Path("notes.png").write_text("no picture")
        assert main(["batch", ".", "out", "--prompt", "moon", "--seed", "3"]) == 1
        told = capsys.readouterr()
        assert told.out == "cat.png  seed 3\nmask.png  seed 3\n"
        assert "overpaint: notes.png: " in told.err and "2 painted, 0 skipped, 1 failed" in told.err
        assert asked_for(painter).prompt == "moon"

    def test_json_lines(self, painter: FakePainter, capsys: Capture) -> None:
        Path("rows.jsonl").write_text('{"picture": "cat.png", "seed": 5}\n{"picture": "gone.png"}\n')
        assert main(["batch", "rows.jsonl", "out", "--json"]) == 1
        first, second, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert (first["state"], first["files"], first["seeds"]) == ("painted", ["cat.png"], [5])
        assert second["state"] == "failed" and "gone.png" in second["error"]
        assert last == {"state": "finished", "painted": 1, "skipped": 0, "failed": 1}

    def test_masks(self, painter: FakePainter) -> None:
        Path("in").mkdir()
        drawing().save("in/a.png")
        assert main(["batch", "in", "out", "--masks", "mask.png", "--only-masked"]) == 0
        assert asked_for(painter).mask is not None and asked_for(painter).only_masked


class TestInfo:
    def test_a_painted_picture(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["paint", "cat.png", "moon", "--seed", "3", "-o", "x.png", "-q"]) == 0
        capsys.readouterr()
        assert main(["info", "x.png"]) == 0
        told = capsys.readouterr().out
        assert told.startswith("moon\nSteps: 20") and "source: path cat.png" in told
        assert main(["info", "x.png", "--json"]) == 0
        account = json.loads(capsys.readouterr().out)
        assert account["parameters"]["Seed"] == "3" and account["recipe"]["request"]["prompt"] == "moon"

    def test_a_plain_picture(self, painter: FakePainter, capsys: Capture) -> None:
        assert main(["info", "mask.png"]) == 0
        assert capsys.readouterr().out == "no infotext and no recipe in it\n"

    def test_a_checkpoint(self, painter: FakePainter, capsys: Capture) -> None:
        header_only("tiny-sd15", Path("m.safetensors"))
        assert main(["info", "m.safetensors", "--json"]) == 0
        account = json.loads(capsys.readouterr().out)
        assert (account["family"], account["problems"]) == ("Stable Diffusion 1", [])
        assert account["known_from"]["family"] == "weights"
        assert account["title"] == f"m.safetensors [{account['hash']}]"
        assert main(["info", "m.safetensors"]) == 0
        assert "U-Net" in capsys.readouterr().out

    def test_a_file_that_is_none(self, painter: FakePainter, capsys: Capture) -> None:
        Path("m.safetensors").write_bytes(b"\0" * 100)
        assert main(["info", "m.safetensors"]) == 3
        assert "overpaint: m.safetensors: its header" in capsys.readouterr().err


class TestLists:
    def test_samplers(self, capsys: Capture) -> None:
        assert main(["samplers"]) == 0
        told = capsys.readouterr().out
        assert "DPM++ 2M SDE Heun" in told and "k_euler_a" in told and "SGM Uniform" in told
        assert main(["samplers", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert (len(listed["samplers"]), len(listed["schedulers"])) == (20, 12)

    def test_settings(self, capsys: Capture) -> None:
        assert main(["settings", "--json"]) == 0
        assert {each["name"] for each in json.loads(capsys.readouterr().out)["settings"]} == OPTION_NAMES
        assert main(["settings"]) == 0
        assert "GPU | CPU | NV" in capsys.readouterr().out

    def test_models(self, tmp_path: Path, capsys: Capture) -> None:
        header_only("tiny-sd15", tmp_path / "a.safetensors")
        (tmp_path / "b.safetensors").write_bytes(b"\0" * 9)
        assert main(["models", str(tmp_path), "--json"]) == 0
        good, bad = json.loads(capsys.readouterr().out)["models"]
        assert (good["name"], good["family"], good["problem"]) == ("a.safetensors", "Stable Diffusion 1", None)
        assert bad["family"] is None and "b.safetensors" in bad["problem"]
        assert main(["models", str(tmp_path)]) == 0
        assert "Stable Diffusion 1" in capsys.readouterr().out

    def test_every_option_can_be_set(self) -> None:
        settings = Settings()
        for name in OPTION_NAMES:
            value = getattr(settings, name)
            text = ",".join(value) if isinstance(value, tuple) else "x" if value is None else str(value)
            assert settings.with_changes(dict([read_option(f"{name}={text}")])) == settings or value is None


class TestStart:
    def test_help_is_instant(self) -> None:
        code = (
            "import sys; from overpaint.cli import main; main(['--help']); main(['paint', '--help']);"
            "print([name for name in ('torch', 'numpy', 'PIL', 'yaml') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.endswith("[]\n") and "Exit codes: 0 done" in done.stdout

    def test_without_torch(self, painter: FakePainter) -> None:
        assert main(["paint", "cat.png", "moon", "-o", "x.png"]) == 0
        lines = ["plan cat.png --mask mask.png", "info x.png", "samplers", "settings"]
        code = (
            "import sys; sys.modules['torch'] = None\nfrom overpaint.cli import main\n"
            f"sys.exit(any([main(line.split()) for line in {lines!r}]))"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    def test_as_a_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "overpaint", "--version"], check=True, capture_output=True, text=True
        )
        assert done.stdout.startswith("overpaint ")

    def test_no_command_shows_the_help(self, capsys: Capture) -> None:
        assert main([]) == 0
        assert "again" in capsys.readouterr().out


class TestMeter:
    def test_a_bar_with_the_time_left_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        screen = Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        monkeypatch.setattr("overpaint.cli.output.QUIET_SECONDS", 0.0)
        with Meter() as meter:
            meter.update("painting", 1, 4)
            meter.update("painting", 4, 4)
        assert "painting" in screen.getvalue() and "1/4" in screen.getvalue()

    def test_results_stay_in_their_pipe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe = StringIO()
        monkeypatch.setattr("sys.stderr", Terminal())
        monkeypatch.setattr("sys.stdout", pipe)
        monkeypatch.setattr("overpaint.cli.output.QUIET_SECONDS", 0.0)
        with Meter() as meter:
            meter.update("painting", 1, 4)
            say("a.png")
        assert pipe.getvalue() == "a.png\n"

    @pytest.mark.parametrize("quiet", [True, False])
    def test_nothing_in_the_first_second_or_in_a_pipe(self, monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
        screen = Terminal() if quiet else StringIO()
        monkeypatch.setattr("sys.stderr", screen)
        with Meter() as meter:
            meter.update("painting", 1, 4)
        assert screen.getvalue() == ""


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_the_reference_page_is_true() -> None:
    assert (DOCS / "reference/cli.md").read_text(encoding="utf-8") == reference_page()


def test_every_command_is_in_the_guides() -> None:
    page = reference_page()
    for each in COMMANDS:
        assert f"## overpaint {each.__name__}\n" in page
    for option in (*REQUEST_OPTIONS, *HIRES_OPTIONS, *JOB_OPTIONS):
        assert f"`{option.main_flag}`" in page
