"""The transformer of Flux.1 (Black Forest Labs, 2024), named as in its files.

In double blocks words and cells have layers of their own and attend to each other; in single blocks they are one
stream, words first. A cell's place is its row and its column; all words are at the same place. Pictures that Kontext
(arXiv:2506.15742) looks at follow the cells as further ones, each with a number of its own beside row and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import ChromaSpec, FluxSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import Linear, in_heads, sinusoid
from overpaint.networks.transformer_layers import (
    angles_of,
    cells_of,
    map_of,
    modulated,
    patches_of,
    seen_pictures,
    turned_pairs,
    whole_patches,
)

_EPS = 1e-6
_THETA = 10_000.0
_TIMES = 1000.0  # what the time, and the guidance, are multiplied by before they are embedded
_SINUSOID = 256
BlockSpec: TypeAlias = FluxSpec | ChromaSpec  # of blocks that both have


class Embedder(nn.Module):
    """Two layers that make a vector of what the network is told."""

    def __init__(self, inputs: int, width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.in_layer = Linear(inputs, width, bias=bias)
        self.out_layer = Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return result


class Modulation(nn.Module):
    """Shift, scale and gate of so many layers, from the time."""

    def __init__(self, width: int, count: int, *, bias: bool = True) -> None:
        super().__init__()
        self.count = count
        self.lin = Linear(width, count * width, bias=bias)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        found: Tensor = self.lin(F.silu(time))[:, None]
        return found.chunk(self.count, dim=-1)


class ScaledNorm(nn.Module):
    """x by its root mean square, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        inverse = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + _EPS)
        return (x.float() * inverse).to(x.dtype) * self.scale


class QueryAndKeyNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm = ScaledNorm(width)
        self.key_norm = ScaledNorm(width)


def queries_keys_values(qkv: Tensor, norm: QueryAndKeyNorm, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (in_heads(each, heads) for each in qkv.chunk(3, dim=-1))
    return norm.query_norm(q), norm.key_norm(k), v


class StreamAttention(nn.Module):
    """What one stream brings to attention, and what it takes from it."""

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.norm = QueryAndKeyNorm(width // heads)
        self.proj = Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return queries_keys_values(self.qkv(x), self.norm, self.heads)


def _mlp(spec: BlockSpec) -> nn.Sequential:
    return nn.Sequential(Linear(spec.width, spec.inner), nn.GELU("tanh"), Linear(spec.inner, spec.width))


class FluxDoubleBlock(nn.Module):
    """Two streams that meet in attention; what shifts, scales and gates them is made of what they are told."""

    def __init__(self, spec: BlockSpec, img_mod: nn.Module, txt_mod: nn.Module) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = img_mod, txt_mod
        self.img_attn, self.txt_attn = (StreamAttention(spec.width, spec.heads) for _ in range(2))
        self.img_mlp, self.txt_mlp = _mlp(spec), _mlp(spec)

    def forward(self, img: Tensor, txt: Tensor, time: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        return through_double_block(self, img, txt, self.img_mod(time), self.txt_mod(time), angles)


class TwoStreams(Protocol):
    """A double block: the layers of either stream."""

    img_attn: StreamAttention
    txt_attn: StreamAttention
    img_mlp: nn.Sequential
    txt_mlp: nn.Sequential


def through_double_block(
    block: TwoStreams, img: Tensor, txt: Tensor, of_img: tuple[Tensor, ...], of_txt: tuple[Tensor, ...], angles: Tensor
) -> tuple[Tensor, Tensor]:
    """Both streams behind a block in which they attend to each other."""
    theirs = block.txt_attn(modulated(txt, *of_txt[:2]))
    own = block.img_attn(modulated(img, *of_img[:2]))
    q, k, v = (torch.cat(pair, dim=1) for pair in zip(theirs, own, strict=True))
    out = attend(turned_pairs(q, angles), turned_pairs(k, angles), v)
    words, cells = out[:, : txt.shape[1]], out[:, txt.shape[1] :]
    img = _through(img, block.img_attn.proj(cells), of_img, block.img_mlp)
    return img, _through(txt, block.txt_attn.proj(words), of_txt, block.txt_mlp)


def _through(x: Tensor, attended: Tensor, modulation: tuple[Tensor, ...], mlp: nn.Module) -> Tensor:
    """What comes behind the attention, in one stream."""
    _, _, gate, shift, scale, gate_mlp = modulation
    x = x + gate * attended
    result: Tensor = x + gate_mlp * mlp(modulated(x, shift, scale))
    return result


class FluxSingleBlock(nn.Module):
    """One stream; attention and MLP side by side."""

    def __init__(self, spec: BlockSpec, modulation: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.linear1 = Linear(spec.width, 3 * spec.width + spec.inner)
        self.linear2 = Linear(spec.width + spec.inner, spec.width)
        self.norm = QueryAndKeyNorm(spec.width // spec.heads)
        self.modulation = modulation

    def forward(self, x: Tensor, time: Tensor, angles: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(time)
        both = self.linear1(modulated(x, shift, scale))
        qkv, hidden = both.split([3 * self.spec.width, self.spec.inner], dim=-1)
        q, k, v = queries_keys_values(qkv, self.norm, self.spec.heads)
        out = attend(turned_pairs(q, angles), turned_pairs(k, angles), v)
        result: Tensor = x + gate * self.linear2(torch.cat([out, F.gelu(hidden, approximate="tanh")], dim=-1))
        return result


class LastOfFlux(nn.Module):
    """From tokens to the numbers of their cells."""

    def __init__(self, width: int, numbers: int, *, bias: bool = True) -> None:
        super().__init__()
        self.linear = Linear(width, numbers, bias=bias)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(width, 2 * width, bias=bias))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time)[:, None].chunk(2, dim=-1)
        result: Tensor = self.linear(modulated(x, shift, scale))
        return result


class Flux(nn.Module):
    """(b, channels, h, w) and texts to n - x0, the direction from the picture to the noise."""

    def __init__(self, spec: FluxSpec) -> None:
        super().__init__()
        self.spec = spec
        self.img_in = Linear(spec.patch**2 * spec.in_channels, spec.width)
        self.time_in = Embedder(_SINUSOID, spec.width)
        self.vector_in = Embedder(spec.pooled_dim, spec.width)
        if spec.guided:
            self.guidance_in = Embedder(_SINUSOID, spec.width)
        self.txt_in = Linear(spec.context_dim, spec.width)
        self.double_blocks = nn.ModuleList(
            FluxDoubleBlock(spec, Modulation(spec.width, 6), Modulation(spec.width, 6))
            for _ in range(spec.double_blocks)
        )
        self.single_blocks = nn.ModuleList(
            FluxSingleBlock(spec, Modulation(spec.width, 3)) for _ in range(spec.single_blocks)
        )
        self.final_layer = LastOfFlux(spec.width, spec.patch**2 * spec.out_channels)

    def forward(
        self, x: Tensor, s: Tensor, context: Tensor, vector: Tensor, *, references: Sequence[Tensor] = ()
    ) -> Tensor:
        """`s` (b,) is the share of noise; `vector` the pooled text, and behind it any guidance that it is told.

        Channels of x beyond its own, and `references` (b, channels, any h, any w), are pictures that it looks at.
        """
        high, wide = x.shape[-2:]
        maps = [whole_patches(each, self.spec.patch) for each in seen_pictures(x, self.spec.in_channels, references)]
        time = self._told(s, vector, x.dtype)
        img = self.img_in(torch.cat([patches_of(each, self.spec.patch) for each in maps], dim=1))
        txt = self.txt_in(context)
        angles = angles_of_maps(self.spec, txt.shape[1], maps)
        for block in self.double_blocks:
            img, txt = block(img, txt, time, angles)
        together = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            together = block(together, time, angles)
        rows, columns = (side // self.spec.patch for side in maps[0].shape[-2:])
        own = together[:, txt.shape[1] : txt.shape[1] + rows * columns]
        return map_of(self.final_layer(own, time), rows, columns, self.spec.patch)[..., :high, :wide]

    def _told(self, s: Tensor, vector: Tensor, dtype: torch.dtype) -> Tensor:
        """Time, pooled text and guidance in one."""
        pooled = vector[:, : self.spec.pooled_dim]
        told: Tensor = self.time_in(sinusoid(s * _TIMES, _SINUSOID).to(dtype)) + self.vector_in(pooled)
        if self.spec.guided:
            guidance = vector[:, self.spec.pooled_dim].float()
            told = told + self.guidance_in(sinusoid(guidance * _TIMES, _SINUSOID).to(dtype))
        return told


def angles_of_maps(spec: BlockSpec, words: int, maps: Sequence[Tensor]) -> Tensor:
    """Of the words, of the cells that are painted, and of the pictures that are looked at: numbers 1, 2, ..."""
    device = maps[0].device
    places = [torch.zeros(words, 3, device=device)]
    for number, each in enumerate(maps):
        rows, columns = (side // spec.patch for side in each.shape[-2:])
        places.append(F.pad(cells_of(rows, columns, device), (1, 0), value=number))
    return angles_of(torch.cat(places), spec.axes, _THETA)
