"""A narrow Qwen-Image and a narrow Flux.2 klein with random weights of our own networks, and their files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from overpaint.models.specs import AutoencoderSpec, Flux2Spec, QwenImageSpec
from overpaint.models.vision_specs import Eyes, VisionSpec
from overpaint.networks.codecs import codec_network
from overpaint.networks.decoder_text import QwenText
from overpaint.networks.flux2 import Flux2
from overpaint.networks.qwen_image import QwenImage
from tests.flow_toys import QWEN, Tensors, save, tensors_of
from tests.networks_vs_diffusers.flow_files import small_vocabulary

WIDTH, QWEN_WORDS, KLEIN_WORDS, LATENTS = 64, 128, 16, 128
QWEN_IMAGE = QwenImageSpec(
    in_channels=16,
    out_channels=16,
    width=WIDTH,
    blocks=2,
    heads=2,
    inner=96,
    context_dim=QWEN_WORDS,
    axes=(4, 14, 14),
)
KLEIN = Flux2Spec(
    in_channels=LATENTS,
    width=WIDTH,
    double_blocks=2,
    single_blocks=2,
    heads=2,
    inner=96,
    context_dim=3 * KLEIN_WORDS,
    axes=(8, 8, 8, 8),
    states=3,
)
QWEN25 = replace(
    QWEN, kind="qwen25", width=QWEN_WORDS, layers=2, heads=2, key_heads=1, head_dim=128, layer=-1, final_norm=True
)
EYES = VisionSpec(width=160, layers=9, heads=2, inner=24, out=QWEN_WORDS, eyes=Eyes(side=384, several=True))
SEEING = replace(QWEN25, kind="qwen25_edit", vision=EYES)
MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
QWEN3 = replace(QWEN, kind="qwen3_stacked", width=KLEIN_WORDS, layers=28, heads=2, key_heads=1, states=(9, 18, 27))
WAN_VAE = AutoencoderSpec(kind="wan", channels=8, channel_mult=(1, 2, 2, 2), num_res_blocks=1, latent_channels=16)
FLUX2_VAE = AutoencoderSpec(
    channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1, latent_channels=LATENTS, quant_convs=True, patch=2
)


@dataclass(frozen=True)
class NewerToy:
    """The files of one model, as other programs lay them out; the rest is found beside the transformer."""

    folder: Path
    path: Path
    transformer: Tensors


def toy_qwen_image(folder: Path) -> NewerToy:
    with torch.device("meta"):
        networks = QwenImage(QWEN_IMAGE), QwenText(QWEN25), codec_network(WAN_VAE)
    transformer, text, vae = (tensors_of(each, i) for i, each in enumerate(networks))
    over_frames = {
        name: each[:, :, None] if each.dim() == 4 and "to_" not in name else each for name, each in vae.items()
    }
    _beside(folder, text, "qwen_2.5_vl_7b", over_frames, "qwen_image_vae")
    path = save(transformer, folder / "diffusion_models" / "qwen_image_bf16.safetensors")
    return NewerToy(folder, path, transformer)


def toy_qwen_edit(folder: Path, name: str = "qwen_image_edit_2511_bf16", side: int = 64) -> NewerToy:
    """Its text encoder sees; `side` is that of the pictures it paints."""
    with torch.device("meta"):
        networks = QwenImage(QWEN_IMAGE), QwenText(SEEING), codec_network(WAN_VAE)
    transformer, text, vae = (tensors_of(each, i) for i, each in enumerate(networks))
    vae = {name: each[:, :, None] if each.dim() == 4 and "to_" not in name else each for name, each in vae.items()}
    named = {f"model.{key}".replace("model.visual.", "visual."): each for key, each in text.items()}
    kernel = named["visual.patch_embed.proj.weight"].reshape(-1, 3, 1, 14, 14)
    named["visual.patch_embed.proj.weight"] = kernel.repeat(1, 1, 2, 1, 1) / 2
    save(named, folder / "text_encoders" / "qwen_2.5_vl_7b.safetensors")
    save(vae, folder / "vae" / "qwen_image_vae.safetensors")
    small_vocabulary(folder / "text_encoders" / "tokenizer.json", *MARKS)
    path = folder / "diffusion_models" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(transformer, path, {"overpaint.native_size": str(side)})
    return NewerToy(folder, path, transformer)


def toy_klein(folder: Path) -> NewerToy:
    with torch.device("meta"):
        networks = Flux2(KLEIN), QwenText(replace(QWEN3, layers=28)), codec_network(FLUX2_VAE)
    transformer, text, vae = (tensors_of(each, i) for i, each in enumerate(networks))
    vae["bn.running_var"] = vae["bn.running_var"].abs() + 0.5
    text |= {name.replace("layers.26.", "layers.27."): each for name, each in text.items() if "layers.26." in name}
    _beside(folder, text, "qwen_3_4b", vae, "flux2-vae")
    path = save(transformer, folder / "diffusion_models" / "flux-2-klein-4b.safetensors")
    return NewerToy(folder, path, transformer)


def _beside(folder: Path, text: Tensors, name: str, vae: Tensors, vae_name: str) -> None:
    save({f"model.{key}": each.clone() for key, each in text.items()}, folder / "text_encoders" / f"{name}.safetensors")
    save(vae, folder / "vae" / f"{vae_name}.safetensors")
    small_vocabulary(folder / "text_encoders" / "tokenizer.json")
