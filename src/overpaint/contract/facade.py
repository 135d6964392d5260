"""What all jobs of the contract's door share: the frozen request's common fields, the stages, what is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from overpaint.contract.fields import StableDiffusionProcessing
from overpaint.contract.options import FOLDERS
from overpaint.engine import Engine, stages_of
from overpaint.errors import PaintingCancelled
from overpaint.events import Event, Preview, Progress
from overpaint.outcome import ModelIdentity
from overpaint.painting.latents import Prepared, batch_latents
from overpaint.painting.sampling import BatchTensors, Streams
from overpaint.painting.stages import Sampled
from overpaint.painting.texts import ImageCond, ScheduledCond
from overpaint.planning.plans import ImagePlan, Plan
from overpaint.request import PaintRequest
from overpaint.settings import Settings

Positive = tuple[tuple[tuple[ScheduledCond, float], ...], ...]
Negative = tuple[ScheduledCond, ...]
NO_CONDITIONING_CHANNELS = 5  # COND-1: what the reference publishes for models that see no picture


@dataclass(repr=False)
class Facade(StableDiffusionProcessing):
    """A job whose stages are the engine's. After `init`, the tensors of the contract lie on it."""

    init_latent: Tensor | None = field(default=None, init=False)
    nmask: Tensor | None = field(default=None, init=False)
    image_conditioning: Tensor | None = field(default=None, init=False)
    paste_to: tuple[int, int, int, int] | None = field(default=None, init=False)
    color_corrections: list[Any] | None = field(default=None, init=False)

    all_prompts: list[str] = field(default_factory=list, init=False)
    all_negative_prompts: list[str] = field(default_factory=list, init=False)
    all_seeds: list[int] = field(default_factory=list, init=False)
    all_subseeds: list[int] = field(default_factory=list, init=False)
    prompts: list[str] = field(default_factory=list, init=False)
    negative_prompts: list[str] = field(default_factory=list, init=False)
    seeds: list[int] = field(default_factory=list, init=False)
    subseeds: list[int] = field(default_factory=list, init=False)
    iteration: int = field(default=0, init=False)
    plan: Plan | None = field(default=None, init=False)
    model: ModelIdentity = field(default_factory=ModelIdentity, init=False)
    prepared: Prepared | None = field(default=None, init=False)
    sampled: Sampled | None = field(default=None, init=False)
    _published: tuple[Tensor | None, ...] = field(default=(None, None, None), init=False)

    def __post_init__(self) -> None:
        self.styles = list(self.styles or [])
        self.override_settings = dict(self.override_settings or {})
        self.extra_generation_params = dict(self.extra_generation_params or {})
        if self.sd_model is None:
            self.sd_model = shared_state().sd_model

    # -- what was asked ------------------------------------------------------------------------------------------

    def request(self) -> PaintRequest:
        """The same job as a frozen request."""
        raise NotImplementedError

    def settings(self) -> Settings:
        """The options in force; overrides come with the request. An engine of the caller's own keeps its folders."""
        shared = shared_state()
        folders = dict(shared.cmd_opts.given())
        engine = self.sd_model
        if isinstance(engine, Engine) and not shared.engines.has_made(engine):
            folders |= {name: value for name in FOLDERS if (value := getattr(engine.settings, name))}
        snapshot: Settings = shared.opts.snapshot().with_changes(folders)
        return snapshot

    # -- the contract's stages -----------------------------------------------------------------------------------

    def init(self, all_prompts: Sequence[str], all_seeds: Sequence[int], all_subseeds: Sequence[int]) -> None:
        """Prepare: sources encoded, masks made, everything published."""
        engine = self.engine()
        if self.prepared is not None or self.plan is None:  # called by hand, perhaps after a change
            request = self.request().with_changes(
                prompt=tuple(all_prompts), seed=tuple(all_seeds), variation_seed=tuple(all_subseeds), styles=()
            )
            self.adopt(engine.plan(request, self.settings()))
        plan = self.plan
        assert plan is not None
        self.prepared = prepared = stages_of(engine).prepare(plan)
        self.init_latent, self.nmask = batch_latents(plan, prepared, plan.batches[0]), prepared.nmask
        self.model = stages_of(engine).identity(plan)
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
        engine, plan, prepared = self.engine(), self.plan, self.prepared
        if plan is None or prepared is None:
            raise RuntimeError("sample: call init first")
        texts = tuple(ImageCond(*each) for each in zip(conditioning, unconditional_conditioning, strict=True))
        tensors = self._changed(stages_of(engine).tensors(plan, prepared, plan.batches[self.iteration], texts))
        streams = Streams(tuple(seeds), tuple(subseeds), subseed_strength)
        state = shared_state().state
        story = stages_of(engine).sample_passes(plan, tensors, streams, control=state, number=self.iteration)
        self.sampled = sampled = _drain(story, state)
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
        self.prepared = self.init_latent = self.nmask = self.image_conditioning = None

    def engine(self) -> Engine:
        if not isinstance(self.sd_model, Engine):
            remedy = "give an overpaint.Engine, or leave it out for shared.sd_model"
            raise TypeError(f"sd_model={self.sd_model!r}: {remedy}")
        return self.sd_model

    def begin_batch(self, number: int, batch: Sequence[ImagePlan]) -> None:
        self.iteration = number
        self.prompts = [each.prompt for each in batch]
        self.negative_prompts = [each.negative_prompt for each in batch]
        self.seeds = [each.seed for each in batch]
        self.subseeds = [each.subseed for each in batch]

    def adopt(self, plan: Plan) -> None:
        """Publish what the plan decided; infotext fields of the caller's own come first."""
        plan = replace(plan, notes={**(self.extra_generation_params or {}), **plan.notes})
        self.plan, self.prepared = plan, None
        self.all_prompts = [each.prompt for each in plan.images]
        self.all_negative_prompts = [each.negative_prompt for each in plan.images]
        self.all_seeds = [each.seed for each in plan.images]
        self.all_subseeds = [each.subseed for each in plan.images]
        self.batch_size = max((len(each) for each in plan.batches), default=self.batch_size)
        self.extra_generation_params = dict(plan.notes)


def _drain(events: Any, state: Any) -> Sampled:
    """Run a sampling generator to its end, showing on `state` where it stands."""
    while True:
        try:
            event: Event = next(events)
        except StopIteration as end:
            sampled: Sampled | None = end.value
            if sampled is None:
                raise PaintingCancelled("the job was cancelled") from None
            return sampled
        if isinstance(event, Progress):
            state.sampling_step = event.step - event.batch * state.sampling_steps
        elif isinstance(event, Preview):
            state.current_image = event.image


def shared_state() -> Any:
    """`modules.shared`, where the options in force and the running job's state lie."""
    from modules import shared

    return shared
