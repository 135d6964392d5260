"""The transformer of Chroma (lodestones, 2025), named as in its files.

Flux.1's blocks, whose layers that made shift, scale and gate of the time were distilled into one small network for all
of them. It reads no pooled text; words that fill a text up are left out, but for one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from overpaint.models.specs import ChromaSpec
from overpaint.networks.flux import Embedder, FluxDoubleBlock, FluxSingleBlock, ScaledNorm, angles_of_maps
from overpaint.networks.layers import Linear, sinusoid
from overpaint.networks.transformer_layers import map_of, modulated, patches_of, seen_pictures, whole_patches

_TIMES = 1000.0  # what the time, and the number of a layer, are multiplied by before they are embedded
_OF_DOUBLE, _OF_SINGLE, _OF_LAST = 6, 3, 2  # vectors: shift, scale and gate, twice, once, and without a gate


class _Approximator(nn.Module):
    def __init__(self, spec: ChromaSpec) -> None:
        super().__init__()
        self.in_proj = Linear(spec.told, spec.told_width)
        self.layers = nn.ModuleList(Embedder(spec.told_width, spec.told_width) for _ in range(spec.told_layers))
        self.norms = nn.ModuleList(ScaledNorm(spec.told_width) for _ in range(spec.told_layers))
        self.out_proj = Linear(spec.told_width, spec.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_proj(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(norm(x))
        result: Tensor = self.out_proj(x)
        return result


class _Rows(nn.Module):
    """In the place of a layer that makes shift, scale and gate: those that are made already."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__()
        self.rows = slice(first, first + count)

    def forward(self, table: Tensor) -> tuple[Tensor, ...]:
        return tuple(each[:, None] for each in table[:, self.rows].unbind(1))


class _LastOfChroma(nn.Module):
    def __init__(self, spec: ChromaSpec) -> None:
        super().__init__()
        self.linear = Linear(spec.width, spec.patch**2 * spec.out_channels)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        shift, scale = table[:, None, -2], table[:, None, -1]
        result: Tensor = self.linear(modulated(x, shift, scale))
        return result


class Chroma(nn.Module):
    """(b, channels, h, w) and a text to n - x0, the direction from the picture to the noise."""

    def __init__(self, spec: ChromaSpec) -> None:
        super().__init__()
        self.spec = spec
        self.img_in = Linear(spec.patch**2 * spec.in_channels, spec.width)
        self.txt_in = Linear(spec.context_dim, spec.width)
        self.distilled_guidance_layer = _Approximator(spec)
        of_img = _OF_SINGLE * spec.single_blocks
        of_txt = of_img + _OF_DOUBLE * spec.double_blocks
        self.double_blocks = nn.ModuleList(
            FluxDoubleBlock(spec, *(_Rows(first + _OF_DOUBLE * i, _OF_DOUBLE) for first in (of_img, of_txt)))
            for i in range(spec.double_blocks)
        )
        self.single_blocks = nn.ModuleList(
            FluxSingleBlock(spec, _Rows(_OF_SINGLE * i, _OF_SINGLE)) for i in range(spec.single_blocks)
        )
        self.final_layer = _LastOfChroma(spec)

    def forward(
        self,
        x: Tensor,
        s: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        *,
        references: Sequence[Tensor] = (),
    ) -> Tensor:
        """`s` (b,) is the share of noise; there is no `vector`. What is looked at follows the cells, as in Flux.1."""
        high, wide = x.shape[-2:]
        maps = [whole_patches(each, self.spec.patch) for each in seen_pictures(x, self.spec.in_channels, references)]
        table = self.distilled_guidance_layer(self._told(s).to(x.dtype))
        img = self.img_in(torch.cat([patches_of(each, self.spec.patch) for each in maps], dim=1))
        txt = self.txt_in(context)
        angles = angles_of_maps(self.spec, txt.shape[1], maps)
        for block in self.double_blocks:
            img, txt = block(img, txt, table, angles)
        together = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            together = block(together, table, angles)
        rows, columns = (side // self.spec.patch for side in maps[0].shape[-2:])
        own = together[:, txt.shape[1] : txt.shape[1] + rows * columns]
        return map_of(self.final_layer(own, table), rows, columns, self.spec.patch)[..., :high, :wide]

    def _told(self, s: Tensor) -> Tensor:
        """For each vector that is wanted: the time, a guidance of 0, and the vector's number (b, vectors, told)."""
        count = _OF_SINGLE * self.spec.single_blocks + 2 * _OF_DOUBLE * self.spec.double_blocks + _OF_LAST
        quarter = self.spec.told // 4
        time, none = sinusoid(s * _TIMES, quarter), sinusoid(torch.zeros_like(s), quarter)
        numbers = sinusoid(torch.arange(count, device=s.device) * _TIMES, 2 * quarter)
        both = torch.cat([time, none], dim=-1)[:, None].expand(-1, count, -1)
        return torch.cat([both, numbers[None].expand(len(s), -1, -1)], dim=-1)
