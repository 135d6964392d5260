"""How many parameters the networks of a flow model have, from their specifications alone. Torch-free.

Tests hold it against the networks. Norms and biases are counted, too: a prediction that is off by little is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from overpaint.models.specs import (
    AutoencoderSpec,
    ChromaSpec,
    FluxSpec,
    MmditSpec,
    ModelSpec,
    NetworkKind,
    TextKind,
    TextSpec,
    UNetSpec,
    ZImageSpec,
)

_SINUSOID = 256


def parameters_of(spec: ModelSpec) -> dict[str, int]:
    """By network; nothing for a U-Net, whose size decides over nobody's memory today."""
    if isinstance(spec.denoiser, UNetSpec):
        return {}
    return {
        "transformer": _TRANSFORMERS[spec.denoiser.network](spec.denoiser),
        "text_encoders": sum(_TEXTS[each.kind](each) for each in spec.texts),
        "vae": _autoencoder(spec.vae),
    }


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return (inputs + bias) * outputs


def _two(inputs: int, inner: int, outputs: int) -> int:
    return _linear(inputs, inner) + _linear(inner, outputs)


def _zimage(spec: ZImageSpec) -> int:
    width, cells = spec.width, spec.patch**2 * spec.in_channels
    norms = 4 * width + 2 * (width // spec.heads)
    plain = _linear(width, 3 * width, False) + _linear(width, width, False) + 3 * width * spec.inner + norms
    timed = plain + _linear(spec.time_width, 4 * width)
    time = _two(_SINUSOID, spec.time_inner, spec.time_width)
    text = spec.context_dim + _linear(spec.context_dim, width)
    ends = _linear(cells, width) + _linear(width, cells) + _linear(spec.time_width, width) + 2 * width
    return (spec.layers + spec.refiner_layers) * timed + spec.refiner_layers * plain + time + text + ends


def _flux(spec: FluxSpec) -> int:
    width, patch, norms = spec.width, spec.patch**2, 2 * (spec.width // spec.heads)
    stream = _linear(width, 6 * width) + _linear(width, 3 * width) + norms + _linear(width, width)
    stream += _two(width, spec.inner, width)
    single = _linear(width, 3 * width + spec.inner) + _linear(width + spec.inner, width) + norms
    single += _linear(width, 3 * width)
    told = _two(_SINUSOID, width, width) * (2 if spec.guided else 1) + _two(spec.pooled_dim, width, width)
    ends = _linear(patch * spec.in_channels, width) + _linear(spec.context_dim, width)
    ends += _linear(width, patch * spec.out_channels) + _linear(width, 2 * width)
    return 2 * spec.double_blocks * stream + spec.single_blocks * single + told + ends


def _chroma(spec: ChromaSpec) -> int:
    width, patch, norms = spec.width, spec.patch**2, 2 * (spec.width // spec.heads)
    stream = _linear(width, 3 * width) + norms + _linear(width, width) + _two(width, spec.inner, width)
    single = _linear(width, 3 * width + spec.inner) + _linear(width + spec.inner, width) + norms
    told = spec.told_layers * (_two(spec.told_width, spec.told_width, spec.told_width) + spec.told_width)
    told += _linear(spec.told, spec.told_width) + _linear(spec.told_width, width)
    ends = _linear(patch * spec.in_channels, width) + _linear(spec.context_dim, width)
    ends += _linear(width, patch * spec.out_channels)
    return 2 * spec.double_blocks * stream + spec.single_blocks * single + told + ends


def _mmdit(spec: MmditSpec) -> int:
    width, cells = spec.width, spec.patch**2 * spec.in_channels
    norms = 2 * (width // spec.heads) if spec.normed else 0
    attention = _linear(width, 3 * width) + _linear(width, width) + norms
    half = attention + _two(width, spec.inner, width) + _linear(width, 6 * width)
    dual = attention + _linear(width, 3 * width)
    last = _linear(width, 3 * width) + norms + _linear(width, 2 * width)  # of the words, which end there
    blocks = (2 * spec.blocks - 1) * half + spec.dual_blocks * dual + last
    told = _two(_SINUSOID, width, width) + _two(spec.vector_dim, width, width)
    ends = _linear(cells, width) + _linear(width, cells) + _linear(width, 2 * width)
    return blocks + told + ends + _linear(spec.context_dim, width) + spec.side**2 * width


def _clip(spec: TextSpec) -> int:
    width = spec.width
    layer = 4 * _linear(width, width) + _two(width, spec.inner, width) + 4 * width
    projection = width**2 if spec.projected or (spec.pooled and spec.kind == "openclip") else 0
    return (spec.vocabulary + spec.positions) * width + spec.layers * layer + 2 * width + projection


def _qwen3(spec: TextSpec) -> int:
    """As many layers as are read."""
    width, queries, keys = spec.width, spec.heads * spec.head_dim, spec.key_heads * spec.head_dim
    layer = 2 * width * queries + 2 * width * keys + 2 * spec.head_dim + 3 * width * spec.inner + 2 * width
    return spec.vocabulary * width + (spec.layers + 1 + spec.layer) * layer


def _t5(spec: TextSpec) -> int:
    layer = 4 * spec.width * spec.heads * spec.head_dim + 3 * spec.width * spec.inner + 2 * spec.width
    return (spec.vocabulary + 1) * spec.width + spec.positions * spec.heads + spec.layers * layer


def _autoencoder(spec: AutoencoderSpec) -> int:
    widths = [spec.channels * each for each in spec.channel_mult]
    return _encoder(spec, widths) + _decoder(spec, widths) + _quant(spec)


def _convolution(inputs: int, outputs: int) -> int:
    return _linear(9 * inputs, outputs)


def _residual(inputs: int, outputs: int) -> int:
    skip = _linear(inputs, outputs) if inputs != outputs else 0
    return 2 * inputs + 2 * outputs + _convolution(inputs, outputs) + _convolution(outputs, outputs) + skip


def _middle(width: int) -> int:
    return 2 * _residual(width, width) + 2 * width + 4 * _linear(width, width)


def _encoder(spec: AutoencoderSpec, widths: list[int]) -> int:
    count, before = _convolution(3, spec.channels), spec.channels
    for level, width in enumerate(widths):
        for _ in range(spec.num_res_blocks):
            count += _residual(before, width)
            before = width
        count += _convolution(width, width) if level < len(widths) - 1 else 0
    return count + _middle(before) + 2 * before + _convolution(before, 2 * spec.latent_channels)


def _decoder(spec: AutoencoderSpec, widths: list[int]) -> int:
    before = widths[-1]
    count = _convolution(spec.latent_channels, before) + _middle(before)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(spec.num_res_blocks + 1):
            count += _residual(before, width)
            before = width
        count += _convolution(width, width) if level > 0 else 0
    return count + 2 * before + _convolution(before, 3)


def _quant(spec: AutoencoderSpec) -> int:
    if not spec.quant_convs:
        return 0
    both, one = 2 * spec.latent_channels, spec.latent_channels
    return _linear(both, both) + _linear(one, one)


_TRANSFORMERS: Mapping[NetworkKind, Callable[[Any], int]] = {
    "zimage": _zimage,
    "flux": _flux,
    "chroma": _chroma,
    "mmdit": _mmdit,
}
_TEXTS: Mapping[TextKind, Callable[[TextSpec], int]] = {"clip": _clip, "openclip": _clip, "qwen3": _qwen3, "t5": _t5}
