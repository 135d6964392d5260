"""A preview's colours are those that the encoder was asked about: a linear encoder is turned round exactly."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from overpaint.models.families import LatentSpec
from overpaint.painting.preview import fit_preview, preview_picture


class LinearCodec:
    """Averages 8x8 blocks and mixes the colours into more channels, of which one is always the same."""

    device = torch.device("cpu")

    def __init__(self, channels: int = 4) -> None:
        self.mix = torch.randn(channels, 3, generator=torch.Generator().manual_seed(3))
        self.mix[-1] = 0

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        small = F.avg_pool2d(pixels, 8)
        mean = torch.einsum("kc,bchw->bkhw", self.mix, small) + 0.5
        return mean, torch.zeros_like(mean)

    def decode(self, z: Tensor, fallback: Literal["float32", "bfloat16"] | None = None) -> Tensor:
        raise AssertionError("a preview does not decode")


def test_a_linear_encoder_is_turned_round() -> None:
    spec, codec = LatentSpec(channels=4, scale=0.2), LinearCodec()
    fitted = fit_preview(codec, spec)
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    pixels = torch.from_numpy(np.kron(picture, np.ones((8, 8, 1)))).float().permute(2, 0, 1)[None] / 127.5 - 1
    shown = preview_picture(fitted, spec.scaled(codec.encode(pixels)[0][0]))
    assert shown.size == (5, 3)
    assert np.abs(np.asarray(shown).astype(int) - picture).max() <= 1


def test_colours_beyond_the_screen_are_cut() -> None:
    spec, codec = LatentSpec(channels=4), LinearCodec()
    shown = np.asarray(preview_picture(fit_preview(codec, spec), torch.full((4, 2, 2), 1e6)))
    assert set(np.unique(shown)) <= {0, 255}
