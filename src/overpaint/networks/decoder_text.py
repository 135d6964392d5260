"""Qwen as a text encoder, named as in its files: a decoder, read at one of its layers, or at several.

Qwen3 (arXiv:2505.09388) norms queries and keys; Qwen2.5 (arXiv:2502.13923 with eyes) has biases instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import TextSpec
from overpaint.networks.layers import Linear, in_heads
from overpaint.networks.text import EmbeddingLayer, TextEncoding, TokenOverride, TokenPicture
from overpaint.networks.transformer_layers import RMSNorm, angles_of, cells_of, turned_halves

_EPS = 1e-6
_THETA = 1_000_000.0


class _GroupedAttention(nn.Module):
    """Several heads share the keys and values of one (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.heads, self.key_heads = spec.heads, spec.key_heads
        self.is_normed = spec.kind.startswith("qwen3")
        self.q_proj = Linear(spec.width, spec.heads * spec.head_dim, bias=not self.is_normed)
        self.k_proj = Linear(spec.width, spec.key_heads * spec.head_dim, bias=not self.is_normed)
        self.v_proj = Linear(spec.width, spec.key_heads * spec.head_dim, bias=not self.is_normed)
        self.o_proj = Linear(spec.heads * spec.head_dim, spec.width, bias=False)
        if self.is_normed:
            self.q_norm = RMSNorm(spec.head_dim, _EPS)
            self.k_norm = RMSNorm(spec.head_dim, _EPS)

    def forward(self, x: Tensor, angles: Tensor, seen: Tensor | None) -> Tensor:
        q, k = in_heads(self.q_proj(x), self.heads), in_heads(self.k_proj(x), self.key_heads)
        if self.is_normed:
            q, k = self.q_norm(q), self.k_norm(k)
        v = in_heads(self.v_proj(x), self.key_heads)
        q, k, v = (each.transpose(1, 2) for each in (turned_halves(q, angles), turned_halves(k, angles), v))
        shared = self.heads != self.key_heads
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, enable_gqa=shared)
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

    def forward(self, x: Tensor, angles: Tensor, seen: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), angles, seen)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class QwenText(nn.Module):
    """As many of its layers as are read, and the norm behind the last one where that is."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = EmbeddingLayer(spec.vocabulary, spec.width)
        count = max(spec.states, default=spec.layers + 1 + spec.layer)
        self.layers = nn.ModuleList(_DecoderLayer(spec) for _ in range(count))
        if spec.final_norm:
            self.norm = RMSNorm(spec.width, _EPS)
        if spec.vision is not None:
            from overpaint.networks.vision import VisionTower

            self.visual = VisionTower(spec.vision)

    def encode(
        self,
        ids: Tensor,
        *,
        layer: int | None = None,
        final_norm: bool | None = None,
        overrides: Sequence[TokenOverride] = (),
        pictures: Sequence[TokenPicture] = (),
    ) -> TextEncoding:
        """Token ids (b, n) to the vectors of the family's layer, or of its layers side by side.

        What fills a text up to a length has ids -1 - id: it is read, but no token attends to it. `pictures` are read in
        the order of their slots, as tokens of their own.
        """
        x = self.embed_tokens(torch.where(ids < 0, -1 - ids, ids))
        if pictures:
            x, angles = self._with_pictures(x, pictures)
        else:
            angles = angles_of(torch.arange(ids.shape[1], device=ids.device)[:, None], (self.spec.head_dim,), _THETA)
        seen = _seen(ids) if bool((ids < 0).any()) else None
        states = []
        for number, each in enumerate(self.layers, 1):
            x = each(x, angles, seen)
            if number in self.spec.states:
                states.append(x)
        if self.spec.final_norm:
            x = self.norm(x)
        return TextEncoding((torch.cat(states, dim=-1) if states else x)[:, self.spec.unread :])

    def _with_pictures(self, x: Tensor, pictures: Sequence[TokenPicture]) -> tuple[Tensor, Tensor]:
        """The tokens of a text with those of pictures between them, and by how much each is turned.

        A word's place is one number, a picture's token has a row and a column; what follows goes on behind its longer
        side.
        """
        parts, places, start, place = [], [], 0, 0
        unit = self.visual.spec.unit
        for each in (*pictures, None):
            words = (x.shape[1] if each is None else each.slot) - start
            parts.append(x[:, start : start + words])
            places.append((place + torch.arange(words, device=x.device))[:, None].expand(-1, 3))
            start, place = start + words, place + words
            if each is not None:
                rows, columns = (side // unit for side in each.pixels.shape[-2:])
                parts.append(self.visual(each.pixels.to(x.device))[None].expand(len(x), -1, -1).to(x.dtype))
                places.append(place + F.pad(cells_of(rows, columns, x.device), (1, 0)))
                place += max(rows, columns)
        return torch.cat(parts, dim=1), _angles_of_three(torch.cat(places), self.spec.head_dim)


def _angles_of_three(places: Tensor, head: int) -> Tensor:
    """The first quarter of a head's pairs turns with time, the next three eighths with rows, the last with columns."""
    axes = torch.tensor([0, 1, 2], device=places.device).repeat_interleave(
        torch.tensor([head // 8, head * 3 // 16, head * 3 // 16], device=places.device)
    )
    ladder = torch.arange(0, head, 2, dtype=torch.float64, device=places.device) / head
    return places[:, axes].double() / _THETA**ladder


def _seen(ids: Tensor) -> Tensor:
    """Which tokens a token attends to, (b, 1, from, to): those before it and itself, of the text alone."""
    before = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
    return (before & (ids >= 0)[:, None])[:, None]
