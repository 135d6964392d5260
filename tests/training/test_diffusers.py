"""The exported file in the hands of another implementation: the same keys, the same numbers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from overpaint.models.checkpoint import load_checkpoint
from overpaint.models.files import write_safetensors
from overpaint.networks.autoencoder import AutoencoderKL
from training import specs
from training.denoiser import Denoiser
from training.export import _METADATA, checkpoint
from training.initialise import fill
from training.latents import Scale
from training.words import trained_tokens

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

_VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [96] * 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 128,
}
_UNET = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [64, 128, 192],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "attention_head_dim": 8,
    "sample_size": 16,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffusers")
    denoiser, codec = Denoiser(), AutoencoderKL(specs.VAE)
    fill(denoiser, 1)
    fill(codec, 3)
    notes = {"tokens": list(trained_tokens()), "scale": asdict(Scale((0.1,) * 4, (1.2,) * 4))}
    named = {name: values.detach() for name, values in denoiser.named_parameters()}
    write_safetensors(folder / "mini.safetensors", checkpoint(named, notes, codec.state_dict()), _METADATA)
    for name, config in (("vae", _VAE), ("unet", _UNET)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def _theirs(kind: str, folder: Path, part: str) -> Any:
    diffusers = pytest.importorskip("diffusers")
    loader = getattr(diffusers, kind)
    return loader.from_single_file(
        str(folder / "mini.safetensors"), config=str(folder), subfolder=part, local_files_only=True
    )


def test_the_codec_is_read_alike(exported: Path) -> None:
    theirs = _theirs("AutoencoderKL", exported, "vae")
    ours = load_checkpoint(exported / "mini.safetensors", dtype="float32", hashing=False).backend
    pictures = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        mean, _ = ours.encode(pictures)
        torch.testing.assert_close(theirs.encode(pictures).latent_dist.mean, mean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(theirs.decode(mean).sample, ours.decode(mean), atol=1e-4, rtol=1e-4)


def test_the_unet_is_read_alike(exported: Path) -> None:
    theirs = _theirs("UNet2DConditionModel", exported, "unet")
    ours = load_checkpoint(exported / "mini.safetensors", dtype="float32", hashing=False).backend
    generator = torch.Generator().manual_seed(2)
    x, context = torch.randn(1, 4, 16, 16, generator=generator), torch.randn(1, 77, 128, generator=generator)
    steps = torch.tensor([501.0])
    with torch.no_grad():
        wanted = ours.denoise(x, steps, context)
        torch.testing.assert_close(theirs(x, steps, context).sample, wanted, atol=1e-4, rtol=1e-4)
