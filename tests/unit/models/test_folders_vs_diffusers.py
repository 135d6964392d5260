"""Folders as diffusers and transformers write them: what is loaded computes what their own networks compute."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from overpaint.models.checkpoint import LoadedModel, load_checkpoint
from overpaint.models.families import UNetSpec
from overpaint.models.layouts import unet_names
from overpaint.models.vaes import open_vae
from overpaint.networks.unet import UNet
from tests.networks_vs_diffusers.families import RECIPES, build, filled, text_model

pytest.importorskip("diffusers", reason="the folder layout is compared with diffusers' own networks")
pytest.importorskip("transformers", reason="text encoders are compared with transformers' own networks")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

END = 49407
DOWN, UP = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
SD1 = {
    "block_out_channels": (32, 64, 128, 128),
    "down_block_types": DOWN,
    "up_block_types": UP,
    "attention_head_dim": 4,
    "cross_attention_dim": 64,
    "sample_size": 64,
}
TEXT_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "sd1": ("text_encoder",),
    "sd1-inpaint": ("text_encoder",),
    "sd2": ("text_encoder",),
    "sd2-v": ("text_encoder",),
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sdxl-refiner": ("text_encoder_2",),
    "ssd-1b": ("text_encoder", "text_encoder_2"),
}
# How each is written: shards and variants have names of their own.
SAVED: Mapping[str, dict[str, Any]] = {
    "sd1-inpaint": {"variant": "fp16"},
    "sd2": {"max_shard_size": "2MB"},
    "sdxl": {"variant": "fp16", "max_shard_size": "2MB"},
    "ssd-1b": {"safe_serialization": False},
}


@dataclass(frozen=True)
class Sample:
    """A model's folder, and the networks whose weights it holds."""

    path: Path
    unet: Any
    vae: Any
    texts: tuple[Any, ...]
    prediction: str = "eps"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sample]:
    folder = tmp_path_factory.mktemp("Ordner ü 模型")

    @cache
    def made(name: str) -> Sample:
        found = _networks(name, folder)
        path = found.path
        found.unet.save_pretrained(path / "unet", **SAVED.get(name, {}))
        found.vae.save_pretrained(path / "vae")
        for part, text in zip(TEXT_FOLDERS[name], found.texts, strict=True):
            text.save_pretrained(path / part)
        (path / "scheduler").mkdir()
        kind = {"eps": "epsilon", "v": "v_prediction"}[found.prediction]
        (path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": kind}))
        (path / "model_index.json").write_text("{}")
        return found

    return made


def _networks(name: str, folder: Path) -> Sample:
    if name in RECIPES:
        built = build(name, folder)
        return Sample(folder / f"{name}.v1", built.unet, built.vae, built.texts, built.recipe.prediction)
    import diffusers

    channels = 9 if name.endswith("inpaint") else 4
    unet = filled(diffusers.UNet2DConditionModel(**SD1, in_channels=channels), 1)
    widths = {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 2}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = filled(diffusers.AutoencoderKL(**widths, **kinds, latent_channels=4), 2)
    return Sample(folder / f"{name}.v1", unet, vae, (text_model("clip", seed=10),))


@pytest.fixture(scope="module")
def loaded(sample: Callable[[str], Sample]) -> Iterator[Callable[[str], LoadedModel]]:
    yield cache(lambda name: load_checkpoint(sample(name).path, dtype="float32", hashing=False))


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


@pytest.mark.parametrize("name", TEXT_FOLDERS)
def test_facts(name: str, sample: Callable[[str], Sample], loaded: Callable[[str], LoadedModel]) -> None:
    model, theirs = loaded(name), sample(name)
    assert model.spec.family == ("sdxl" if name == "ssd-1b" else name.removesuffix("-v"))
    assert (model.spec.prediction, model.ignored) == (theirs.prediction, ())
    assert model.spec.latent.scale == theirs.vae.config.scaling_factor
    assert model.spec.native_size == 8 * theirs.unet.config.sample_size
    assert (model.spec.unet.heads, model.spec.unet.head_dim) == ((4, None) if name.startswith("sd1") else (None, 16))
    assert len(model.spec.texts) == len(theirs.texts)
    assert {text.heads for text in model.spec.texts} == {4}


@pytest.mark.parametrize("name", TEXT_FOLDERS)
def test_the_unet(name: str, sample: Callable[[str], Sample], loaded: Callable[[str], LoadedModel]) -> None:
    theirs, model = sample(name).unet, loaded(name)
    spec = model.spec.unet
    x = torch.randn(2, spec.in_channels, 16, 8, generator=stream(1))
    context, t = torch.randn(2, 77, spec.context_dim, generator=stream(2)), torch.tensor([981.0, 3.5])
    vector, told = None, None
    if spec.adm_channels is not None:
        count = (spec.adm_channels - 64) // 256
        pooled, sizes = torch.randn(2, 64, generator=stream(3)), torch.randint(0, 1024, (2, count), generator=stream(4))
        told = {"text_embeds": pooled, "time_ids": sizes}
        vector = torch.cat([pooled, theirs.add_time_proj(sizes.flatten()).reshape(2, -1)], dim=1)
    close(model.backend.denoise(x, t, context, vector), theirs(x, t, context, added_cond_kwargs=told).sample)


@pytest.mark.parametrize("name", TEXT_FOLDERS)
def test_the_codec(name: str, sample: Callable[[str], Sample], loaded: Callable[[str], LoadedModel]) -> None:
    theirs, model = sample(name).vae, loaded(name)
    pictures = torch.rand(1, 3, 64, 40, generator=stream(5)) * 2 - 1
    z = torch.randn(1, 4, 8, 5, generator=stream(6))
    close(model.backend.encode(pictures)[0], theirs.encode(pictures).latent_dist.mean)
    close(model.backend.decode(z), theirs.decode(z).sample)


@pytest.mark.parametrize("name", TEXT_FOLDERS)
def test_the_texts(name: str, sample: Callable[[str], Sample], loaded: Callable[[str], LoadedModel]) -> None:
    """Of SD 1 and 2 diffusers reads the last layer, of SDXL the one before."""
    model = loaded(name)
    tokens = torch.randint(300, 40000, (2, 77), generator=stream(7))
    tokens[:, 20:] = END
    for i, text in enumerate(sample(name).texts):
        wanted = text(tokens, output_hidden_states=True)
        got = model.backend.text(i, tokens)
        is_xl = name.startswith(("sdxl", "ssd"))
        close(got.tokens, wanted.hidden_states[-2] if is_xl else wanted.last_hidden_state)
        assert (got.pooled is not None) == (is_xl and i == len(model.spec.texts) - 1)
        if got.pooled is not None:
            close(got.pooled, wanted.text_embeds)


def test_parts_of_a_folder_as_files(
    sample: Callable[[str], Sample], loaded: Callable[[str], LoadedModel], tmp_path: Path
) -> None:
    """The U-Net's file by itself, the encoders in the wrong order, and the VAE's folder."""
    path = sample("sdxl-refiner").path
    (tmp_path / "unet.yaml").write_text("model: {params: {unet_config: {params: {num_head_channels: 16}}}}")
    source = (path / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    (tmp_path / "unet.safetensors").write_bytes(source)
    texts = (sample("sd1").path / "text_encoder", path / "text_encoder_2")
    model = load_checkpoint(
        tmp_path / "unet.safetensors", dtype="float32", hashing=False, text_encoders=texts, vae_path=path / "vae"
    )
    wanted = loaded("sdxl-refiner")
    assert (model.spec.family, model.spec.texts) == ("sdxl-refiner", wanted.spec.texts)
    z, tokens = torch.randn(1, 4, 8, 8, generator=stream(8)), torch.full((1, 77), END)
    assert torch.equal(model.backend.text(0, tokens).tokens, wanted.backend.text(0, tokens).tokens)
    assert torch.equal(model.backend.decode(z), wanted.backend.decode(z))
    assert open_vae(path / "vae").spec == wanted.spec.vae


_XL: dict[str, Any] = {
    "adm_channels": 2816,
    "context_dim": 2048,
    "head_dim": 64,
    "linear_projections": True,
    "num_res_blocks": 2,
}
_LEVELS: dict[str, Any] = {"in_channels": 4, "model_channels": 320, "num_res_blocks": 2}
PUBLISHED: Mapping[str, tuple[dict[str, Any], UNetSpec]] = {
    "sd1": (
        {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8},
        UNetSpec(
            **_LEVELS,
            channel_mult=(1, 2, 4, 4),
            input_depths=(1, 1, 1, 1, 1, 1, 0, 0),
            middle_depth=1,
            output_depths=(0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1),
            heads=8,
            context_dim=768,
            linear_projections=False,
        ),
    ),
    "sdxl": (
        {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        UNetSpec(
            **{**_LEVELS, **_XL},
            channel_mult=(1, 2, 4),
            input_depths=(0, 0, 2, 2, 10, 10),
            middle_depth=10,
            output_depths=(10, 10, 10, 2, 2, 2, 0, 0, 0),
        ),
    ),
    "sdxl-refiner": (
        {
            "block_out_channels": (384, 768, 1536, 1536),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": 4,
            "attention_head_dim": (6, 12, 24, 24),
            "cross_attention_dim": 1280,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2560,
        },
        UNetSpec(
            **{**_LEVELS, **_XL, "model_channels": 384, "context_dim": 1280, "adm_channels": 2560},
            channel_mult=(1, 2, 4, 4),
            input_depths=(0, 0, 4, 4, 4, 4, 0, 0),
            middle_depth=4,
            output_depths=(0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0),
        ),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_name_and_shape_at_full_size(name: str) -> None:  # ARCH
    import diffusers

    config, spec = PUBLISHED[name]
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(**config).state_dict()
        ours = {key: tuple(each.shape) for key, each in UNet(spec).named_parameters()}
    assert {new: tuple(theirs[old].shape) for old, new in unet_names(theirs).items()} == ours
