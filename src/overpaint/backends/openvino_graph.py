"""Our networks as OpenVINO graphs, built from their weights: nothing is traced, and no other library converts.

A function is given a torch module and the values that go into it, and gives the value that comes out; it says again,
operation by operation, what the module's `forward` does. Weights share the module's memory, so they exist once until a
graph is compiled. Sides and batches are left open here; who compiles one sets them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openvino as ov
import torch
from openvino import opset15 as op
from torch import Tensor, nn

from overpaint.networks.autoencoder import (
    AutoencoderKL,
    CodecDownsample,
    CodecUpsample,
)
from overpaint.networks.layers import Conv2d, Linear, SiLU
from overpaint.networks.text import QUICK_GELU, ClipText, OpenClipText
from overpaint.networks.unet import (
    Downsample,
    ResBlock,
    SpatialTransformer,
    UNet,
    Upsample,
)

Value = Any  # what a node gives; OpenVINO's classes have no types
Layer = Any  # a module whose kind was looked at; torch's containers do not tell it
_NHWC, _NCHW, _HEADS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3)


# -- whole networks ----------------------------------------------------------------------------------------------------


def unet_model(network: UNet, *, circular: bool = False, controlled: bool = False) -> Any:
    """Inputs: x, the timesteps' sinusoids, context, then vector for SDXL, then what ControlNets add to each map."""
    g, spec = _Graph(circular), network.spec
    x = g.input("x", -1, spec.in_channels, -1, -1)
    times = g.input("times", -1, spec.model_channels)
    context = g.input("context", -1, -1, spec.context_dim)
    embedding = g.sequence(network.time_embed, times)
    if spec.adm_channels is not None:
        vector = g.sequence(network.label_emb[0], g.input("vector", -1, spec.adm_channels))
        embedding = op.add(embedding, vector)
    skips: list[Value] = []
    for stage in network.input_blocks:
        x = g.stage(stage, x, embedding, context)
        skips.append(x)
    x = g.stage(network.middle_block, x, embedding, context)
    if controlled:
        widths = (*network.skip_widths, network.skip_widths[-1])
        added = [g.input(f"control{i}", -1, width, -1, -1) for i, width in enumerate(widths)]
        skips = [op.add(skip, each) for skip, each in zip(skips, added[:-1], strict=True)]
        x = op.add(x, added[-1])
    for stage in network.output_blocks:
        x = g.stage(stage, g.joined(x, skips.pop()), embedding, context)
    return g.model(g.sequence(network.out, x))


def encoder_model(network: AutoencoderKL, *, circular: bool = False) -> Any:
    """Pixels to mean and log-variance, one behind the other along the channels."""
    g, encoder = _Graph(circular), network.encoder
    x = g.conv(encoder.conv_in, g.input("pixels", -1, 3, -1, -1))
    for level in encoder.down:
        x = g.level(level, x)
    x = g.conv(encoder.conv_out, g.silu_norm(encoder.norm_out, g.middle(encoder.mid, x)))
    return g.model(g.conv(network.quant_conv, x) if network.has_quant_convs else x)


def decoder_model(network: AutoencoderKL, *, circular: bool = False) -> Any:
    """Unscaled latents to pixels."""
    g, decoder = _Graph(circular), network.decoder
    z = g.input("z", -1, decoder.conv_in.shape[1], -1, -1)
    z = g.conv(network.post_quant_conv, z) if network.has_quant_convs else z
    x = g.middle(decoder.mid, g.conv(decoder.conv_in, z))
    for level in reversed(list(decoder.up)):
        x = g.level(level, x)
    return g.model(g.conv(decoder.conv_out, g.silu_norm(decoder.norm_out, x)))


def text_model(network: ClipText | OpenClipText, depth: int, final_norm: bool, length: int) -> Any:
    """Embedded tokens to their vectors after `depth` layers.

    Where the family reads a vector of the whole text, the last layer's vectors and its norm lie behind them as another
    row.
    """
    g, spec = _Graph(), network.spec
    x = g.input("embedded", -1, length, spec.width)
    mask = op.constant(np.triu(np.full((length, length), -np.inf, np.float32), 1))
    layer: Callable[..., Value]
    layers: Layer
    if isinstance(network, ClipText):
        layer, layers, norm = g.clip_layer, network.encoder.layers, network.final_layer_norm
    else:
        layer, layers, norm = g.open_clip_layer, network.transformer.resblocks, network.ln_final
    blocks = [partial(layer, each, mask=mask) for each in layers]
    for block in blocks[:depth]:
        x = block(x)
    tokens = g.layer_norm(norm, x) if final_norm else x
    if not spec.pooled:
        return g.model(tokens)
    for block in blocks[depth:]:
        x = block(x)
    return g.model(op.concat([tokens, g.layer_norm(norm, x)], 0))


# -- layers ------------------------------------------------------------------------------------------------------------


@dataclass
class _Graph:
    """A graph in the making."""

    circular: bool = False  # pictures whose edges meet (ARCH-9)

    def __post_init__(self) -> None:
        self._inputs: list[Any] = []

    def input(self, name: str, *sides: int) -> Value:
        made = op.parameter(list(sides), np.float32, name=name)
        self._inputs.append(made)
        return made

    def model(self, result: Value) -> Any:
        return ov.Model([result], self._inputs)

    def sequence(self, layers: nn.Module, x: Value) -> Value:
        for layer in layers.children():
            x = self.layer(layer, x)
        return x

    def layer(self, layer: nn.Module, x: Value) -> Value:
        """One that needs nothing but its input."""
        if isinstance(layer, Linear):
            return self.linear(layer, x)
        if isinstance(layer, Conv2d):
            return self.conv(layer, x)
        if isinstance(layer, nn.GroupNorm):
            return self.group_norm(layer, x)
        if isinstance(layer, nn.LayerNorm):
            return self.layer_norm(layer, x)
        if isinstance(layer, nn.Identity):
            return x
        if not isinstance(layer, SiLU | nn.SiLU):
            raise RuntimeError(f"{type(layer).__name__} has no graph")
        return op.swish(x)

    def linear(self, layer: Layer, x: Value) -> Value:
        return _with_bias(op.matmul(x, _weight(layer), False, True), layer.bias)

    def conv(self, layer: Layer, x: Value) -> Value:
        pad = layer.padding
        if self.circular and pad:
            x, pad = _wrapped(_wrapped(x, 2, pad), 3, pad), 0
        return self.padded_conv(layer, x, (pad, pad), (pad, pad))

    def padded_conv(self, layer: Layer, x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
        strides = [layer.stride] * 2
        y = op.convolution(x, _weight(layer), strides, list(before), list(after), [1, 1])
        return _with_bias(y, layer.bias, (1, -1, 1, 1))

    def group_norm(self, norm: nn.GroupNorm, x: Value) -> Value:
        return op.group_normalization(x, _constant(norm.weight), _constant(norm.bias), norm.num_groups, norm.eps)

    def silu_norm(self, norm: nn.GroupNorm, x: Value) -> Value:
        return op.swish(self.group_norm(norm, x))

    def layer_norm(self, norm: nn.LayerNorm, x: Value) -> Value:
        y = op.mvn(x, _whole(-1), True, norm.eps, "inside_sqrt")
        return op.add(op.multiply(y, _constant(norm.weight)), _constant(norm.bias))

    # -- the U-Net -----------------------------------------------------------------------------------------------

    def stage(self, stage: Layer, x: Value, embedding: Value, context: Value) -> Value:
        for layer in stage:
            if isinstance(layer, ResBlock):
                x = self.res_block(layer, x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = self.spatial_transformer(layer, x, context)
            elif isinstance(layer, Downsample):
                x = self.conv(layer.op, x)
            elif isinstance(layer, Upsample):
                x = self.conv(layer.conv, _doubled(x))
            else:
                x = self.layer(layer, x)
        return x

    def res_block(self, block: Layer, x: Value, embedding: Value) -> Value:
        told = op.unsqueeze(self.sequence(block.emb_layers, embedding), _whole(2, 3))
        h = op.add(self.sequence(block.in_layers, x), told)
        return op.add(self.layer(block.skip_connection, x), self.sequence(block.out_layers, h))

    def spatial_transformer(self, block: Layer, x: Value, context: Value) -> Value:
        h = self.group_norm(block.norm, x)
        if not block.linear:
            h = self.layer(block.proj_in, h)
        rows, shape = _as_tokens(h)
        if block.linear:
            rows = self.layer(block.proj_in, rows)
        for each in block.transformer_blocks:
            rows = self.transformer_block(each, rows, context)
        if block.linear:
            return op.add(x, _as_map(self.layer(block.proj_out, rows), shape))
        return op.add(x, self.layer(block.proj_out, _as_map(rows, shape)))

    def transformer_block(self, block: Layer, x: Value, context: Value) -> Value:
        normed = self.layer_norm(block.norm1, x)
        x = op.add(x, self.cross_attention(block.attn1, normed, normed))
        x = op.add(x, self.cross_attention(block.attn2, self.layer_norm(block.norm2, x), context))
        return op.add(x, self.feed_forward(block.ff, self.layer_norm(block.norm3, x)))

    def cross_attention(self, block: Layer, x: Value, context: Value) -> Value:
        q, k, v = (
            _in_heads(self.linear(layer, source), block.heads)
            for layer, source in ((block.to_q, x), (block.to_k, context), (block.to_v, context))
        )
        return self.sequence(block.to_out, _attended(q, k, v))

    def feed_forward(self, block: Layer, x: Value) -> Value:
        gated = block.net[0].proj
        value, gate = _parts(_with_bias(op.matmul(x, _weight(gated), False, True), gated.bias), 2, -1)
        return self.linear(block.net[2], op.multiply(value, op.gelu(gate, "erf")))

    def joined(self, x: Value, skip: Value) -> Value:
        """Along channels; a map that odd halvings left larger is brought to the skip's size (ARCH-5)."""
        size = op.gather(op.shape_of(skip), _whole(2, 3), _whole(0))
        return op.concat([_resized(x, size), skip], 1)

    # -- texts ---------------------------------------------------------------------------------------------------

    def clip_layer(self, layer: Layer, x: Value, mask: Value) -> Value:
        block, h = layer.self_attn, self.layer_norm(layer.layer_norm1, x)
        q, k, v = (_in_heads(self.linear(each, h), block.heads) for each in (block.q_proj, block.k_proj, block.v_proj))
        x = op.add(x, self.linear(block.out_proj, _attended(q, k, v, mask)))
        h = self.linear(layer.mlp.fc1, self.layer_norm(layer.layer_norm2, x))
        return op.add(x, self.linear(layer.mlp.fc2, _activated(layer.mlp, h)))

    def open_clip_layer(self, layer: Layer, x: Value, mask: Value) -> Value:
        block, h = layer.attn, self.layer_norm(layer.ln_1, x)
        h = _with_bias(op.matmul(h, _constant(block.in_proj_weight), False, True), block.in_proj_bias)
        q, k, v = (_in_heads(each, block.heads) for each in _parts(h, 3, -1))
        x = op.add(x, self.linear(block.out_proj, _attended(q, k, v, mask)))
        h = self.linear(layer.mlp.c_fc, self.layer_norm(layer.ln_2, x))
        return op.add(x, self.linear(layer.mlp.c_proj, _activated(layer.mlp, h)))

    # -- the codec -----------------------------------------------------------------------------------------------

    def level(self, level: Layer, x: Value) -> Value:
        for block in level.block:
            x = self.resnet_block(block, x)
        for layer in level.children():
            if isinstance(layer, CodecDownsample):
                # NOTE: zeros at the right and bottom only, also when the convolutions are circular (ARCH-9)
                x = self.padded_conv(layer.conv, x, (0, 0), (1, 1))
            elif isinstance(layer, CodecUpsample):
                x = self.conv(layer.conv, _doubled(x))
        return x

    def resnet_block(self, block: Layer, x: Value) -> Value:
        h = self.conv(block.conv1, self.silu_norm(block.norm1, x))
        h = self.conv(block.conv2, self.silu_norm(block.norm2, h))
        return op.add(self.conv(block.nin_shortcut, x) if block.widens else x, h)

    def middle(self, block: Layer, x: Value) -> Value:
        x = self.resnet_block(block.block_1, x)
        return self.resnet_block(block.block_2, self.pixel_attention(block.attn_1, x))

    def pixel_attention(self, block: Layer, x: Value) -> Value:
        h = self.group_norm(block.norm, x)
        (q, shape), (k, _), (v, _) = (_as_tokens(self.conv(conv, h)) for conv in (block.q, block.k, block.v))
        h = _attended(*(_in_heads(each, 1) for each in (q, k, v)))
        return op.add(x, self.conv(block.proj_out, _as_map(h, shape)))


# -- values ------------------------------------------------------------------------------------------------------------


def _constant(tensor: Tensor, shape: Sequence[int] | None = None) -> Value:
    """Weights as float32 values; narrow ones stay narrow until they are used. They share the tensor's memory."""
    tensor = tensor.detach() if shape is None else tensor.detach().reshape(list(shape))
    tensor = tensor.contiguous()
    if tensor.dtype is torch.bfloat16:
        words = ov.Tensor(tensor.view(torch.int16).numpy(), list(tensor.shape), ov.Type.bf16)
        return op.convert(ov.op.Constant(words, shared_memory=True), "f32")
    return ov.op.Constant(tensor.float().numpy(), shared_memory=True)


def _weight(layer: Any) -> Value:
    return _constant(layer.dense_weight())


def _with_bias(x: Value, bias: Tensor | None, shape: Sequence[int] | None = None) -> Value:
    return x if bias is None else op.add(x, _constant(bias, shape))


def _whole(*numbers: int) -> Value:
    return op.constant(np.array(numbers, dtype=np.int64))


def _in_heads(x: Value, heads: int) -> Value:
    """(b, n, heads * d) -> (b, heads, n, d)"""
    width = (x.output(0) if isinstance(x, ov.Node) else x).get_partial_shape()[2].get_length()
    split = op.reshape(x, _whole(0, 0, heads, width // heads), True)
    return op.transpose(split, _whole(*_HEADS_FIRST))


def _activated(mlp: Layer, x: Value) -> Value:
    if mlp.activation == "gelu":
        return op.gelu(x, "erf")
    return op.swish(x, op.constant(np.float32(QUICK_GELU)))


def _attended(q: Value, k: Value, v: Value, mask: Value | None = None) -> Value:
    """Attention of (b, heads, n, d), as (b, n, heads * d); the mask is added to the scores."""
    width = q.get_output_partial_shape(0)[3].get_length()
    scores = op.matmul(op.multiply(q, op.constant(np.float32(width**-0.5))), k, False, True)
    scores = scores if mask is None else op.add(scores, mask)
    mixed = op.transpose(op.matmul(op.softmax(scores, -1), v, False, False), _whole(*_HEADS_FIRST))
    return op.reshape(mixed, _whole(0, 0, -1), True)


def _as_tokens(x: Value) -> tuple[Value, Value]:
    """(b, c, h, w) -> (b, h * w, c), and the shape to go back with."""
    last = op.transpose(x, _whole(*_NHWC))
    channels = last.get_output_partial_shape(0)[3].get_length()
    return op.reshape(last, _whole(0, -1, channels), True), op.shape_of(last)


def _as_map(x: Value, shape: Value) -> Value:
    return op.transpose(op.reshape(x, shape, False), _whole(*_NCHW))


def _parts(x: Value, count: int, axis: int) -> list[Value]:
    split = op.split(x, op.constant(np.array(axis, dtype=np.int64)), count)
    return [split.output(i) for i in range(count)]


def _doubled(x: Value) -> Value:
    return op.interpolate(
        x,
        op.constant(np.array([2.0, 2.0], dtype=np.float32)),
        mode="nearest",
        shape_calculation_mode="scales",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=_whole(2, 3),
    )


def _resized(x: Value, size: Value) -> Value:
    return op.interpolate(
        x,
        size,
        mode="nearest",
        shape_calculation_mode="sizes",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=_whole(2, 3),
    )


def _wrapped(x: Value, axis: int, width: int) -> Value:
    """The opposite edge before and behind."""
    step, along = _whole(1), _whole(axis)
    last = op.slice(x, _whole(-width), _whole(np.iinfo(np.int64).max), step, along)
    first = op.slice(x, _whole(0), _whole(width), step, along)
    return op.concat([last, x, first], axis)
