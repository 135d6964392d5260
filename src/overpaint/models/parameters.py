"""How many parameters the networks of a flow model have, from their specifications alone. Torch-free.

Tests hold it against the networks. Norms and biases are counted, too: a prediction that is off by little is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from overpaint.models.specs import (
    AutoencoderSpec,
    ChromaSpec,
    Flux2Spec,
    FluxSpec,
    MmditSpec,
    ModelSpec,
    NetworkKind,
    QwenImageSpec,
    TextKind,
    TextSpec,
    TransformerSpec,
    UNetSpec,
    ZImageSpec,
)
from overpaint.models.vision_specs import VisionSpec

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


# The fields of a specification that say how often a block is there, in the order in which blocks compute, and how many
# blocks one more of it brings.
_BLOCKS: Mapping[NetworkKind, tuple[tuple[str, int], ...]] = {
    "zimage": (("refiner_layers", 2), ("layers", 1)),
    "flux": (("double_blocks", 1), ("single_blocks", 1)),
    "chroma": (("double_blocks", 1), ("single_blocks", 1)),
    "mmdit": (("blocks", 1),),
    "qwen_image": (("blocks", 1),),
    "flux2": (("double_blocks", 1), ("single_blocks", 1)),
}


def block_parameters(spec: TransformerSpec) -> tuple[int, ...]:
    """Of the blocks that compute one after the other; those of a kind are taken to be alike."""
    count, found = _TRANSFORMERS[spec.network], list[int]()
    for name, at_once in _BLOCKS[spec.network]:
        times = getattr(spec, name)
        changed: dict[str, Any] = {name: times - 1}
        one = (count(spec) - count(replace(spec, **changed))) // at_once
        found += [one] * (times * at_once)
    return tuple(found)


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


def _qwen_image(spec: QwenImageSpec) -> int:
    width, cells = spec.width, spec.patch**2
    norms = 4 * (width // spec.heads)
    stream = _linear(width, 6 * width) + 4 * _linear(width, width) + _two(width, spec.inner, width)
    ends = _linear(cells * spec.in_channels, width) + _linear(width, cells * spec.out_channels)
    text = spec.context_dim + _linear(spec.context_dim, width)
    return spec.blocks * (2 * stream + norms) + _two(_SINUSOID, width, width) + text + ends + _linear(width, 2 * width)


def _flux2(spec: Flux2Spec) -> int:
    width, cells, norms = spec.width, spec.patch**2 * spec.in_channels, 2 * (spec.width // spec.heads)
    stream = 4 * width**2 + 3 * width * spec.inner + norms
    single = width * (3 * width + 2 * spec.inner) + (width + spec.inner) * width + norms
    told = (_SINUSOID + width + (6 + 6 + 3) * width) * width
    ends = (2 * cells + spec.context_dim + 2 * width) * width
    return 2 * spec.double_blocks * stream + spec.single_blocks * single + told + ends


def _clip(spec: TextSpec) -> int:
    width = spec.width
    layer = 4 * _linear(width, width) + _two(width, spec.inner, width) + 4 * width
    projection = width**2 if spec.projected or (spec.pooled and spec.kind == "openclip") else 0
    return (spec.vocabulary + spec.positions) * width + spec.layers * layer + 2 * width + projection


def _qwen(spec: TextSpec) -> int:
    """As many layers as are read."""
    width, queries, keys = spec.width, spec.heads * spec.head_dim, spec.key_heads * spec.head_dim
    layer = 2 * width * queries + 2 * width * keys + 3 * width * spec.inner + 2 * width
    layer += queries + 2 * keys if spec.kind.startswith("qwen25") else 2 * spec.head_dim
    layers = max(spec.states, default=spec.layers + 1 + spec.layer)
    seen = 0 if spec.vision is None else _vision(spec.vision)
    return seen + spec.vocabulary * width + layers * layer + (width if spec.final_norm else 0)


def _vision(spec: VisionSpec) -> int:
    width, joined = spec.width, spec.joined**2 * spec.width
    layer = _linear(width, 3 * width) + _linear(width, width) + 2 * width
    layer += 2 * _linear(width, spec.inner) + _linear(spec.inner, width)
    return 3 * spec.patch**2 * width + spec.layers * layer + width + _two(joined, joined, spec.out)


def _t5(spec: TextSpec) -> int:
    layer = 4 * spec.width * spec.heads * spec.head_dim + 3 * spec.width * spec.inner + 2 * spec.width
    return (spec.vocabulary + 1) * spec.width + spec.positions * spec.heads + spec.layers * layer


def _autoencoder(spec: AutoencoderSpec) -> int:
    widths = [spec.channels * each for each in spec.channel_mult]
    if spec.kind == "wan":
        return _wan(spec, widths)
    if spec.patch > 1:
        inner = replace(spec, latent_channels=spec.latent_channels // spec.patch**2, patch=1)
        return _autoencoder(inner) + 2 * spec.latent_channels
    return _encoder(spec, widths) + _decoder(spec, widths) + _quant(spec)


def _wan(spec: AutoencoderSpec, widths: list[int]) -> int:
    last, z = widths[-1], spec.latent_channels
    count = _convolution(3, spec.channels) + _convolution(last, 2 * z) + _convolution(z, last) + last
    count += _convolution(widths[0], 3) + widths[0] + _linear(2 * z, 2 * z) + _linear(z, z)
    count += 2 * (2 * _wan_block(last, last) + last + _linear(last, 3 * last) + _linear(last, last))
    before, behind = spec.channels, last
    for level, width in enumerate(widths):
        count += _wan_block(before, width) + (spec.num_res_blocks - 1) * _wan_block(width, width)
        count += _convolution(width, width) if level < len(widths) - 1 else 0
        before = width
    for level in reversed(range(len(widths))):
        count += _wan_block(behind, widths[level]) + spec.num_res_blocks * _wan_block(widths[level], widths[level])
        count += _convolution(widths[level], widths[level] // 2) if level else 0
        behind = widths[level] // 2
    return count


def _wan_block(inputs: int, outputs: int) -> int:
    skip = _linear(inputs, outputs) if inputs != outputs else 0
    return inputs + outputs + _convolution(inputs, outputs) + _convolution(outputs, outputs) + skip


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
    "qwen_image": _qwen_image,
    "flux2": _flux2,
}
_TEXTS: Mapping[TextKind, Callable[[TextSpec], int]] = {
    "clip": _clip,
    "openclip": _clip,
    "qwen3": _qwen,
    "qwen3_stacked": _qwen,
    "qwen25": _qwen,
    "qwen25_edit": _qwen,
    "t5": _t5,
}
