"""One file in SD 1's layout from the averaged weights: `python -m training.export --state DIR`.

The statistics of the latents are folded into the codec, so that what the denoiser was trained on is exactly what any
program gets that multiplies latents by 0.18215.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overpaint.models.families import UNET_PREFIX, VAE_PREFIX
from overpaint.models.files import write_safetensors
from training import specs
from training.denoiser import Denoiser, signal_shares
from training.hardware import Hardware
from training.latents import Scale, averaged_codec
from training.store import Folder, load_tensors, replacing
from training.words import UNKNOWN

NAME = "overpaint-mini.safetensors"
_TOKENS = "embeddings.token_embedding.weight"
_METADATA = {
    "format": "pt",
    "modelspec.architecture": "stable-diffusion-v1",
    "modelspec.title": "overpaint mini",
    "modelspec.license": "Apache-2.0",
    "modelspec.prediction_type": "epsilon",
    "modelspec.resolution": f"{specs.NATIVE_SIZE}x{specs.NATIVE_SIZE}",
    "overpaint.num_heads": json.dumps(specs.HEADS),
    "overpaint.text_heads": json.dumps([specs.TEXT.heads]),
    "overpaint.native_size": json.dumps(specs.NATIVE_SIZE),
}


def export(folder: Folder, target: Path | None = None) -> Path:
    """Write the checkpoint, in half precision."""
    target = target or folder.root / NAME
    kept = load_tensors(folder.trainee("unet"))
    codec = averaged_codec(folder, Hardware.cpu()).state_dict()
    tensors = checkpoint(named_averages(kept), kept["notes"], codec)
    metadata = {**_METADATA, "overpaint.training_steps": json.dumps(kept["step"])}
    with replacing(target) as unfinished:
        write_safetensors(unfinished, tensors, metadata)
    return target


def named_averages(kept: Mapping[str, Any]) -> dict[str, Tensor]:
    with torch.device("meta"):
        names = [name for name, _ in Denoiser().named_parameters()]
    return dict(zip(names, kept["averages"], strict=True))


def checkpoint(
    denoiser: Mapping[str, Tensor], notes: Mapping[str, Any], codec: Mapping[str, Tensor]
) -> dict[str, NDArray[Any]]:
    """Every tensor by its name in SD 1."""
    scale = Scale(tuple(notes["scale"]["mean"]), tuple(notes["scale"]["spread"]))
    named: dict[str, Tensor] = {}
    for name, values in denoiser.items():
        half, rest = name.split(".", 1)
        whole = _whole_table(values, notes["tokens"]) if rest == _TOKENS else values
        named[(UNET_PREFIX if half == "unet" else specs.TEXT.prefix) + rest] = whole
    named |= {VAE_PREFIX + name: values for name, values in folded(codec, scale).items()}
    tensors: dict[str, NDArray[Any]] = {
        name: values.float().numpy().astype(np.float16) for name, values in named.items()
    }
    tensors[f"{specs.TEXT.prefix}embeddings.position_ids"] = np.arange(specs.TEXT.positions, dtype=np.int64)[None]
    tensors["alphas_cumprod"] = signal_shares().numpy()
    return dict(sorted(tensors.items()))


def _whole_table(trained: Tensor, tokens: list[int]) -> Tensor:
    """The full vocabulary: every token that no caption holds gets the vector of unknown words."""
    table = trained[UNKNOWN].repeat(specs.TEXT.vocabulary, 1)
    table[tokens] = trained[1:]
    return table


def folded(codec: Mapping[str, Tensor], scale: Scale) -> dict[str, Tensor]:
    """The same codec with latents z' such that 0.18215 z' has no mean and unit spread."""
    result = {name: values.clone().float() for name, values in codec.items()}
    latents = specs.VAE.latent_channels
    mean = torch.tensor(scale.mean)
    gain = 1 / (torch.tensor(scale.spread) * specs.MODEL.latent.scale)
    weight, bias = result["quant_conv.weight"], result["quant_conv.bias"]
    weight[:latents] *= gain.view(-1, 1, 1, 1)
    bias[:latents] = (bias[:latents] - mean) * gain
    bias[latents:] += 2 * gain.log()
    back = result["post_quant_conv.weight"]
    result["post_quant_conv.bias"] += back[:, :, 0, 0] @ mean
    result["post_quant_conv.weight"] = back / gain.view(1, -1, 1, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="training.export", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--to", type=Path, help=f"the file to write; {NAME} in the state folder unless given")
    said = parser.parse_args()
    print(export(Folder(said.state), said.to))


if __name__ == "__main__":
    main()
