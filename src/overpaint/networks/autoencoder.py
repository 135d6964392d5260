"""The picture codec of Stable Diffusion, named as in the checkpoint (ARCH-7).

Esser, Rombach and Ommer, "Taming Transformers" (2021), with a Gaussian posterior: Kingma and Welling (2014).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.families import AutoencoderSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import Conv2d, SiLU, added, group_norm, to_map, to_tokens

_EPS = 1e-6
_EPS_OF_STATISTICS = 1e-4


class ResnetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs, _EPS)
        self.conv1 = Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = group_norm(outputs, _EPS)
        self.conv2 = Conv2d(outputs, outputs, 3, padding=1)
        self.silu = SiLU()
        if inputs != outputs:
            self.nin_shortcut = Conv2d(inputs, outputs, 1)
        self.widens = inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.silu(self.norm1(x)))
        h = self.conv2(self.silu(self.norm2(h)))
        return added(self.nin_shortcut(x) if self.widens else x, h)


class AttnBlock(nn.Module):
    """Attention of all pixels over all pixels, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, _EPS)
        self.q = Conv2d(channels, channels, 1)
        self.k = Conv2d(channels, channels, 1)
        self.v = Conv2d(channels, channels, 1)
        self.proj_out = Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        h = self.norm(x)
        q, k, v = (to_tokens(conv(h))[:, :, None] for conv in (self.q, self.k, self.v))
        h = to_map(attend(q, k, v), height, width)
        return added(x, self.proj_out(h))


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return result


class CodecDownsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        # NOTE: zeros at the right and bottom only, also when the convolutions are circular (ARCH-9)
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return result


class CodecUpsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


class Level(nn.Module):
    """The blocks of one size, and the step to the next size if there is one."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        for name in ("downsample", "upsample"):
            if name in self._modules:
                x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        width = spec.channels
        self.conv_in = Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        for i, mult in enumerate(spec.channel_mult):
            level = Level(width, spec.channels * mult, spec.num_res_blocks)
            width = spec.channels * mult if spec.num_res_blocks else width
            if i < len(spec.channel_mult) - 1:
                level.downsample = CodecDownsample(width)
            self.down.append(level)
        self.mid = Middle(width)
        self.norm_out = group_norm(width, _EPS)
        self.silu = SiLU()
        self.conv_out = Conv2d(width, 2 * spec.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        result: Tensor = self.conv_out(self.silu(self.norm_out(self.mid(h))))
        return result


class Decoder(nn.Module):
    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        width = spec.channels * spec.channel_mult[-1]
        self.conv_in = Conv2d(spec.latent_channels, width, 3, padding=1)
        self.mid = Middle(width)
        levels: list[Level] = []
        for i, mult in reversed(list(enumerate(spec.channel_mult))):
            level = Level(width, spec.channels * mult, spec.num_res_blocks + 1)
            width = spec.channels * mult
            if i:
                level.upsample = CodecUpsample(width)
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)
        self.norm_out = group_norm(width, _EPS)
        self.silu = SiLU()
        self.conv_out = Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        result: Tensor = self.conv_out(self.silu(self.norm_out(h)))
        return result


class LatentStatistics(nn.Module):
    """Mean and variance of each channel of the latents, as training saw them; named as the batch norm it was."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.running_mean = nn.Parameter(torch.empty(channels))
        self.running_var = nn.Parameter(torch.empty(channels))

    @property
    def means(self) -> Tensor:
        return self.running_mean.float()[:, None, None]

    @property
    def widths(self) -> Tensor:
        return (self.running_var.float() + _EPS_OF_STATISTICS).sqrt()[:, None, None]


class AutoencoderKL(nn.Module):
    """Pictures in -1..1 to a Gaussian over latents of an eighth of their size, and back.

    Flux.2's latents are patches of these, each channel by its own mean and width.
    """

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.patch = spec.patch
        latent = spec.latent_channels // spec.patch**2
        inner = replace(spec, latent_channels=latent)
        self.encoder = Encoder(inner)
        self.decoder = Decoder(inner)
        if spec.patch > 1:
            self.bn = LatentStatistics(spec.latent_channels)
        self.has_quant_convs = spec.quant_convs
        if spec.quant_convs:
            self.quant_conv = Conv2d(2 * latent, 2 * latent, 1)
            self.post_quant_conv = Conv2d(latent, latent, 1)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, 8h, 8w) -> mean and log-variance, each (b, 4, h, w)"""
        moments = self.encoder(pixels)
        mean, logvar = (self.quant_conv(moments) if self.has_quant_convs else moments).chunk(2, dim=1)
        if self.patch == 1:
            return mean, logvar
        mean, logvar = (F.pixel_unshuffle(each.float(), self.patch) for each in (mean, logvar))
        return (mean - self.bn.means) / self.bn.widths, logvar - 2 * self.bn.widths.log()

    def decode(self, z: Tensor) -> Tensor:
        """(b, 4, h, w) -> (b, 3, 8h, 8w)"""
        if self.patch > 1:
            z = F.pixel_shuffle(z.float() * self.bn.widths + self.bn.means, self.patch).to(z.dtype)
        result: Tensor = self.decoder(self.post_quant_conv(z) if self.has_quant_convs else z)
        return result
