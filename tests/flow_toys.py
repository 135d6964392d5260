"""A narrow Z-Image with random weights of our own networks, in every form that people have such models in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from overpaint.models.specs import AutoencoderSpec, TextSpec, ZImageSpec
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.decoder_text import QwenText
from overpaint.networks.zimage import ZImage
from tests.networks_vs_diffusers.flow_files import small_vocabulary

Tensors = dict[str, Tensor]
WIDTH, WORDS = 32, 32
ZIMAGE = ZImageSpec(
    in_channels=16,
    width=WIDTH,
    layers=2,
    refiner_layers=1,
    heads=2,
    inner=64,
    context_dim=WORDS,
    time_width=WIDTH,
    time_inner=64,
    axes=(4, 6, 6),
)
QWEN = TextSpec(
    kind="qwen3",
    prefix="",
    width=WORDS,
    layers=3,
    heads=4,
    key_heads=2,
    head_dim=8,
    inner=64,
    vocabulary=288,
    layer=-2,
    final_norm=False,
)
VAE = AutoencoderSpec(channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1, latent_channels=16, quant_convs=False)


def tensors_of(network: nn.Module, seed: int) -> Tensors:
    """Random weights that keep the size of what goes through them."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            made[name] = noise * 0.1 + (1 if name.endswith("weight") else 0)
        else:
            made[name] = noise * (0.7 / parameter[0].numel() ** 0.5)
    return made


@dataclass(frozen=True)
class ToyFiles:
    """The parts of the model, and the files they are in, as other programs lay them out."""

    folder: Path
    transformer: Tensors
    text: Tensors
    vae: Tensors

    @property
    def path(self) -> Path:
        return self.folder / "diffusion_models" / "z_image_turbo_bf16.safetensors"

    @property
    def text_path(self) -> Path:
        return self.folder / "text_encoders" / "qwen_3_4b.safetensors"

    @property
    def vae_path(self) -> Path:
        return self.folder / "vae" / "ae.safetensors"


def toy_zimage(folder: Path) -> ToyFiles:
    with torch.device("meta"):
        networks = ZImage(ZIMAGE), QwenText(QWEN), AutoencoderKL(VAE)
    toy = ToyFiles(folder, *(tensors_of(each, i) for i, each in enumerate(networks)))
    save(toy.transformer, toy.path)
    save({f"model.{name}": each for name, each in toy.text.items()}, toy.text_path)
    save(toy.vae, toy.vae_path)
    small_vocabulary(toy.text_path.with_name("tokenizer.json"))
    return toy


def save(tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: each.to(dtype or each.dtype).contiguous() for name, each in tensors.items()}, path)
    return path


def as_folder(toy: ToyFiles, folder: Path, shift: float) -> Path:
    """As diffusers lays it out: queries, keys and values apart."""
    split: Tensors = {}
    for name, tensor in toy.transformer.items():
        name = name.replace("x_embedder.", "all_x_embedder.2-1.").replace("final_layer.", "all_final_layer.2-1.")
        name = name.replace(".out.", ".to_out.0.").replace(".q_norm.", ".norm_q.").replace(".k_norm.", ".norm_k.")
        if ".qkv." in name:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            split.update((name.replace(".qkv.", f".to_{each}."), part.clone()) for each, part in parts)
        else:
            split[name] = tensor
    save(split, folder / "transformer" / "diffusion_pytorch_model.safetensors")
    save({f"model.{name}": each for name, each in toy.text.items()}, folder / "text_encoder" / "model.safetensors")
    save(toy.vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    (folder / "tokenizer").mkdir()
    small_vocabulary(folder / "tokenizer" / "tokenizer.json")
    (folder / "scheduler").mkdir()
    said = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift, "use_dynamic_shifting": False}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "model_index.json").write_text('{"_class_name": "ZImagePipeline"}', encoding="utf-8")
    return folder


def whole(toy: ToyFiles, path: Path) -> Path:
    """All parts in one file."""
    parts = (
        ("model.diffusion_model.", toy.transformer),
        ("text_encoders.qwen3_4b.transformer.model.", toy.text),
        ("first_stage_model.", toy.vae),
    )
    save({prefix + name: each for prefix, tensors in parts for name, each in tensors.items()}, path)
    small_vocabulary(path.with_name("tokenizer.json"))
    return path
