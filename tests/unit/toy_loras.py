"""Small networks to hang things on, and files to hang on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from overpaint.backends.port import Networks
from overpaint.models.catalog import ModelFile
from overpaint.models.families import SD1_SPEC, ModelSpec, UNetSpec
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.layers import blank, set_packed
from overpaint.networks.text_networks import text_network
from overpaint.networks.unet import UNet

_Network = TypeVar("_Network", bound=nn.Module)

_UNET = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=2,
    input_depths=(0, 0, 1, 1),
    middle_depth=1,
    output_depths=(1, 1, 1, 0, 0, 0),
    heads=4,
    context_dim=24,
    linear_projections=False,
)
_CLIP = replace(SD1_SPEC.texts[0], width=24, layers=2, heads=2, inner=48, vocabulary=40)
_OPENCLIP = replace(_CLIP, kind="openclip", prefix="cond_stage_model.model.", activation="gelu")

SD1 = replace(SD1_SPEC, denoiser=_UNET, texts=(_CLIP,))
SD2 = replace(SD1, family="sd2", title="Stable Diffusion 2", texts=(_OPENCLIP,))
SDXL = replace(
    SD1,
    family="sdxl",
    title="SDXL",
    denoiser=replace(_UNET, adm_channels=16),
    texts=(
        replace(_CLIP, prefix="conditioner.embedders.0.transformer.text_model."),
        replace(_OPENCLIP, prefix="conditioner.embedders.1.model.", pooled=True),
    ),
)
INPAINT = replace(SD1, denoiser=replace(_UNET, in_channels=9))
EDIT = replace(SD1, denoiser=replace(_UNET, in_channels=8))


def toy_networks(spec: ModelSpec, *, dtype: torch.dtype = torch.float32, packed: bool = False) -> Networks:
    """Random networks; the autoencoder, which wears nothing, is left blank."""
    generator = torch.Generator().manual_seed(7)

    def filled(build: Callable[[], _Network]) -> _Network:
        network = blank(build, "cpu", dtype).requires_grad_(False)
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
        set_packed(network, packed)
        return network

    unet = filled(partial(UNet, spec.unet))
    texts = tuple(filled(partial(text_network, text)) for text in spec.texts)
    codec = blank(partial(AutoencoderKL, replace(spec.vae, channels=32, channel_mult=(1,))), "cpu", dtype)
    return Networks(unet, codec, texts)


def lora_of(shape: tuple[int, ...], rank: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """Random factors for a layer."""
    generator = torch.Generator().manual_seed(seed)
    ones = [1] * (len(shape) - 2)
    return {
        "lora_up.weight": torch.randn(shape[0], rank, *ones, generator=generator),
        "lora_down.weight": torch.randn(rank, *shape[1:], generator=generator),
        "alpha": torch.tensor(1.0),
    }


def network_file(
    path: Path, layers: Mapping[str, Mapping[str, Tensor]], metadata: dict[str, str] | None = None
) -> ModelFile:
    """A file of these layers: name -> part -> tensor."""
    tensors = {
        f"{name}.{part}": tensor.contiguous() for name, parts in layers.items() for part, tensor in parts.items()
    }
    save_file(tensors, path, metadata)
    return ModelFile(path, path.stem, path.stem)
