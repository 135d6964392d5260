"""The transformer of Flux.2 (Black Forest Labs, 2025), named as in its files.

As in Flux.1, words and cells have layers of their own in double blocks, and are one stream in single blocks, words
first. What the time says is the same for all blocks of a kind, no layer has a bias, and MLPs are gated. A place is the
picture, the row, the column and the number of the word; pictures that it looks at follow the cells as further ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import Flux2Spec
from overpaint.networks.attention import attend
from overpaint.networks.flux import (
    Embedder,
    LastOfFlux,
    Modulation,
    QueryAndKeyNorm,
    StreamAttention,
    queries_keys_values,
    through_double_block,
)
from overpaint.networks.layers import Linear, sinusoid
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

_THETA = 2000.0
_TIMES = 1000.0  # what the time is multiplied by before it is embedded
_SINUSOID = 256
_APART = 10  # between the numbers of two pictures


class _HalvesGated(nn.Module):
    """silu of the first half times the second."""

    def forward(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value


def _mlp(spec: Flux2Spec) -> nn.Sequential:
    ends = Linear(spec.width, 2 * spec.inner, bias=False), Linear(spec.inner, spec.width, bias=False)
    return nn.Sequential(ends[0], _HalvesGated(), ends[1])


class Flux2DoubleBlock(nn.Module):
    """Two streams that meet in attention."""

    def __init__(self, spec: Flux2Spec) -> None:
        super().__init__()
        self.img_attn, self.txt_attn = (StreamAttention(spec.width, spec.heads, bias=False) for _ in range(2))
        self.img_mlp, self.txt_mlp = _mlp(spec), _mlp(spec)

    def forward(
        self, img: Tensor, txt: Tensor, of_img: tuple[Tensor, ...], of_txt: tuple[Tensor, ...], angles: Tensor
    ) -> tuple[Tensor, Tensor]:
        return through_double_block(self, img, txt, of_img, of_txt, angles)


class Flux2SingleBlock(nn.Module):
    """One stream; attention and MLP side by side."""

    def __init__(self, spec: Flux2Spec) -> None:
        super().__init__()
        self.spec = spec
        self.linear1 = Linear(spec.width, 3 * spec.width + 2 * spec.inner, bias=False)
        self.linear2 = Linear(spec.width + spec.inner, spec.width, bias=False)
        self.norm = QueryAndKeyNorm(spec.width // spec.heads)
        self.gated = _HalvesGated()

    def forward(self, x: Tensor, modulation: tuple[Tensor, ...], angles: Tensor) -> Tensor:
        shift, scale, gate = modulation
        both = self.linear1(modulated(x, shift, scale))
        qkv, hidden = both.split([3 * self.spec.width, 2 * self.spec.inner], dim=-1)
        q, k, v = queries_keys_values(qkv, self.norm, self.spec.heads)
        out = attend(turned_pairs(q, angles), turned_pairs(k, angles), v)
        result: Tensor = x + gate * self.linear2(torch.cat([out, self.gated(hidden)], dim=-1))
        return result


class Flux2(nn.Module):
    """(b, channels, h, w) and texts to n - x0, the direction from the picture to the noise."""

    def __init__(self, spec: Flux2Spec) -> None:
        super().__init__()
        self.spec = spec
        self.img_in = Linear(spec.patch**2 * spec.in_channels, spec.width, bias=False)
        self.time_in = Embedder(_SINUSOID, spec.width, bias=False)
        self.txt_in = Linear(spec.context_dim, spec.width, bias=False)
        self.double_stream_modulation_img = Modulation(spec.width, 6, bias=False)
        self.double_stream_modulation_txt = Modulation(spec.width, 6, bias=False)
        self.single_stream_modulation = Modulation(spec.width, 3, bias=False)
        self.double_blocks = nn.ModuleList(Flux2DoubleBlock(spec) for _ in range(spec.double_blocks))
        self.single_blocks = nn.ModuleList(Flux2SingleBlock(spec) for _ in range(spec.single_blocks))
        self.final_layer = LastOfFlux(spec.width, spec.patch**2 * spec.in_channels, bias=False)

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
        time = self.time_in(sinusoid(s * _TIMES, _SINUSOID).to(x.dtype))
        img = self.img_in(torch.cat([patches_of(each, self.spec.patch) for each in maps], dim=1))
        txt = self.txt_in(context)
        of_img, of_txt = self.double_stream_modulation_img(time), self.double_stream_modulation_txt(time)
        angles = self._angles(txt.shape[1], maps)
        for block in self.double_blocks:
            img, txt = block(img, txt, of_img, of_txt, angles)
        together, of_both = torch.cat([txt, img], dim=1), self.single_stream_modulation(time)
        for block in self.single_blocks:
            together = block(together, of_both, angles)
        rows, columns = (side // self.spec.patch for side in maps[0].shape[-2:])
        own = together[:, txt.shape[1] : txt.shape[1] + rows * columns]
        return map_of(self.final_layer(own, time), rows, columns, self.spec.patch)[..., :high, :wide]

    def _angles(self, words: int, maps: Sequence[Tensor]) -> Tensor:
        device = maps[0].device
        places = [F.pad(torch.arange(words, device=device)[:, None], (3, 0))]
        for number, each in enumerate(maps):
            rows, columns = (side // self.spec.patch for side in each.shape[-2:])
            cells = cells_of(rows, columns, device)
            places.append(F.pad(F.pad(cells, (1, 0), value=_APART * number), (0, 1)))
        return angles_of(torch.cat(places), self.spec.axes, _THETA)
