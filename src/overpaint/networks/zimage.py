"""The transformer of Z-Image (arXiv:2511.22699), named as in its files.

Words and cells are each refined by a few layers of their own and then read together, cells first. Both are filled up to
multiples of 32 tokens with a learned one. A word's place is its number; a cell's is the number behind the last word,
its row and its column.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import ZImageSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import Linear, in_heads, sinusoid
from overpaint.networks.transformer_layers import (
    GatedMlp,
    RMSNorm,
    angles_of,
    cells_of,
    turned_pairs,
    whole_patches,
)

_TOKENS = 32  # sequences are multiples of it
_EPS = 1e-5
_THETA = 256.0
_TIMES = 1000.0  # what the time is multiplied by before it is embedded
_SINUSOID = 256


class _JointAttention(nn.Module):
    def __init__(self, spec: ZImageSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.qkv = Linear(spec.width, 3 * spec.width, bias=False)
        self.out = Linear(spec.width, spec.width, bias=False)
        self.q_norm = RMSNorm(spec.width // spec.heads, _EPS)
        self.k_norm = RMSNorm(spec.width // spec.heads, _EPS)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        q, k, v = (in_heads(each, self.heads) for each in self.qkv(x).chunk(3, dim=-1))
        q, k = turned_pairs(self.q_norm(q), angles), turned_pairs(self.k_norm(k), angles)
        result: Tensor = self.out(attend(q, k, v))
        return result


class ZImageBlock(nn.Module):
    """Attention and an MLP, each normed before and after; told the time, both are scaled and gated."""

    def __init__(self, spec: ZImageSpec, timed: bool) -> None:
        super().__init__()
        self.attention = _JointAttention(spec)
        self.feed_forward = GatedMlp(spec.width, spec.inner)
        self.attention_norm1 = RMSNorm(spec.width, _EPS)
        self.ffn_norm1 = RMSNorm(spec.width, _EPS)
        self.attention_norm2 = RMSNorm(spec.width, _EPS)
        self.ffn_norm2 = RMSNorm(spec.width, _EPS)
        if timed:
            self.adaLN_modulation = nn.Sequential(Linear(spec.time_width, 4 * spec.width))

    def forward(self, x: Tensor, angles: Tensor, time: Tensor | None = None) -> Tensor:
        if time is None:
            x = x + self.attention_norm2(self.attention(self.attention_norm1(x), angles))
            result: Tensor = x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
            return result
        scale, gate, scale_mlp, gate_mlp = self.adaLN_modulation(time)[:, None].chunk(4, dim=-1)
        attended = self.attention(self.attention_norm1(x) * (1 + scale), angles)
        x = x + gate.tanh() * self.attention_norm2(attended)
        timed: Tensor = x + gate_mlp.tanh() * self.ffn_norm2(self.feed_forward(self.ffn_norm1(x) * (1 + scale_mlp)))
        return timed


class _TimeEmbedder(nn.Module):
    def __init__(self, spec: ZImageSpec) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            Linear(_SINUSOID, spec.time_inner), nn.SiLU(), Linear(spec.time_inner, spec.time_width)
        )

    def forward(self, time: Tensor, dtype: torch.dtype) -> Tensor:
        result: Tensor = self.mlp(sinusoid(time * _TIMES, _SINUSOID).to(dtype))
        return result


class _LastLayer(nn.Module):
    def __init__(self, spec: ZImageSpec) -> None:
        super().__init__()
        self.linear = Linear(spec.width, spec.patch**2 * spec.in_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(spec.time_width, spec.width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale = 1 + self.adaLN_modulation(time)
        result: Tensor = self.linear(F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale[:, None])
        return result


class ZImage(nn.Module):
    """(b, channels, h, w) and texts to n - x0, the direction from the picture to the noise."""

    def __init__(self, spec: ZImageSpec) -> None:
        super().__init__()
        self.spec = spec
        self.x_embedder = Linear(spec.patch**2 * spec.in_channels, spec.width)
        self.final_layer = _LastLayer(spec)
        self.noise_refiner = nn.ModuleList(ZImageBlock(spec, True) for _ in range(spec.refiner_layers))
        self.context_refiner = nn.ModuleList(ZImageBlock(spec, False) for _ in range(spec.refiner_layers))
        self.t_embedder = _TimeEmbedder(spec)
        self.cap_embedder = nn.Sequential(RMSNorm(spec.context_dim, _EPS), Linear(spec.context_dim, spec.width))
        self.x_pad_token = nn.Parameter(torch.empty(1, spec.width))
        self.cap_pad_token = nn.Parameter(torch.empty(1, spec.width))
        self.layers = nn.ModuleList(ZImageBlock(spec, True) for _ in range(spec.layers))

    def forward(self, x: Tensor, s: Tensor, context: Tensor, vector: Tensor | None = None) -> Tensor:
        """`s` (b,) is the share of noise. NOTE: the files' own convention is 1 - s, and an answer of x0 - n."""
        high, wide = x.shape[-2:]
        x = whole_patches(x, self.spec.patch)
        rows, columns = (side // self.spec.patch for side in x.shape[-2:])
        time = self.t_embedder(1 - s, x.dtype)
        words, word_places = self._words(context)
        cells, cell_places = self._cells(x, words.shape[1] + 1)
        of_words, of_cells = (angles_of(each, self.spec.axes, _THETA) for each in (word_places, cell_places))
        for block in self.context_refiner:
            words = block(words, of_words)
        for block in self.noise_refiner:
            cells = block(cells, of_cells, time)
        together, angles = torch.cat([cells, words], dim=1), torch.cat([of_cells, of_words])
        for block in self.layers:
            together = block(together, angles, time)
        out = self.final_layer(together[:, : rows * columns], time)
        return -self._as_map(out, rows, columns)[..., :high, :wide]

    def _words(self, context: Tensor) -> tuple[Tensor, Tensor]:
        words = _filled(self.cap_embedder(context), self.cap_pad_token)
        places = torch.zeros(words.shape[1], 3, device=words.device)
        places[:, 0] = torch.arange(1, words.shape[1] + 1, device=words.device)
        return words, places

    def _cells(self, x: Tensor, behind: int) -> tuple[Tensor, Tensor]:
        """Tokens of 2x2 cells, all channels of a cell together; the filling has place 0."""
        patch = self.spec.patch
        high, wide = (side // patch for side in x.shape[-2:])
        tokens = x.reshape(len(x), -1, high, patch, wide, patch).permute(0, 2, 4, 3, 5, 1)
        cells = _filled(self.x_embedder(tokens.reshape(len(x), high * wide, -1)), self.x_pad_token)
        places = torch.zeros(cells.shape[1], 3, device=x.device)
        places[: high * wide, 0] = behind
        places[: high * wide, 1:] = cells_of(high, wide, x.device)
        return cells, places

    def _as_map(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        patch = self.spec.patch
        cells = tokens.reshape(len(tokens), rows, columns, patch, patch, self.spec.in_channels)
        return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, rows * patch, columns * patch)


def _filled(tokens: Tensor, filling: Tensor) -> Tensor:
    missing = -tokens.shape[1] % _TOKENS
    return torch.cat([tokens, filling.expand(len(tokens), missing, -1)], dim=1) if missing else tokens
