"""The contract's door: `StableDiffusionProcessingImg2Img`, `process_images`, `Processed`.

A facade: `request()` gives the frozen request, and every stage is the engine's. What the contract publishes on `p`
(`init_latent`, `nmask`, `mask`, ...) is written here and read by nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image
from torch import Tensor

from overpaint.contract import StableDiffusionProcessing
from overpaint.denoise import ImageCond, ScheduledCond
from overpaint.engine import Engine, Sampled, explained
from overpaint.errors import Cancelled, OverpaintError, RequestError, SaveError
from overpaint.events import Event, Preview, Progress
from overpaint.latents import Prepared, batch_latents
from overpaint.outcome import FinishedBatch, Processed, account
from overpaint.output import save_batch, save_grid, save_sources
from overpaint.pixels.composite import make_overlay
from overpaint.planning import ImagePlan, Plan
from overpaint.request import Img2ImgRequest, MaskedContent, Picture, ResizeMode, SoftInpainting
from overpaint.sampling import BatchTensors, Streams
from overpaint.seeds import fix_seed
from overpaint.settings import OPTION_NAMES, Settings

__all__ = [
    "Processed",
    "StableDiffusionProcessing",
    "StableDiffusionProcessingImg2Img",
    "process_images",
]

Positive = tuple[tuple[tuple[ScheduledCond, float], ...], ...]
Negative = tuple[ScheduledCond, ...]
NO_CONDITIONING_CHANNELS = 5  # COND-1: what the reference publishes for models that see no picture


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """An img2img job. After `init`, the tensors of the contract lie on it."""

    init_images: list[Any] | None = None
    resize_mode: int = 0
    denoising_strength: float = 0.75
    image_cfg_scale: float | None = None
    mask: Any = None
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_blur: int | None = None  # a property, below the class: reads None when x and y differ (REQ-3)
    mask_round: bool = True
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0
    initial_noise_multiplier: float | None = None
    latent_mask: Image.Image | None = None
    force_task_id: str | None = None

    image_mask: Any = field(default=None, init=False)
    init_latent: Tensor | None = field(default=None, init=False)
    nmask: Tensor | None = field(default=None, init=False)
    image_conditioning: Tensor | None = field(default=None, init=False)
    mask_for_overlay: Any = field(default=None, init=False)
    paste_to: tuple[int, int, int, int] | None = field(default=None, init=False)
    color_corrections: list[Any] | None = field(default=None, init=False)  # may be preset: the colours to come out with

    all_prompts: list[str] = field(default_factory=list, init=False)
    all_negative_prompts: list[str] = field(default_factory=list, init=False)
    all_seeds: list[int] = field(default_factory=list, init=False)
    all_subseeds: list[int] = field(default_factory=list, init=False)
    prompts: list[str] = field(default_factory=list, init=False)
    negative_prompts: list[str] = field(default_factory=list, init=False)
    seeds: list[int] = field(default_factory=list, init=False)
    subseeds: list[int] = field(default_factory=list, init=False)
    iteration: int = field(default=0, init=False)
    _plan: Plan | None = field(default=None, init=False)
    _prepared: Prepared | None = field(default=None, init=False)
    _sampled: Sampled | None = field(default=None, init=False)
    _published: tuple[Tensor | None, ...] = field(default=(None, None, None), init=False)

    def __post_init__(self) -> None:
        self.image_mask, self.mask = self.mask, None
        if self.initial_noise_multiplier is None:
            self.initial_noise_multiplier = _shared().opts.initial_noise_multiplier
        self.styles = list(self.styles or [])
        self.override_settings = dict(self.override_settings or {})
        self.extra_generation_params = dict(self.extra_generation_params or {})
        if self.sd_model is None:
            self.sd_model = _shared().sd_model

    # -- what was asked ------------------------------------------------------------------------------------------

    def request(self) -> Img2ImgRequest:
        """The same job as a frozen request."""
        _refuse_unoffered(self)
        extras = self.seed_enable_extras
        resize = (int(self.seed_resize_from_w or 0), int(self.seed_resize_from_h or 0))
        return Img2ImgRequest(
            images=tuple(self.init_images or ()),
            prompt=_texts(self.prompt),
            negative_prompt=_texts(self.negative_prompt),
            styles=tuple(self.styles or ()),
            strength=self.denoising_strength,
            width=_whole(self.width),
            height=_whole(self.height),
            resize_mode=_chosen("resize_mode", self.resize_mode, ResizeMode),
            mask=self.image_mask,
            latent_mask=self.latent_mask,
            invert_mask=bool(self.inpainting_mask_invert),
            mask_blur_x=self.mask_blur_x,
            mask_blur_y=self.mask_blur_y,
            round_mask=self.mask_round and not self._soft(),
            only_masked=bool(self.inpaint_full_res),
            padding=_whole(self.inpaint_full_res_padding) or 0,
            masked_content=_chosen("inpainting_fill", self.inpainting_fill, MaskedContent),
            soft_inpainting=self._soft(),
            seed=_seed(self.seed),
            variation_seed=_seed(self.subseed) if extras else -1,
            variation_strength=self.subseed_strength if extras else 0,
            seed_resize=resize if extras and min(resize) > 0 else None,
            batch_size=self.batch_size,
            iterations=self.n_iter,
            sampler=self.sampler_name or "",
            scheduler=self.scheduler or "",
            steps=_whole(self.steps) or 0,
            cfg_scale=self.cfg_scale,
            image_cfg_scale=self.image_cfg_scale,
            eta=self.eta,
            s_churn=self.s_churn,
            s_tmin=self.s_tmin,
            s_tmax=self.s_tmax,
            s_noise=self.s_noise,
            s_min_uncond=self.s_min_uncond,
            noise_multiplier=self.initial_noise_multiplier,
            tiling=self.tiling,
            use_networks=not self.disable_extra_networks,
            overrides=self.override_settings or {},
        )

    def settings(self) -> Settings:
        """The options in force; the job's overrides come with the request."""
        shared = _shared()
        folders = {name: value for name, value in vars(shared.cmd_opts).items() if value and name in OPTION_NAMES}
        snapshot: Settings = shared.opts.snapshot().with_changes(folders)
        return snapshot

    def _soft(self) -> SoftInpainting | None:
        given: Mapping[str, Any] = {}
        for each in (self.alwayson_scripts, self.scripts):
            if isinstance(each, Mapping):
                given = {**given, **{str(title).lower(): args for title, args in each.items()}}
        args = given.get("soft inpainting")
        args = args.get("args") if isinstance(args, Mapping) else args
        if not args or not args[0]:
            return None
        names = tuple(SoftInpainting.__dataclass_fields__)
        return SoftInpainting(**dict(zip(names, args[1:], strict=False)))

    # -- the contract's stages -----------------------------------------------------------------------------------

    def init(self, all_prompts: Sequence[str], all_seeds: Sequence[int], all_subseeds: Sequence[int]) -> None:
        """Prepare: sources encoded, masks made, everything published."""
        engine = self._engine()
        if self._prepared is not None or self._plan is None:  # called by hand, perhaps after a change
            request = self.request().with_changes(
                prompt=tuple(all_prompts), seed=tuple(all_seeds), variation_seed=tuple(all_subseeds), styles=()
            )
            self._adopt(engine.plan(request, self.settings()))
        plan = self._plan
        assert plan is not None
        self._prepared = prepared = engine.prepare(plan)
        self.init_latent, self.nmask = batch_latents(plan, prepared, plan.batches[0]), prepared.nmask
        self.mask = None if self.nmask is None else 1 - self.nmask
        image = prepared.image_conditioning
        shape = (len(self.init_latent), NO_CONDITIONING_CHANNELS, 1, 1)
        self.image_conditioning = self.init_latent.new_zeros(shape) if image is None else image
        self._published = (self.init_latent, self.nmask, self.image_conditioning)

    def sample(
        self,
        conditioning: Positive,
        unconditional_conditioning: Negative,
        seeds: Sequence[int],
        subseeds: Sequence[int],
        subseed_strength: float,
        prompts: Sequence[str],
    ) -> Tensor:
        """Inject the noise and run the loop: the latents of one batch."""
        engine, plan, prepared = self._engine(), self._plan, self._prepared
        if plan is None or prepared is None:
            raise RuntimeError("sample: call init first")
        texts = tuple(ImageCond(*each) for each in zip(conditioning, unconditional_conditioning, strict=True))
        tensors = self._changed(engine.tensors(plan, prepared, plan.batches[self.iteration], texts))
        streams = Streams(tuple(seeds), tuple(subseeds), subseed_strength)
        state = _shared().state
        story = engine.sample_tensors(plan, tensors, streams, control=state, number=self.iteration)
        self._sampled = sampled = _drain(story, state)
        return sampled.latents

    def _changed(self, tensors: BatchTensors) -> BatchTensors:
        """What a subclass or script has put in the place of the published tensors counts."""
        init, nmask, image = self._published
        if self.init_latent is not None and self.init_latent is not init:
            tensors = replace(tensors, init=self.init_latent)
        if self.nmask is not nmask:
            tensors = replace(tensors, nmask=self.nmask)
        if self.image_conditioning is not image:
            tensors = replace(tensors, image_conditioning=self.image_conditioning)
        return tensors

    def close(self) -> None:
        """Let go of the tensors; `contextlib.closing` asks for it."""
        self._prepared = self.init_latent = self.nmask = self.mask = self.image_conditioning = None

    def _engine(self) -> Engine:
        if not isinstance(self.sd_model, Engine):
            remedy = "give an overpaint.Engine, or leave it out for shared.sd_model"
            raise TypeError(f"sd_model={self.sd_model!r}: {remedy}")
        return self.sd_model

    def _adopt(self, plan: Plan) -> None:
        """Publish what the plan decided; infotext fields of the caller's own come first."""
        plan = replace(plan, notes={**(self.extra_generation_params or {}), **plan.notes})
        if self.color_corrections:
            preset = self.color_corrections
            pairs = enumerate(plan.canvases)
            plan = replace(plan, canvases=tuple(replace(each, target=preset[i % len(preset)]) for i, each in pairs))
        self._plan, self._prepared = plan, None
        self.all_prompts = [each.prompt for each in plan.images]
        self.all_negative_prompts = [each.negative_prompt for each in plan.images]
        self.all_seeds = [each.seed for each in plan.images]
        self.all_subseeds = [each.subseed for each in plan.images]
        self.batch_size = max((len(each) for each in plan.batches), default=self.batch_size)
        self.extra_generation_params = dict(plan.notes)
        self.paste_to = plan.mask.paste_to if plan.mask else None
        self.mask_for_overlay = plan.mask.overlay if plan.mask else None
        self.overlay_images = None
        if plan.request.mask is not None:
            places = range(self.batch_size) if plan.mask else ()
            self.overlay_images = [_overlay_of(plan, i) for i in places]
        targets = [plan.canvas_of(i).target for i in range(self.batch_size)]
        self.color_corrections = targets if targets and targets[0] is not None else None

    def _begin_batch(self, number: int, batch: Sequence[ImagePlan]) -> None:
        self.iteration = number
        self.prompts = [each.prompt for each in batch]
        self.negative_prompts = [each.negative_prompt for each in batch]
        self.seeds = [each.seed for each in batch]
        self.subseeds = [each.subseed for each in batch]


def _mask_blur(self: StableDiffusionProcessingImg2Img) -> int | None:
    return self.mask_blur_x if self.mask_blur_x == self.mask_blur_y else None


def _set_mask_blur(self: StableDiffusionProcessingImg2Img, value: object) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        self.mask_blur_x = self.mask_blur_y = value


# Set after @dataclass has read its default: a property in the class body would become the default itself.
StableDiffusionProcessingImg2Img.mask_blur = property(_mask_blur, _set_mask_blur)  # type: ignore[assignment]


def process_images(p: StableDiffusionProcessingImg2Img) -> Processed:
    """Run a job: `init` once, `sample` for every batch, then decode, composite, save and account."""
    engine, state = p._engine(), _shared().state
    state.begin("img2img")
    try:
        p._adopt(engine.plan(p.request(), p.settings()))
        plan = p._plan
        assert plan is not None
        p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
        state.job_count, state.sampling_steps = len(plan.batches), plan.sampler.evaluations
        done: list[FinishedBatch] = []
        for number, batch in enumerate(plan.batches):
            state.take_skip()
            if state.message is not None:
                break
            state.job_no = number
            p._begin_batch(number, batch)
            try:
                done.append(_batch(p, engine, plan, batch))
            except Cancelled:
                break
            except (OverpaintError, RuntimeError, MemoryError) as error:
                told = explained(error)
                told.result = account(plan, engine.model, done, state.job_timestamp) if done else None
                raise told from error.__cause__ if told is error else error
            _save(p, account(plan, engine.model, done, state.job_timestamp), done[-1])
        result = account(plan, engine.model, done, state.job_timestamp)
        _save(p, result)
        p.extra_generation_params = dict(result.extra_generation_params)
        p.color_corrections = None  # JOB-5
        return result
    finally:
        state.end()


def _batch(
    p: StableDiffusionProcessingImg2Img, engine: Engine, plan: Plan, batch: tuple[ImagePlan, ...]
) -> FinishedBatch:
    assert p._prepared is not None
    texts = engine.texts(plan, batch)
    latents = p.sample(
        tuple(each.parts for each in texts),
        tuple(each.negative for each in texts),
        p.seeds,
        p.subseeds,
        plan.request.variation_strength,
        p.prompts,
    )
    made = p._sampled or Sampled(latents, True, plan.sampling_notes)  # a subclass may sample in its own way
    notes = {**engine.conditioner(plan).notes(batch), **made.notes}
    return engine.finish(plan, p._prepared, batch, Sampled(latents, made.complete, notes))


def _save(p: StableDiffusionProcessingImg2Img, result: Processed, done: FinishedBatch | None = None) -> None:
    """Write a batch as soon as it is finished, and in the end the contact sheet; an error carries what was painted."""
    try:
        if done is not None and not p.do_not_save_samples:
            save_batch(result, done, p.outpath_samples)
        if done is None:
            save_sources(result)
        if done is None and not p.do_not_save_grid:
            save_grid(result, p.outpath_grids)
    except SaveError as error:
        error.result = result
        raise


def _overlay_of(plan: Plan, position: int) -> Picture:
    """The kept part as the contract publishes it; the sane compositor itself needs none."""
    canvas = plan.canvas_of(position)
    assert plan.mask is not None
    return canvas.overlay or make_overlay(canvas.base.convert("RGB"), plan.mask.overlay, 0, plan.settings.quirks)


def _drain(events: Any, state: Any) -> Sampled:
    """Run a sampling generator to its end, showing on `state` where it stands."""
    while True:
        try:
            event: Event = next(events)
        except StopIteration as end:
            sampled: Sampled | None = end.value
            if sampled is None:
                raise Cancelled("the job was cancelled") from None
            return sampled
        if isinstance(event, Progress):
            state.sampling_step = event.step - event.batch * state.sampling_steps
        elif isinstance(event, Preview):
            state.current_image = event.image


def _refuse_unoffered(p: StableDiffusionProcessing) -> None:
    """Fields of the reference that would change the picture and are not offered are refused, not ignored."""
    for name in ("restore_faces", "refiner_checkpoint", "token_merging_ratio"):
        value = getattr(p, name)
        if value:
            raise RequestError(name, value, "this version does not offer it; leave it out")


def _shared() -> Any:
    from modules import shared

    return shared


def _texts(value: Any) -> str | tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else value


def _seed(value: Any) -> int | tuple[int, ...]:
    return fix_seed(value) if not isinstance(value, int) else value


def _whole(value: Any) -> Any:
    """Clients send 512.0 for 512."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _chosen(name: str, number: Any, kind: Any) -> Any:
    """The reference counts these choices from 0."""
    options = list(kind)
    if isinstance(number, kind):
        return number
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(options):
        names = ", ".join(f"{i} {each.value}" for i, each in enumerate(options))
        raise RequestError(name, number, f"choose one of {names}")
    return options[number]
