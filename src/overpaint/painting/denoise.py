"""From a sampler's question to network rows, and from the network's answer to what the sampler is sent.

    Query(x, sigma) -> rows(...) -> [network] -> estimate(...) -> the sampler

Which texts a call sees is said in `texts`, how they are weighed in `guidance`, what is kept of the source in `blend`,
and what the network's numbers mean in `parameterization`; here one follows the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.networks.unet import DeepMap
from overpaint.painting.blend import MaskBlend
from overpaint.painting.guidance import Guidance, as_long_as, guided, guided_three_ways
from overpaint.painting.texts import TextCond, Texts
from overpaint.parameterization import Parameterization
from overpaint.planning.sampler_plan import SamplerPlan
from overpaint.planning.shortcuts import EVERYTHING, Shortcuts, TokenMerging
from overpaint.samplers import Query


@dataclass(frozen=True)
class Row:
    """One line of a network call."""

    x: Tensor  # (channels, h, w), scaled, with any image conditioning appended
    timestep: float
    cond: TextCond
    is_negative: bool = False  # the side that guidance leads away from
    merging: TokenMerging | None = None
    deep: DeepMap | None = None  # what this row keeps from one call for the next ones
    references: tuple[Tensor, ...] = ()  # latents of pictures that are looked at, each (channels, any h, any w)


@dataclass(frozen=True)
class Estimate:
    """What one network call says about a batch: guided, and each side alone."""

    guided: Tensor
    uncond: Tensor
    conditional: Tensor  # the first sub-prompt alone: what an interrupted job shows (INT-2)


@dataclass(frozen=True)
class Denoiser:
    """Everything that turns queries of one run into rows, and rows' outputs into an estimate. Never changes."""

    sampler: SamplerPlan
    guidance: Guidance
    texts: Texts
    blend: MaskBlend | None = None
    image_conditioning: Tensor | None = None  # (batch, k, h, w)
    shortcuts: Shortcuts = EVERYTHING
    references: tuple[Tensor, ...] = ()  # (batch, channels, any h, any w)

    def __post_init__(self) -> None:
        if self.guidance.image_scale is not None and any(len(each.parts) > 1 for each in self.texts.images):
            remedy = "use one text, or image_cfg_scale 1"
            raise SamplingError(f"prompt: an edit model with image_cfg_scale cannot combine texts with AND; {remedy}")

    @property
    def meaning(self) -> Parameterization:
        """What the sampler's and the network's numbers mean."""
        return self.sampler.parameterization

    def rows(self, query: Query, call: int) -> list[Row]:
        """The rows of one call: every sub-prompt of every picture, then the negatives (CFG-1)."""
        time = self.meaning.time(query.sigma)
        inputs = self._question(query) * self.meaning.c_in(query.sigma)

        def row(i: int, cond: TextCond, share: float = 1.0, is_negative: bool = False) -> Row:
            image = self.image_conditioning
            x = inputs[i] if image is None else torch.cat([inputs[i], image[i] * share])
            return Row(
                x,
                time,
                cond,
                is_negative,
                self.shortcuts.merging,
                references=tuple(each[i] for each in self.references),
            )

        rows = [row(i, cond) for i, cond in zip(self.texts.owners, self.texts.positive(call), strict=True)]
        if self.guidance.skips_negative(self.meaning.sigma(query.sigma), call):
            return rows
        negatives = self.texts.negative(call)
        for share in (1.0,) if self.guidance.image_scale is None else (1.0, 0.0):
            rows += [row(i, cond, share, is_negative=True) for i, cond in enumerate(negatives)]
        return rows

    def estimate(self, query: Query, call: int, outputs: Sequence[Tensor]) -> Estimate:
        """What the outputs of these rows tell the sampler, guided and blended (CFG-2, CFG-3, CFG-6)."""
        x, owners, batch = self._question(query), self.texts.owners, len(self.texts.images)

        def replies(part: Sequence[Tensor], x: Tensor) -> Tensor:
            return self.meaning.reply(torch.stack(list(part)), x, query.sigma)

        positive = replies(outputs[: len(owners)], x[owners])
        conditional = positive[[owners.index(i) for i in range(batch)]]
        rest = outputs[len(owners) :]
        if not rest:
            result, uncond = guided(conditional, positive, owners, self.texts.weights, 1.0), conditional
        elif self.guidance.image_scale is not None:
            image, uncond = replies(rest[:batch], x), replies(rest[batch:], x)
            scales = self.guidance.scale, self.guidance.image_scale
            result = guided_three_ways(uncond, image, conditional, *scales)
        else:
            uncond, weights = replies(rest, x), self.texts.weights
            result = guided(uncond, positive, owners, weights, self.guidance.scale)
            if self.guidance.keeps_length:
                own = guided(uncond, positive, owners, weights, 1.0)
                result = as_long_as(result, own, x * self.meaning.c_in(query.sigma), self.guidance.patch)
        blended = result if self.blend is None else self.blend.answer(result, query, self.meaning)
        return Estimate(blended, uncond, conditional)

    def clean(self, query: Query, reply: Tensor) -> Tensor:
        """The picture that a reply to the sampler stands for."""
        return self.meaning.clean(reply, query.x, query.sigma)

    def notes(self, query: Query, call: int) -> dict[str, object]:
        """Infotext fields that only this call brings about (CFG-6, CFG-7)."""
        return {**self.guidance.notes(self.meaning.sigma(query.sigma), call), **self.texts.notes(call)}

    def _question(self, query: Query) -> Tensor:
        return query.x if self.blend is None else self.blend.question(query, self.meaning)
