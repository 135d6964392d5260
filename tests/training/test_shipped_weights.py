"""The weights in the package, with slack: that they are the trained ones, and that a prompt does what it says."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from overpaint.engine import Engine, stages_of
from overpaint.models.built_in import default_path
from overpaint.request import Img2ImgRequest, Txt2ImgRequest
from overpaint.settings import Settings
from overpaint.text.tokens import clip_merges, clip_vocabulary
from tests.training.test_diffusers import _UNET, _VAE
from training import specs
from training.scenes.art import DrawnArt
from training.scenes.labels import Item, Labels
from training.scenes.scene import render

pytestmark = pytest.mark.slow

SIDE = specs.NATIVE_SIZE
SEEDS = (1, 2)
PROMPTS = (
    "a meadow",
    "a meadow at night",
    "a meadow covered in snow",
    "a red sports car on a white background",
    "a blue sports car on a white background",
)
SCENES = tuple(
    render((3, 500 + number), SIDE, DrawnArt(), labels).pixels
    for number, labels in enumerate(
        (
            *(Labels(place=place) for place in ("forest", "lake", "meadow", "mountains", "beach", "desert")),
            Labels(place="road", items=(Item("sports car", "blue"),)),
            Labels(place="sea", time="sunset"),
        )
    )
)
Pixels = NDArray[np.float64]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    settings = Settings().with_changes({"live_previews_enable": False})
    with Engine(device="cpu", dtype="float32", settings=settings) as made:
        yield made


@pytest.fixture(scope="module")
def painted(engine: Engine) -> dict[str, Pixels]:
    """Each prompt with each seed, (seeds, side, side, 3) in 0..1."""
    prompts, seeds = zip(*((prompt, seed) for prompt in PROMPTS for seed in SEEDS), strict=True)
    request = Txt2ImgRequest(prompt=prompts, seed=seeds, batch_size=len(prompts), steps=10, cfg_scale=5)
    pictures = engine.paint(request).images
    assert {each.size for each in pictures} == {(SIDE, SIDE)}  # no size was asked for
    found = np.stack([np.asarray(each, dtype=np.float64) / 255 for each in pictures])
    return {prompt: found[len(SEEDS) * i :][: len(SEEDS)] for i, prompt in enumerate(PROMPTS)}


def test_the_codec_brings_scenes_back(engine: Engine) -> None:
    pixels = torch.from_numpy(np.stack(SCENES)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        back = stages_of(engine).backend.decode(stages_of(engine).backend.encode(pixels)[0]).clamp(-1, 1)
    errors = ((back - pixels) / 2).pow(2).mean(dim=(1, 2, 3))
    assert float(-10 * errors.log10().mean()) > 23


def test_night_is_dark_and_snow_is_bright(painted: dict[str, Pixels]) -> None:
    day, night, snow = (painted[prompt] for prompt in PROMPTS[:3])
    lower = (slice(None), slice(SIDE // 2, None))  # the ground
    for one, dark, white in zip(day, night, snow, strict=True):
        assert dark.mean() < 0.6 * one.mean()
        assert white[lower[1]].mean() > one[lower[1]].mean() + 0.1


def test_cars_have_the_colour_that_was_asked_for(painted: dict[str, Pixels]) -> None:
    for prompt, wanted in zip(PROMPTS[3:], (0.0, 0.62), strict=True):
        for picture in painted[prompt]:
            assert abs((_hue(picture) - wanted + 0.5) % 1 - 0.5) < 0.12, prompt


def _hue(picture: Pixels) -> float:
    """Of the coloured part of a picture, round the wheel."""
    colours = picture.reshape(-1, 3)
    chroma = colours.max(axis=1) - colours.min(axis=1)
    return colorsys.rgb_to_hsv(*np.average(colours, axis=0, weights=np.maximum(chroma - 0.15, 1e-6) ** 2))[0]


def test_likeness_to_the_source_falls_with_strength(engine: Engine) -> None:
    source = Image.fromarray(SCENES[0])
    likeness = []
    for strength in (0.2, 0.5, 0.9):
        request = Img2ImgRequest(images=(source,), prompt="a beach at sunset", strength=strength, steps=10, seed=1)
        picture = engine.paint(request).images[0]
        both = np.stack([np.asarray(each, dtype=np.float64).ravel() for each in (source, picture)])
        table: NDArray[np.float64] = np.asarray(np.corrcoef(both))
        likeness.append(float(table[0, 1]))
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] > 0.6 > likeness[-1]


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """What diffusers wants to know beside the file: its configuration and the tokenizer, local."""
    merges = clip_merges()
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    text = {
        "model_type": "clip_text_model",
        "architectures": ["CLIPTextModel"],
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "projection_dim": 128,
    }
    parts = {
        "vae": ("diffusers", "AutoencoderKL"),
        "unet": ("diffusers", "UNet2DConditionModel"),
        "text_encoder": ("transformers", "CLIPTextModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "scheduler": ("diffusers", "DDIMScheduler"),
        **dict.fromkeys(("safety_checker", "feature_extractor"), (None, None)),
    }
    files: dict[str, Any] = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline", **parts},
        "vae/config.json": _VAE,
        "unet/config.json": _UNET,
        "text_encoder/config.json": text,
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler", **noise},
        "tokenizer/vocab.json": clip_vocabulary(merges),
        "tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77},
    }
    for name, values in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(values), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (tmp_path / "tokenizer" / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_diffusers_opens_it_unchanged(engine: Engine, described: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    loader: Any = diffusers.StableDiffusionPipeline
    pipe = loader.from_single_file(
        str(default_path()), config=str(described), local_files_only=True, torch_dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(2)
    x, steps = torch.randn(1, 4, 16, 16, generator=generator), torch.tensor([501.0])
    ids = pipe.tokenizer("a red car", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        context = stages_of(engine).backend.text(0, ids).tokens
        torch.testing.assert_close(pipe.text_encoder(ids).last_hidden_state, context, atol=1e-4, rtol=1e-4)
        wanted = stages_of(engine).backend.denoise(x, steps, context)
        torch.testing.assert_close(pipe.unet(x, steps, context).sample, wanted, atol=1e-3, rtol=1e-3)
