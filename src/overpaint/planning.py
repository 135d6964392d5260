"""`plan(request, settings, spec) -> Plan`: everything decided before a network is touched. Pure, and without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from overpaint.canvas import Canvas, Canvases, Geometry, MaskPlan, plan_canvases
from overpaint.errors import RequestError, SettingError
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.prompt import schedule, strip_comments, take_network_tags, uses_emphasis
from overpaint.request import Img2ImgRequest
from overpaint.sampler_plan import CHURN, SamplerPlan, plan_sampler
from overpaint.seeds import fix_seed, spread_seeds
from overpaint.settings import Quirks, Settings, inert_options
from overpaint.styles import Style, apply_styles, find_styles


@dataclass(frozen=True)
class ImagePlan:
    """One picture of the job: its texts (as the infotext shows them) and its seeds."""

    index: int
    prompt: str
    negative_prompt: str
    seed: int
    subseed: int


@dataclass(frozen=True)
class Plan:
    """A job, decided."""

    request: Img2ImgRequest
    settings: Settings
    spec: ModelSpec
    geometry: Geometry
    canvases: tuple[Canvas, ...]
    mask: MaskPlan | None
    images: tuple[ImagePlan, ...]
    batches: tuple[tuple[ImagePlan, ...], ...]
    sampler: SamplerPlan
    notes: Mapping[str, object] = field(default_factory=dict)  # infotext extras known before sampling, in order
    sampling_notes: Mapping[str, object] = field(default_factory=dict)  # those that come after the text encoder's
    comments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unchanged: str | None = None  # why nothing needs to be painted at all

    def canvas_of(self, position: int) -> Canvas:
        """The canvas of a position within a batch: one source serves all, several serve in order."""
        return self.canvases[position % len(self.canvases)]


def plan(
    request: Img2ImgRequest,
    settings: Settings | None = None,
    spec: ModelSpec = SD1_SPEC,
    *,
    styles: tuple[Style, ...] = (),
    tables_in_force: Settings | None = None,
) -> Plan:
    """Decide everything about a job. `tables_in_force` are the settings of the job before (SIG-11)."""
    settings = effective_settings(request, settings or Settings())
    _check_offered(settings)
    _check_limits(request, settings)
    prepared = plan_canvases(request, settings, spec.native_size)
    sampler, schedule_notes = plan_sampler(request, settings, spec, tables_in_force or settings)
    images = _plan_images(request, settings, styles)
    return Plan(
        request=request,
        settings=settings,
        spec=spec,
        geometry=prepared.geometry,
        canvases=prepared.canvases,
        mask=prepared.mask,
        images=images,
        batches=_batches(images, request, settings),
        sampler=sampler,
        notes=MappingProxyType(_early_notes(request, settings, prepared, images)),
        sampling_notes=MappingProxyType(_sampling_notes(request, settings, sampler, schedule_notes)),
        comments=prepared.comments + _network_comments(request, settings),
        warnings=prepared.warnings + _warnings(request, settings, spec, sampler),
        unchanged=_unchanged(request, settings, prepared),
    )


def effective_settings(request: Img2ImgRequest, settings: Settings) -> Settings:
    """The site's options with this job's overrides and the request's own values on top."""
    settings = settings.with_changes({k: v for k, v in request.overrides.items() if k not in inert_options()})
    own = {
        "tiling": request.tiling,
        "img2img_color_correction": request.color_correction,
        "CLIP_stop_at_last_layers": request.clip_skip,
    }
    return settings.with_changes({name: value for name, value in own.items() if value is not None})


_ONLY_OFFERED: Mapping[str, object] = MappingProxyType(
    {
        "sd_vae_encode_method": "Full",
        "sd_vae_decode_method": "Full",
        "token_merging_ratio": 0.0,
        "token_merging_ratio_img2img": 0.0,
        "face_restoration": False,
    }
)


def _check_offered(settings: Settings) -> None:
    """Options of the reference that would change the picture and are not offered are refused, not ignored."""
    for name, offered in _ONLY_OFFERED.items():
        value = getattr(settings, name)
        if value != offered:
            raise SettingError(name, value, f"this version offers only {offered!r}")


def _check_limits(request: Img2ImgRequest, settings: Settings) -> None:
    if request.steps > settings.max_steps:
        raise RequestError("steps", request.steps, f"give at most {settings.max_steps} (the option max_steps)")
    pictures = [(f"images[{i}]", each) for i, each in enumerate(request.images)]
    pictures += [("mask", each) for each in (request.mask,) if each is not None]
    for name, picture in pictures:
        if picture.width * picture.height > settings.max_source_pixels:
            remedy = f"give one of at most {settings.max_source_pixels} pixels (the option max_source_pixels)"
            raise RequestError(name, f"{picture.width}x{picture.height}", remedy)
    images = request.batch_size * request.iterations
    if images > settings.max_images:
        remedy = f"ask for at most {settings.max_images} pictures in one job (the option max_images)"
        raise RequestError("batch_size x iterations", images, remedy)
    for name in ("prompt", "negative_prompt"):
        value = getattr(request, name)
        longest = max((len(each) for each in ((value,) if isinstance(value, str) else value)), default=0)
        if longest > settings.max_prompt_chars:
            remedy = f"give at most {settings.max_prompt_chars} characters (the option max_prompt_chars)"
            raise RequestError(name, f"{longest} characters", remedy)


def _plan_images(request: Img2ImgRequest, settings: Settings, styles: tuple[Style, ...]) -> tuple[ImagePlan, ...]:
    """Prompt lists (JOB-3), styles, comments and seeds (SEED-1 to SEED-4) for every picture of the job."""
    prompts, negatives = _prompt_lists(request, settings)
    chosen = _chosen_styles(request, styles, settings)
    prompts = [apply_styles(each, [style.prompt for style in chosen]) for each in prompts]
    negatives = [apply_styles(each, [style.negative_prompt for style in chosen]) for each in negatives]
    if settings.enable_prompt_comments:
        prompts = [strip_comments(each) for each in prompts]
        negatives = [strip_comments(each) for each in negatives]
    seeds = _seeds("seed", request.seed, len(prompts), constant=request.variation_strength != 0)
    subseeds = _seeds("variation_seed", request.variation_seed, len(prompts))
    together = zip(prompts, negatives, seeds, subseeds, strict=True)
    return tuple(ImagePlan(i, *each) for i, each in enumerate(together))


def _seeds(name: str, given: int | tuple[int, ...], count: int, *, constant: bool = False) -> tuple[int, ...]:
    seeds = spread_seeds(fix_seed(given), count, constant=constant)
    if len(seeds) < count:
        raise RequestError(name, given, f"give {count} seeds, one a picture, or a single one to count from")
    return seeds[:count]


def _prompt_lists(request: Img2ImgRequest, settings: Settings) -> tuple[list[str], list[str]]:
    wanted = request.batch_size * request.iterations
    given = [each for each in (request.prompt, request.negative_prompt) if isinstance(each, tuple)]
    count = len(given[0]) if given else wanted
    if count != wanted and not settings.quirks.short_prompt_lists:
        name = "prompt" if isinstance(request.prompt, tuple) else "negative_prompt"
        raise RequestError(name, f"{count} texts", f"give {wanted}, one for each of batch_size x iterations pictures")
    both = (request.prompt, request.negative_prompt)
    prompts, negatives = (list(each) if isinstance(each, tuple) else [each] * count for each in both)
    return prompts, negatives


def _chosen_styles(request: Img2ImgRequest, styles: tuple[Style, ...], settings: Settings) -> tuple[Style, ...]:
    """STY-2: the reference takes an unknown name for an empty style."""
    unknown = [name for name in request.styles if name not in {each.name for each in styles}]
    if unknown and not settings.quirks.unknown_names_fall_back:
        known = ", ".join(each.name for each in styles) or "none; set the option styles_file"
        raise RequestError("styles", unknown[0], f"there is no such style; known: {known}")
    return find_styles(request.styles, styles)


def _batches(
    images: tuple[ImagePlan, ...], request: Img2ImgRequest, settings: Settings
) -> tuple[tuple[ImagePlan, ...], ...]:
    """Pictures by iteration (JOB-4.3); a batch with fewer sources than places may shrink (IMG-3)."""
    size = request.batch_size
    if settings.quirks.fewer_images_shrink_batch and 1 < len(request.images) < size:
        size = len(request.images)
    slices = (images[n * size : (n + 1) * size] for n in range(request.iterations))
    return tuple(each for each in slices if each)


def _early_notes(
    request: Img2ImgRequest, settings: Settings, prepared: Canvases, images: tuple[ImagePlan, ...]
) -> dict[str, object]:
    """Infotext extras up to the text encoder's, in the order of INFO-6."""
    notes: dict[str, object] = {}
    if request.soft_inpainting is not None and request.mask is not None:
        notes.update(_soft_notes(request))
    notes["Denoising strength"] = request.strength
    notes.update(prepared.notes)
    content = request.masked_content.value
    if prepared.mask is not None and content in ("noise", "nothing"):
        notes["Masked content"] = f"latent {content}"
    if settings.use_old_scheduling and _editing_differs(request, images, settings.quirks):
        notes["Old prompt editing timelines"] = True
    return notes


def _soft_notes(request: Img2ImgRequest) -> dict[str, object]:
    """SOFT-1."""
    assert request.soft_inpainting is not None
    names = type(request.soft_inpainting).__dataclass_fields__
    values = {f"Soft inpainting {name.replace('_', ' ')}": getattr(request.soft_inpainting, name) for name in names}
    return {"Soft inpainting enabled": True, **values}


def _editing_differs(request: Img2ImgRequest, images: tuple[ImagePlan, ...], quirks: Quirks) -> bool:
    """SCHED-5: written only where the old reading of the numbers changes a text."""
    texts = {text for each in images for text in (each.prompt, each.negative_prompt)}
    return any(
        schedule(text, request.steps, quirks=quirks) != schedule(text, request.steps, old_timelines=True, quirks=quirks)
        for text in texts
    )


def _sampling_notes(
    request: Img2ImgRequest, settings: Settings, sampler: SamplerPlan, schedule_notes: Mapping[str, object]
) -> dict[str, object]:
    """Infotext extras of the sampling itself, in the order of INFO-6."""
    notes: dict[str, object] = {}
    if settings.use_downcasted_alpha_bar:
        notes["Downcast alphas_cumprod"] = True
    if settings.sd_noise_schedule != "Default":
        notes["Noise Schedule"] = settings.sd_noise_schedule
    if sampler.noise_multiplier != 1.0:
        notes["Noise multiplier"] = sampler.noise_multiplier
    notes.update(schedule_notes)
    if settings.img2img_extra_noise > 0:
        notes["Extra noise"] = settings.img2img_extra_noise
    is_timestep = sampler.spec.family == "timestep"
    if sampler.spec.takes_eta and sampler.eta != (0.0 if is_timestep else 1.0):
        notes["Eta DDIM" if is_timestep else "Eta"] = sampler.eta
    notes.update(_churn_notes(settings, sampler))
    return notes


def _churn_notes(settings: Settings, sampler: SamplerPlan) -> dict[str, object]:
    """PAR-3: the reference writes only what an option set; a sane engine writes whatever differs from the default."""
    reached = {"all": tuple(CHURN), "noise": ("s_noise",), "none": ()}[sampler.spec.churn]
    notes: dict[str, object] = {}
    for name in reached:
        default, key = CHURN[name]
        value = getattr(settings if settings.quirks.options_beat_request else sampler, name)
        if value != default and not math.isinf(value):
            notes[key] = value
    return notes


def _warnings(request: Img2ImgRequest, settings: Settings, spec: ModelSpec, sampler: SamplerPlan) -> tuple[str, ...]:
    warnings = [f"{name}: this option changes no picture here" for name in request.overrides if name in inert_options()]
    if request.image_cfg_scale is not None and sampler.image_cfg_scale is None:
        warnings.append("image_cfg_scale: only edit models use it; it was ignored")
    if settings.emphasis == "None" and any(uses_emphasis(text) for text in _texts(request)):
        warnings.append("emphasis: it is off, so brackets in the prompt are read as text")
    if spec.native_size and request.strength == 0 and settings.quirks.strength_zero_runs_a_step:
        warnings.append("strength: at 0 the reference still runs one step, so the picture changes a little")
    return tuple(warnings)


def _network_comments(request: Img2ImgRequest, settings: Settings) -> tuple[str, ...]:
    """XN-7: the reference goes on without a network it does not find, and says so in a comment."""
    prompts = (request.prompt,) if isinstance(request.prompt, str) else request.prompt
    tags = [tag for text in prompts for tag in take_network_tags(text)[1] if tag.name in ("lora", "lyco", "hypernet")]
    if not tags or not request.use_networks:
        return ()
    names = ", ".join(dict.fromkeys(tag.args[0] for tag in tags if tag.args))
    if not settings.quirks.unknown_names_fall_back:
        raise RequestError("prompt", names, "there is no such network; take its <...> tag out of the prompt")
    return (f"Lora not found: {names}",)


def _texts(request: Img2ImgRequest) -> tuple[str, ...]:
    both = (request.prompt, request.negative_prompt)
    return tuple(text for each in both for text in ((each,) if isinstance(each, str) else each))


def _unchanged(request: Img2ImgRequest, settings: Settings, prepared: Canvases) -> str | None:
    """Why a sane engine returns the source as it is."""
    if prepared.blank_mask:
        return "the mask selects no pixel"
    if request.strength == 0 and not settings.quirks.strength_zero_runs_a_step:
        return "strength 0 changes nothing"
    return None
