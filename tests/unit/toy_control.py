"""Narrow ControlNets with random weights, the U-Nets they go with, and the same in diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from overpaint.models.control_spec import ControlSpec
from overpaint.models.families import SD1_SPEC, ModelSpec, UNetSpec
from overpaint.networks.controlnet import ControlNet
from overpaint.networks.layers import blank
from overpaint.networks.unet import UNet

_N = TypeVar("_N", bound=nn.Module)

SIZES = 6  # numbers that tell SDXL the size of a picture
SINUSOID = 8
POOLED = 16

SD1 = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=2,
    input_depths=(1, 1, 0, 0),
    middle_depth=1,
    output_depths=(0, 0, 0, 1, 1, 1),
    heads=8,
    context_dim=24,
    linear_projections=False,
)
SDXL = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=2,
    input_depths=(0, 0, 2, 2),
    middle_depth=2,
    output_depths=(2, 2, 2, 0, 0, 0),
    head_dim=16,
    context_dim=24,
    linear_projections=True,
    adm_channels=POOLED + SIZES * SINUSOID,
)
SMALL_SDXL = replace(  # without attention
    SDXL, input_depths=(0,) * 4, middle_depth=None, context_dim=0, linear_projections=False
)
HINT = (4, 4, 8, 8, 12, 12, 20)
MODEL = replace(SD1_SPEC, denoiser=SD1)


def control_spec(unet: UNetSpec = SD1) -> ControlSpec:
    return ControlSpec(unet=replace(unet, output_depths=()), hint_channels=HINT)


def model_spec(unet: UNetSpec) -> ModelSpec:
    return replace(SD1_SPEC, denoiser=unet)


def random_network(build: Callable[[], _N], seed: int = 0, dtype: torch.dtype = torch.float32) -> _N:
    torch.manual_seed(seed)
    network = blank(build, "cpu", dtype)
    for parameter in network.parameters():
        parameter.data.normal_(0, parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.3)
    return network.eval().requires_grad_(False)


def random_unet(spec: UNetSpec = SD1, seed: int = 0) -> UNet:
    return random_network(partial(UNet, spec), seed)


def random_control(spec: UNetSpec = SD1, seed: int = 1) -> ControlNet:
    return random_network(partial(ControlNet, control_spec(spec)), seed)


def control_file(path: Path, network: ControlNet, prefix: str = "control_model.", **metadata: str) -> Path:
    """The network as a file in the original layout."""
    tensors = {prefix + name: value.clone().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, metadata)
    return path


def inputs(spec: UNetSpec = SD1, size: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """x, timesteps, context, vector, and a hint for one picture"""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, spec.in_channels, size, size, generator=generator)
    context = torch.randn(2, 5, spec.context_dim or 24, generator=generator)
    hint = torch.rand(1, 3, 8 * size, 8 * size, generator=generator)
    vector = torch.randn(2, spec.adm_channels, generator=generator) if spec.adm_channels else None
    return x, torch.tensor([3.0, 801.0]), context, vector, hint


# -- diffusers ---------------------------------------------------------------------------------------------------------


def diffusers_config(spec: UNetSpec) -> dict[str, Any]:
    widths = [spec.model_channels * mult for mult in spec.channel_mult]
    per_level = [spec.input_depths[i * spec.num_res_blocks] for i in range(len(widths))]
    config: dict[str, Any] = {
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in per_level],
        "mid_block_type": "UNetMidBlock2D" if spec.middle_depth is None else "UNetMidBlock2DCrossAttn",
        "layers_per_block": spec.num_res_blocks,
        "cross_attention_dim": spec.context_dim or 24,
        "attention_head_dim": [spec.heads_at(width) for width in widths],  # it means the number of heads
        "use_linear_projection": spec.linear_projections,
        "transformer_layers_per_block": [max(1, depth) for depth in per_level],
    }
    if spec.adm_channels is not None:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SINUSOID,
            "projection_class_embeddings_input_dim": spec.adm_channels,
        }
    return config


def diffusers_control(network: ControlNet) -> Any:
    """The same network in diffusers, its weights renamed by diffusers' own converter."""
    from diffusers import ControlNetModel
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    theirs: Any = ControlNetModel(
        **diffusers_config(network.spec), conditioning_embedding_out_channels=(HINT[0], *HINT[2::2])
    )
    named = {f"control_model.{name}": value.clone() for name, value in network.state_dict().items()}
    converted = convert_controlnet_checkpoint(dict(named), {**theirs.config})
    theirs.load_state_dict(converted | _size_vector(named, "control_model."))
    return theirs.eval()


def diffusers_unet(network: UNet) -> Any:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = diffusers_config(network.spec)
    ups = [f"{'CrossAttn' if 'Cross' in each else ''}UpBlock2D" for each in reversed(config["down_block_types"])]
    theirs: Any = UNet2DConditionModel(**config, up_block_types=ups)
    named = {f"model.diffusion_model.{name}": value.clone() for name, value in network.state_dict().items()}
    converted = convert_ldm_unet_checkpoint(dict(named), {**theirs.config})
    theirs.load_state_dict(converted | _size_vector(named, "model.diffusion_model."))
    return theirs.eval()


def _size_vector(named: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What diffusers' converters leave out of narrow networks."""
    return {
        f"add_embedding.linear_{i + 1}.{part}": named[f"{prefix}label_emb.0.{2 * i}.{part}"]
        for i in range(2)
        for part in ("weight", "bias")
        if f"{prefix}label_emb.0.{2 * i}.{part}" in named
    }
