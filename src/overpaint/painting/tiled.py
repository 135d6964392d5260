"""Networks that see a large canvas in overlapping parts, so that memory depends on the part and not on the canvas.

The denoiser is asked about every part of one latent at every step, and where parts overlap their answers are mixed:
the parts agree, and there is nothing to paste (MultiDiffusion, Bar-Tal et al. 2023, arXiv:2302.08113, equation 5). The
autoencoder works through the same parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from overpaint.backends.port import Network, VaeFallback
from overpaint.networks.unet import DeepMap, LessWork
from overpaint.painting.latents import Codec
from overpaint.planning.plans import LatentTiles

Part = tuple[slice, slice]  # rows, columns


@dataclass(frozen=True, eq=False)
class TiledNetwork:
    """A denoiser that is asked part by part; each part may have ControlNets of its own."""

    network: Callable[[Part], Network]
    tiles: LatentTiles

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        *,
        negative: Sequence[bool] | None = None,
        less: LessWork | None = None,
        references: Sequence[Tensor] = (),
    ) -> Tensor:
        deep = None if less is None else less.deep
        before = None if deep is None or deep.value is None else deep.value.unbind(1)  # (b, parts, c, h, w)
        found: list[DeepMap] = []

        def ask(part: Part) -> Tensor:
            own = less
            if less is not None and deep is not None:
                found.append(DeepMap(None if before is None else before[len(found)]))
                own = replace(less, deep=found[-1])
            seen = x[..., part[0], part[1]].contiguous()
            network = self.network(part)
            return network(seen, timesteps, context, vector, negative=negative, less=own, references=references)

        result = _mixed(x.shape[-2:], self.tiles, 1, ask, x.device)
        kept = [each.value for each in found if each.value is not None]
        if deep is not None and before is None and kept:
            deep.value = torch.stack(kept, dim=1)
        return result


@dataclass(eq=False)
class TiledCodec:
    """An autoencoder that works part by part."""

    codec: Codec
    tiles: LatentTiles
    factor: int  # pixels a side of one latent cell
    device: torch.device

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's mean and log-variance."""

        def ask(part: Part) -> Tensor:
            rows, columns = (_scaled(each, self.factor) for each in part)
            return torch.cat(self.codec.encode(pixels[..., rows, columns].contiguous()), dim=1)

        size = torch.Size(side // self.factor for side in pixels.shape[-2:])
        mean, logvar = _mixed(size, self.tiles, 1, ask, self.device).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor, fallback: VaeFallback | None = None) -> Tensor:
        """Pixels, gathered where there is room for all of them."""

        def ask(part: Part) -> Tensor:
            return self.codec.decode(z[..., part[0], part[1]].contiguous(), fallback).float().cpu()

        return _mixed(z.shape[-2:], self.tiles, self.factor, ask, torch.device("cpu"))


def pixels_of(part: Part, factor: int) -> tuple[int, int, int, int]:
    """The box of a part."""
    rows, columns = (_scaled(each, factor) for each in part)
    return columns.start, rows.start, columns.stop, rows.stop


def parts_of(side: int, tiles: LatentTiles) -> list[slice]:
    """As few parts as reach across with this overlap, evenly spaced."""
    length = min(tiles.size, side)
    if length == side:
        return [slice(0, side)]
    count = -(-(side - tiles.overlap) // (length - tiles.overlap))
    starts = [round(i * (side - length) / (count - 1)) for i in range(count)]
    return [slice(start, start + length) for start in starts]


def _mixed(
    size: Sequence[int], tiles: LatentTiles, factor: int, ask: Callable[[Part], Tensor], device: torch.device
) -> Tensor:
    """The parts' answers, each weighing less towards the edges that it shares with others."""
    rows, columns = (parts_of(side, tiles) for side in size)
    total: Tensor | None = None
    weights = torch.zeros(size[0] * factor, size[1] * factor, device=device)
    for down in rows:
        for across in columns:
            answer = ask((down, across))
            weight = _ramp(down, size[0], tiles, factor, device)[:, None] * _ramp(
                across, size[1], tiles, factor, device
            )
            if total is None:
                total = torch.zeros(*answer.shape[:2], *weights.shape, device=device)
            place = (..., _scaled(down, factor), _scaled(across, factor))
            total[place] += answer.float() * weight
            weights[place[1:]] += weight
    assert total is not None
    return total / weights


def _ramp(part: slice, side: int, tiles: LatentTiles, factor: int, device: torch.device) -> Tensor:
    """The weight along one axis: rising from an inner edge over the overlap, 1 elsewhere."""
    length, fade = (part.stop - part.start) * factor, max(tiles.overlap * factor, 1)
    rise = (torch.arange(length, device=device) + 0.5) / fade
    weight = torch.ones(length, device=device)
    if part.start > 0:
        weight = torch.minimum(weight, rise)
    if part.stop < side:
        weight = torch.minimum(weight, rise.flip(0))
    return weight


def _scaled(part: slice, factor: int) -> slice:
    return slice(part.start * factor, part.stop * factor)
