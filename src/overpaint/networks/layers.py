"""The layers all networks share. They are built blank: weights come from a file, so nothing is initialised.

On a CPU with oneDNN a layer can be packed: its weight is put once into the block layout that oneDNN's kernels want,
instead of at every call. Measured on AVX-512: float32 linears 2.2 times faster, convolutions of small maps 2.8 times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_Network = TypeVar("_Network", bound=nn.Module)

_SAME: tuple[str, list[float], str] = ("none", [], "")  # no operation fused after the kernel
_BLOCK_OF_QUERIES = 256  # a block of scores stays in the second-level cache
_BLOCKED_KEYS = 256  # below this many keys torch's own kernel is faster
_BLOCKED_WIDTH = 32


@cache
def can_pack() -> bool:
    """Whether this build of torch has oneDNN's packed kernels and they work here."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    weight = torch.eye(8)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        return torch.equal(_linear(weight, packed, None), weight) and torch.equal(packed.to_dense(), weight)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, *_SAME)
    return result


class Packable(nn.Module):
    """A layer with one weight, which `pack` puts into the kernels' layout and `unpack` brings back bit for bit."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, shape: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_parameter("bias", nn.Parameter(torch.empty(shape[0])) if bias else None)
        self.packed: Tensor | None = None

    def pack(self) -> None:
        """Move the weight into packed form; the parameter is left empty so that it is not held twice."""
        if (
            self.packed is None
            and self.weight.device.type == "cpu"
            and self.weight.dtype in (torch.float32, torch.bfloat16)
        ):
            self.packed = self._reorder(self.weight.detach())
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def unpack(self) -> None:
        if self.packed is not None:
            self.weight = nn.Parameter(self.packed.to_dense(), requires_grad=False)
            self.packed = None

    def dense_weight(self) -> Tensor:
        """The weight in its ordinary layout, packed or not."""
        return self.weight.detach() if self.packed is None else self.packed.to_dense()

    def set_weight(self, weight: Tensor) -> None:
        """Replace the weight, keeping dtype, device and packing."""
        with torch.no_grad():
            if self.packed is None:
                self.weight.copy_(weight)
            else:
                self.packed = self._reorder(weight.to(self.packed.dtype).contiguous())

    def _reorder(self, weight: Tensor) -> Tensor:
        raise NotImplementedError


class Linear(Packable):
    """x @ weight.T + bias"""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__((outputs, inputs), bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is None:
            return F.linear(x, self.weight, self.bias)
        return _linear(x, self.packed, self.bias)

    def _reorder(self, weight: Tensor) -> Tensor:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        return packed


class Conv2d(Packable):
    """A convolution whose own padding is zeros, or the opposite edge of the picture when `circular` is on (ARCH-9)."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__((outputs, inputs, size, size), bias=True)
        self.stride = stride
        self.padding = padding
        self.circular = False

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.circular and padding:
            x, padding = F.pad(x, (padding,) * 4, mode="circular"), 0
        if self.packed is None:
            return F.conv2d(x, self.weight, self.bias, self.stride, padding)
        both, strides = (padding, padding), (self.stride, self.stride)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.packed, self.bias, both, strides, (1, 1), 1, *_SAME
        )
        return result

    def _reorder(self, weight: Tensor) -> Tensor:
        both, strides = (self.padding, self.padding), (self.stride, self.stride)
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, both, strides, (1, 1), 1)
        return packed


class SiLU(nn.Module):
    """x * sigmoid(x), over its input when nobody differentiates: it always follows a norm, whose output is fresh."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not torch.is_grad_enabled())


def blank(build: Callable[[], _Network], device: str | torch.device, dtype: torch.dtype) -> _Network:
    """A network with unset weights, in a moment: it is laid out without memory first. Fill all of it before use."""
    with torch.device("meta"):
        network = build()
    return network.to(dtype).to_empty(device=device)


def in_heads(x: Tensor, heads: int) -> Tensor:
    """(b, n, heads * d) -> (b, n, heads, d)"""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def to_tokens(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h*w, c); free of cost for channels-last maps."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, height: int, width: int) -> Tensor:
    """(b, h*w, c) -> (b, c, h, w)"""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=eps)


def set_tiling(network: nn.Module, on: bool) -> None:
    """Make every convolution see the picture as a torus, or not (ARCH-9)."""
    for module in network.modules():
        if isinstance(module, Conv2d):
            module.circular = on


def set_packed(network: nn.Module, on: bool) -> None:
    """Pack or unpack every layer that can be."""
    for module in network.modules():
        if isinstance(module, Packable):
            if on:
                module.pack()
            else:
                module.unpack()


def sinusoid(values: Tensor, dim: int) -> Tensor:
    """[cos, sin] of the values, fractions too, at geometric frequencies: (n,) -> (n, dim), float32 (ARCH-2)."""
    half = dim // 2
    ladder = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values.float()[:, None] * torch.exp(-math.log(10000) * ladder / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with q (b, n, heads, d) and k, v (b, m, heads, d), as (b, n, heads * d)."""
    if _suits_blocks(q, k) and not causal:
        return _attend_in_blocks(q, k, v).flatten(2)
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def _suits_blocks(q: Tensor, k: Tensor) -> bool:
    small = k.shape[1] < _BLOCKED_KEYS or q.shape[-1] < _BLOCKED_WIDTH
    known = q.device.type == "cpu" and q.dtype in (torch.float32, torch.bfloat16)
    return known and not small and not torch.is_grad_enabled() and can_pack()


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention through oneDNN's matrix products, a block of queries at a time.

    On CPUs torch's fused kernel multiplies through BLAS, far below what oneDNN reaches: this is 1.5 times faster in
    float32 and 2.3 times in bfloat16. The whole table of scores never exists.
    """
    batch, queries, heads, width = q.shape
    out = q.new_empty(batch, queries, heads, v.shape[-1])
    q = q * width**-0.5
    for row in range(batch):
        for head in range(heads):
            keys, values = k[row, :, head].contiguous(), v[row, :, head].t().contiguous()
            for start in range(0, queries, _BLOCK_OF_QUERIES):
                block = slice(start, start + _BLOCK_OF_QUERIES)
                scores = _linear(q[row, block, head].contiguous(), keys, None)
                out[row, block, head] = _linear(scores.softmax(-1), values, None)
    return out
