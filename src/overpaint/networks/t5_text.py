"""T5 1.1 as a text encoder (arXiv:1910.10683 and arXiv:2002.05202), named as in its files.

Places are not in the words: attention is told how far apart two of them are, in 32 kinds of distance, by a table of the
first block that all of them use. NOTE: queries are not divided by the root of their width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import TextSpec
from overpaint.networks.layers import Linear, in_heads
from overpaint.networks.text import EmbeddingLayer, TextEncoding, TokenOverride
from overpaint.networks.transformer_layers import RMSNorm

_EPS = 1e-6
_PAD = 0  # of every T5
_TABLE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
_FARTHEST = 128  # from here on all distances are of one kind
_LARGEST_HALF = 64_000.0  # float16 ends at 65504, which the last blocks of large encoders pass


class _DistanceAttention(nn.Module):
    def __init__(self, spec: TextSpec, *, first: bool) -> None:
        super().__init__()
        self.heads = spec.heads
        inner = spec.heads * spec.head_dim
        self.q = Linear(spec.width, inner, bias=False)
        self.k = Linear(spec.width, inner, bias=False)
        self.v = Linear(spec.width, inner, bias=False)
        self.o = Linear(inner, spec.width, bias=False)
        if first:
            self.relative_attention_bias = EmbeddingLayer(spec.positions, spec.heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (in_heads(layer(x), self.heads).transpose(1, 2) for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)
        result: Tensor = self.o(out.transpose(1, 2).flatten(2))
        return result


class _AttentionStep(nn.Module):
    def __init__(self, spec: TextSpec, *, first: bool) -> None:
        super().__init__()
        self.SelfAttention = _DistanceAttention(spec, first=first)
        self.layer_norm = RMSNorm(spec.width, _EPS)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        result: Tensor = x + self.SelfAttention(self.layer_norm(x), bias)
        return result


class _GatedGelu(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.wi_0 = Linear(spec.width, spec.inner, bias=False)
        self.wi_1 = Linear(spec.width, spec.inner, bias=False)
        self.wo = Linear(spec.inner, spec.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))
        return result


class _FeedForwardStep(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.DenseReluDense = _GatedGelu(spec)
        self.layer_norm = RMSNorm(spec.width, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.DenseReluDense(self.layer_norm(x))
        return result


class _T5Block(nn.Module):
    def __init__(self, spec: TextSpec, *, first: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_AttentionStep(spec, first=first), _FeedForwardStep(spec)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for step, given in zip(self.layer, ((bias,), ()), strict=True):
            x = step(x, *given)
            if x.dtype is torch.float16:
                x = x.clamp(-_LARGEST_HALF, _LARGEST_HALF)
        return x


class _T5Encoder(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.block = nn.ModuleList(_T5Block(spec, first=i == 0) for i in range(spec.layers))
        self.final_layer_norm = RMSNorm(spec.width, _EPS)


class T5Text(nn.Module):
    """The encoder half."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.shared = EmbeddingLayer(spec.vocabulary, spec.width)
        self.encoder = _T5Encoder(spec)

    def encode(
        self,
        ids: Tensor,
        *,
        layer: int | None = None,
        final_norm: bool | None = None,
        overrides: Sequence[TokenOverride] = (),
    ) -> TextEncoding:
        """Token ids (b, n) to vectors. What fills a text up is read like the rest, but for families that mask it.

        There it looks at the words, and nobody looks at it.
        """
        x = self.shared(ids)
        kinds = _kinds_of_distance(ids.shape[1], self.spec.positions, ids.device)
        table: EmbeddingLayer = self.get_submodule(_TABLE)  # type: ignore[assignment]
        bias = table(kinds).permute(2, 0, 1)[None]
        if self.spec.masked:
            bias = bias.masked_fill(ids[:, None, None] == _PAD, float("-inf"))
        for block in self.encoder.block:
            x = block(x, bias)
        return TextEncoding(self.encoder.final_layer_norm(x))


def _kinds_of_distance(tokens: int, kinds: int, device: torch.device) -> Tensor:
    """(from, to): half of the kinds before and half behind; near ones one by one, far ones in steps that grow."""
    at = torch.arange(tokens, device=device)
    distance = at[None] - at[:, None]
    half = kinds // 2
    near = half // 2
    far = distance.abs().clamp(min=1)
    steps = torch.log(far.float() / near) / math.log(_FARTHEST / near) * (half - near)
    kind = torch.where(far < near, distance.abs(), (near + steps.long()).clamp(max=half - 1))
    return kind + half * (distance > 0)
