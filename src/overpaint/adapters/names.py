"""From the names that networks use for layers to the names of ours (LORA-3).

Our layers are named as in the checkpoint. Trainers name them after the checkpoint too, or after diffusers' arrangement
of the same networks, with dots or with underscores. So each of our layers is written down under every name that it may
have, in underscores, and the keys of a file are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from overpaint.models.specs import DenoiserSpec, ModelSpec, TextSpec, UNetSpec
from overpaint.models.transformer_layouts import diffusers_layers
from overpaint.networks.denoisers import denoiser_network
from overpaint.networks.text_networks import text_network

UNET = -1
FUSED = ("q_proj", "k_proj", "v_proj")  # OpenCLIP keeps these three in one tensor, in this order


class LayerName(NamedTuple):
    """A layer of the denoiser, or of a text encoder by its number; parts of fused projections count as layers."""

    network: int
    path: str


class LayerPart(NamedTuple):
    """What a key of a file means: a layer, and what of it."""

    layer: LayerName
    part: str


Names = Mapping[str, LayerName]

_UNET_OWN = ("lora_unet_", "oft_unet_", "diffusion_model_", "model_diffusion_model_", "")
_TRANSFORMER_DIFFUSERS = ("transformer_", "diffusion_model_", "lora_transformer_", "lora_unet_", "")
_UNET_DIFFUSERS = ("lora_unet_", "oft_unet_", "unet_", "")
# By the place of a text encoder in the checkpoint: how names of Hugging Face's arrangement may start.
_TEXT_STARTS = {
    "transformer_text_model_": ("lora_te_", "lora_te1_", "text_encoder_", ""),
    "model_": ("lora_te_", "text_encoder_", ""),
    "0_transformer_text_model_": ("lora_te1_", "text_encoder_", ""),
    "1_model_": ("lora_te2_", "text_encoder_2_"),
    "0_model_": ("text_encoder_2_",),
    "text_encoders_clip_l_transformer_text_model_": ("lora_te1_", "text_encoder_"),
    "text_encoders_clip_g_transformer_": ("lora_te2_", "text_encoder_2_"),
    # Trainers number T5 as the third, whether there is a second or not; diffusers counts what is there.
    "text_encoders_t5xxl_transformer_": ("lora_te3_", "text_encoder_2_", "text_encoder_3_"),
}

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE_BLOCKS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_OPENCLIP = (
    (re.compile(r"^transformer\.resblocks\."), "encoder.layers."),
    (re.compile(r"\.attn\."), ".self_attn."),
    (re.compile(r"\.c_fc$"), ".fc1"),
    (re.compile(r"\.c_proj$"), ".fc2"),
    (re.compile(r"\.ln_([12])$"), r".layer_norm\1"),
    (re.compile(r"^ln_final$"), "final_layer_norm"),
    (re.compile(r"^token_embedding$"), "embeddings.token_embedding"),
)

# Ways in which diffusers and peft have written keys over the years, brought to one.
_HABITS = (
    (re.compile(r"^base_model\.model\."), ""),
    (re.compile(r"\.default(?=\.|$)"), ""),
    (re.compile(r"\.processor\.(to_\w+_lora\.)"), r".\1"),
    (re.compile(r"\.self_attn\.to_([qkv])_lora\."), r".self_attn.\1_proj."),
    (re.compile(r"\.self_attn\.to_out_lora\."), ".self_attn.out_proj."),
    (re.compile(r"\.to_out_lora\."), ".to_out.0."),
    (re.compile(r"\.(to_[qkv])_lora\."), r".\1."),
    (re.compile(r"\.(lora_linear_layer|lora)\.(up|down)\.weight$"), r".\2.weight"),
    (re.compile(r"\.(up|down)\.weight$"), r".lora_\1.weight"),
    (re.compile(r"\.lora_A\.weight$"), ".lora_down.weight"),
    (re.compile(r"\.lora_B\.weight$"), ".lora_up.weight"),
    (re.compile(r"\.lora_magnitude_vector(\.weight)?$"), ".magnitude"),
)


def find_layer(key: str, names: Names) -> LayerPart | None:
    """What a key of a file is for: its longest beginning that names a layer, and the rest."""
    for habit, usual in _HABITS:
        key = habit.sub(usual, key)
    parts = key.split(".")
    for end in range(len(parts) - 1, 0, -1):
        layer = names.get("_".join(parts[:end]))
        if layer is not None:
            return LayerPart(layer, ".".join(parts[end:]))
    return None


def layer_names(spec: ModelSpec) -> Names:
    """Every name, in underscores, under which a file may hold something for a layer of such a model."""
    return _layer_names(spec.denoiser, spec.texts)


@lru_cache(maxsize=8)
def _layer_names(denoiser: DenoiserSpec, texts: tuple[TextSpec, ...]) -> Names:
    names: dict[str, LayerName] = {}
    with torch.device("meta"):
        for path in _layers(denoiser_network(denoiser)):
            _enter(names, LayerName(UNET, path), _UNET_OWN, path)
            for theirs, ours in _of_diffusers(denoiser, path).items():
                starts = _UNET_DIFFUSERS if isinstance(denoiser, UNetSpec) else _TRANSFORMER_DIFFUSERS
                _enter(names, LayerName(UNET, ours), starts, theirs)
        for number, text in enumerate(texts):
            place = re.sub(r"^(cond_stage_model|conditioner\.embedders)\.", "", text.prefix).replace(".", "_")
            for path in _layers(text_network(text)):
                _enter(names, LayerName(number, path), (place,), path)
                usual = path if text.kind == "t5" else f"text_model.{_hugging_face_name(path)}"
                _enter(names, LayerName(number, path), _TEXT_STARTS.get(place, ()), usual)
    return MappingProxyType(names)


def _of_diffusers(denoiser: DenoiserSpec, path: str) -> Mapping[str, str]:
    """diffusers' name of a layer -> ours."""
    if isinstance(denoiser, UNetSpec):
        return {_diffusers_name(path, denoiser.num_res_blocks + 1): path}
    return diffusers_layers(denoiser.network, path)


def _enter(names: dict[str, LayerName], layer: LayerName, starts: Iterable[str], name: str) -> None:
    for start in starts:
        names.setdefault(start + name.replace(".", "_"), layer)


def _layers(network: nn.Module) -> Iterator[str]:
    """The layers that have a weight, and the three in each fused attention."""
    for path, module in network.named_modules():
        own = {name for name, _ in module.named_parameters(recurse=False)}
        if "weight" in own:
            yield path
        if "in_proj_weight" in own:
            yield from (f"{path}.{name}" for name in FUSED)


def _diffusers_name(path: str, stride: int) -> str:
    """Diffusers counts residual blocks by level; a level has `stride` of them on the way up, and one less down."""
    if path in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[path]
    side, first, *others = path.split(".")
    if side == "middle_block":
        rest = ".".join(others)
        return f"mid_block.attentions.0.{rest}" if first == "1" else f"mid_block.resnets.{int(first) // 2}.{_res(rest)}"
    place, rest = others[0], ".".join(others[1:])
    level, block = divmod(int(first) - (side == "input_blocks"), stride)
    blocks = f"{'down' if side == 'input_blocks' else 'up'}_blocks.{level}"
    if rest == "op":
        return f"{blocks}.downsamplers.0.conv"
    if rest == "conv":
        return f"{blocks}.upsamplers.0.conv"
    return f"{blocks}.resnets.{block}.{_res(rest)}" if place == "0" else f"{blocks}.attentions.{block}.{rest}"


def _res(rest: str) -> str:
    return _RESNET.get(rest, rest)


def _hugging_face_name(path: str) -> str:
    for own, usual in _OPENCLIP:
        path = own.sub(usual, path)
    return path
