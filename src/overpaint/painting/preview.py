"""A cheap look at an unfinished latent: a linear map to colours, fitted to the model's own encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from overpaint.models.families import LatentSpec
from overpaint.painting.latents import Codec
from overpaint.request import Picture

BLOCK = 32  # pixels of one colour, so that most latents see nothing else
SIDE = 6  # blocks a side: 36 colours for 15 unknowns


@dataclass(frozen=True)
class PreviewMap:
    """Colour = latent @ matrix + bias, in 0..1."""

    matrix: Tensor  # (channels, 3)
    bias: Tensor  # (3,)


def fit_preview(codec: Codec, latent: LatentSpec) -> PreviewMap:
    """Encode a sheet of known colours and solve for the map back."""
    rng = np.random.default_rng(0)
    colors = rng.random((SIDE, SIDE, 3), dtype=np.float32)
    sheet = torch.from_numpy(np.kron(colors, np.ones((BLOCK, BLOCK, 1), dtype=np.float32)))
    mean, _ = codec.encode((sheet * 2 - 1).permute(2, 0, 1)[None].to(codec.device))
    per_block = BLOCK // latent.factor
    middle = latent.scaled(mean[0].float().cpu())[:, per_block // 2 :: per_block, per_block // 2 :: per_block]
    latents = middle.reshape(middle.shape[0], -1).T  # (36, channels)
    wanted = torch.from_numpy(colors.reshape(-1, 3))
    center, gray = latents.mean(0), wanted.mean(0)
    # Centred, a channel that no colour moves gets the weight 0 instead of a share of the bias.
    # By singular values: some autoencoders say the same in several channels.
    matrix = torch.linalg.lstsq(latents - center, wanted - gray, driver="gelsd").solution
    return PreviewMap(matrix, gray - center @ matrix)


def preview_picture(fitted: PreviewMap, latent: Tensor) -> Picture:
    """A small picture, one pixel a latent cell, of (channels, h, w)."""
    colors = latent.float().cpu().permute(1, 2, 0) @ fitted.matrix + fitted.bias
    return Image.fromarray((colors.clamp(0, 1) * 255).round().byte().numpy())
