"""A narrow Qwen-Image-Edit of diffusers and transformers with random weights, and its files as people have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.networks_vs_diffusers.flow_files import save, seeded, small_vocabulary, with_random_weights
from tests.networks_vs_diffusers.newer_sources import (
    QWEN_WORDS,
    VOCABULARY,
    NewerParts,
    language_half,
    small_qwen_image,
    small_wan_vae,
    wan_tensors,
)

MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
START, END, PAD = range(VOCABULARY, VOCABULARY + 3)
EYES = {"depth": 9, "hidden_size": 160, "num_heads": 2, "intermediate_size": 40, "fullatt_block_indexes": [7]}
SIDE = 91  # of a square of as many pixels as the narrow models paint: 128x64 are next to it


def small_seeing_qwen25() -> Any:
    """Both halves of Qwen2.5-VL; a head of its eyes is 80 wide, always."""
    import transformers

    text = {
        "vocab_size": VOCABULARY + len(MARKS),
        "hidden_size": QWEN_WORDS,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
        "max_window_layers": 2,
    }
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**EYES, "out_hidden_size": QWEN_WORDS},
        image_token_id=PAD,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    with seeded(31):
        return with_random_weights(transformers.Qwen2_5_VLForConditionalGeneration(config))


def vision_half(text: Any) -> dict[str, Tensor]:
    """In our names: the kernels of both frames are one."""
    tensors = {key: each.clone() for key, each in text.model.visual.state_dict().items()}
    tensors["patch_embed.proj.weight"] = tensors["patch_embed.proj.weight"].sum(dim=2).flatten(1)
    return tensors


def edit_parts(folder: Path, called: str = "qwen_image_edit_2509_bf16", *, clean: bool = False) -> NewerParts:
    """A transformer alone, and beside it the text encoder and the VAE."""
    parts = NewerParts(
        small_qwen_image(clean=clean), small_seeing_qwen25(), small_wan_vae(still=True), folder, f"{called}.safetensors"
    )
    save(parts.transformer.state_dict(), parts.path, **said())
    save(language_half(parts.text), folder / "text_encoders" / "qwen_2.5_vl_7b.safetensors")
    save(wan_tensors(parts.vae.state_dict()), folder / "vae" / "qwen_image_vae.safetensors")
    small_vocabulary(parts.vocabulary, *MARKS)
    return parts


def said() -> Mapping[str, Any]:
    """Narrow models paint small pictures, or tests would take minutes."""
    return {"overpaint.native_size": json.dumps(SIDE)}


def picture(wide: int, high: int, seed: int = 0) -> Tensor:
    """Pixels in -1..1."""
    return torch.rand(1, 3, high, wide, generator=torch.Generator().manual_seed(seed)) * 2 - 1
