"""What goes wrong with flow models, at the command line: one sentence that says what and what to do, and no file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from overpaint.cli import main
from tests.engine.conftest import scene
from tests.engine.test_flow_loras import KINDS, in_one
from tests.flow_toys import ToyFiles, save, toy_zimage
from tests.flux_toys import FluxToy, toy_flux, toy_sd35
from tests.unit.models.test_flow_models import llama_named, packed


@dataclass(frozen=True)
class Site:
    """Models as somebody has them, and a folder for what is wrong."""

    flux: FluxToy
    sd35: FluxToy
    zimage: ToyFiles
    folder: Path

    @property
    def qwen(self) -> Path:
        """A language model in GGUF, which is the text encoder of other families."""
        return packed(self.folder / "Qwen3-4B-Q8_0.gguf", llama_named(self.zimage.text), "qwen3")

    def texts(self, **instead: Path) -> list[str]:
        """Flux.1's text encoders by name, some of them replaced."""
        beside = self.flux.folder / "text_encoders"
        named = {"clip": beside / "clip_l.safetensors", "t5": beside / "t5xxl.safetensors"}
        files = [*{**named, **instead}.values(), beside / "t5.tokenizer.json"]
        return [word for each in files for word in ("--text-encoder", str(each))]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> tuple[FluxToy, FluxToy, ToyFiles]:
    folders = (tmp_path_factory.mktemp(each) for each in ("flux", "sd35", "zimage"))
    return toy_flux(next(folders)), toy_sd35(next(folders)), toy_zimage(next(folders))


@pytest.fixture
def site(toys: tuple[FluxToy, FluxToy, ToyFiles], tmp_path: Path) -> Site:
    scene(32, 32).save(tmp_path / "photo.png")
    return Site(*toys, tmp_path)


def paint(site: Site, *words: str, name: str = "out.png") -> int:
    line = ["paint", str(site.folder / "photo.png"), "a cat", "--steps", "1", "--seed", "1", "--device", "cpu"]
    return main([*line, "--dtype", "float32", "-o", str(site.folder / name), *words])


def lora_of_flux(site: Site) -> list[str]:
    made, _ = in_one(KINDS["dev"], "lora_unet_", "_", "lora_down", "lora_up")
    save(made, site.folder / "loras" / "ink.safetensors")
    return ["--model", str(site.sd35.path), "--lora", "ink", "--set", f"lora_dir={site.folder / 'loras'}"]


def another_t5(site: Site) -> list[str]:
    theirs = load_file(site.flux.folder / "text_encoders" / "t5xxl.safetensors")
    theirs["shared.weight"] = torch.zeros(64, 16)
    wide = save(theirs, site.folder / "t5_base.safetensors")
    return ["--model", str(site.flux.path), *site.texts(t5=wide)]


def no_vae(site: Site) -> list[str]:
    alone = Path(shutil.copy(site.flux.path, site.folder / "flux1-dev.safetensors"))
    return ["--model", str(alone), *site.texts()]


MISTAKES: dict[str, tuple[Callable[[Site], list[str]], str]] = {
    "a LoRA of Flux.1 for Stable Diffusion 3.5": (
        lora_of_flux,
        "ink.safetensors: no layer of it belongs to a Stable Diffusion 3.5 model",
    ),
    "a T5 of another width": (another_t5, "needs T5 64 wide, and there is: "),
    "a transformer without its VAE": (no_vae, "and no VAE: give --vae FILE"),
    "a language model as the model": (
        lambda site: ["--model", str(site.qwen)],
        "Qwen3-4B-Q8_0.gguf: it is a text encoder: give it as --text-encoder",
    ),
    "a language model of another family as a text encoder": (
        lambda site: ["--model", str(site.flux.path), *site.texts(t5=site.qwen)],
        "Flux.1 dev",
    ),
    "a language model as the VAE": (
        lambda site: ["--model", str(site.flux.path), "--vae", str(site.qwen)],
        "Qwen3-4B-Q8_0.gguf",
    ),
    "a transformer as a text encoder": (
        lambda site: ["--model", str(site.flux.path), *site.texts(t5=site.zimage.path)],
        "Flux.1 dev",
    ),
    "a sampler over timesteps": (
        lambda site: ["--model", str(site.flux.path), "--sampler", "DDIM"],
        "the nearest is Euler",
    ),
    "a schedule that was measured on other models": (
        lambda site: ["--model", str(site.flux.path), "--scheduler", "Align Your Steps"],
        "choose Automatic",
    ),
    "a picture to look at, for a model that looks at none": (
        lambda site: ["--model", str(site.flux.path), "--look-at", str(site.folder / "photo.png")],
        "a Flux.1 dev model looks at none; choose an edit model",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_is_said_in_one_sentence_and_nothing_is_written(mistake: str, site: Site, capsys: Any) -> None:
    words, wanted = MISTAKES[mistake]
    line = words(site)
    before = sorted(site.folder.rglob("*"))
    assert paint(site, *line) in (2, 3)
    told = capsys.readouterr().err
    assert wanted in told and "Traceback" not in told
    assert len(told.strip().splitlines()) == 1
    assert sorted(site.folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--negative", "a dog"), "--negative: it does nothing at --cfg 1"),
        (("--prompt", "a (cat:1.4)"), "PROMPT: a Flux.1 dev model knows no weights"),
    ],
)
def test_what_counts_for_nothing_is_said_and_changes_nothing(
    words: tuple[str, str], wanted: str, site: Site, capsys: Any
) -> None:
    """Where guidance is told to the network there is no negative text; its text encoder knows no weights."""
    line = ["paint", str(site.folder / "photo.png"), "--steps", "1", "--seed", "1", "--model", str(site.flux.path)]
    line += ["--device", "cpu", "--dtype", "float32"]
    plain, told = site.folder / "plain.png", site.folder / "told.png"
    assert main([*line, "--prompt", "a cat", "-o", str(plain)]) == 0
    capsys.readouterr()
    prompt = () if words[0] == "--prompt" else ("--prompt", "a cat")
    assert main([*line, *prompt, *words, "-o", str(told)]) == 0
    assert wanted in capsys.readouterr().err
    with Image.open(plain) as first, Image.open(told) as second:
        assert first.tobytes() == second.tobytes()
