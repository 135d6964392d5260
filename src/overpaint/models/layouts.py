"""The names that diffusers and transformers give to tensors, in those of the original checkpoint (ARCH-3 to ARCH-8).

Pure: names in, names out, without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from overpaint.errors import CheckpointError

_UNET_ENDS: Mapping[str, str] = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_UNET_RESNET: Mapping[str, str] = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_MIDDLE: Mapping[str, str] = {
    "resnets.0": "middle_block.0",
    "attentions.0": "middle_block.1",
    "resnets.1": "middle_block.2",
}
_SIDES: Mapping[str, str] = {"down": "input_blocks", "up": "output_blocks"}
_STACKED = re.compile(r"(down|up)_blocks\.(\d{1,3})\.(resnets|attentions|downsamplers|upsamplers)\.(\d{1,3})\.(.+)")
_MIDDLE = re.compile(r"mid_block\.((?:resnets|attentions)\.\d)\.(.+)")

_ATTENTION = re.compile(
    r"(norm|proj_in|proj_out"
    r"|transformer_blocks\.\d+\.(norm[123]|attn[12]\.to_[qkv]|attn[12]\.to_out\.0|ff\.net\.(0\.proj|2)))"
    r"\.(weight|bias)"
)


def is_diffusers_unet(keys: Iterable[str]) -> bool:
    """Not a ControlNet, which has the way down only."""
    return {"conv_in.weight", "conv_out.weight", "up_blocks.0.resnets.0.conv1.weight"} <= set(keys)


def unet_names(keys: Iterable[str]) -> dict[str, str]:
    """diffusers' name of each tensor of a U-Net -> the original one; a name that no such U-Net has is refused."""
    keys = tuple(keys)
    stacks = _Stacks.of(keys)
    return {key: _known(key, _unet_name(key, stacks), "U-Net") for key in keys if "." in key}


class _Stacks(NamedTuple):
    """How many residual blocks each level has, and which levels on the way up attend."""

    down: Mapping[int, int]
    up: Mapping[int, int]
    attending: frozenset[int]

    @classmethod
    def of(cls, keys: tuple[str, ...]) -> _Stacks:
        found = [match for key in keys if (match := _STACKED.fullmatch(key))]
        blocks = {(each[1], int(each[2]), int(each[4])) for each in found if each[3] == "resnets"}
        down, up = (
            {level: sum(each[:2] == (side, level) for each in blocks) for level in range(_levels(blocks, side))}
            for side in ("down", "up")
        )
        return cls(down, up, frozenset(int(each[2]) for each in found if (each[1], each[3]) == ("up", "attentions")))


def _levels(blocks: set[tuple[str, int, int]], side: str) -> int:
    return 1 + max((level for where, level, _ in blocks if where == side), default=-1)


def _unet_name(key: str, stacks: _Stacks) -> str | None:
    layer, _, last = key.rpartition(".")
    if layer in _UNET_ENDS:
        return f"{_UNET_ENDS[layer]}.{last}"
    if middle := _MIDDLE.fullmatch(key):
        return _joined(_UNET_MIDDLE.get(middle[1]), _within(middle[1], middle[2]))
    found = _STACKED.fullmatch(key)
    if not found:
        return None
    side, level, part, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if part.endswith("samplers"):
        return _joined(_sampler(side, level, stacks), f".{last}" if rest == f"conv.{last}" else None)
    # Block 0 of the way down is the first convolution, and every level of it ends in a block that halves the map.
    before = [count + 1 for i, count in stacks.down.items() if i < level]
    first = 1 + sum(before) if side == "down" else sum(count for i, count in stacks.up.items() if i < level)
    slot = 1 if part == "attentions" else 0
    return _joined(f"{_SIDES[side]}.{first + number}.{slot}", _within(part, rest))


def _sampler(side: str, level: int, stacks: _Stacks) -> str:
    """The layer that changes the map's size at the end of a level."""
    if side == "down":
        return f"input_blocks.{sum(stacks.down.get(i, 0) + 1 for i in range(level + 1))}.0.op"
    last = sum(stacks.up.get(i, 0) for i in range(level + 1)) - 1
    return f"output_blocks.{last}.{2 if level in stacks.attending else 1}.conv"


def _within(part: str, rest: str) -> str | None:
    """A name within a block; those of attention are the same on both sides."""
    if part.startswith("attentions"):
        return f".{rest}" if _ATTENTION.fullmatch(rest) else None
    layer, _, last = rest.rpartition(".")
    return f".{_UNET_RESNET[layer]}.{last}" if layer in _UNET_RESNET else None


def _joined(start: str | None, end: str | None) -> str | None:
    return start + end if start is not None and end is not None else None


_VAE_ATTENTION: Mapping[str, str] = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    # before version 0.17
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
_VAE_RESNET: Mapping[str, str] = {
    **{name: name for name in ("norm1", "conv1", "norm2", "conv2")},
    "conv_shortcut": "nin_shortcut",
}
_VAE_ENDS: Mapping[str, str] = {"conv_norm_out": "norm_out", "conv_in": "conv_in", "conv_out": "conv_out"}
_VAE_LEVEL = re.compile(r"(down|up)_blocks\.(\d{1,3})\.(resnets\.(\d{1,3})|downsamplers\.0|upsamplers\.0)\.(.+)")
_VAE_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.([01])\.(.+)")


def is_diffusers_vae(keys: Iterable[str]) -> bool:
    return any(key.startswith("decoder.up_blocks.") for key in keys)


def is_wan_vae(keys: Iterable[str]) -> bool:
    """The codec of Qwen-Image, named either way."""
    return not {"decoder.middle.0.residual.0.gamma", "decoder.mid_block.resnets.0.norm1.gamma"}.isdisjoint(keys)


_WAN: tuple[tuple[str, str], ...] = (
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"(?<=\d)\.norm1\.", ".residual.0."),
    (r"(?<=\d)\.conv1\.", ".residual.2."),
    (r"(?<=\d)\.norm2\.", ".residual.3."),
    (r"(?<=\d)\.conv2\.", ".residual.6."),
)
_WAN_LEVEL = re.compile(r"\.up_blocks\.(\d{1,3})\.(resnets|upsamplers)\.(\d{1,3})\.")


def wan_names(keys: Iterable[str]) -> dict[str, str]:
    """The original name of each tensor of such a codec -> the file's. What joins frames of films is left out."""
    keys = tuple(key for key in keys if ".time_conv." not in key)
    found = [match for key in keys if (match := _WAN_LEVEL.search(key)) and match[2] == "resnets"]
    blocks = 1 + max((int(each[3]) for each in found), default=0)

    def number(found: re.Match[str]) -> str:
        """The original has one list of blocks, with a step to the next size behind those of a level."""
        inside = int(found[3]) if found[2] == "resnets" else blocks
        return f".upsamples.{int(found[1]) * (blocks + 1) + inside}."

    named: dict[str, str] = {}
    for key in keys:
        ours = _WAN_LEVEL.sub(number, key)
        for theirs, new in _WAN if ".residual." not in key else ():
            ours = re.sub(theirs, new, ours)
        named[ours] = key
    return named


def vae_names(keys: Iterable[str]) -> dict[str, str]:
    """diffusers' name of each tensor of a codec -> the original one."""
    keys = tuple(keys)
    found = [re.match(r"decoder\.up_blocks\.(\d{1,3})\.", key) for key in keys]
    levels = 1 + max((int(each[1]) for each in found if each), default=-1)
    return {key: _known(key, _vae_name(key, levels), "VAE") for key in keys}


def _vae_name(key: str, levels: int) -> str | None:
    side, _, rest = key.partition(".")
    if side in ("quant_conv", "post_quant_conv", "bn"):
        return key
    layer, _, last = rest.rpartition(".")
    if side not in ("encoder", "decoder"):
        return None
    if layer in _VAE_ENDS:
        return f"{side}.{_VAE_ENDS[layer]}.{last}"
    if middle := _VAE_MIDDLE.fullmatch(rest):
        if middle[1] == "attentions":
            return _joined(f"{side}.mid.attn_1.", _renamed(middle[3], _VAE_ATTENTION))
        return _joined(f"{side}.mid.block_{int(middle[2]) + 1}.", _renamed(middle[3], _VAE_RESNET))
    found = _VAE_LEVEL.fullmatch(rest)
    if not found:
        return None
    # The original numbers the decoder's levels from the finest, diffusers in the order of use.
    level = int(found[2]) if found[1] == "down" else levels - 1 - int(found[2])
    if found[4]:
        return _joined(f"{side}.{found[1]}.{level}.block.{int(found[4])}.", _renamed(found[5], _VAE_RESNET))
    return _joined(f"{side}.{found[1]}.{level}.{found[1]}sample.", _renamed(found[5], {"conv": "conv"}))


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    layer, _, last = name.rpartition(".")
    return f"{table[layer]}.{last}" if layer in table else None


def _known(key: str, name: str | None, what: str) -> str:
    if name is None:
        raise CheckpointError(f"tensor {key[:80]!r} belongs to no {what} that is supported; use another model")
    return name


# Hugging Face's name of a layer of CLIP -> OpenCLIP's.
_CLIP_LAYERS: Mapping[str, str] = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP_ENDS: Mapping[str, str] = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_CLIP_LAYER = re.compile(r"encoder\.layers\.(\d{1,3})\.(.+)\.(weight|bias)")


def openclip_names(keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """OpenCLIP's name of each tensor of a text encoder -> Hugging Face's, three where they are fused: q, k, v."""
    keys = tuple(keys)
    names: dict[str, tuple[str, ...]] = {_CLIP_ENDS[key]: (key,) for key in keys if key in _CLIP_ENDS}
    for key in keys:
        found = _CLIP_LAYER.fullmatch(key)
        if not found:
            continue
        layer, inner, last = f"transformer.resblocks.{found[1]}", found[2], found[3]
        if inner in _CLIP_LAYERS:
            names[f"{layer}.{_CLIP_LAYERS[inner]}.{last}"] = (key,)
        elif inner == "self_attn.q_proj":
            names[f"{layer}.attn.in_proj_{last}"] = tuple(key.replace(".q_proj.", f".{each}_proj.") for each in "qkv")
    return names
