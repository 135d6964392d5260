"""The contract's door: the two kinds of job, `process_images`, `Processed`.

A facade: `request()` gives the frozen request, and every stage is the engine's. What the contract publishes on `p`
(`init_latent`, `nmask`, `mask`, ...) is written here and read by nobody else.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from overpaint.contract.facade import Facade, shared_state
from overpaint.contract.fields import StableDiffusionProcessing
from overpaint.contract.processed import Processed
from overpaint.contract.requests import img2img_fields, txt2img_fields
from overpaint.contract.scripts import scripts_of
from overpaint.engine import Engine, stages_of
from overpaint.errors import OverpaintError, PaintingCancelled, RequestError, SaveError
from overpaint.events import Event, Painted
from overpaint.files.output import save_batch, save_grid, save_sources
from overpaint.outcome import FinishedBatch, account
from overpaint.outcome import Processed as Result
from overpaint.painting.stages import Sampled, batches
from overpaint.pixels.composite import make_overlay
from overpaint.planning.canvas_pixels import Canvas
from overpaint.planning.plans import ImagePlan, Plan
from overpaint.request import Img2ImgRequest, Picture, Txt2ImgRequest

__all__ = [
    "Processed",
    "StableDiffusionProcessing",
    "StableDiffusionProcessingImg2Img",
    "StableDiffusionProcessingTxt2Img",
    "process_images",
]


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(Facade):
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
    mask_for_overlay: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.image_mask, self.mask = self.mask, None
        if self.initial_noise_multiplier is None:
            self.initial_noise_multiplier = shared_state().opts.initial_noise_multiplier
        super().__post_init__()

    def request(self) -> Img2ImgRequest:
        """The same job as a frozen request."""
        return Img2ImgRequest(
            images=tuple(self.init_images or ()),
            mask=self.image_mask,
            latent_mask=None if self.image_mask is None else self.latent_mask,
            **img2img_fields(self, scripts_of(self, is_img2img=True), masked=self.image_mask is not None),
        )

    def init(self, all_prompts: Sequence[str], all_seeds: Sequence[int], all_subseeds: Sequence[int]) -> None:
        """Prepare: sources encoded, masks made, everything published."""
        super().init(all_prompts, all_seeds, all_subseeds)
        self.mask = None if self.nmask is None else 1 - self.nmask

    def adopt(self, plan: Plan) -> None:
        """Publish what the plan decided about the sources."""
        if self.color_corrections:  # preset by the caller: the colours to come out with
            preset = self.color_corrections
            pairs = enumerate(plan.canvases)
            plan = replace(
                plan, canvases=tuple(replace(each, given_target=preset[i % len(preset)]) for i, each in pairs)
            )
        super().adopt(plan)
        self.paste_to = plan.mask.paste_to if plan.mask else None
        self.mask_for_overlay = plan.mask.overlay if plan.mask else None
        self.overlay_images = None
        if plan.request.mask is not None:
            places = range(self.batch_size) if plan.mask else ()
            self.overlay_images = [_overlay_of(plan, i) for i in places]
        targets = [plan.canvas_of(i).target for i in range(self.batch_size)]
        self.color_corrections = targets if targets and targets[0] is not None else None

    def close(self) -> None:
        super().close()
        self.mask = None


def _mask_blur(self: StableDiffusionProcessingImg2Img) -> int | None:
    return self.mask_blur_x if self.mask_blur_x == self.mask_blur_y else None


def _set_mask_blur(self: StableDiffusionProcessingImg2Img, value: object) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        self.mask_blur_x = self.mask_blur_y = value


# Set after @dataclass has read its default: a property in the class body would become the default itself.
StableDiffusionProcessingImg2Img.mask_blur = property(_mask_blur, _set_mask_blur)  # type: ignore[assignment]


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(Facade):
    """A txt2img job, with or without a second pass ("hires fix")."""

    enable_hr: bool = False
    denoising_strength: float = 0.75
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: Any = ""
    hr_negative_prompt: Any = ""
    force_task_id: str | None = None

    def request(self) -> Txt2ImgRequest:
        """The same job as a frozen request."""
        scripts_of(self, is_img2img=False)
        if self.firstpass_image is not None:
            remedy = "a second pass of a finished picture is not offered; give it to img2img as init_images"
            raise RequestError("firstpass_image", self.firstpass_image, remedy)
        return Txt2ImgRequest(**txt2img_fields(self))

    def adopt(self, plan: Plan) -> None:
        """The size that counts is the first pass's."""
        super().adopt(plan)
        self.width, self.height = plan.geometry.width, plan.geometry.height


def process_images(p: Facade) -> Processed:
    """Run a job: `init` once, `sample` for every batch, then decode, composite, save and account."""
    engine, state = p.engine(), shared_state().state
    state.begin("img2img" if isinstance(p, StableDiffusionProcessingImg2Img) else "txt2img")
    try:
        p.adopt(engine.plan(p.request(), p.settings()))
        for name, value in _lasting_overrides(p).items():
            shared_state().opts.set(name, value)
        plan = p.plan
        assert plan is not None
        with stages_of(engine).story(plan):
            result = _run(p, engine, plan, state)
        _save(p, result)
        p.extra_generation_params = dict(result.extra_generation_params)
        p.color_corrections = None  # JOB-5
        return Processed.of(result)
    except OverpaintError as error:
        if isinstance(error.result, Result):  # what was painted before it failed
            error.result = Processed.of(error.result)
        raise
    finally:
        state.end()


def _lasting_overrides(p: Facade) -> dict[str, Any]:
    """JOB-1.8: those that are to hold after the job, too."""
    return {} if p.override_settings_restore_afterwards else dict(p.override_settings or {})


def _run(p: Facade, engine: Engine, plan: Plan, state: Any) -> Result:
    p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
    state.job_count, state.sampling_steps = len(plan.batches), plan.sampler.evaluations
    done: list[FinishedBatch] = []

    def told() -> Result:
        return account(plan, p.model, done, state.job_timestamp, stages_of(engine).encodings(plan))

    def paint(number: int, batch: tuple[ImagePlan, ...]) -> Generator[Event, None, FinishedBatch | None]:
        yield from ()  # nothing is told here: `state` is where this door shows progress
        state.job_no = number
        p.begin_batch(number, batch)
        try:
            return _batch(p, engine, plan, batch)
        except PaintingCancelled:
            return None

    for painted in batches(plan, state, done, paint=paint, result=told):
        assert isinstance(painted, Painted)
        _save(p, told(), painted.batch)
    return told()


def _batch(p: Facade, engine: Engine, plan: Plan, batch: tuple[ImagePlan, ...]) -> FinishedBatch:
    assert p.prepared is not None
    conds = stages_of(engine).texts(plan, batch)
    latents = p.sample(
        tuple(each.parts for each in conds),
        tuple(each.negative for each in conds),
        p.seeds,
        p.subseeds,
        plan.request.variation_strength,
        p.prompts,
    )
    made = p.sampled or Sampled(latents, True, plan.sampling_notes)  # a subclass may sample in its own way
    return stages_of(engine).finish(plan, p.prepared, batch, replace(made, latents=latents))


def _save(p: Facade, result: Result, done: FinishedBatch | None = None) -> None:
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
    return canvas.overlay or make_overlay(_seen(canvas), plan.mask.overlay, 0, plan.settings.quirks)


def _seen(canvas: Canvas) -> Picture:
    """What the result is laid on, as it is painted on."""
    return canvas.ground.seen() if canvas.base.size == canvas.ground.size else canvas.base.convert("RGB")
