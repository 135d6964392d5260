"""From a plan and its tensors to started runs: the noise, the start, the sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from overpaint.painting.blend import MaskBlend
from overpaint.painting.brownian import BrownianNoise, stacked
from overpaint.painting.denoise import Denoiser
from overpaint.painting.drive import Run
from overpaint.painting.guidance import Guidance
from overpaint.painting.noise import BatchNoise, ImageNoise
from overpaint.painting.regions import RegionWalk, by_regions
from overpaint.painting.texts import ImageCond, TextCond, Texts
from overpaint.planning.plans import Plan
from overpaint.planning.sampler_plan import SamplerPlan
from overpaint.samplers import Churn, Path, Sampler, UniPCOptions, from_all_noise, make, no_steps


@dataclass(frozen=True)
class Streams:
    """Where the randomness of one batch comes from: one stream a picture."""

    seeds: tuple[int, ...]
    subseeds: tuple[int, ...]
    subseed_strength: float


@dataclass(frozen=True)
class BatchTensors:
    """What one batch starts from."""

    init: Tensor  # (batch, 4, h/8, w/8)
    nmask: Tensor | None
    image_conditioning: Tensor | None
    texts: tuple[ImageCond, ...]
    empty_text: TextCond | None = None
    references: tuple[Tensor, ...] = ()  # (batch, channels, any h, any w)

    def only(self, i: int) -> BatchTensors:
        """The same for one picture."""
        image = self.image_conditioning
        return BatchTensors(
            self.init[i : i + 1],
            self.nmask,
            None if image is None else image[i : i + 1],
            self.texts[i : i + 1],
            self.empty_text,
            tuple(each[i : i + 1] for each in self.references),
        )


def start_runs(plan: Plan, tensors: BatchTensors, streams: Streams, found: Tensor | None = None) -> list[Run]:
    """One run for the batch, or one a picture where pictures must not touch each other.

    `found` is noise that was found from the sources, and takes the place of the drawn one.
    """

    def noise(places: Sequence[int]) -> BatchNoise:
        return BatchNoise([_image_noise(plan, streams, i, tensors.init) for i in places])

    everyone = range(len(tensors.texts))
    brownians = _brownians(plan, streams, tensors.init)
    own_steps = plan.sampler.spec.adaptive and not plan.settings.quirks.batch_wide_error_norm
    if not (plan.request.exact or own_steps):
        return [_start(plan, tensors, lambda: noise(everyone), _path(plan, streams, brownians, tensors.init), found)]
    return [
        _start(
            plan,
            tensors.only(i),
            partial(noise, [i]),
            _path(plan, streams, brownians[i : i + 1], tensors.init[i : i + 1]),
            None if found is None else found[i : i + 1],
        )
        for i in everyone
    ]


def final_latents(plan: Plan, tensors: BatchTensors, runs: Sequence[Run]) -> Tensor:
    """The samples of a batch, with the kept part of the source put back (BLEND-3)."""
    latents = torch.cat([run.start if run.latent is None else run.latent for run in runs])
    blend = _blend(plan, tensors)
    return latents if blend is None else blend.final(latents)


def drawn_noise(plan: Plan, tensors: BatchTensors, streams: Streams) -> Tensor:
    """What a batch starts from where nothing was found: (batch, channels, h, w)."""
    return BatchNoise([_image_noise(plan, streams, i, tensors.init) for i in range(len(tensors.texts))]).first()


def _start(
    plan: Plan, tensors: BatchTensors, noise: Callable[[], BatchNoise], path: Path | None, found: Tensor | None
) -> Run:
    def sampler(walked: SamplerPlan) -> Sampler:
        """One that walks so, its noise drawn from the beginning."""
        drawn = noise()
        first = drawn.first() if found is None else found
        start = _noised(plan, walked, tensors.init, first * walked.noise_multiplier)
        return _sampler(plan, walked, start, drawn, path)

    denoiser = Denoiser(
        sampler=plan.sampler,
        guidance=Guidance.of(plan.sampler, plan.spec, plan.settings),
        texts=Texts(tensors.texts, plan.settings, tensors.empty_text),
        blend=_blend(plan, tensors),
        image_conditioning=tensors.image_conditioning,
        shortcuts=plan.shortcuts,
        references=tensors.references,
    )
    started = sampler(plan.sampler) if not plan.levels else _by_levels(plan, tensors.init, noise().first(), sampler)
    return Run(started, denoiser, tensors.init)


def _by_levels(plan: Plan, init: Tensor, noise: Tensor, sampler: Callable[[SamplerPlan], Sampler]) -> Sampler:
    """The walks of a strength map as one."""
    own, meaning = plan.sampler, plan.sampler.parameterization
    noise = noise * own.noise_multiplier
    cells = [torch.from_numpy(each.cells).to(init.device) for each in plan.levels]
    walks = [RegionWalk(sampler(each.sampler), where) for each, where in zip(plan.levels, cells, strict=True)]
    return by_regions(walks, init, lambda level: meaning.noised(init, noise, level), meaning)


def _sampler(plan: Plan, sampler: SamplerPlan, x: Tensor, noise: BatchNoise, path: Path | None) -> Sampler:
    settings = plan.settings
    if not sampler.takes_steps:
        return no_steps(sampler.spec, x, quirks=settings.quirks)
    going = partial(
        make,
        sampler.spec,
        noise=noise.next,
        path=path,
        eta=sampler.eta,
        churn=Churn(sampler.s_churn, sampler.s_tmin, sampler.s_tmax, sampler.s_noise),
        alphas_cumprod=sampler.table.alphas_cumprod,
        unipc_options=UniPCOptions(
            settings.uni_pc_variant,
            settings.uni_pc_skip_type,
            settings.uni_pc_order,
            settings.uni_pc_lower_order_final,
        ),
        from_noise=sampler.from_noise,
        quirks=settings.quirks,
    )
    if sampler.used and sampler.parameterization.is_all_noise(sampler.used[0]):
        return from_all_noise(x, sampler.used, going)
    return going(x, sampler.used)


def _blend(plan: Plan, tensors: BatchTensors) -> MaskBlend | None:
    if tensors.nmask is None:
        return None
    return MaskBlend(tensors.init, tensors.nmask, plan.request.soft_inpainting)


def _noised(plan: Plan, sampler: SamplerPlan, init: Tensor, noise: Tensor) -> Tensor:
    """Where a walk starts: the source, noised to its first level (STEP-4 to STEP-6), or noise alone."""
    if sampler.from_noise:
        return noise * sampler.start
    extra = plan.settings.img2img_extra_noise
    if not sampler.takes_steps:
        return init + noise * extra if extra > 0 else init
    return sampler.parameterization.noised(init, noise, sampler.start, extra)


def _image_noise(plan: Plan, streams: Streams, i: int, like: Tensor) -> ImageNoise:
    return ImageNoise(
        streams.seeds[i],
        (like.shape[1], like.shape[2], like.shape[3]),
        source=plan.settings.randn_source,
        subseed=streams.subseeds[i] if i < len(streams.subseeds) else 0,
        subseed_strength=streams.subseed_strength,
        seed_resize=plan.request.seed_resize,
        factor=plan.spec.latent.factor,
        ensd=plan.settings.eta_noise_seed_delta,
        device=like.device,
        quirks=plan.settings.quirks,
    )


def _brownians(plan: Plan, streams: Streams, like: Tensor) -> list[BrownianNoise]:
    """BRN-1: one tree a picture, over the full schedule."""
    if not _is_brownian(plan) or _shares_tree(plan):
        return []
    ends = _ends(plan.sampler.schedule)
    source, shape = plan.settings.randn_source, tuple(like.shape[1:])
    return [BrownianNoise(seed, *ends, shape, source=source, device=like.device) for seed in streams.seeds]


def _is_brownian(plan: Plan) -> bool:
    return plan.sampler.spec.brownian and plan.sampler.takes_steps


def _shares_tree(plan: Plan) -> bool:
    """DRAW-1: an option of the reference draws one tree for the whole batch."""
    return plan.settings.no_dpmpp_sde_batch_determinism and plan.settings.quirks.unseeded_batch_brownian


def _path(plan: Plan, streams: Streams, brownians: Sequence[BrownianNoise], like: Tensor) -> Path | None:
    if brownians:
        return stacked(brownians)
    if not _is_brownian(plan):
        return None
    # The reference asks torch's global stream, which the batch's last seed was just given to (NZ-9).
    stream = torch.Generator().manual_seed(streams.seeds[-1])
    entropy = int(torch.randint(0, 2**63 - 1, [], generator=stream))
    ends, source = _ends(plan.sampler.used), plan.settings.randn_source
    return BrownianNoise(entropy, *ends, tuple(like.shape), source=source, device=like.device)


def _ends(sigmas: Iterable[float]) -> tuple[float, float]:
    positive = [float(each) for each in sigmas if each > 0]
    return min(positive), max(positive)
