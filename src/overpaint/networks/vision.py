"""The vision tower of Qwen2.5-VL (arXiv:2502.13923), named as in its files: a picture becomes tokens of a text.

A patch of 14x14 pixels is a cell, and 2x2 cells become one token. Cells attend within windows of 4x4 tokens, and in
every eighth layer to the whole picture. A cell stands for two frames of a film; of a picture both are the same, so the
kernels of both are one here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.vision_specs import VisionSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import Linear
from overpaint.networks.transformer_layers import RMSNorm, angles_of, cells_of, turned_halves

_EPS = 1e-6
_THETA = 10_000.0
# Of the pictures that CLIP was trained on.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_SPREAD = (0.26862954, 0.26130258, 0.27577711)
Spans = list[tuple[int, int]]  # how many windows that follow each other have so many cells


class _PatchEmbed(nn.Module):
    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.proj = Linear(3 * spec.patch**2, spec.width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        result: Tensor = self.proj(patches)
        return result


class _WindowedAttention(nn.Module):
    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.qkv = Linear(spec.width, 3 * spec.width)
        self.proj = Linear(spec.width, spec.width)

    def forward(self, x: Tensor, angles: Tensor, spans: Spans) -> Tensor:
        q, k, v = self.qkv(x).reshape(1, len(x), 3, self.heads, -1).unbind(2)
        q, k = turned_halves(q, angles), turned_halves(k, angles)
        parts, start = [], 0
        for windows, cells in spans:
            inside = slice(start, start + windows * cells)
            own = (each[0, inside].reshape(windows, cells, *each.shape[2:]) for each in (q, k, v))
            queries, keys, values = own
            parts.append(attend(queries, keys, values).flatten(0, 1))
            start = inside.stop
        result: Tensor = self.proj(torch.cat(parts))
        return result


class _GatedMlpWithBiases(nn.Module):
    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.gate_proj = Linear(spec.width, spec.inner)
        self.up_proj = Linear(spec.width, spec.inner)
        self.down_proj = Linear(spec.inner, spec.width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class _VisionBlock(nn.Module):
    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(spec.width, _EPS), RMSNorm(spec.width, _EPS)
        self.attn = _WindowedAttention(spec)
        self.mlp = _GatedMlpWithBiases(spec)

    def forward(self, x: Tensor, angles: Tensor, spans: Spans) -> Tensor:
        x = x + self.attn(self.norm1(x), angles, spans)
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class _PatchMerger(nn.Module):
    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.joined = joined = spec.joined**2 * spec.width
        self.ln_q = RMSNorm(spec.width, _EPS)
        self.mlp = nn.Sequential(Linear(joined, joined), nn.GELU(), Linear(joined, spec.out))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.mlp(self.ln_q(x).reshape(-1, self.joined))
        return result


class VisionTower(nn.Module):
    """A picture (1, 3, h, w) in -1..1, whose sides are whole tokens, to (h / 28 * w / 28, width of the text)."""

    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = _PatchEmbed(spec)
        self.blocks = nn.ModuleList(_VisionBlock(spec) for _ in range(spec.layers))
        self.merger = _PatchMerger(spec)

    def forward(self, picture: Tensor) -> Tensor:
        spec, unit = self.spec, self.spec.joined**2
        rows, columns = (side // spec.unit for side in picture.shape[-2:])
        order, spans = _windows(rows, columns, spec.window, picture.device)
        x = self.patch_embed(_patches(picture, spec).to(self.merger.ln_q.weight.dtype))
        x = x.reshape(rows * columns, unit, -1)[order].flatten(0, 1)
        cells = _by_tokens(cells_of(rows * spec.joined, columns * spec.joined, x.device), rows, columns, spec.joined)
        quarter = spec.width // spec.heads // 2
        angles = angles_of(cells[order].flatten(0, 1), (quarter, quarter), _THETA)
        inside = [(windows, tokens * unit) for windows, tokens in spans]
        for number, block in enumerate(self.blocks, 1):
            x = block(x, angles, inside if number % spec.whole_every else [(1, len(x))])
        merged = self.merger(x)
        result = torch.empty_like(merged)
        result[order] = merged
        return result


def _patches(picture: Tensor, spec: VisionSpec) -> Tensor:
    """The cells of each token together, row by row: (cells, numbers of one frame)."""
    mean, spread = (torch.tensor(each, device=picture.device).reshape(3, 1, 1) for each in (_MEAN, _SPREAD))
    values = ((picture[0].float() + 1) / 2 - mean) / spread
    patch, joined = spec.patch, spec.joined
    high, wide = (side // spec.unit for side in values.shape[1:])
    parts = values.reshape(3, high, joined, patch, wide, joined, patch).permute(1, 4, 2, 5, 0, 3, 6)
    return parts.reshape(high * wide * joined**2, -1)


def _by_tokens(cells: Tensor, rows: int, columns: int, joined: int) -> Tensor:
    """Values of cells, row by row, as (tokens, cells of a token, ...)."""
    parts = cells.reshape(rows, joined, columns, joined, -1).transpose(1, 2)
    return parts.reshape(rows * columns, joined**2, -1)


def _windows(rows: int, columns: int, side: int, device: torch.device) -> tuple[Tensor, Spans]:
    """The tokens window by window, those of equal size together; and how many windows have how many tokens."""
    across = -(-columns // side)
    cells = cells_of(rows, columns, device)
    window = cells[:, 0] // side * across + cells[:, 1] // side
    sizes = torch.bincount(window)
    order = torch.argsort(sizes[window] * len(sizes) + window, stable=True)
    found, counts = torch.unique(sizes, return_counts=True)
    return order, list(zip(counts.tolist(), found.tolist(), strict=True))
