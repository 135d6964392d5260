"""The transformer of Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv:2403.03206), named as in its files.

Words and cells have layers of their own and attend to each other. In the first blocks of 3.5 medium cells attend to
cells alone as well, and 3.5 norms queries and keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import MmditSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import Conv2d, Linear, in_heads, sinusoid, to_tokens
from overpaint.networks.transformer_layers import RMSNorm, modulated, whole_patches

_EPS = 1e-6
_TIMES = 1000.0  # what the time is multiplied by before it is embedded
_SINUSOID = 256


class _PatchEmbedding(nn.Module):
    def __init__(self, spec: MmditSpec) -> None:
        super().__init__()
        self.proj = Conv2d(spec.in_channels, spec.width, spec.patch, stride=spec.patch)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.proj(x))


class _TwoLayers(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(inputs, width), nn.SiLU(), Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.mlp(x)
        return result


class _MmditAttention(nn.Module):
    def __init__(self, spec: MmditSpec, *, last: bool = False) -> None:
        super().__init__()
        self.heads, self.normed = spec.heads, spec.normed
        self.qkv = Linear(spec.width, 3 * spec.width)
        if not last:
            self.proj = Linear(spec.width, spec.width)
        if spec.normed:
            self.ln_q = RMSNorm(spec.width // spec.heads, _EPS)
            self.ln_k = RMSNorm(spec.width // spec.heads, _EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (in_heads(each, self.heads) for each in self.qkv(x).chunk(3, dim=-1))
        return (self.ln_q(q), self.ln_k(k), v) if self.normed else (q, k, v)


class _MmditMlp(nn.Module):
    def __init__(self, spec: MmditSpec) -> None:
        super().__init__()
        self.fc1 = Linear(spec.width, spec.inner)
        self.fc2 = Linear(spec.inner, spec.width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return result


class _Half(nn.Module):
    """One stream's layers of a block. The words' last one ends with its keys and values."""

    def __init__(self, spec: MmditSpec, *, dual: bool = False, last: bool = False) -> None:
        super().__init__()
        self.count = 2 if last else 9 if dual else 6
        self.attn = _MmditAttention(spec, last=last)
        if dual:
            self.attn2 = _MmditAttention(spec)
        if not last:
            self.mlp = _MmditMlp(spec)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(spec.width, self.count * spec.width))

    def told(self, time: Tensor) -> tuple[Tensor, ...]:
        """Shifts, scales and gates."""
        found: Tensor = self.adaLN_modulation(time)[:, None]
        return found.chunk(self.count, dim=-1)

    def behind(self, x: Tensor, attended: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        """What follows the attention of both streams."""
        gate, shift, scale, gate_mlp = told[2:6]
        before = x
        x = x + gate * self.attn.proj(attended)
        if self.count == 9:
            x = x + told[8] * self.attn2.proj(attend(*self.attn2(modulated(before, *told[6:8]))))
        result: Tensor = x + gate_mlp * self.mlp(modulated(x, shift, scale))
        return result


class MmditBlock(nn.Module):
    """Both streams."""

    def __init__(self, spec: MmditSpec, *, dual: bool, last: bool) -> None:
        super().__init__()
        self.last = last
        self.context_block = _Half(spec, last=last)
        self.x_block = _Half(spec, dual=dual)

    def forward(self, x: Tensor, words: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        of_words, of_cells = self.context_block.told(time), self.x_block.told(time)
        theirs = self.context_block.attn(modulated(words, *of_words[:2]))
        own = self.x_block.attn(modulated(x, *of_cells[:2]))
        q, k, v = (torch.cat(pair, dim=1) for pair in zip(theirs, own, strict=True))
        out = attend(q, k, v)
        count = words.shape[1]
        x = self.x_block.behind(x, out[:, count:], of_cells)
        return x, words if self.last else self.context_block.behind(words, out[:, :count], of_words)


class _LastOfMmdit(nn.Module):
    def __init__(self, spec: MmditSpec) -> None:
        super().__init__()
        self.linear = Linear(spec.width, spec.patch**2 * spec.in_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(spec.width, 2 * spec.width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time)[:, None].chunk(2, dim=-1)
        result: Tensor = self.linear(modulated(x, shift, scale))
        return result


class Mmdit(nn.Module):
    """(b, channels, h, w) and texts to n - x0, the direction from the picture to the noise."""

    def __init__(self, spec: MmditSpec) -> None:
        super().__init__()
        self.spec = spec
        self.x_embedder = _PatchEmbedding(spec)
        self.pos_embed = nn.Parameter(torch.empty(1, spec.side**2, spec.width))
        self.t_embedder = _TwoLayers(_SINUSOID, spec.width)
        self.y_embedder = _TwoLayers(spec.vector_dim, spec.width)
        self.context_embedder = Linear(spec.context_dim, spec.width)
        last = spec.blocks - 1
        blocks = (MmditBlock(spec, dual=i < spec.dual_blocks, last=i == last) for i in range(spec.blocks))
        self.joint_blocks = nn.ModuleList(blocks)
        self.final_layer = _LastOfMmdit(spec)

    def forward(self, x: Tensor, s: Tensor, context: Tensor, vector: Tensor) -> Tensor:
        """`s` (b,) is the share of noise; `vector` are the pooled texts."""
        high, wide = x.shape[-2:]
        x = whole_patches(x, self.spec.patch)
        rows, columns = (side // self.spec.patch for side in x.shape[-2:])
        time = self.t_embedder(sinusoid(s * _TIMES, _SINUSOID).to(x.dtype)) + self.y_embedder(vector)
        cells = self.x_embedder(x) + self._places(rows, columns)
        words = self.context_embedder(context)
        for block in self.joint_blocks:
            cells, words = block(cells, words, time)
        out = self.final_layer(cells, time)
        return self._as_map(out, rows, columns)[..., :high, :wide]

    def _places(self, rows: int, columns: int) -> Tensor:
        """The middle of the table of places. NOTE: the plan refuses sizes beyond it."""
        side = self.spec.side
        (top, bottom), (left, right) = (((side - count) // 2, (side - count) // 2 + count) for count in (rows, columns))
        table = self.pos_embed.view(side, side, -1)
        return table[top:bottom, left:right].reshape(1, rows * columns, -1)

    def _as_map(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        patch = self.spec.patch
        cells = tokens.reshape(len(tokens), rows, columns, patch, patch, self.spec.in_channels)
        return cells.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), -1, rows * patch, columns * patch)
