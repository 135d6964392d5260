"""From a sampler's question to network rows, and from the network's answer to the guided prediction.

    Query(x, sigma) -> rows(...) -> [network] -> estimate(...) -> what the sampler is sent

Letters follow Karras et al. (2022), arXiv:2206.00364: D is the denoised prediction, c_in the input scaling.
Guidance is Ho and Salimans (2022), arXiv:2207.12598; its three-way form Brooks et al. (2023), arXiv:2211.09800.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from overpaint.errors import SamplingError
from overpaint.models.families import ModelSpec
from overpaint.planning.sampler_plan import SamplerPlan
from overpaint.request import SoftInpainting
from overpaint.samplers import Query
from overpaint.schedules import NoiseTable
from overpaint.settings import Quirks, Settings
from overpaint.text.prompt import ScheduleEntry, entry_at

LCM_SIGMA_DATA_SQUARED = 0.25
LCM_TIMESTEP_SCALING = 10.0


@dataclass(frozen=True)
class TextCond:
    """One encoded text: its token vectors, and the pooled vector of families that use one."""

    context: Tensor  # (tokens, width)
    vector: Tensor | None = None  # (adm,)


@dataclass(frozen=True)
class ScheduledCond:
    """A text that changes over the steps, encoded at each of its stages."""

    schedule: tuple[ScheduleEntry, ...]
    stages: tuple[TextCond, ...]

    def at(self, call: int, quirks: Quirks) -> TextCond:
        return self.stages[entry_at(self.schedule, call, quirks)]


@dataclass(frozen=True)
class ImageCond:
    """What one picture is guided by: its sub-prompts with their weights, and its negative."""

    parts: tuple[tuple[ScheduledCond, float], ...]
    negative: ScheduledCond


@dataclass(frozen=True)
class MaskBlend:
    """The kept part of the source, put back at every step (BLEND-1 to BLEND-6)."""

    init: Tensor  # (batch, 4, h/8, w/8)
    nmask: Tensor  # (4, h/8, w/8), 1 = repaint
    soft: SoftInpainting | None = None

    def apply(self, latent: Tensor, sigma: float) -> Tensor:
        if self.soft is not None:
            return soft_blend(self.init, latent, self.nmask, sigma, self.soft)
        return latent * self.nmask + self.init * (1 - self.nmask)

    def final(self, latent: Tensor) -> Tensor:
        """After sampling: the kept part exactly, unless the mask is soft (SOFT-3)."""
        return latent if self.soft is not None else self.apply(latent, 0.0)


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


@dataclass(frozen=True)
class Row:
    """One line of a network call."""

    x: Tensor  # (channels, h/8, w/8), scaled, with any image conditioning appended
    timestep: float
    cond: TextCond
    is_negative: bool = False  # the side that guidance leads away from


@dataclass(frozen=True)
class Estimate:
    """What one network call says about a batch: guided, and each side alone."""

    guided: Tensor
    uncond: Tensor
    conditional: Tensor  # the first sub-prompt alone: what an interrupted job shows (INT-2)


@dataclass(frozen=True)
class Denoiser:
    """Everything that turns queries of one run into rows, and rows' outputs into an estimate. Never changes."""

    plan: SamplerPlan
    spec: ModelSpec
    settings: Settings
    texts: tuple[ImageCond, ...]
    blend: MaskBlend | None = None
    image_conditioning: Tensor | None = None  # (batch, k, h/8, w/8)
    empty_text: TextCond | None = None  # for pad_cond_uncond
    _three_way: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        scale = self.plan.image_cfg_scale
        three_way = self.spec.conditioning == "edit" and scale is not None and scale != 1.0
        if three_way and any(len(each.parts) > 1 for each in self.texts):
            remedy = "use one text, or image_cfg_scale 1"
            raise SamplingError(f"prompt: an edit model with image_cfg_scale cannot combine texts with AND; {remedy}")
        object.__setattr__(self, "_three_way", three_way)

    # -- the question --------------------------------------------------------------------------------------------

    def rows(self, query: Query, call: int) -> list[Row]:
        """The rows of one call: every sub-prompt of every picture, then the negatives (CFG-1)."""
        x = self._blended_input(query)
        timestep = self._timestep(query.sigma)
        inputs = x * self._c_in(query.sigma)
        rows: list[Row] = []
        for i, parts in enumerate(self._positive_conds(call)):
            rows += [Row(self._with_image(inputs[i], i), timestep, cond) for cond, _ in parts]
        if self._skips_negative(query.sigma, call):
            return rows
        negatives = self._negative_conds(call)
        for factor in (1.0, 0.0) if self._three_way else (1.0,):
            rows += [
                Row(self._with_image(inputs[i], i, factor), timestep, cond, is_negative=True)
                for i, cond in enumerate(negatives)
            ]
        return rows

    def notes(self, query: Query, call: int) -> dict[str, object]:
        """Infotext fields that only this call brings about (CFG-6, CFG-7)."""
        notes: dict[str, object] = {}
        if self._skips_early(call):
            notes["Skip Early CFG"] = self.settings.skip_early_cond
        elif self._skips_quiet(query.sigma, call):
            notes["NGMS"] = self.plan.s_min_uncond
            if self.settings.s_min_uncond_all:
                notes["NGMS all steps"] = True
        if self._lengths_differ(call):
            if self.settings.pad_cond_uncond_v0:
                notes["Pad conds v0"] = True
            elif self.settings.pad_cond_uncond:
                notes["Pad conds"] = True
        return notes

    # -- the answer ----------------------------------------------------------------------------------------------

    def estimate(self, query: Query, call: int, outputs: list[Tensor]) -> Estimate:
        """Guide the rows' outputs (CFG-2, CFG-3, CFG-6), in the space the sampler works in, and blend the mask."""
        x = self._blended_input(query)
        batch = len(self.texts)
        weights = [[weight for _, weight in each.parts] for each in self.texts]
        counts = [len(each) for each in weights]
        owners = [i for i, count in enumerate(counts) for _ in range(count)]
        positive = torch.stack(outputs[: len(owners)])
        positive = self._prediction(positive, x[owners], query.sigma)
        starts = [sum(counts[:i]) for i in range(batch)]
        conditional = positive[starts]
        rest = outputs[len(owners) :]
        if rest:
            uncond = self._prediction(torch.stack(rest[-batch:]), x, query.sigma)
            scale = self.plan.cfg_scale
        else:
            uncond, scale = conditional, 1.0
        if self._three_way and rest:
            with_image = self._prediction(torch.stack(rest[:batch]), x, query.sigma)
            image_scale = self.plan.image_cfg_scale or 1.0
            guided = uncond + scale * (conditional - with_image) + image_scale * (with_image - uncond)
        else:
            guided = uncond.clone()
            for row, owner in enumerate(owners):
                weight = weights[owner][row - starts[owner]]
                guided[owner] += (positive[row] - uncond[owner]) * (weight * scale)
        return Estimate(self._blended_output(guided, query), uncond, conditional)

    def clean(self, query: Query, prediction: Tensor) -> Tensor:
        """The picture a prediction stands for: itself in the k family, x0 from eps in the timestep family."""
        if self.plan.spec.family != "timestep":
            return prediction
        a = self._alpha(query.sigma)
        return (query.x - math.sqrt(1 - a) * prediction) / math.sqrt(a)

    # -- scalings ------------------------------------------------------------------------------------------------

    @property
    def _table(self) -> NoiseTable:
        return self.plan.table

    def _alpha(self, timestep: float) -> float:
        """At the whole timestep below; 93.99999999999997 is 94 in the precision that networks are told it in."""
        return float(self._table.alphas_cumprod[int(np.float32(timestep))])

    def _timestep(self, sigma: float) -> float:
        return sigma if self.plan.spec.family == "timestep" else float(self._table.sigma_to_t(sigma))

    def _c_in(self, sigma: float) -> float:
        return 1.0 if self.plan.spec.family == "timestep" else 1 / math.sqrt(sigma**2 + 1)

    def _prediction(self, output: Tensor, x: Tensor, sigma: float) -> Tensor:
        """Network output to denoised (SIG-5, SIG-6, LCM-1) or to eps (SIG-7)."""
        is_v = self.spec.prediction == "v"
        if self.plan.spec.family == "timestep":
            if not is_v:
                return output
            a = self._alpha(sigma)
            return math.sqrt(a) * output + math.sqrt(1 - a) * x
        if self.plan.spec.family == "lcm":
            q = LCM_TIMESTEP_SCALING * self._timestep(sigma)
            c_skip = LCM_SIGMA_DATA_SQUARED / (q**2 + LCM_SIGMA_DATA_SQUARED)
            c_out = q / math.sqrt(q**2 + LCM_SIGMA_DATA_SQUARED)
            return c_out * (x - sigma * output) + c_skip * x
        if is_v:
            return output * (-sigma / math.sqrt(sigma**2 + 1)) + x / (sigma**2 + 1)
        return x - sigma * output

    # -- mask ----------------------------------------------------------------------------------------------------

    def _blended_input(self, query: Query) -> Tensor:
        """BLEND-2: in the timestep family the reference blends the clean source into the noisy input."""
        blends = self.plan.spec.family == "timestep" and self.settings.quirks.timestep_blend_on_input
        if self.blend is None or not blends:
            return query.x
        return self.blend.apply(query.x, self._blend_sigma(query.sigma))

    def _blended_output(self, guided: Tensor, query: Query) -> Tensor:
        if self.blend is None:
            return guided
        if self.plan.spec.family != "timestep":
            return self.blend.apply(guided, query.sigma)
        if self.settings.quirks.timestep_blend_on_input:
            return guided
        a = self._alpha(query.sigma)
        x0 = self.blend.apply(self.clean(query, guided), self._blend_sigma(query.sigma))
        return (query.x - math.sqrt(a) * x0) / math.sqrt(1 - a)

    def _blend_sigma(self, timestep: float) -> float:
        if self.settings.quirks.timestep_is_sigma:
            return timestep
        a = self._alpha(timestep)
        return math.sqrt((1 - a) / a)

    # -- which negative, which text ------------------------------------------------------------------------------

    def _skips_early(self, call: int) -> bool:
        k = self.settings.skip_early_cond
        total = self.plan.evaluations * self.plan.step_multiplier
        return k != 0 and call / total <= k

    def _skips_quiet(self, sigma: float, call: int) -> bool:
        """Negative guidance minimum sigma (CFG-5)."""
        threshold = self.plan.s_min_uncond
        if threshold <= 0 or self.spec.conditioning == "edit":
            return False
        level = self._blend_sigma(sigma) if self.plan.spec.family == "timestep" else sigma
        return level < threshold and (call % 2 == 1 or self.settings.s_min_uncond_all)

    def _skips_negative(self, sigma: float, call: int) -> bool:
        return self._skips_early(call) or self._skips_quiet(sigma, call)

    def _with_image(self, x: Tensor, i: int, factor: float = 1.0) -> Tensor:
        if self.image_conditioning is None:
            return x
        return torch.cat([x, self.image_conditioning[i] * factor])

    def _positive_conds(self, call: int) -> list[list[tuple[TextCond, float]]]:
        quirks = self.settings.quirks
        conds = [[(part.at(call, quirks), weight) for part, weight in each.parts] for each in self.texts]
        if quirks.pad_to_longest_text:
            longest = max(cond.context.shape[0] for parts in conds for cond, _ in parts)
            conds = [[(_repeat_last(cond, longest), weight) for cond, weight in parts] for parts in conds]
        if self.settings.pad_cond_uncond and not self.settings.pad_cond_uncond_v0:
            longest = self._negative_length(call)
            conds = [[(self._pad_empty(cond, longest), weight) for cond, weight in parts] for parts in conds]
        return conds

    def _negative_conds(self, call: int) -> list[TextCond]:
        negatives = [each.negative.at(call, self.settings.quirks) for each in self.texts]
        if self.settings.pad_cond_uncond_v0:
            length = self._positive_length(call)
            return [_repeat_last(each, length) for each in negatives]
        if self.settings.pad_cond_uncond:
            return [self._pad_empty(each, self._positive_length(call)) for each in negatives]
        return negatives

    def _positive_length(self, call: int) -> int:
        quirks = self.settings.quirks
        return max(part.at(call, quirks).context.shape[0] for each in self.texts for part, _ in each.parts)

    def _negative_length(self, call: int) -> int:
        return max(each.negative.at(call, self.settings.quirks).context.shape[0] for each in self.texts)

    def _lengths_differ(self, call: int) -> bool:
        return self._positive_length(call) != self._negative_length(call)

    def _pad_empty(self, cond: TextCond, length: int) -> TextCond:
        """CFG-7: whole copies of the empty prompt's encoding."""
        missing = length - cond.context.shape[0]
        if missing <= 0 or self.empty_text is None:
            return cond
        empty = self.empty_text.context
        copies = empty.repeat(missing // empty.shape[0], 1)
        return TextCond(torch.cat([cond.context, copies]), cond.vector)


def _repeat_last(cond: TextCond, length: int) -> TextCond:
    """Pad with copies of the last vector, or cut, to a length."""
    missing = length - cond.context.shape[0]
    if missing <= 0:
        return TextCond(cond.context[:length], cond.vector)
    return TextCond(torch.cat([cond.context, cond.context[-1:].expand(missing, -1)]), cond.vector)
