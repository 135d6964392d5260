"""The denoising U-Net of Stable Diffusion, named as in the checkpoint (ARCH-2 to ARCH-6).

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022); Podell et al., "SDXL" (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.families import UNetSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import (
    Conv2d,
    GatedLinear,
    Linear,
    SiLU,
    added,
    group_norm,
    in_heads,
    sinusoid,
    to_map,
    to_tokens,
)
from overpaint.networks.merging import MergedTokens, alike
from overpaint.planning.shortcuts import TokenMerging

_ROWS_IN_CACHE = 1024  # measured for widths of 320 to 1280
SHALLOW = 2  # stages on either side that still work in a call that reuses deep features


@dataclass(eq=False)
class DeepMap:
    """What the deep part of a U-Net last said: a map of some rows. Empty: the next call works in full and fills it."""

    value: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LessWork:
    """What a call may leave out."""

    merging: TokenMerging | None = None  # arXiv:2303.17604
    deep: DeepMap | None = None  # arXiv:2312.00858


class ResBlock(nn.Module):
    """Two convolutions with the timestep's embedding added between them (ARCH-3)."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(group_norm(inputs, 1e-5), SiLU(), Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), Linear(embedding, outputs))
        self.out_layers = nn.Sequential(
            group_norm(outputs, 1e-5), SiLU(), nn.Identity(), Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = added(self.emb_layers(embedding)[:, :, None, None], self.in_layers(x))
        return added(self.skip_connection(x), self.out_layers(h))


ContextChange = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class CrossAttention(nn.Module):
    """Attention of a sequence over a context, or over itself.

    Each of `context_changes` is given what the keys and the values are made of, and gives what takes its place.
    """

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.context_width = context
        self.context_changes: tuple[ContextChange, ...] = ()
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(context, width, bias=False)
        self.to_v = Linear(context, width, bias=False)
        self.to_out = nn.Sequential(Linear(width, width), nn.Identity())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        keys = values = context
        for change in self.context_changes:
            keys, values = change(keys, values)
        q, k, v = (
            in_heads(layer(source), self.heads)
            for layer, source in ((self.to_q, x), (self.to_k, keys), (self.to_v, values))
        )
        result: Tensor = self.to_out(attend(q, k, v))
        return result


class GEGLU(nn.Module):
    """A gated projection (Shazeer, "GLU Variants Improve Transformer", 2020)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = GatedLinear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.proj(x)
        return result


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """With packed layers some rows at a time, so that the wide map between them stays in the CPU's cache."""
        if not self.net[2].packed or x.shape[:-1].numel() <= _ROWS_IN_CACHE:
            result: Tensor = self.net(x)
            return result
        parts = torch.split(x.flatten(0, -2), _ROWS_IN_CACHE)
        return torch.cat([self.net(part) for part in parts]).view(x.shape)


class TransformerBlock(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads)
        self.attn2 = CrossAttention(width, context, heads)
        self.ff = FeedForward(width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor, merged: MergedTokens | None = None) -> Tensor:
        normed = self.norm1(x)
        if merged is None:
            x = added(x, self.attn1(normed, normed))
        else:
            fewer = merged.merged(normed)
            x = added(x, merged.spread(self.attn1(fewer, fewer)))
        x = added(x, self.attn2(self.norm2(x), context))
        return added(x, self.ff(self.norm3(x)))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map (ARCH-4)."""

    def __init__(self, width: int, context: int, heads: int, depth: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.norm = group_norm(width, 1e-6)
        self.proj_in = Linear(width, width) if linear else Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(width, context, heads) for _ in range(depth))
        self.proj_out = Linear(width, width) if linear else Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor, merging: float = 0.0) -> Tensor:
        """`merging` is the share of tokens that give up their place in self-attention."""
        height, width = x.shape[-2:]
        h = self.norm(x)
        h = self.proj_in(to_tokens(h)) if self.linear else to_tokens(self.proj_in(h))
        for block in self.transformer_blocks:
            h = block(h, context, alike(h, height, width, merging) if merging else None)
        h = to_map(self.proj_out(h), height, width) if self.linear else self.proj_out(to_map(h, height, width))
        return added(x, h)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.op(x)
        return result


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class Stage(nn.ModuleList):
    """Layers in a row, each given what it wants beside the map."""

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor, merging: float = 0.0) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context, merging)
            else:
                x = layer(x)
        return x


class UNetEncoder(nn.Module):
    """The way down and the middle: what the U-Net and its ControlNets have in common."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        channels, embedding = spec.model_channels, 4 * spec.model_channels
        self.time_embed = nn.Sequential(Linear(channels, embedding), nn.SiLU(), Linear(embedding, embedding))
        if spec.adm_channels is not None:
            vector = nn.Sequential(Linear(spec.adm_channels, embedding), nn.SiLU(), Linear(embedding, embedding))
            self.label_emb = nn.Sequential(vector)
        widths = [channels * mult for mult in spec.channel_mult]
        skips: list[int] = []
        self.input_blocks = nn.ModuleList(self._going_down(widths, skips))
        self.middle_block = Stage(self._middle(widths[-1]))
        self.skip_widths = tuple(skips)

    def embed(self, timesteps: Tensor, vector: Tensor | None, dtype: torch.dtype) -> Tensor:
        """What every residual block is told: (b, 4 * model_channels)"""
        embedding: Tensor = self.time_embed(self.waves(timesteps).to(dtype))
        return embedding if vector is None else embedding + self.label_emb(vector)

    def waves(self, timesteps: Tensor) -> Tensor:
        """The times as they are embedded: (b,) -> (b, model_channels), float32"""
        return sinusoid(timesteps * self.spec.time_factor, self.spec.model_channels)

    def _going_down(self, widths: list[int], skips: list[int]) -> Iterator[Stage]:
        width, depths = self.spec.model_channels, iter(self.spec.input_depths)
        yield Stage([Conv2d(self.spec.in_channels, width, 3, padding=1)])
        skips.append(width)
        for level, level_width in enumerate(widths):
            for _ in range(self.spec.num_res_blocks):
                yield Stage(self._block(width, level_width, next(depths)))
                width = level_width
                skips.append(width)
            if level < len(widths) - 1:
                yield Stage([Downsample(width)])
                skips.append(width)

    def _middle(self, width: int) -> list[nn.Module]:
        first = self._block(width, width, self.spec.middle_depth or 0)
        return first if self.spec.middle_depth is None else [*first, *self._block(width, width, 0)]

    def _block(self, inputs: int, outputs: int, depth: int) -> list[nn.Module]:
        spec = self.spec
        layers: list[nn.Module] = [ResBlock(inputs, outputs, 4 * spec.model_channels)]
        if depth:
            heads = spec.heads_at(outputs)
            layers.append(SpatialTransformer(outputs, spec.context_dim, heads, depth, spec.linear_projections))
        return layers


class UNet(UNetEncoder):
    """eps, v or n - x0 of a noisy latent, given the timestep, the text and, for SDXL, the size vector."""

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__(spec)
        channels = spec.model_channels
        self.output_blocks = nn.ModuleList(self._going_up([channels * mult for mult in spec.channel_mult]))
        self.out = nn.Sequential(group_norm(channels, 1e-5), SiLU(), Conv2d(channels, spec.out_channels, 3, padding=1))

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        control: Sequence[Tensor] | None = None,
        less: LessWork | None = None,
    ) -> Tensor:
        """x (b, in, h, w), timesteps (b,), context (b, n, context_dim), vector (b, adm) -> (b, out, h, w)

        `control` is what ControlNets add: one map for each skip, in order, and a last one for the middle.
        """
        embedding, less = self.embed(timesteps, vector, x.dtype), less or LessWork()
        deep = less.deep or DeepMap()
        skips: list[Tensor] = []
        for stage in list(self.input_blocks)[: SHALLOW if deep.value is not None else None]:
            x = stage(x, embedding, context, self._merging(less, len(skips)))
            skips.append(x)
        control = control or ()
        if deep.value is None:
            x = self.middle_block(x, embedding, context)
            x = x + control[-1] if control else x
        if control:
            skips = [skip + each for skip, each in zip(skips, control, strict=False)]
        for stage in list(self.output_blocks)[-len(skips) :]:
            if len(skips) == SHALLOW:
                x = _remembered(x, deep)
            skip = skips.pop()
            x = stage(_joined(x, skip), embedding, context, self._merging(less, len(skips)))
        result: Tensor = self.out(x)
        return result

    def _merging(self, less: LessWork, skip: int) -> float:
        """The share of tokens that merge in the stage that gives, or takes, this skip."""
        level = skip // (self.spec.num_res_blocks + 1)  # a level's first skip comes from above, and has no attention
        return less.merging.share if less.merging is not None and less.merging.level == level else 0.0

    def _going_up(self, widths: list[int]) -> Iterator[Stage]:
        width, depths, skips = widths[-1], iter(self.spec.output_depths), list(self.skip_widths)
        for level in reversed(range(len(widths))):
            for i in range(self.spec.num_res_blocks + 1):
                layers = self._block(width + skips.pop(), widths[level], next(depths))
                width = widths[level]
                if level and i == self.spec.num_res_blocks:
                    layers.append(Upsample(width))
                yield Stage(layers)


def _remembered(x: Tensor, deep: DeepMap) -> Tensor:
    """What comes from below: as it was kept, or now, to be kept."""
    if deep.value is None:
        deep.value = x
    return deep.value


def _joined(x: Tensor, skip: Tensor) -> Tensor:
    """Along channels; a map that odd halvings left larger is brought to the skip's size (ARCH-5)."""
    if x.shape[-2:] != skip.shape[-2:]:
        x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
    return torch.cat([x, skip], dim=1)
