"""Networks of diffusers and transformers, renamed to the one file that checkpoints are shared in (ARCH-3 to ARCH-8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE_BLOCK = re.compile(r"mid_block\.((?:resnets|attentions)\.\d+)\.(.+)")


def unet_tensors(unet: Any) -> Tensors:
    """A UNet2DConditionModel as `input_blocks`, `middle_block` and `output_blocks`."""
    blocks = int(unet.config.layers_per_block)
    tensors = unet.state_dict()
    attends = {int(found[1]) for name in tensors if (found := re.match(r"up_blocks\.(\d+)\.attentions", name))}
    return {_unet_name(name, blocks, attends): tensor for name, tensor in tensors.items()}


def _unet_name(name: str, blocks: int, attends: set[int]) -> str:
    end, _, last = name.rpartition(".")
    if end in _ENDS:
        return f"{_ENDS[end]}.{last}"
    if found := _MIDDLE_BLOCK.match(name):
        return f"middle_block.{_MIDDLE[found[1]]}.{_resnet_name(found[2])}"
    found = _BLOCK.match(name)
    assert found is not None, name
    side, level, part, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if part == "downsamplers":
        return f"input_blocks.{(blocks + 1) * (level + 1)}.0.op.{last}"
    if part == "upsamplers":
        return f"output_blocks.{(blocks + 1) * level + blocks}.{2 if level in attends else 1}.conv.{last}"
    index = (blocks + 1) * level + number + (1 if side == "down" else 0)
    stack = "input_blocks" if side == "down" else "output_blocks"
    return f"{stack}.{index}.{0 if part == 'resnets' else 1}.{_resnet_name(rest)}"


def _resnet_name(rest: str) -> str:
    first, dot, last = rest.partition(".")
    return f"{_RESNET.get(first, first)}{dot}{last}"


_VAE_PARTS = (
    (r"^encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block."),
    (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)


def vae_tensors(vae: Any) -> Tensors:
    """An AutoencoderKL; the decoder's levels are numbered from the finest, and its attention is of 1x1 convolutions."""
    levels = len(vae.config.block_out_channels)
    tensors: Tensors = {}
    for name, tensor in vae.state_dict().items():
        if found := re.match(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers\.0)\.(.+)", name):
            part = "block" if found[2] == "resnets" else "upsample"
            name = f"decoder.up.{levels - 1 - int(found[1])}.{part}.{found[3]}"
        for pattern, ours in _VAE_PARTS:
            name = re.sub(pattern, ours, name)
        is_matrix = ".attn_1." in name and tensor.dim() == 2
        tensors[name] = tensor[:, :, None, None] if is_matrix else tensor
    return tensors


def clip_tensors(text: Any) -> Tensors:
    """A CLIPTextModel in the names of Hugging Face, without the level that some versions add."""
    return {name.removeprefix("text_model."): tensor for name, tensor in text.state_dict().items()}


_OPENCLIP_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_OPENCLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def openclip_tensors(text: Any) -> Tensors:
    """A CLIPTextModelWithProjection, or one without, in the names of OpenCLIP: queries, keys and values are fused."""
    theirs = clip_tensors(text)
    tensors = {ours: theirs[name] for name, ours in _OPENCLIP_ENDS.items()}
    if "text_projection.weight" in theirs:
        tensors["text_projection"] = theirs["text_projection.weight"].T
    for layer in range(text.config.num_hidden_layers):
        old, new = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            parts = [theirs[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{new}attn.in_proj_{kind}"] = torch.cat(parts)
            for name, ours in _OPENCLIP_PARTS.items():
                tensors[f"{new}{ours}.{kind}"] = theirs[f"{old}{name}.{kind}"]
    return tensors


def checkpoint(parts: Iterable[tuple[str, Mapping[str, Tensor]]], dtype: torch.dtype) -> Tensors:
    """The networks' tensors under their prefixes, ready to be saved."""
    return {
        prefix + name: tensor.to(dtype).contiguous().clone()
        for prefix, tensors in parts
        for name, tensor in tensors.items()
    }
