"""The kept part of the source, put back into every prediction (BLEND, SOFT)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from overpaint.parameterization import Parameterization
from overpaint.request import SoftInpainting
from overpaint.samplers import Query


@dataclass(frozen=True)
class MaskBlend:
    """The source's latents, and how much of each cell is repainted (BLEND-1 to BLEND-6)."""

    init: Tensor  # (batch, channels, h, w)
    nmask: Tensor  # (channels, h, w), 1 = repaint
    soft: SoftInpainting | None = None

    def apply(self, latent: Tensor, sigma: float) -> Tensor:
        if self.soft is not None:
            return soft_blend(self.init, latent, self.nmask, sigma, self.soft)
        return latent * self.nmask + self.init * (1 - self.nmask)

    def final(self, latent: Tensor) -> Tensor:
        """After sampling: the kept part exactly, unless the mask is soft (SOFT-3)."""
        return latent if self.soft is not None else self.apply(latent, 0.0)

    def question(self, query: Query, meaning: Parameterization) -> Tensor:
        """What the network is asked about; the reference blends the clean source into the noisy input (BLEND-2)."""
        return self.apply(query.x, meaning.sigma(query.sigma)) if meaning.blends_input else query.x

    def answer(self, reply: Tensor, query: Query, meaning: Parameterization) -> Tensor:
        """A reply to the sampler, blended as the picture it stands for."""
        if meaning.blends_input:
            return reply
        x0 = self.apply(meaning.clean(reply, query.x, query.sigma), meaning.sigma(query.sigma))
        return meaning.reply_for(x0, query.x, query.sigma)


def soft_blend(a: Tensor, b: Tensor, nmask: Tensor, sigma: float, soft: SoftInpainting) -> Tensor:
    """SOFT-2: interpolate, then restore the magnitude that interpolation loses."""
    t = nmask ** (sigma**soft.schedule_bias * soft.preservation_strength)
    mixed = a * (1 - t) + b * t
    t0 = t[..., :1, :, :].to(torch.float64)
    detail = soft.transition_contrast_boost
    norms = (torch.linalg.vector_norm(each, dim=-3, keepdim=True).to(torch.float64) for each in (a, b, mixed))
    of_a, of_b, of_mixed = norms
    desired = (of_a**detail * (1 - t0) + of_b**detail * t0) ** (1 / detail)
    result: Tensor = mixed * (desired / (of_mixed + 1e-5)).to(mixed.dtype)
    return result
