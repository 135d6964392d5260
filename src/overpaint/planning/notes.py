"""What a plan writes into the infotext, in the order of INFO-6, and what it warns of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

from overpaint.hints import listed
from overpaint.models.families import ModelSpec
from overpaint.planning.canvas import Canvases
from overpaint.planning.plans import ImagePlan
from overpaint.planning.sampler_plan import CHURN, ETA, SamplerPlan
from overpaint.request import MASK_FIELDS, PaintRequest, decided
from overpaint.settings import Quirks, Settings, inert_options
from overpaint.text.control_notes import control_notes
from overpaint.text.prompt import schedule, take_network_tags, uses_emphasis


def early_notes(request: PaintRequest, settings: Settings, prepared: Canvases) -> dict[str, object]:
    """Those of the sources."""
    notes: dict[str, object] = {}
    if request.soft_inpainting is not None and request.mask is not None:
        notes.update(_soft_notes(request))
    notes.update(control_notes(request.controls, request.resize_mode.value))
    if request.has_source:
        notes["Denoising strength"] = request.strength
    if request.strength_map is not None:
        notes["Strength map"] = True
    notes.update(prepared.notes)
    if request.has_source and settings.sd_vae_encode_method != "Full":
        notes["VAE Encoder"] = settings.sd_vae_encode_method
    content = request.masked_content.value
    if prepared.mask is not None and content in ("noise", "nothing"):
        notes["Masked content"] = f"latent {content}"
    return notes


def text_notes(request: PaintRequest, settings: Settings, images: tuple[ImagePlan, ...]) -> dict[str, object]:
    """Those that stand between the hashes of LoRAs and of embeddings."""
    if settings.use_old_scheduling and _editing_differs(request, images, settings.quirks):
        return {"Old prompt editing timelines": True}
    return {}


def _soft_notes(request: PaintRequest) -> dict[str, object]:
    """SOFT-1."""
    assert request.soft_inpainting is not None
    names = type(request.soft_inpainting).__dataclass_fields__
    values = {f"Soft inpainting {name.replace('_', ' ')}": getattr(request.soft_inpainting, name) for name in names}
    return {"Soft inpainting enabled": True, **values}


def _editing_differs(request: PaintRequest, images: tuple[ImagePlan, ...], quirks: Quirks) -> bool:
    """SCHED-5: written only where the old reading of the numbers changes a text."""
    steps = decided(request.steps)
    texts = {text for each in images for text in (each.prompt, each.negative_prompt)}
    return any(
        schedule(text, steps, quirks=quirks) != schedule(text, steps, old_timelines=True, quirks=quirks)
        for text in texts
    )


def sampling_notes(
    request: PaintRequest, settings: Settings, sampler: SamplerPlan, schedule_notes: Mapping[str, object]
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


def warnings_of(
    request: PaintRequest,
    settings: Settings,
    spec: ModelSpec,
    sampler: SamplerPlan,
    images: tuple[ImagePlan, ...],
) -> tuple[str, ...]:
    warnings = [f"{name}: this option changes no picture here" for name in request.overrides if name in inert_options()]
    if request.image_cfg_scale is not None and sampler.image_cfg_scale is None:
        which = "models such as InstructPix2Pix" if spec.sees_pictures else "edit models"
        warnings.append(f"image_cfg_scale: only {which} use it; it was ignored")
    if request.guidance is not None and sampler.guidance is None:
        warnings.append(
            f"guidance: a {spec.title} model is not told how closely to follow a text; give cfg_scale, or leave it out"
        )
    if settings.emphasis == "None" and any(map(uses_emphasis, _stages(images, settings, sampler))):
        warnings.append("emphasis: it is off, so brackets in the prompt are read as text")
    warnings.extend(_unread(spec, settings, sampler, images))
    warnings.extend(_maskless(request))
    if request.strength == 0 and settings.quirks.strength_zero_runs_a_step:
        why = "the reference still runs one step" if sampler.takes_steps else "the autoencoder still runs"
        warnings.append(f"strength: at 0 {why}, so the picture changes a little")
    return tuple(warnings)


def _unread(spec: ModelSpec, settings: Settings, sampler: SamplerPlan, images: tuple[ImagePlan, ...]) -> Iterator[str]:
    """What of the texts counts for nothing with a flow model."""
    if not spec.is_flow:
        return
    if spec.blank_words:
        yield f"text_encoder_files: this {spec.title} model works without T5, which reads long prompts and letters best"
    if sampler.cfg_scale == 1 and any(each.negative_prompt for each in images):
        yield "negative_prompt: it does nothing at cfg_scale 1; give a cfg_scale above 1, or leave it out"
    if spec.has_unet:
        return
    if settings.emphasis != "None" and any(map(uses_emphasis, _stages(images, settings, sampler))):
        yield _weights_unread(spec)


def _weights_unread(spec: ModelSpec) -> str:
    if any(each.as_tokens and each.kind in ("clip", "openclip") for each in spec.texts):
        return f"prompt: of a {spec.title} model's text encoders only the CLIPs know weights; T5 reads it without"
    return f"prompt: a {spec.title} model knows no weights, so what is in brackets counts like the rest"


def _stages(images: tuple[ImagePlan, ...], settings: Settings, sampler: SamplerPlan) -> Iterator[str]:
    """Every text at every stage of its schedule: what is in brackets for prompt editing is not in any of them."""
    old, quirks = settings.use_old_scheduling, settings.quirks
    for text in dict.fromkeys(text for each in images for text in (each.prompt, each.negative_prompt)):
        yield from (each.text for each in schedule(text, sampler.prompt_steps, old_timelines=old, quirks=quirks))


def _maskless(request: PaintRequest) -> Iterator[str]:
    """What was asked of a mask that is not there."""
    if request.mask is not None or request.strength_map is not None or not request.has_source:
        return
    for each in fields(PaintRequest):
        if each.name in MASK_FIELDS and getattr(request, each.name) != each.default:
            yield f"{each.name}: it does nothing without a mask; give one, or leave it out"


def word_warnings(images: Sequence[ImagePlan], words: frozenset[str]) -> tuple[str, ...]:
    """Words that the checkpoint was never shown, where it is known what it was shown."""
    if not words:
        return ()
    texts = (take_network_tags(each.prompt)[0] for each in images)
    found = dict.fromkeys(word.lower() for text in texts for word in _WORD.findall(text) if word not in _MARKS)
    unknown = [each for each in found if each not in words and each not in _LITTLE]
    if not unknown:
        return ()
    known = listed(sorted(each for each in words if len(each) > 3), 12)
    rest = "; `overpaint info overpaint-mini` lists them" if "more" in known else ""
    return (f"prompt: the built-in model does not know {listed(map(repr, unknown))}; it knows {known}{rest}",)


_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_MARKS = ("AND", "BREAK")
_LITTLE = frozenset(
    {"to", "from", "for", "over", "my", "are", "his", "her", "its", "into", "near", "some", "like", "s", "i"}
)
