"""Model files of true sizes that hold no data: headers, and a hole as long as the tensors would be."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from overpaint.models.families import SD1_SPEC
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.flux import Flux
from overpaint.networks.layers import laid_out
from overpaint.networks.t5_text import T5Text
from overpaint.networks.text import ClipText
from tests.networks_vs_diffusers.flow_sources import t5_vocabulary
from tests.published_specs import FLUX_DEV, PUBLISHED_VAE, T5_XXL

Shapes = Mapping[str, tuple[int, ...]]
_SIZES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}
_Q4_K, _F32 = 12, 0

_VAE = replace(PUBLISHED_VAE, quant_convs=False)


def hollow_flux(folder: Path, *, kind: str = "F8_E4M3") -> Path:
    """Flux.1 dev as it is shared: the transformer in 8 bits or as GGUF, beside it both text encoders and the VAE."""
    transformer = _shapes(laid_out(partial(Flux, FLUX_DEV), torch.bfloat16))
    texts = folder / "text_encoders"
    clip = _shapes(laid_out(partial(ClipText, SD1_SPEC.texts[0]), torch.bfloat16))
    hollow_safetensors(
        texts / "clip_l.safetensors", {f"text_model.{name}": each for name, each in clip.items()}, "BF16"
    )
    hollow_safetensors(texts / "t5xxl.safetensors", _shapes(laid_out(partial(T5Text, T5_XXL), torch.bfloat16)), "BF16")
    t5_vocabulary(texts / "t5.tokenizer.json")
    codec = _shapes(laid_out(partial(AutoencoderKL, _VAE), torch.bfloat16))
    hollow_safetensors(folder / "vae" / "ae.safetensors", codec, "F32")
    if kind == "GGUF":
        return hollow_gguf(folder / "diffusion_models" / "flux1-dev-Q4_K_S.gguf", transformer)
    return hollow_safetensors(folder / "diffusion_models" / "flux1-dev-fp8.safetensors", transformer, kind)


def _shapes(network: nn.Module) -> Shapes:
    return {name: tuple(each.shape) for name, each in network.named_parameters()}


def hollow_safetensors(path: Path, shapes: Shapes, kind: str) -> Path:
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * _SIZES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return _hollow(path, struct.pack("<Q", len(text)) + text, end)


def hollow_gguf(path: Path, shapes: Shapes) -> Path:
    """Matrices in 4.5 bits."""
    end, entries = 0, b""
    for name, shape in shapes.items():
        kind = _Q4_K if len(shape) == 2 and shape[1] % 256 == 0 else _F32
        sizes = b"".join(struct.pack("<Q", each) for each in reversed(shape))
        entries += _text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, end)
        end += math.prod(shape) // 256 * 144 if kind == _Q4_K else 4 * math.prod(shape)
        end = -(-end // 32) * 32
    facts = _text("general.architecture") + struct.pack("<I", 8) + _text("flux")
    start = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), 1) + facts + entries
    return _hollow(path, start + bytes(-len(start) % 32), end)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _hollow(path: Path, start: bytes, behind: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + behind)
    return path
