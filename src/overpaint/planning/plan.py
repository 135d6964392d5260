"""`plan(request, settings, spec) -> Plan`: everything decided before a network is touched. Pure, and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from overpaint.errors import RequestError, SettingError
from overpaint.models.families import SD1_SPEC, ModelSpec
from overpaint.models.usual import as_usual
from overpaint.pixels.resize import find_upscaler
from overpaint.planning.canvas import Canvases, plan_canvases, plan_empty
from overpaint.planning.canvas_pixels import CanvasInputs
from overpaint.planning.hires import plan_controls, plan_hires
from overpaint.planning.images import plan_batches, plan_images
from overpaint.planning.notes import early_notes, sampling_notes, text_notes, warnings_of, word_warnings
from overpaint.planning.plans import ImagePlan, Plan, RefinerPlan, Surroundings
from overpaint.planning.prompt_weights import check_texts
from overpaint.planning.references import plan_references
from overpaint.planning.sampler_plan import plan_sampler
from overpaint.planning.shortcuts import Shortcuts, shortcuts_of
from overpaint.planning.sizes import check_side
from overpaint.planning.strength_levels import ceiling, start_of, strength_levels, with_mask
from overpaint.planning.window import LatentWindow, plan_window
from overpaint.request import PaintRequest, decided
from overpaint.settings import Settings, inert_options

__all__ = ["ImagePlan", "Plan", "Surroundings", "effective_settings", "plan"]

DEFAULT_SWITCH = 0.8


def plan(
    request: PaintRequest,
    settings: Settings | None = None,
    spec: ModelSpec = SD1_SPEC,
    known: Surroundings | None = None,
) -> Plan:
    """Decide everything about a job for a model; `known` is what the request may name beside it."""
    known = known or Surroundings()
    settings = effective_settings(request, settings or Settings())
    request = as_usual(request, spec, settings.max_steps)
    _check(request, settings, spec, known)
    upscaler = find_upscaler(settings.upscaler_for_img2img, settings.quirks, known.upscalers)
    job = CanvasInputs(with_mask(request), settings, upscaler, spec.latent.factor)
    prepared = (plan_canvases if request.has_source else plan_empty)(job, spec.native_size)
    in_force = known.tables_in_force or settings
    check_side(prepared.geometry.latent_size, spec)
    tokens = spec.tokens(prepared.geometry.latent_size)
    sampler, schedule_notes = plan_sampler(request, settings, spec, in_force, start_of(request, settings), tokens)
    images, comments = plan_images(request, settings, known)
    check_texts(images, settings, sampler.prompt_steps)
    less = _left_out(request, settings, spec, prepared)
    first = Plan(
        request=request,
        settings=settings,
        spec=spec,
        geometry=prepared.geometry,
        canvases=prepared.canvases,
        mask=prepared.mask,
        images=images,
        batches=plan_batches(images, request, settings),
        sampler=sampler,
        levels=strength_levels(
            request,
            prepared,
            sampler,
            lambda *of: plan_sampler(of[0], settings, spec, in_force, of[1], tokens)[0],
            settings.quirks,
        ),
        notes=MappingProxyType({**early_notes(request, settings, prepared), **less.notes}),
        text_notes=MappingProxyType(text_notes(request, settings, images)),
        sampling_notes=MappingProxyType(sampling_notes(request, settings, sampler, schedule_notes)),
        comments=prepared.comments + comments,
        warnings=(
            *less.warnings,
            *warnings_of(request, settings, spec, sampler, images),
            *word_warnings(images, known.words),
        ),
        unchanged=_unchanged(request, settings, prepared),
        refiner=_plan_refiner(request, settings, spec, known),
        controls=plan_controls(job, prepared),
        checkpoint=known.checkpoint,
        upscaler=job.upscaler,
        shortcuts=less.shortcuts,
        window=less.window,
        references=plan_references(request, settings, spec),
    )
    return first if request.hires is None else plan_hires(first, request.hires, known)


@dataclass(frozen=True)
class _LeftOut:
    """What a first pass leaves out, and what is said of it and of its canvases."""

    shortcuts: Shortcuts
    window: LatentWindow | None
    notes: Mapping[str, object]
    warnings: tuple[str, ...]


def _left_out(request: PaintRequest, settings: Settings, spec: ModelSpec, prepared: Canvases) -> _LeftOut:
    shortcuts, in_vain = shortcuts_of(request, settings, spec)
    window, unseen = plan_window(request, settings, spec, prepared)
    seen = {} if window is None else {"Inpaint window": settings.inpaint_window}
    return _LeftOut(shortcuts, window, {**shortcuts.notes(), **seen}, (*prepared.warnings, *in_vain, *unseen))


def effective_settings(request: PaintRequest, settings: Settings) -> Settings:
    """The site's options with this job's overrides and the request's own values on top."""
    settings = settings.with_changes({k: v for k, v in request.overrides.items() if k not in inert_options()})
    own = {
        "tiling": request.tiling,
        "img2img_color_correction": request.color_correction,
        "CLIP_stop_at_last_layers": request.clip_skip,
    }
    return settings.with_changes({name: value for name, value in own.items() if value is not None})


def _check(request: PaintRequest, settings: Settings, spec: ModelSpec, known: Surroundings) -> None:
    """What can be refused before anything is decided."""
    _check_offered(settings)
    _check_limits(request, settings)
    if not request.has_source and spec.conditioning == "edit" and not spec.sees_pictures:
        raise RequestError("images", (), "an edit model needs a picture to edit; give one")
    for each in (spec, *(other.spec for other in (known.refiner, known.hires_model) if other is not None)):
        _check_skip(request, settings, each)


_ONLY_OFFERED: Mapping[str, object] = MappingProxyType(
    {
        "face_restoration": False,
    }
)


def _check_offered(settings: Settings) -> None:
    """Options of the reference that would change the picture and are not offered are refused, not ignored."""
    for name, offered in _ONLY_OFFERED.items():
        value = getattr(settings, name)
        if value != offered:
            raise SettingError(name, value, f"this version offers only {offered!r}")


def _check_skip(request: PaintRequest, settings: Settings, spec: ModelSpec) -> None:
    """ENCODE-4: CLIP skip may reach back to what goes into a text encoder's first layer."""
    skip = settings.CLIP_stop_at_last_layers
    skips = (each.layers + 1 for each in spec.texts if each.follows_skip)
    most = min(skips, default=skip) if settings.sdxl_clip_l_skip or not spec.is_sdxl else skip
    if not 1 <= skip <= most:
        remedy = f"give 1 to {most}: a text encoder of this {spec.title} model has {most - 1} layers"
        name = "CLIP_stop_at_last_layers" if request.clip_skip is None else "clip_skip"
        raise RequestError(name, skip, remedy)


def _check_limits(request: PaintRequest, settings: Settings) -> None:
    if decided(request.steps) > settings.max_steps:
        raise RequestError("steps", request.steps, f"give at most {settings.max_steps} (the option max_steps)")
    pictures = [(f"images[{i}]", each) for i, each in enumerate(request.images)]
    masks = {name: getattr(request, name) for name in ("mask", "strength_map")}
    pictures += [(name, each) for name, each in masks.items() if each is not None]
    pictures += [(f"references[{i}]", each) for i, each in enumerate(request.references)]
    pictures += [(f"controls[{i}].image", each.image) for i, each in enumerate(request.controls)]
    pictures += [(f"controls[{i}].mask", each.mask) for i, each in enumerate(request.controls) if each.mask is not None]
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


def _plan_refiner(
    request: PaintRequest, settings: Settings, spec: ModelSpec, known: Surroundings
) -> RefinerPlan | None:
    """REF-1, REF-2."""
    if known.refiner is None:
        return None
    theirs, ours = (each.denoiser.in_channels for each in (known.refiner.spec, spec))
    if theirs != ours or known.refiner.spec.is_flow != spec.is_flow:
        remedy = f"it takes {theirs} channels and the checkpoint {ours}; choose one of the same kind"
        if theirs == ours:
            remedy = "one of the two is a flow model, the other is not; choose one of the same kind"
        raise RequestError("refiner", request.refiner, remedy)
    if spec.is_flow and known.refiner.spec.conditioning != spec.conditioning:
        remedy = f"a {known.refiner.spec.title} model sees something else of the picture than a {spec.title} model"
        raise RequestError("refiner", request.refiner, f"{remedy}; choose one of the same kind")
    at = DEFAULT_SWITCH if request.refiner_switch_at is None else float(request.refiner_switch_at)
    by_steps = settings.refiner_switch_by_sample_steps
    notes: dict[str, object] = {"Refiner switch by sampling steps": True} if by_steps else {}
    if request.hires and settings.hires_fix_refiner_pass != "second pass":
        notes["Hires refiner"] = settings.hires_fix_refiner_pass
    return RefinerPlan(known.refiner, at, by_steps, {**notes, "Refiner": known.refiner.title, "Refiner switch at": at})


def _unchanged(request: PaintRequest, settings: Settings, prepared: Canvases) -> str | None:
    """Why a sane engine returns the source as it is."""
    if prepared.blank_mask:
        return "the mask selects no pixel"
    if request.has_source and ceiling(request) == 0 and not settings.quirks.strength_zero_runs_a_step:
        return "strength 0 changes nothing"
    return None
