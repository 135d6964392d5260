"""How far a picture is led from its negative text towards its own, and which calls go without the negative.

Ho and Salimans (2022), arXiv:2207.12598; the three-way form is of Brooks et al. (2023), arXiv:2211.09800.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from overpaint.models.families import ModelSpec, UNetSpec
from overpaint.planning.sampler_plan import SamplerPlan
from overpaint.settings import Settings


@dataclass(frozen=True)
class Guidance:
    """The scales of one run, and when they do not count."""

    scale: float
    image_scale: float | None  # of the picture an edit model sees; None: guidance has two sides, not three
    quiet_below: float  # a sigma; 0: never (CFG-5)
    calls: int  # of the whole run
    settings: Settings
    keeps_length: bool = False  # each token's prediction is turned, and not lengthened
    patch: int = 1  # cells a side of a token
    alone: bool = False  # the texts lead by themselves: at scale 1 a negative text would count for nothing

    @classmethod
    def of(cls, sampler: SamplerPlan, model: ModelSpec, settings: Settings) -> Guidance:
        is_edit = model.conditioning == "edit"
        asked = sampler.image_cfg_scale
        return cls(
            scale=sampler.cfg_scale,
            image_scale=(asked or 1.0) if is_edit and asked is not None and asked != 1.0 else None,
            quiet_below=0.0 if is_edit else sampler.s_min_uncond,
            calls=sampler.evaluations * sampler.step_multiplier,
            settings=settings,
            keeps_length=model.keeps_length,
            patch=1 if isinstance(model.denoiser, UNetSpec) else model.denoiser.patch,
            alone=is_led_alone(model, sampler),
        )

    def skips_negative(self, sigma: float, call: int) -> bool:
        """Whether a call goes without the negative text (CFG-5)."""
        return self.alone or self._skips_early(call) or self._skips_late(call) or self._skips_quiet(sigma, call)

    def notes(self, sigma: float, call: int) -> dict[str, object]:
        """Infotext fields that only this call brings about (CFG-6)."""
        if self._skips_early(call):
            return {"Skip Early CFG": self.settings.skip_early_cond}
        if self._skips_late(call):
            return {"Skip Late CFG": self.settings.skip_late_cond}
        if not self._skips_quiet(sigma, call):
            return {}
        all_steps = {"NGMS all steps": True} if self.settings.s_min_uncond_all else {}
        return {"NGMS": self.quiet_below, **all_steps}

    def _skips_early(self, call: int) -> bool:
        k = self.settings.skip_early_cond
        return k != 0 and call / self.calls <= k

    def _skips_late(self, call: int) -> bool:
        """Of steps by their number; `s_min_uncond` knows them by their noise instead."""
        k = self.settings.skip_late_cond
        return k != 0 and (self.calls - call) / self.calls <= k

    def _skips_quiet(self, sigma: float, call: int) -> bool:
        """Negative guidance minimum sigma."""
        return sigma < self.quiet_below and (call % 2 == 1 or self.settings.s_min_uncond_all)


def is_led_alone(model: ModelSpec, sampler: SamplerPlan) -> bool:
    """Whether the texts lead by themselves: at scale 1 a negative one would count for nothing.

    NOTE: with Stable Diffusion it is asked about all the same, as the reference does.
    """
    return model.is_flow and sampler.cfg_scale == 1


def guided(uncond: Tensor, positive: Tensor, owners: Sequence[int], weights: Sequence[float], scale: float) -> Tensor:
    """CFG-2: from the negatives (batch, ...) towards the sub-prompts (rows, ...), each by its weight.

    `owners` are the pictures that the sub-prompts belong to.
    """
    result = uncond.clone()
    for row, (owner, weight) in enumerate(zip(owners, weights, strict=True)):
        result[owner] += (positive[row] - uncond[owner]) * (weight * scale)
    return result


def as_long_as(result: Tensor, own: Tensor, share: Tensor, patch: int) -> Tensor:
    """Pictures whose tokens point from the noisy ones, scaled, as far as those without guidance do, and elsewhere.

    What the network predicts is share - D times a factor, so that lengths of these are compared (Qwen-Image's authors;
    see also Lin et al. 2023, arXiv:2305.08891, section 3.4).
    """
    wanted, there = (_token_lengths(share - each, patch) for each in (own, result))
    factor = (wanted / there.clamp(min=_LEAST_LENGTH)).repeat_interleave(patch, -1).repeat_interleave(patch, -2)
    return share - (share - result) * factor[..., : result.shape[-2], : result.shape[-1]]


_LEAST_LENGTH = 1e-12


def _token_lengths(x: Tensor, patch: int) -> Tensor:
    """(b, 1, rows, columns): how long the numbers of a token are together."""
    squares = x.float().square().sum(1, keepdim=True)
    high, wide = (-side % patch for side in x.shape[-2:])
    return F.avg_pool2d(F.pad(squares, (0, wide, 0, high)), patch).mul(patch**2).sqrt()


def guided_three_ways(
    nothing: Tensor, image: Tensor, image_and_text: Tensor, scale: float, image_scale: float
) -> Tensor:
    """CFG-3: equation 3 of Brooks et al., from nothing to the picture, and from there to the text."""
    return nothing + scale * (image_and_text - image) + image_scale * (image - nothing)
