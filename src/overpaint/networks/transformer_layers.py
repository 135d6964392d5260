"""What the transformers of several families share: norms without bias, places as angles, cells as tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.networks.layers import Linear


class RMSNorm(nn.Module):
    """x by its root mean square, in float32 (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        return (x.float() * scale).to(x.dtype) * self.weight


class GatedMlp(nn.Module):
    """w2(silu(w1 x) * w3 x) (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = Linear(width, inner, bias=False)
        self.w2 = Linear(inner, width, bias=False)
        self.w3 = Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return result


def angles_of(places: Tensor, widths: Sequence[int], theta: float) -> Tensor:
    """How far each pair of numbers of a head is turned: (n, axes) -> (n, head / 2), float64 (Su et al. 2021).

    An axis turns `width` numbers, the first pair by its whole place, the others by less and less.
    """
    parts = []
    for axis, width in enumerate(widths):
        ladder = torch.arange(0, width, 2, dtype=torch.float64, device=places.device) / width
        parts.append(places[:, axis, None].double() / theta**ladder)
    return torch.cat(parts, dim=-1)


def turned_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """Neighbouring numbers of (b, n, heads, d) turned by angles (n, d / 2), in float32."""
    cos, sin = (each.float()[:, None] for each in (angles.cos(), angles.sin()))
    a, b = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)


def turned_halves(x: Tensor, angles: Tensor) -> Tensor:
    """The same, where number i goes with number i + d / 2."""
    cos, sin = (each.float()[:, None] for each in (angles.cos(), angles.sin()))
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def whole_patches(x: Tensor, patch: int) -> Tensor:
    """A map whose sides are multiples of `patch`: what is missing repeats the edge."""
    high, wide = (-side % patch for side in x.shape[-2:])
    return F.pad(x, (0, wide, 0, high), mode="replicate") if high or wide else x


def cells_of(high: int, wide: int, device: torch.device) -> Tensor:
    """(row, column) of each token of a map, row by row: (high * wide, 2)."""
    rows, columns = torch.meshgrid(torch.arange(high, device=device), torch.arange(wide, device=device), indexing="ij")
    return torch.stack([rows, columns], dim=-1).flatten(0, 1)


def seen_pictures(x: Tensor, channels: int, references: Sequence[Tensor]) -> list[Tensor]:
    """The map that is painted, and behind it those that are looked at.

    The source lies over what is painted and so comes with x, in the channels behind the network's own; references have
    sizes of their own.
    """
    own, source = x[:, :channels], x[:, channels:]
    return [own, *([source] if source.shape[1] else []), *references]


def patches_of(x: Tensor, patch: int) -> Tensor:
    """A map as tokens, row by row; in each the numbers of a channel are together: (b, tokens, channels * patch^2)."""
    high, wide = (side // patch for side in x.shape[-2:])
    tokens = x.reshape(len(x), -1, high, patch, wide, patch).permute(0, 2, 4, 1, 3, 5)
    return tokens.reshape(len(x), high * wide, -1)


def map_of(tokens: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """The tokens of `patches_of` as a map again."""
    cells = tokens.reshape(len(tokens), rows, columns, -1, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(len(tokens), -1, rows * patch, columns * patch)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normed without weights of its own, then scaled and shifted (Peebles and Xie 2023, arXiv:2212.09748)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
