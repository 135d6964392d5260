"""What a plan writes into the infotext, in the order of INFO-6, and what it warns of."""

from __future__ import annotations

import math
from collections.abc import Mapping

from overpaint.models.families import ModelSpec
from overpaint.planning.canvas import Canvases
from overpaint.planning.plans import ImagePlan
from overpaint.planning.sampler_plan import CHURN, ETA, SamplerPlan
from overpaint.request import Img2ImgRequest
from overpaint.settings import Quirks, Settings, inert_options
from overpaint.text.prompt import schedule, uses_emphasis


def early_notes(request: Img2ImgRequest, settings: Settings, prepared: Canvases) -> dict[str, object]:
    """Those of the sources."""
    notes: dict[str, object] = {}
    if request.soft_inpainting is not None and request.mask is not None:
        notes.update(_soft_notes(request))
    if not request.starts_from_noise:
        notes["Denoising strength"] = request.strength
    notes.update(prepared.notes)
    if not request.starts_from_noise and settings.sd_vae_encode_method != "Full":
        notes["VAE Encoder"] = settings.sd_vae_encode_method
    content = request.masked_content.value
    if prepared.mask is not None and content in ("noise", "nothing"):
        notes["Masked content"] = f"latent {content}"
    return notes


def text_notes(request: Img2ImgRequest, settings: Settings, images: tuple[ImagePlan, ...]) -> dict[str, object]:
    """Those that stand between the hashes of LoRAs and of embeddings."""
    if settings.use_old_scheduling and _editing_differs(request, images, settings.quirks):
        return {"Old prompt editing timelines": True}
    return {}


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


def sampling_notes(
    request: Img2ImgRequest, settings: Settings, sampler: SamplerPlan, schedule_notes: Mapping[str, object]
) -> dict[str, object]:
    """Those of the sampling itself."""
    notes: dict[str, object] = {}
    if settings.use_downcasted_alpha_bar:
        notes["Downcast alphas_cumprod"] = True
    if settings.sd_noise_schedule != "Default":
        notes["Noise Schedule"] = settings.sd_noise_schedule
    if sampler.noise_multiplier != 1.0:
        notes["Noise multiplier"] = sampler.noise_multiplier
    notes.update(schedule_notes)
    if settings.img2img_extra_noise > 0 and not sampler.from_noise:
        notes["Extra noise"] = settings.img2img_extra_noise
    default, key = ETA[sampler.spec.eta_option]
    if sampler.spec.takes_eta and sampler.eta != default:
        notes[key] = sampler.eta
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


def warnings_of(request: Img2ImgRequest, settings: Settings, spec: ModelSpec, sampler: SamplerPlan) -> tuple[str, ...]:
    warnings = [f"{name}: this option changes no picture here" for name in request.overrides if name in inert_options()]
    if request.image_cfg_scale is not None and sampler.image_cfg_scale is None:
        warnings.append("image_cfg_scale: only edit models use it; it was ignored")
    if settings.emphasis == "None" and any(uses_emphasis(text) for text in _texts(request)):
        warnings.append("emphasis: it is off, so brackets in the prompt are read as text")
    if request.strength == 0 and settings.quirks.strength_zero_runs_a_step:
        warnings.append("strength: at 0 the reference still runs one step, so the picture changes a little")
    return tuple(warnings)


def _texts(request: Img2ImgRequest) -> tuple[str, ...]:
    both = (request.prompt, request.negative_prompt)
    return tuple(text for each in both for text in ((each,) if isinstance(each, str) else each))
