"""The transformer of Qwen-Image (arXiv:2508.02324), named as in its files.

Words and cells have layers of their own in all blocks and attend to each other, words first. A cell's place counts from
the middle of the picture, so that it is the same at any size; words follow on the diagonal behind the last cell.
Pictures that it looks at follow the cells as further ones, each with a number of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import QwenImageSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import Linear, in_heads, sinusoid
from overpaint.networks.transformer_layers import (
    RMSNorm,
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
_TIMES = 1000.0  # what the time is multiplied by before it is embedded
_SINUSOID = 256


class _TimestepEmbedder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = Linear(_SINUSOID, width)
        self.linear_2 = Linear(width, width)

    def forward(self, s: Tensor, dtype: torch.dtype) -> Tensor:
        result: Tensor = self.linear_2(F.silu(self.linear_1(sinusoid(s * _TIMES, _SINUSOID).to(dtype))))
        return result


class _TimeEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = _TimestepEmbedder(width)


class _JointStreams(nn.Module):
    """Attention of words and cells, each through projections of their own."""

    def __init__(self, spec: QwenImageSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.to_q, self.to_k, self.to_v = (Linear(spec.width, spec.width) for _ in range(3))
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (Linear(spec.width, spec.width) for _ in range(3))
        self.to_out = nn.ModuleList([Linear(spec.width, spec.width)])
        self.to_add_out = Linear(spec.width, spec.width)
        head = spec.width // spec.heads
        self.norm_q, self.norm_k, self.norm_added_q, self.norm_added_k = (RMSNorm(head, _EPS) for _ in range(4))

    def forward(self, img: Tensor, txt: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        own = (self.norm_q(self._headed(self.to_q(img))), self.norm_k(self._headed(self.to_k(img))))
        added = (
            self.norm_added_q(self._headed(self.add_q_proj(txt))),
            self.norm_added_k(self._headed(self.add_k_proj(txt))),
        )
        q, k = (turned_pairs(torch.cat(pair, dim=1), angles) for pair in zip(added, own, strict=True))
        v = torch.cat([self._headed(self.add_v_proj(txt)), self._headed(self.to_v(img))], dim=1)
        out = attend(q, k, v)
        words = txt.shape[1]
        return self.to_out[0](out[:, words:]), self.to_add_out(out[:, :words])

    def _headed(self, x: Tensor) -> Tensor:
        return in_heads(x, self.heads)


class _FirstOfMlp(nn.Module):
    def __init__(self, spec: QwenImageSpec) -> None:
        super().__init__()
        self.proj = Linear(spec.width, spec.inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class _MlpOfStream(nn.Module):
    def __init__(self, spec: QwenImageSpec) -> None:
        super().__init__()
        self.net = nn.Sequential(_FirstOfMlp(spec), nn.Identity(), Linear(spec.inner, spec.width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class QwenImageBlock(nn.Module):
    """Two streams that meet in attention; each is shifted, scaled and gated by the time."""

    def __init__(self, spec: QwenImageSpec) -> None:
        super().__init__()
        self.img_mod = nn.Sequential(nn.SiLU(), Linear(spec.width, 6 * spec.width))
        self.txt_mod = nn.Sequential(nn.SiLU(), Linear(spec.width, 6 * spec.width))
        self.attn = _JointStreams(spec)
        self.img_mlp, self.txt_mlp = _MlpOfStream(spec), _MlpOfStream(spec)

    def forward(
        self, img: Tensor, txt: Tensor, time: Tensor, angles: Tensor, clean: Tensor | None, painted: int
    ) -> tuple[Tensor, Tensor]:
        """`clean` is the time of the cells behind those that are painted, where it is another one."""
        of_img, of_txt = (mod(time)[:, None].chunk(6, dim=-1) for mod in (self.img_mod, self.txt_mod))
        if clean is not None:
            of_seen, seen = self.img_mod(clean)[:, None].chunk(6, dim=-1), img.shape[1] - painted
            pairs = zip(of_img, of_seen, strict=True)
            of_img = tuple(torch.cat([a.expand(-1, painted, -1), b.expand(-1, seen, -1)], dim=1) for a, b in pairs)
        cells, words = self.attn(modulated(img, *of_img[:2]), modulated(txt, *of_txt[:2]), angles)
        return _through(img, cells, of_img, self.img_mlp), _through(txt, words, of_txt, self.txt_mlp)


def _through(x: Tensor, attended: Tensor, modulation: tuple[Tensor, ...], mlp: nn.Module) -> Tensor:
    """What comes behind the attention, in one stream."""
    _, _, gate, shift, scale, gate_mlp = modulation
    x = x + gate * attended
    result: Tensor = x + gate_mlp * mlp(modulated(x, shift, scale))
    return result


class _LastNorm(nn.Module):
    """NOTE: scale before shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.linear(F.silu(time))[:, None].chunk(2, dim=-1)
        return modulated(x, shift, scale)


class QwenImage(nn.Module):
    """(b, channels, h, w) and texts to n - x0, the direction from the picture to the noise."""

    def __init__(self, spec: QwenImageSpec) -> None:
        super().__init__()
        self.spec = spec
        self.img_in = Linear(spec.patch**2 * spec.in_channels, spec.width)
        self.txt_norm = RMSNorm(spec.context_dim, _EPS)
        self.txt_in = Linear(spec.context_dim, spec.width)
        self.time_text_embed = _TimeEmbedding(spec.width)
        self.transformer_blocks = nn.ModuleList(QwenImageBlock(spec) for _ in range(spec.blocks))
        self.norm_out = _LastNorm(spec.width)
        self.proj_out = Linear(spec.width, spec.patch**2 * spec.out_channels)

    def forward(
        self,
        x: Tensor,
        s: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        *,
        references: Sequence[Tensor] = (),
    ) -> Tensor:
        """`s` (b,) is the share of noise.

        Channels of x beyond its own, and `references` (b, channels, any h, any w), are pictures that it looks at.
        """
        high, wide = x.shape[-2:]
        maps = [whole_patches(each, self.spec.patch) for each in seen_pictures(x, self.spec.in_channels, references)]
        sizes = [(each.shape[-2] // self.spec.patch, each.shape[-1] // self.spec.patch) for each in maps]
        (rows, columns), *_ = sizes
        img = self.img_in(torch.cat([patches_of(each, self.spec.patch) for each in maps], dim=1))
        txt = self.txt_in(self.txt_norm(context))
        embed = self.time_text_embed.timestep_embedder
        time = embed(s, x.dtype)
        clean = embed(torch.zeros_like(s), x.dtype) if self.spec.clean_pictures and len(maps) > 1 else None
        angles = angles_of(_places(txt.shape[1], sizes, x.device), self.spec.axes, _THETA)
        for block in self.transformer_blocks:
            img, txt = block(img, txt, time, angles, clean, rows * columns)
        out = self.proj_out(self.norm_out(img[:, : rows * columns], time))
        return map_of(out, rows, columns, self.spec.patch)[..., :high, :wide]


def _places(words: int, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(picture, row, column) of words and cells: cells from the middle, an odd one before it; words behind them all."""
    behind = max(max(rows // 2, columns // 2) for rows, columns in sizes)
    places = [torch.arange(behind, behind + words, device=device)[:, None].expand(-1, 3)]
    for number, (rows, columns) in enumerate(sizes):
        middle = torch.tensor([rows - rows // 2, columns - columns // 2], device=device)
        places.append(F.pad(cells_of(rows, columns, device) - middle, (1, 0), value=number))
    return torch.cat(places)
