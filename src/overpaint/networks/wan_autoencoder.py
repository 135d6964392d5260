"""The picture codec of Qwen-Image, on single frames: that of Wan (arXiv:2503.20314), named as in its files.

It was made for films. A frame is computed from those before it; before the first there is nothing but zeros, so that of
every kernel over three frames only the last slice counts, and what joins frames is never asked. Here it is therefore a
codec of pictures: loading keeps that slice of each kernel and leaves out the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.models.specs import AutoencoderSpec
from overpaint.networks.attention import attend
from overpaint.networks.layers import Conv2d, SiLU, to_map, to_tokens

# Of each channel of the latents, as its authors measured them.
_MEANS = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_WIDTHS = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
_LEAST = 1e-12


class _ChannelNorm(nn.Module):
    """Each pixel by the root mean square of its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        length = x.float().square().sum(1, keepdim=True).sqrt().clamp(min=_LEAST)
        scale: float = x.shape[1] ** 0.5
        return (x.float() / length).to(x.dtype) * scale * self.gamma[:, None, None]


class WanResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _ChannelNorm(inputs),
            SiLU(),
            Conv2d(inputs, outputs, 3, padding=1),
            _ChannelNorm(outputs),
            SiLU(),
            nn.Identity(),
            Conv2d(outputs, outputs, 3, padding=1),
        )
        if inputs != outputs:
            self.shortcut = Conv2d(inputs, outputs, 1)
        self.widens = inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (self.shortcut(x) if self.widens else x) + self.residual(x)
        return result


class _PixelAttention(nn.Module):
    """Attention of all pixels over all pixels, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _ChannelNorm(channels)
        self.to_qkv = Conv2d(channels, 3 * channels, 1)
        self.proj = Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        high, wide = x.shape[-2:]
        q, k, v = (each[:, :, None] for each in to_tokens(self.to_qkv(self.norm(x))).chunk(3, dim=-1))
        result: Tensor = x + self.proj(to_map(attend(q, k, v), high, wide))
        return result


class _Halved(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), Conv2d(channels, channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.resample(x)
        return result


class _Doubled(nn.Module):
    """Twice the size, and half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), Conv2d(channels, channels // 2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.resample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return result


def _middle(channels: int) -> nn.Sequential:
    return nn.Sequential(WanResidual(channels, channels), _PixelAttention(channels), WanResidual(channels, channels))


def _head(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_ChannelNorm(channels), SiLU(), Conv2d(channels, outputs, 3, padding=1))


class WanEncoder(nn.Module):
    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        width, steps = spec.channels, nn.ModuleList()
        self.conv1 = Conv2d(3, width, 3, padding=1)
        for i, mult in enumerate(spec.channel_mult):
            for _ in range(spec.num_res_blocks):
                steps.append(WanResidual(width, spec.channels * mult))
                width = spec.channels * mult
            if i < len(spec.channel_mult) - 1:
                steps.append(_Halved(width))
        self.downsamples = nn.Sequential(*steps)
        self.middle = _middle(width)
        self.head = _head(width, 2 * spec.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.middle(self.downsamples(self.conv1(x))))
        return result


class WanDecoder(nn.Module):
    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        width, steps = spec.channels * spec.channel_mult[-1], nn.ModuleList()
        self.conv1 = Conv2d(spec.latent_channels, width, 3, padding=1)
        self.middle = _middle(width)
        for i, mult in reversed(list(enumerate(spec.channel_mult))):
            for _ in range(spec.num_res_blocks + 1):
                steps.append(WanResidual(width, spec.channels * mult))
                width = spec.channels * mult
            if i:
                steps.append(_Doubled(width))
                width //= 2
        self.upsamples = nn.Sequential(*steps)
        self.head = _head(width, 3)

    def forward(self, z: Tensor) -> Tensor:
        result: Tensor = self.head(self.upsamples(self.middle(self.conv1(z))))
        return result


class WanAutoencoder(nn.Module):
    """Pictures in -1..1 to a Gaussian over latents of an eighth of their size, and back.

    The latents are those of the transformer: each channel by its own mean and width.
    """

    def __init__(self, spec: AutoencoderSpec) -> None:
        super().__init__()
        self.encoder = WanEncoder(spec)
        self.decoder = WanDecoder(spec)
        self.conv1 = Conv2d(2 * spec.latent_channels, 2 * spec.latent_channels, 1)
        self.conv2 = Conv2d(spec.latent_channels, spec.latent_channels, 1)

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, 8h, 8w) -> mean and log-variance, each (b, channels, h, w)"""
        mean, logvar = self.conv1(self.encoder(pixels)).chunk(2, dim=1)
        means, widths = _of_channels(mean)
        return (mean.float() - means) / widths, logvar.float() - 2 * widths.log()

    def decode(self, z: Tensor) -> Tensor:
        """(b, channels, h, w) -> (b, 3, 8h, 8w)"""
        means, widths = _of_channels(z)
        result: Tensor = self.decoder(self.conv2((z.float() * widths + means).to(z.dtype)))
        return result


def _of_channels(like: Tensor) -> tuple[Tensor, Tensor]:
    """Means and widths, float32 (channels, 1, 1)."""
    told = (torch.tensor(each[: like.shape[1]], device=like.device) for each in (_MEANS, _WIDTHS))
    means, widths = (each[:, None, None] for each in told)
    return means, widths
