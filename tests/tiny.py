"""A small checkpoint in the genuine layout of SD 1, made by arithmetic: what most tests paint with.

It has learnt nothing, but it is not noise either. Its codec averages blocks of 8x8 pixels and paints them back, so that
pictures stay recognisable. Its U-Net takes the fine grain of a latent, at most levels the noisier part, for noise.

Both carry values through layers of random weights by the same trick: a value and its negative travel side by side, all
random branches write elsewhere, and silu(v) - silu(-v) = v undoes the last activation exactly.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from overpaint.models.families import SD1_SPEC, UNET_PREFIX, VAE_PREFIX, AutoencoderSpec, TextSpec, UNetSpec
from overpaint.models.files import write_safetensors
from overpaint.networks.autoencoder import AutoencoderKL
from overpaint.networks.text import ClipText
from overpaint.networks.unet import UNet

Parameters = dict[str, NDArray[Any]]

_UNET = UNetSpec(
    in_channels=4,
    model_channels=32,
    channel_mult=(1, 1, 1),
    num_res_blocks=1,
    input_depths=(0, 1, 1),
    middle_depth=1,
    output_depths=(1, 1, 1, 1, 0, 0),
    heads=8,
    context_dim=64,
    linear_projections=False,
)
_VAE = AutoencoderSpec(channels=96, channel_mult=(1, 1, 1, 1), num_res_blocks=0)
_TEXT = replace(SD1_SPEC.texts[0], width=64, layers=4, heads=1, inner=256)
# The last layer of every residual branch: what it writes is added to what is carried past it.
_BRANCH_ENDS = (
    "out_layers.3.weight",
    "proj_out.weight",
    "conv2.weight",
    "out_proj.weight",
    "fc2.weight",
    "to_out.0.weight",
)
_BRANCH_GAIN = 0.3
# Attention to the text is sharp and loud, so that another prompt paints another texture.
_LOUD = {"attn2.to_q.weight": 3.0, "attn2.to_k.weight": 3.0, "attn2.to_v.weight": 3.0, "attn2.to_out.0.weight": 3.0}
_TEXTURE = 0.05  # how much of the U-Net's random features, and so of the prompt, shows
_GRAIN = 0.002  # the same for the codec's
_ANCHOR = 30.0  # a constant much larger than any pixel: it keeps a group's norm from depending on the picture
_LATENTS = 4
# The codec carries red, green, blue and their mean. The latents are lightness, two colour differences, and lightness
# again, each stretched to about the width of the noise: independent noise on red, green and blue would paint rainbows.
_LIGHT, _COLOUR = 11.0, 33.0
_TO_LATENTS = ((0, 0, 0, _LIGHT), (_COLOUR, 0, 0, -_COLOUR), (0, 0, _COLOUR, -_COLOUR), (0, 0, 0, _LIGHT))


def make_tiny_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write the checkpoint (11.8 MB, float16). The same seed gives the same bytes."""
    metadata = {
        "format": "pt",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.title": "overpaint sketch",
        "modelspec.prediction_type": "epsilon",
        "overpaint.num_heads": json.dumps(_UNET.heads),
        "overpaint.text_heads": json.dumps([_TEXT.heads]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    write_safetensors(unfinished, _tensors(seed), metadata)
    unfinished.replace(path)
    return path


@cache
def _tensors(seed: int) -> Parameters:
    rng = np.random.default_rng(seed)
    tensors: Parameters = {}
    for prefix, parameters in (
        (UNET_PREFIX, _unet(rng)),
        (VAE_PREFIX, _autoencoder(rng)),
        (_TEXT.prefix, _random(_shapes(ClipText, _TEXT), rng)),
    ):
        tensors.update((prefix + name, values.astype(np.float16)) for name, values in sorted(parameters.items()))
    return tensors


def _shapes(build: type[nn.Module], spec: UNetSpec | AutoencoderSpec | TextSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = build(spec)
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


def _random(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> Parameters:
    """Weights that keep the size of what goes through them; norms that change nothing; biases of zero."""
    parameters: Parameters = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            parameters[name] = np.full(shape, 1.0 if name.endswith("weight") else 0.0, dtype=np.float32)
            continue
        fan_in = 1 if "embedding" in name else int(np.prod(shape[1:]))
        gain = _BRANCH_GAIN if name.endswith(_BRANCH_ENDS) else 1.0
        gain *= next((loud for ending, loud in _LOUD.items() if name.endswith(ending)), 1.0)
        parameters[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(gain / fan_in**0.5)
    return parameters


def _silence(parameters: Parameters, channels: list[int], layers: tuple[str, ...]) -> None:
    """Keep these layers from writing to the channels that carry."""
    for name, values in parameters.items():
        if name.removesuffix(".bias").removesuffix(".weight").endswith(layers):
            values[channels] = 0


def _carry(parameters: Parameters, layer: str, rows: list[int], columns: list[int], kernel: NDArray[Any]) -> None:
    """Let a convolution pass columns[i] on to rows[i] through the kernel, and nothing else into those rows."""
    weight = parameters[f"{layer}.weight"]
    weight[rows] = 0
    weight[rows, columns] = kernel
    if f"{layer}.bias" in parameters:
        parameters[f"{layer}.bias"][rows] = 0


def _centre(size: int, value: float = 1.0) -> NDArray[Any]:
    kernel = np.zeros((size, size), dtype=np.float32)
    kernel[size // 2, size // 2] = value
    return kernel


def _mean(first: int) -> NDArray[Any]:
    """The mean of 2x2 pixels, whose window starts at this tap of a 3x3 kernel."""
    kernel = np.zeros((3, 3), dtype=np.float32)
    kernel[first : first + 2, first : first + 2] = 0.25
    return kernel


def _smooth() -> NDArray[Any]:
    line = np.array([0.25, 0.5, 0.25], dtype=np.float32)
    return np.outer(line, line)


def _unet(rng: np.random.Generator) -> Parameters:
    """eps = the latent minus its blurred copy, each channel brought to unit size by the last norm, plus some texture.

    At the input, channel i is the latent and i+4 its negative. Down the levels, channel i is averaged; on the way up,
    smoothed; the last residual block subtracts it from the latent that the outermost skip connection brings. Lightness
    skips the deepest level, so that it is blurred less than colour.
    """
    p = _random(_shapes(UNet, _UNET), rng)
    plus, minus = list(range(_LATENTS)), list(range(_LATENTS, 2 * _LATENTS))
    _silence(p, plus + minus, ("out_layers.3", "1.proj_out"))
    _carry(p, "input_blocks.0.0", plus, plus, _centre(3))
    _carry(p, "input_blocks.0.0", minus, plus, _centre(3, -1))
    for block in (2, 4):
        _carry(p, f"input_blocks.{block}.0.op", plus, plus, _mean(1))
    width = _UNET.model_channels
    for block in range(5):
        _carry(p, f"output_blocks.{block}.0.skip_connection", plus, plus, _centre(1))
    _carry(p, "output_blocks.3.0.skip_connection", [0, 3], [width, width + 3], _centre(1))
    for block in (1, 3):
        _carry(p, f"output_blocks.{block}.2.conv", plus, plus, _smooth())
    last, latent = "output_blocks.5.0.skip_connection", [width + i for i in plus]
    for rows, sign in ((plus, 1.0), (minus, -1.0)):
        _carry(p, last, rows, latent, _centre(1, sign))
        p[f"{last}.weight"][rows, plus] = -sign
    p["out.2.weight"] *= _TEXTURE * (9 * width) ** 0.5
    p["out.2.weight"][:, plus + minus] = 0
    p["out.2.weight"][plus, plus] = _centre(3)
    p["out.2.weight"][plus, minus] = _centre(3, -1)
    return p


def _autoencoder(rng: np.random.Generator) -> Parameters:
    """A latent is the mean colour of 8x8 pixels, and a pixel has its latent's colour.

    A norm over groups of three channels forgets a lone value's size. In a group of (v, -v, K) with a large K the mean
    is K/3 and the deviation K*sqrt(2)/3 whatever v is, so that the norm can be undone by its own weight and bias.
    """
    p = _random(_shapes(AutoencoderKL, _VAE), rng)
    groups = range(_LATENTS)
    plus, minus, anchor = ([3 * g + part for g in groups] for part in range(3))
    carriers = plus + minus + anchor
    _silence(p, carriers, ("conv2", "attn_1.proj_out"))
    for i in range(3):
        _carry(p, f"encoder.down.{i}.downsample.conv", carriers, carriers, _mean(0))
        _carry(p, f"decoder.up.{i + 1}.upsample.conv", carriers, carriers, _centre(3))
    for side in ("encoder", "decoder"):
        _carry(p, f"{side}.conv_in", carriers, [0] * len(carriers), _centre(3, 0))
        p[f"{side}.conv_in.bias"][anchor] = _ANCHOR
        p[f"{side}.norm_out.weight"][plus + minus] = _ANCHOR * 2**0.5 / 3
        p[f"{side}.norm_out.bias"][plus + minus] = _ANCHOR / 3
        p[f"{side}.conv_out.weight"] *= _GRAIN * (9 * _VAE.channels) ** 0.5
        p[f"{side}.conv_out.weight"][:, carriers] = 0
    for g in groups:
        sources = [g] if g < 3 else [0, 1, 2]
        for rows, sign in ((plus, 1.0), (minus, -1.0)):
            p["encoder.conv_in.weight"][rows[g], sources, 1, 1] = sign / len(sources)
            p["decoder.conv_in.weight"][rows[g], g, 1, 1] = sign
            p["encoder.conv_out.weight"][g, rows[g], 1, 1] = sign
            if g < 3:
                p["decoder.conv_out.weight"][g, rows[g], 1, 1] = sign
    p["quant_conv.weight"][:] = 0
    p["quant_conv.weight"][:_LATENTS, :_LATENTS, 0, 0] = _TO_LATENTS
    p["post_quant_conv.weight"][:, :, 0, 0] = _from_latents()
    p["quant_conv.bias"][_LATENTS:] = -20.0  # a posterior without noise
    return p


def _from_latents() -> NDArray[Any]:
    """Red, green, blue and lightness from the latents; the two lightnesses are averaged, green is what is missing."""
    light = np.array([0.5 / _LIGHT, 0, 0, 0.5 / _LIGHT], dtype=np.float32)
    red = light + np.array([0, 1 / _COLOUR, 0, 0], dtype=np.float32)
    blue = light + np.array([0, 0, 1 / _COLOUR, 0], dtype=np.float32)
    return np.stack([red, 3 * light - red - blue, blue, light])
