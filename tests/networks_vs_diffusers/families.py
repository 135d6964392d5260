"""The families that nobody recorded: small networks of diffusers and transformers with their arrangement of layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.networks_vs_diffusers.original_layout import (
    checkpoint,
    clip_tensors,
    openclip_tensors,
    unet_tensors,
    vae_tensors,
)

_DOWN, _DOWN_ATTENDING = "DownBlock2D", "CrossAttnDownBlock2D"
_UP, _UP_ATTENDING = "UpBlock2D", "CrossAttnUpBlock2D"
_TEXT_WIDTH, _TEXT_HEADS, _TEXT_LAYERS = 64, 4, 4
_SINUSOID = 256  # a size or a score in an SDXL network's vector

_COMMON = {"sample_size": 8, "use_linear_projection": True}
_SD2 = {
    **_COMMON,
    "down_block_types": (_DOWN_ATTENDING,) * 3 + (_DOWN,),
    "up_block_types": (_UP,) + (_UP_ATTENDING,) * 3,
    "block_out_channels": (32, 64, 128, 128),
    "attention_head_dim": (2, 4, 8, 8),  # diffusers means the number of heads
    "cross_attention_dim": _TEXT_WIDTH,
}
_VECTOR = {"addition_embed_type": "text_time", "addition_time_embed_dim": _SINUSOID}
_SDXL = {
    **_COMMON,
    **_VECTOR,
    "down_block_types": (_DOWN, _DOWN_ATTENDING, _DOWN_ATTENDING),
    "up_block_types": (_UP_ATTENDING, _UP_ATTENDING, _UP),
    "block_out_channels": (32, 64, 128),
    "attention_head_dim": (2, 4, 8),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2 * _TEXT_WIDTH,
    "projection_class_embeddings_input_dim": _TEXT_WIDTH + 6 * _SINUSOID,
}
_REFINER = {
    **_COMMON,
    **_VECTOR,
    "down_block_types": (_DOWN, _DOWN_ATTENDING, _DOWN_ATTENDING, _DOWN),
    "up_block_types": (_UP, _UP_ATTENDING, _UP_ATTENDING, _UP),
    "block_out_channels": (32, 64, 128, 128),
    "attention_head_dim": (2, 4, 8, 8),
    "transformer_layers_per_block": 4,
    "cross_attention_dim": _TEXT_WIDTH,
    "projection_class_embeddings_input_dim": _TEXT_WIDTH + 5 * _SINUSOID,
}
_SSD = {
    **_SDXL,
    "mid_block_type": "UNetMidBlock2D",  # of one residual block
    "transformer_layers_per_block": (1, (2, 2), (4, 4)),
    "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
}

_SD2_TEXTS = {"cond_stage_model.model.": "openclip"}
_XL_TEXTS = {"conditioner.embedders.0.transformer.text_model.": "clip", "conditioner.embedders.1.model.": "bigG"}
_REFINER_TEXTS = {"conditioner.embedders.0.model.": "bigG"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A family in small, and what is told about it beside its shapes."""

    family: str  # as overpaint has to recognise it
    unet: Mapping[str, Any]
    texts: Mapping[str, str]
    prediction: str = "eps"
    sidecar: bool = False  # told in a configuration beside the file, not in its metadata
    answer: float = 0.0  # what the U-Net's last bias adds to every answer
    extra: Mapping[str, Tensor] = field(default_factory=dict)


RECIPES: Mapping[str, Recipe] = {
    "sd2": Recipe(family="sd2", unet=_SD2, texts=_SD2_TEXTS),
    # At full noise a v network answers with minus the picture; this one always does.
    "sd2-v": Recipe(family="sd2", unet=_SD2, texts=_SD2_TEXTS, prediction="v", answer=-2.0),
    "sd2-inpaint": Recipe(family="sd2-inpaint", unet={**_SD2, "in_channels": 9}, texts=_SD2_TEXTS, sidecar=True),
    "sdxl": Recipe(family="sdxl", unet=_SDXL, texts=_XL_TEXTS),
    "sdxl-v": Recipe(family="sdxl", unet=_SDXL, texts=_XL_TEXTS, prediction="v", extra={"v_pred": torch.zeros(0)}),
    "sdxl-inpaint": Recipe(family="sdxl-inpaint", unet={**_SDXL, "in_channels": 9}, texts=_XL_TEXTS),
    "sdxl-refiner": Recipe(family="sdxl-refiner", unet=_REFINER, texts=_REFINER_TEXTS),
    "ssd-1b": Recipe(family="sdxl", unet=_SSD, texts=_XL_TEXTS),
}


@dataclass(frozen=True)
class Built:
    """The same weights twice: diffusers' and transformers' networks, and the file made from them."""

    recipe: Recipe
    path: Path
    unet: Any
    vae: Any
    texts: tuple[Any, ...]


def build(name: str, folder: Path, dtype: torch.dtype = torch.float32, *, still: bool = False) -> Built:
    """Random networks of a family, rounded to `dtype`, and their file. A `still` codec's posterior has no width."""
    recipe = RECIPES[name]
    unet, vae = _unet(recipe), _vae(recipe.family, still)
    texts = tuple(text_model(kind, seed=10 + i) for i, kind in enumerate(recipe.texts.values()))
    for network in (unet, vae, *texts):
        network.to(dtype).float()
    rename = {"clip": clip_tensors, "openclip": openclip_tensors, "bigG": openclip_tensors}
    parts = [("model.diffusion_model.", unet_tensors(unet)), ("first_stage_model.", vae_tensors(vae))]
    parts += [(prefix, rename[kind](text)) for (prefix, kind), text in zip(recipe.texts.items(), texts, strict=True)]
    path = folder / f"{name}-{str(dtype).removeprefix('torch.')}{'-still' * still}.safetensors"
    save_file({**checkpoint(parts, dtype), **recipe.extra}, path, metadata=_facts(recipe))
    if recipe.sidecar:
        path.with_suffix(".yaml").write_text(_CONFIGURATION, "utf-8")
    return Built(recipe, path, unet, vae, texts)


# What tiny widths do not say: a head has 16 channels, not 64.
_CONFIGURATION = "model: {params: {unet_config: {params: {num_head_channels: 16}}}}\n"


def _facts(recipe: Recipe) -> dict[str, str]:
    facts = {"overpaint.text_heads": json.dumps([_TEXT_HEADS] * len(recipe.texts))}
    return facts if recipe.sidecar else {**facts, "overpaint.head_dim": "16"}


def _unet(recipe: Recipe) -> Any:
    import diffusers

    unet = filled(diffusers.UNet2DConditionModel(**recipe.unet), 1)
    unet.conv_out.bias.data.fill_(recipe.answer)
    return unet


def _vae(family: str, still: bool) -> Any:
    import diffusers

    vae = filled(
        diffusers.AutoencoderKL(
            block_out_channels=(96, 96, 192, 96),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            scaling_factor=0.13025 if family.startswith("sdxl") else 0.18215,
        ),
        2,
    )
    if still:
        vae.quant_conv.weight.data[4:] = 0
        vae.quant_conv.bias.data[4:] = -30
    return vae


def text_model(kind: str, *, seed: int, layers: int = _TEXT_LAYERS) -> Any:
    """CLIP-L's kind, OpenCLIP-H's, or bigG's with its projection. With fewer layers the others stay the same."""
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=_TEXT_WIDTH,
        intermediate_size=2 * _TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=_TEXT_HEADS,
        projection_dim=_TEXT_WIDTH,
        hidden_act="quick_gelu" if kind == "clip" else "gelu",
        bos_token_id=49406,
        eos_token_id=49407,
    )
    model = transformers.CLIPTextModelWithProjection if kind == "bigG" else transformers.CLIPTextModel
    return filled(model(config), seed)


def filled(network: Any, seed: int) -> Any:
    """Random weights that keep values in range, each from a stream of its own; norms and biases are random too."""
    assert isinstance(network, nn.Module)
    for name, parameter in network.named_parameters():
        stream = torch.Generator().manual_seed(hash_of(f"{seed} {name}"))
        noise = torch.randn(parameter.shape, generator=stream)
        if parameter.dim() > 1:
            parameter.data.copy_(noise * parameter[0].numel() ** -0.5)
        else:
            parameter.data.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
    return network.eval().requires_grad_(False)


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode(), "little") % (2**61 - 1)
