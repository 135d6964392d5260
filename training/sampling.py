"""A plain sampler for looking at the model: many pictures at once, through the project's own networks.

Song et al., "Denoising Diffusion Implicit Models" (2021), with guidance after Ho and Salimans (2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from overpaint.models.checkpoint import load_checkpoint
from overpaint.tokens import CAPACITY, clip_tokenizer
from training import specs
from training.denoiser import LEVELS, signal_shares

Pixels = NDArray[np.uint8]  # (n, h, w, 3)
_FIRST_LEVEL = LEVELS - 1


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How to sample."""

    steps: int = 20
    guidance: float = 5.0
    strength: float = 1.0
    seed: int = 0
    size: int = specs.NATIVE_SIZE  # without a source


class Sampler:
    """An exported checkpoint, loaded as any other."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        model = load_checkpoint(path, device=device, hashing=False)
        self.spec, self._backend = model.spec, model.backend
        self._scale = model.spec.scale_factor
        self._shares: list[float] = signal_shares().tolist()

    def encode(self, pictures: Pixels) -> Tensor:
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self._backend.encode(pixels.to(self._backend.device))[0] * self._scale

    def decode(self, latents: Tensor) -> Pixels:
        pixels = self._backend.decode(latents / self._scale).clamp(-1, 1)
        values: Pixels = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return values

    def read(self, prompts: Sequence[str]) -> Tensor:
        tokenizer = clip_tokenizer()
        lines = [tokenizer.encode(prompt)[:CAPACITY] for prompt in prompts]
        ids = [[tokenizer.start, *line, *[tokenizer.end] * (CAPACITY + 1 - len(line))] for line in lines]
        return self._backend.text(0, torch.tensor(ids, device=self._backend.device)).tokens

    @torch.inference_mode()
    def paint(
        self, prompts: Sequence[str], manner: Manner, sources: Pixels | None = None, masks: Tensor | None = None
    ) -> Pixels:
        """A picture for each prompt. `masks` (n, 1, h/8, w/8) are 1 where the source is painted over."""
        count = len(prompts)
        side = manner.size if sources is None else sources.shape[1]
        generator = torch.Generator().manual_seed(manner.seed)
        noise = torch.randn((count, 4, side // 8, side // 8), generator=generator).to(self._backend.device)
        known = None if sources is None else self.encode(sources)
        levels = np.linspace(_FIRST_LEVEL * manner.strength, 0, max(1, round(manner.steps * manner.strength)) + 1)
        contexts = torch.cat([self.read([""] * count), self.read(prompts)])
        x = noise if known is None else self._noised(known, noise, levels[0])
        for level, after in pairwise(levels):
            x0, eps = self._denoised(x, level, contexts, manner.guidance)
            if masks is not None and known is not None:
                x0 = masks * x0 + (1 - masks) * known
                eps = masks * eps + (1 - masks) * noise
            share = 1.0 if after == levels[-1] else self._share(after)
            x = x0 * math.sqrt(share) + eps * math.sqrt(1 - share)
        return self.decode(x)

    @torch.inference_mode()
    def first_guesses(self, pictures: Pixels, prompts: Sequence[str], seed: int) -> Tensor:
        """The mean squared error of each picture's latents as guessed from pure noise and its prompt."""
        known = self.encode(pictures)
        noise = torch.randn(known.shape, generator=torch.Generator().manual_seed(seed)).to(known.device)
        level = float(_FIRST_LEVEL)
        timesteps = torch.full((len(known),), level, device=known.device)
        noisy = self._noised(known, noise, level)
        eps = self._backend.unet(noisy, timesteps, self.read(prompts))
        share = self._share(level)
        guess = (noisy - eps * math.sqrt(1 - share)) / math.sqrt(share)
        return (guess - known).pow(2).mean(dim=(1, 2, 3))

    def _share(self, level: float) -> float:
        return self._shares[round(level)]

    def _noised(self, latents: Tensor, noise: Tensor, level: float) -> Tensor:
        share = self._share(level)
        return latents * math.sqrt(share) + noise * math.sqrt(1 - share)

    def _denoised(self, x: Tensor, level: float, contexts: Tensor, guidance: float) -> tuple[Tensor, Tensor]:
        """The picture behind the noise, and the noise."""
        timesteps = torch.full((2 * len(x),), float(round(level)), device=x.device)
        without, given = self._backend.unet(torch.cat([x, x]), timesteps, contexts).chunk(2)
        eps = without + guidance * (given - without)
        share = self._share(level)
        return (x - eps * math.sqrt(1 - share)) / math.sqrt(share), eps


def latent_masks(boxes: Sequence[tuple[float, float, float, float]], side: int) -> Tensor:
    """1 over each box (left, top, right, bottom, in sides), in latents of a picture `side` wide."""
    masks = torch.zeros(len(boxes), 1, side // 8, side // 8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        rows = slice(int(top * side / 8), int(np.ceil(bottom * side / 8)))
        mask[:, rows, int(left * side / 8) : int(np.ceil(right * side / 8))] = 1
    return masks


def enlarged(masks: Tensor, side: int) -> Tensor:
    """Latent masks as masks of pixels."""
    return F.interpolate(masks, size=(side, side), mode="nearest")
