"""Qwen3 as a text encoder (arXiv:2505.09388), named as in its files: a decoder, read at one of its layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import TextSpec
from overpaint.networks.layers import Linear, in_heads
from overpaint.networks.text import EmbeddingLayer, TextEncoding, TokenOverride
from overpaint.networks.transformer_layers import RMSNorm, angles_of, turned_halves

_EPS = 1e-6
_THETA = 1_000_000.0


class _GroupedAttention(nn.Module):
    """Several heads share the keys and values of one (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.heads, self.key_heads = spec.heads, spec.key_heads
        self.q_proj = Linear(spec.width, spec.heads * spec.head_dim, bias=False)
        self.k_proj = Linear(spec.width, spec.key_heads * spec.head_dim, bias=False)
        self.v_proj = Linear(spec.width, spec.key_heads * spec.head_dim, bias=False)
        self.o_proj = Linear(spec.heads * spec.head_dim, spec.width, bias=False)
        self.q_norm = RMSNorm(spec.head_dim, _EPS)
        self.k_norm = RMSNorm(spec.head_dim, _EPS)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        q = turned_halves(self.q_norm(in_heads(self.q_proj(x), self.heads)), angles)
        k = turned_halves(self.k_norm(in_heads(self.k_proj(x), self.key_heads)), angles)
        v = in_heads(self.v_proj(x), self.key_heads)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        shared = self.heads != self.key_heads
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
        result: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return result


class _GatedFeedForward(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.gate_proj = Linear(spec.width, spec.inner, bias=False)
        self.up_proj = Linear(spec.width, spec.inner, bias=False)
        self.down_proj = Linear(spec.inner, spec.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class _DecoderLayer(nn.Module):
    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.self_attn = _GroupedAttention(spec)
        self.mlp = _GatedFeedForward(spec)
        self.input_layernorm = RMSNorm(spec.width, _EPS)
        self.post_attention_layernorm = RMSNorm(spec.width, _EPS)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class Qwen3Text(nn.Module):
    """As many of its layers as are read; the last ones, and the norm behind them, are never needed."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = EmbeddingLayer(spec.vocabulary, spec.width)
        self.layers = nn.ModuleList(_DecoderLayer(spec) for _ in range(spec.layers + 1 + spec.layer))

    def encode(
        self,
        ids: Tensor,
        *,
        layer: int | None = None,
        final_norm: bool | None = None,
        overrides: Sequence[TokenOverride] = (),
    ) -> TextEncoding:
        """Token ids (b, n), without padding, to the vectors of the family's layer."""
        x = self.embed_tokens(ids)
        angles = angles_of(torch.arange(ids.shape[1], device=ids.device)[:, None], (self.spec.head_dim,), _THETA)
        for each in self.layers:
            x = each(x, angles)
        return TextEncoding(x)
