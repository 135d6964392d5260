"""The layers all networks share. They are built blank: weights come from a file, so nothing is initialised.

On a CPU with oneDNN a layer can be packed: its weight is put once into the block layout that oneDNN's kernels want,
instead of at every call. Measured on AVX-512: float32 linears 2.2 times faster, convolutions of small maps 2.8 times.

Where memory is short a layer holds its weight as the file stores it, and makes its numbers for each call anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.networks.stored_weights import StoredWeight

_Network = TypeVar("_Network", bound=nn.Module)

_SAME: tuple[str, list[float], str] = ("none", [], "")  # no operation fused after the kernel
# oneDNN lays the weights of this many output channels, and of multiples, out in one way for maps of up to so many
# cells a stride, and in another for larger ones. A weight that lies otherwise is laid out anew at every call, which
# takes up to 300 times as long as the convolution. Other widths have one layout for all maps. Measured on AVX-512.
_LAID_OUT_BY_MAP = 48
_SMALL_MAP = 9 * 9


@cache
def can_pack() -> bool:
    """Whether this build of torch has oneDNN's packed kernels and they work here."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    weight = torch.eye(8)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        return torch.equal(onednn_linear(weight, packed, None), weight) and torch.equal(packed.to_dense(), weight)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, *_SAME)
    return result


class Packable(nn.Module):
    """A layer with one weight, which `pack` puts into the kernels' layout and `unpack` brings back bit for bit.

    With `hold` it keeps the bytes of the file instead. The weight is then there while the layer computes, and is the
    same to the last bit.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, shape: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(shape))
        self.register_parameter("bias", nn.Parameter(torch.empty(shape[0])) if bias else None)
        self.packed: tuple[Tensor, ...] = ()
        self.packs = True  # False: it stays in its ordinary layout, for it is copied to where it is used
        self.home: torch.device | None = None  # of a weight that is still to be held
        self.stored: StoredWeight | None = None
        self.change: Callable[[Tensor], Tensor] | None = None  # what is put into a stored weight when it is made

    def fill(self, weight: Tensor) -> None:
        """Give a blank layer its weight, packed at once where that helps: the ordinary layout then never exists."""
        if self._suits() and can_pack():
            self._keep_packed(weight.to(self.weight.dtype).reshape(self.shape))
        else:
            self.weight.copy_(weight.view(self.shape))

    def hold(self, stored: StoredWeight) -> None:
        """Give a layer without a weight the bytes that its file has for it."""
        device = self.home or torch.device("cpu")
        if not self._forward_pre_hooks:
            self.register_forward_pre_hook(_make_weight)
            self.register_forward_hook(_drop_weight, always_call=True)
        self.stored = stored.moved(lambda part: part.to(device))
        self.weight = nn.Parameter(torch.empty(0, dtype=self.weight.dtype, device=device), requires_grad=False)

    def forget(self) -> None:
        """Give the weight up; its shape and type stay."""
        self.weight = nn.Parameter(self.weight.new_empty(self.shape, device="meta"), requires_grad=False)
        self.packed, self.stored = (), None

    def pack(self) -> None:
        """Move the weight into packed form; the parameter is left empty so that it is not held twice."""
        if self._suits() and not self.packed and self.stored is None:
            self._keep_packed(self.weight.detach())

    def _suits(self) -> bool:
        return self.packs and self.weight.device.type == "cpu" and self.weight.dtype in (torch.float32, torch.bfloat16)

    def _keep_packed(self, weight: Tensor) -> None:
        self.packed = self._reorder(weight)
        self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)

    def unpack(self) -> None:
        if self.packed:
            self.weight = nn.Parameter(self.dense_weight(), requires_grad=False)
            self.packed = ()

    def own_weight(self) -> Tensor:
        """The weight in its ordinary layout, packed or not; of a stored one without what is put into it."""
        if self.stored is not None:
            numbers = self.stored.numbers()
            if numbers.dtype is torch.float16 and self.weight.dtype is torch.bfloat16:
                numbers = numbers.float()  # the same bits, in a third of the time of the direct way
            return numbers.to(self.weight.dtype).reshape(self.shape)
        if not self.packed:
            return self.weight.detach()
        parts = [part.to_dense() for part in self.packed]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(self.shape)

    def dense_weight(self) -> Tensor:
        """The weight that the layer computes with, in its ordinary layout."""
        own = self.own_weight()
        return own if self.change is None else self.change(own)

    def set_weight(self, weight: Tensor) -> None:
        """Replace the weight, keeping dtype, device and packing."""
        with torch.no_grad():
            if self.packed:
                self.packed = self._reorder(weight.to("cpu", self.packed[0].dtype).contiguous())
            else:
                self.weight.copy_(weight)

    def _reorder(self, weight: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


@torch.no_grad()
def _make_weight(layer: nn.Module, _: object) -> None:
    """Before a layer computes that holds its file's bytes."""
    assert isinstance(layer, Packable)
    if layer.stored is None:
        return
    weight = layer.dense_weight()
    if layer._suits() and can_pack():
        layer._keep_packed(weight)
    else:
        if weight.dim() == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        layer.weight = nn.Parameter(weight, requires_grad=False)


def _drop_weight(layer: nn.Module, *_: object) -> None:
    assert isinstance(layer, Packable)
    if layer.stored is None:
        return
    layer.packed = ()
    layer.weight = nn.Parameter(layer.weight.new_empty(0), requires_grad=False)


class Linear(Packable):
    """x @ weight.T + bias"""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__((outputs, inputs), bias)

    def forward(self, x: Tensor) -> Tensor:
        return onednn_linear(x, self.packed[0], self.bias) if self.packed else F.linear(x, self.weight, self.bias)

    def _reorder(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (torch.ops.mkldnn._reorder_linear_weight(weight),)


class GatedLinear(Packable):
    """value * gelu(gate), the value coming first in the weight; packed, both operations ride on the products."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__((2 * outputs, inputs), bias=True)

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed or self.bias is None:
            value, gate = F.linear(x, self.weight, self.bias).chunk(2, dim=-1)
            return value * F.gelu(gate)
        values, gates = self.packed
        value_bias, gate_bias = self.bias.chunk(2)
        gate = torch.ops.mkldnn._linear_pointwise(x, gates, gate_bias, "gelu", [], "none")
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, gate, values, value_bias, "mul")
        return result

    def _reorder(self, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.ops.mkldnn._reorder_linear_weight(half.contiguous()) for half in weight.chunk(2))


class Conv2d(Packable):
    """A convolution whose own padding is zeros, or the opposite edge of the picture when `circular` is on (ARCH-9)."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__((outputs, inputs, size, size), bias=True)
        self.stride = stride
        self.padding = padding
        self.pointwise = size == stride == 1
        self.circular = False
        self.for_small_maps = False  # how the weight is laid out, where that makes a difference

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.packed and self._lies_by_map():
            self._lay_out_for(x)
        if self.circular and padding:
            x, padding = F.pad(x, (padding,) * 4, mode="circular"), 0
        if not self.packed:
            return F.conv2d(x, self.weight, self.bias, self.stride, padding)
        if self.pointwise:
            return onednn_linear(x.permute(0, 2, 3, 1), self.packed[0], self.bias).permute(0, 3, 1, 2)
        both, strides = (padding, padding), (self.stride, self.stride)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.packed[0], self.bias, both, strides, (1, 1), 1, *_SAME
        )
        return result

    def _reorder(self, weight: Tensor) -> tuple[Tensor, ...]:
        if self.pointwise:  # NOTE: as a packed convolution it would be 20 times slower than as a matrix product
            return (torch.ops.mkldnn._reorder_linear_weight(weight.flatten(1)),)
        both, strides = (self.padding, self.padding), (self.stride, self.stride)
        given = (weight, both, strides, (1, 1), 1)
        if not self._lies_by_map():
            return (torch.ops.mkldnn._reorder_convolution_weight(*given),)
        side = (8 if self.for_small_maps else 32) * self.stride
        return (torch.ops.mkldnn._reorder_convolution_weight(*given, [1, self.shape[1], side, side]),)

    def _lies_by_map(self) -> bool:
        return not self.pointwise and self.shape[0] % _LAID_OUT_BY_MAP == 0

    def _lay_out_for(self, x: Tensor) -> None:
        """Turn the packed weight to the layout for maps of this size, if it has the other one."""
        rows, columns = x.shape[-2:]
        small = rows * columns <= _SMALL_MAP * self.stride**2
        if small is not self.for_small_maps:
            weight = self.dense_weight()
            self.for_small_maps = small
            self.packed = self._reorder(weight)


class SiLU(nn.Module):
    """x * sigmoid(x), over its input when nobody differentiates: it always follows a norm, whose output is fresh."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not torch.is_grad_enabled())


def added(x: Tensor, fresh: Tensor) -> Tensor:
    """x + fresh, over `fresh` when nobody differentiates: it must be what a layer has just made, and nobody's else."""
    return x + fresh if torch.is_grad_enabled() else fresh.add_(x)


def blank(build: Callable[[], _Network], device: str | torch.device, dtype: torch.dtype) -> _Network:
    """A network with unset weights, in a moment: it is laid out without memory first. Fill all of it before use."""
    network = laid_out(build, dtype)
    take_room(network.modules(), device)
    return network


def laid_out(build: Callable[[], _Network], dtype: torch.dtype) -> _Network:
    """A network that has its shapes, and takes no memory yet."""
    with torch.device("meta"):
        network = build()
    return network.to(dtype)


def take_room(modules: Iterable[nn.Module], device: str | torch.device, held: Container[nn.Module] = ()) -> None:
    """Memory for what has none yet; layers in `held` stay without, until they `hold` what their file has for them."""
    for module in modules:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if isinstance(module, Packable) and name == "weight" and module in held:
                module.home = torch.device(device)
            elif parameter.is_meta:
                # NOTE: empty_like of one without memory imports torch's symbolic shapes, half a CPU second
                there = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                setattr(module, name, nn.Parameter(there, requires_grad=False))


def device_of(network: nn.Module) -> torch.device:
    """Where a network computes, also while its weights are elsewhere."""
    found = getattr(network, "computes_on", None)
    return found if isinstance(found, torch.device) else next(network.parameters()).device


def in_heads(x: Tensor, heads: int) -> Tensor:
    """(b, n, heads * d) -> (b, n, heads, d)"""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def to_tokens(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h*w, c); free of cost for channels-last maps."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, height: int, width: int) -> Tensor:
    """(b, h*w, c) -> (b, c, h, w)"""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that keeps its precision in channels-last layout.

    NOTE: there torch adds up all pixels of a group one after another and takes the variance as E[x^2] - E[x]^2, which
    loses digits by the thousand in large or flat maps (errors of 1e-2 at 512 px). So sums are made here, row by row.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.dtype is not torch.float32 or x.device.type != "cpu" or x.is_contiguous():
            # NOTE: F.group_norm refuses maps of one pixel with one channel a group, which small networks do have
            return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        means = self._means(x)
        out = x - means  # the only new memory: touching it is most of the time
        scale = (self._means(out.square_()) + self.eps).rsqrt_() * self.weight[:, None, None]
        return torch.sub(x, means, out=out).mul_(scale).add_(self.bias[:, None, None])

    def _means(self, x: Tensor) -> Tensor:
        """The mean of each group, repeated for its channels: (b, c, 1, 1); products with ones are the fastest sums."""
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch * height, width, channels)
        sums = (x.new_ones(1, width) @ rows).view(batch, height, channels).sum(1)
        means = sums.view(batch, self.num_groups, -1).mean(-1) / (height * width)
        return means.repeat_interleave(channels // self.num_groups, dim=1)[:, :, None, None]


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    return GroupNorm(32, channels, eps=eps)


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
