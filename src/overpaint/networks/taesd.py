"""The tiny autoencoder of Stable Diffusion ("TAESD"), named as in its own files (VAE-6).

It shares the latents of the full codec as the U-Net sees them, that is already multiplied by the scale factor, and
paints pictures in 0..1. It knows no posterior: a picture has one latent.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from overpaint.networks.layers import Conv2d

WIDTH = 64
LATENT_CHANNELS = 4
_HALVINGS = 3
_BLOCKS = 3  # at each size, but for the full one
_LIMIT = 3.0  # latents are squeezed softly into -3..3


class Block(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = (Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / _LIMIT) * _LIMIT


def taesd_encoder(channels: int = LATENT_CHANNELS) -> nn.Sequential:
    """(b, 3, 8h, 8w) in 0..1 -> (b, channels, h, w)"""
    return nn.Sequential(*_encoder_layers(channels))


def taesd_decoder(channels: int = LATENT_CHANNELS) -> nn.Sequential:
    """(b, channels, h, w) -> (b, 3, 8h, 8w) in 0..1"""
    return nn.Sequential(*_decoder_layers(channels))


def _encoder_layers(channels: int) -> Iterator[nn.Module]:
    yield Conv2d(3, WIDTH, 3, padding=1)
    yield Block()
    for _ in range(_HALVINGS):
        yield _without_bias(Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1))
        yield from (Block() for _ in range(_BLOCKS))
    yield Conv2d(WIDTH, channels, 3, padding=1)


def _decoder_layers(channels: int) -> Iterator[nn.Module]:
    yield Clamp()
    yield Conv2d(channels, WIDTH, 3, padding=1)
    yield nn.ReLU()
    for _ in range(_HALVINGS):
        yield from (Block() for _ in range(_BLOCKS))
        yield nn.Upsample(scale_factor=2)
        yield _without_bias(Conv2d(WIDTH, WIDTH, 3, padding=1))
    yield Block()
    yield Conv2d(WIDTH, 3, 3, padding=1)


def _without_bias(layer: Conv2d) -> Conv2d:
    layer.bias = None
    return layer
