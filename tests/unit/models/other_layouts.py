"""The small checkpoint that the package makes, in the names of diffusers and transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overpaint.models.files import read_all, write_safetensors

Tensors = dict[str, NDArray[Any]]

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."

_ENDS = {
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OLD_ATTENTION = {"norm": "group_norm", "q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"}
_NEW_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def tensors_of(path: Path, prefix: str = "") -> Tensors:
    """The numbers of a file, or of one part of it without its prefix."""
    found = read_all(path)
    return {name.removeprefix(prefix): each.numpy() for name, each in found.items() if name.startswith(prefix)}


def diffusers_unet(tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Its U-Net has one residual block a level."""
    return {_unet_name(name): values for name, values in tensors.items()}


def _unet_name(name: str) -> str:
    layer, _, last = name.rpartition(".")
    if layer in _ENDS:
        return f"{_ENDS[layer]}.{last}"
    stack, number, slot, rest = re.fullmatch(r"(\w+?)(?:_block)?s?\.(\d+)\.?(\d*)\.(.+)", name).groups()  # type: ignore[union-attr]
    if stack == "middle":
        slot, rest = number, name.split(".", 2)[2]
        part = "attentions.0" if slot == "1" else f"resnets.{int(slot) // 2}"
        return f"mid_block.{part}.{rest if slot == '1' else _resnet(rest)}"
    side = "down" if stack == "input" else "up"
    level, place = divmod(int(number) - (side == "down"), 2)
    if rest.startswith("op."):
        return f"down_blocks.{level}.downsamplers.0.conv.{last}"
    if rest.startswith("conv."):
        return f"up_blocks.{level}.upsamplers.0.{rest}"
    if slot == "1":
        return f"{side}_blocks.{level}.attentions.{place}.{rest}"
    return f"{side}_blocks.{level}.resnets.{place}.{_resnet(rest)}"


def _resnet(rest: str) -> str:
    layer, _, last = rest.rpartition(".")
    return f"{_RESNET[layer]}.{last}"


def diffusers_vae(tensors: Mapping[str, NDArray[Any]], *, old: bool = False) -> Tensors:
    """With the names that attention had before version 0.17, or those since; it is kept as matrices."""
    return dict(_vae_entry(name, values, old) for name, values in tensors.items())


def _vae_entry(name: str, values: NDArray[Any], old: bool) -> tuple[str, NDArray[Any]]:
    if found := re.fullmatch(r"(encoder|decoder)\.mid\.attn_1\.(\w+)\.(weight|bias)", name):
        layer = (_OLD_ATTENTION if old else _NEW_ATTENTION)[found[2]]
        is_kernel = values.ndim == 4
        return f"{found[1]}.mid_block.attentions.0.{layer}.{found[3]}", values[:, :, 0, 0] if is_kernel else values
    name = re.sub(r"\.mid\.block_([12])\.", lambda found: f".mid_block.resnets.{int(found[1]) - 1}.", name)
    name = re.sub(r"encoder\.down\.(\d)\.", r"encoder.down_blocks.\1.", name)
    name = re.sub(r"decoder\.up\.(\d)\.", lambda found: f"decoder.up_blocks.{3 - int(found[1])}.", name)
    name = name.replace(".block.", ".resnets.").replace(".nin_shortcut.", ".conv_shortcut.")
    name = name.replace(".downsample.", ".downsamplers.0.").replace(".upsample.", ".upsamplers.0.")
    return name.replace(".norm_out.", ".conv_norm_out."), values


def saved(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, {name: np.ascontiguousarray(each) for name, each in tensors.items()}, metadata or {})
    return path
