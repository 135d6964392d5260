"""From a parsed "parameters" text to what it asks for: request fields, and options that differ (PARSE-9, PARSE-10)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from overpaint.parts import Hires, SoftInpainting
from overpaint.request import SOURCE_FIELDS, MaskedContent
from overpaint.settings import OPTION_NAMES, Settings
from overpaint.text.infotext import split_infotext


def number(text: str) -> float:
    """As it was written: "7" stays an integer, so that it is written as "7" again."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def count(text: str) -> int | None:
    return int(text) or None


def name_unless_same(text: str) -> str | None:
    return None if text.startswith("Use same ") else text


_MASKED_CONTENT = {
    "fill": MaskedContent.FILL,
    "original": MaskedContent.ORIGINAL,
    "latent noise": MaskedContent.NOISE,
    "latent nothing": MaskedContent.NOTHING,
}
_Table = tuple[tuple[str, str, Callable[[str], Any]], ...]

# Our field, key of the text, how it is read
REQUEST_KEYS: _Table = (
    ("prompt", "Prompt", str),
    ("negative_prompt", "Negative prompt", str),
    ("steps", "Steps", int),
    ("sampler", "Sampler", str),
    ("scheduler", "Schedule type", str),
    ("cfg_scale", "CFG scale", number),
    ("image_cfg_scale", "Image CFG scale", number),
    ("guidance", "Distilled CFG Scale", number),
    ("seed", "Seed", int),
    ("width", "Size-1", int),
    ("height", "Size-2", int),
    ("strength", "Denoising strength", number),
    ("variation_seed", "Variation seed", int),
    ("variation_strength", "Variation seed strength", number),
    ("mask_blur_x", "Mask blur", int),
    ("mask_blur_y", "Mask blur", int),
    ("invert_mask", "Mask mode", lambda text: text == "Inpaint not masked"),
    ("masked_content", "Masked content", lambda text: _MASKED_CONTENT[text]),
    ("only_masked", "Inpaint area", lambda text: text == "Only masked"),
    ("padding", "Masked area padding", int),
    ("clip_skip", "Clip skip", int),
    ("refiner", "Refiner", str),
    ("refiner_switch_at", "Refiner switch at", number),
)
HIRES_KEYS: _Table = (
    ("scale", "Hires upscale", number),
    ("width", "Hires resize-1", count),
    ("height", "Hires resize-2", count),
    ("upscaler", "Hires upscaler", str),
    ("steps", "Hires steps", count),
    ("strength", "Denoising strength", number),
    ("sampler", "Hires sampler", name_unless_same),
    ("scheduler", "Hires schedule type", name_unless_same),
    ("checkpoint", "Hires checkpoint", name_unless_same),
    ("prompt", "Hires prompt", str),
    ("negative_prompt", "Hires negative prompt", str),
)
_HIRES_MARKS = ("Hires upscale", "Hires upscaler")  # PARSE-6 adds defaults of the others to every text
_SOURCE_MARKS = ("Denoising strength", "Mask blur", "Soft inpainting enabled")
_SOFT_PREFIX = "Soft inpainting "
_SOFT_FIELDS = {name: _SOFT_PREFIX + name.replace("_", " ") for name in SoftInpainting.__dataclass_fields__}


def is_txt2img(parsed: Mapping[str, object]) -> bool:
    """Whether a parsed text is that of a picture without a source: only a second pass has a strength there."""
    return _has_hires(parsed) or not any(key in parsed for key in _SOURCE_MARKS)


def request_fields(parsed: Mapping[str, object]) -> dict[str, Any]:
    """PARSE-10: the request's fields that a parsed text speaks of; a value that is not of its kind is left out.

    They are fields of a `PaintRequest`.
    """
    result = _read(REQUEST_KEYS, parsed)
    if is_txt2img(parsed):
        result = {name: value for name, value in result.items() if name not in SOURCE_FIELDS}
    if _has_hires(parsed):
        result["hires"] = Hires(**_read(HIRES_KEYS, parsed))
    elif parsed.get(f"{_SOFT_PREFIX}enabled") == "True":
        values = {name: _cast_or_none(number, parsed.get(key)) for name, key in _SOFT_FIELDS.items()}
        result["soft_inpainting"] = SoftInpainting(**{k: v for k, v in values.items() if v is not None})
    if isinstance(styles := parsed.get("Styles array"), list | tuple):
        result["styles"] = tuple(styles)
    resize = [_cast_or_none(int, parsed.get(f"Seed resize from-{each}")) for each in (1, 2)]
    if None not in resize:
        result["seed_resize"] = tuple(resize)
    return result


_TOLD_ONLY = frozenset(
    {
        *("Version", "Model", "Model hash", "VAE hash", "Lora hashes", "TI hashes", "TI", "Styles", "User", "Size"),
        *(
            "Hires resize",
            "Seed resize from",
            "Masked area padding",
            "Strength map",
            "Batch size",
            "Batch pos",
            "Hashes",
            "Init image hash",
        ),
    }
)


def fields_without_effect(text: str) -> tuple[str, ...]:
    """What an infotext speaks of that changes nothing here; fields of one extension count as one."""
    read = {key for _, key, _ in (*REQUEST_KEYS, *HIRES_KEYS)} | OPTION_KEYS.keys() | _WRITTEN_BETA_KEYS.keys()
    silent = [
        key
        for key in split_infotext(text).fields
        if key not in read and key not in _TOLD_ONLY and not key.startswith(_SOFT_PREFIX)
    ]
    families = Counter(key.partition(" ")[0] for key in silent)
    told = (key if families[first := key.partition(" ")[0]] == 1 else f"{first} ..." for key in silent)
    return tuple(dict.fromkeys(told))


def _has_hires(parsed: Mapping[str, object]) -> bool:
    sized = str(parsed.get("Hires resize-1", 0)) != "0" or str(parsed.get("Hires resize-2", 0)) != "0"
    return sized or any(key in parsed for key in _HIRES_MARKS)


def _read(table: _Table, parsed: Mapping[str, object]) -> dict[str, Any]:
    cast = ((name, _cast_or_none(kind, parsed[key])) for name, key, kind in table if key in parsed)
    return {name: value for name, value in cast if value is not None}


def _cast_or_none(cast: Callable[[str], Any], value: object) -> Any:
    try:
        return cast(str(value))
    except (ValueError, KeyError):
        return None


# PARSE-9
OPTION_KEYS = {
    "Model hash": "sd_model_checkpoint",
    "Emphasis": "emphasis",
    "Clip skip": "CLIP_stop_at_last_layers",
    "RNG": "randn_source",
    "Tiling": "tiling",
    "Hires refiner": "hires_fix_refiner_pass",
    "VAE": "sd_vae",
    "VAE Encoder": "sd_vae_encode_method",
    "VAE Decoder": "sd_vae_decode_method",
    "Conditional mask weight": "inpainting_mask_weight",
    "Noise multiplier": "initial_noise_multiplier",
    "Extra noise": "img2img_extra_noise",
    "NGMS": "s_min_uncond",
    "NGMS all steps": "s_min_uncond_all",
    "Token merging ratio": "token_merging_ratio",
    "Token merging ratio hr": "token_merging_ratio_hr",
    "DeepCache interval": "deepcache_interval",
    "Pad conds": "pad_cond_uncond",
    "Pad conds v0": "pad_cond_uncond_v0",
    "Old prompt editing timelines": "use_old_scheduling",
    "Downcast alphas_cumprod": "use_downcasted_alpha_bar",
    "Refiner switch by sampling steps": "refiner_switch_by_sample_steps",
    "Eta DDIM": "eta_ddim",
    "Eta": "eta_ancestral",
    "Sigma churn": "s_churn",
    "Sigma tmin": "s_tmin",
    "Sigma tmax": "s_tmax",
    "Sigma noise": "s_noise",
    "Schedule min sigma": "sigma_min",
    "Schedule max sigma": "sigma_max",
    "Schedule rho": "rho",
    "ENSD": "eta_noise_seed_delta",
    "Discard penultimate sigma": "always_discard_next_to_last_sigma",
    "SGM noise multiplier": "sgm_noise_multiplier",
    "UniPC variant": "uni_pc_variant",
    "UniPC skip type": "uni_pc_skip_type",
    "UniPC order": "uni_pc_order",
    "UniPC lower order final": "uni_pc_lower_order_final",
    "Noise Schedule": "sd_noise_schedule",
    "Skip Early CFG": "skip_early_cond",
    "Skip Late CFG": "skip_late_cond",
    "Inpaint window": "inpaint_window",
    "Beta scheduler alpha": "beta_dist_alpha",
    "Beta scheduler beta": "beta_dist_beta",
}
_WRITTEN_BETA_KEYS = {"Beta schedule alpha": "beta_dist_alpha", "Beta schedule beta": "beta_dist_beta"}
_OPTION_TYPES = {name: kind for name, kind in get_type_hints(Settings).items() if name in OPTION_NAMES}
_OPTION_CASTS: dict[object, Callable[[str], Any]] = {
    bool: lambda text: text != "False",
    int: int,
    float: lambda text: float(number(text)),
}


def option_overrides(parsed: Mapping[str, object], settings: Settings | None = None) -> dict[str, Any]:
    """PARSE-9: the options that a parsed text asks to be otherwise than they are; impossible values are left out."""
    settings = settings or Settings()
    keys = OPTION_KEYS if settings.quirks.unread_beta_schedule else OPTION_KEYS | _WRITTEN_BETA_KEYS
    result: dict[str, Any] = {}
    for key, option in keys.items():
        if key not in parsed or (option == "sd_model_checkpoint" and settings.disable_weights_auto_swap):
            continue
        value = _cast_or_none(_option_cast(option), parsed[key])
        if value is not None and value != getattr(settings, option):
            result[option] = value
    return result


def _option_cast(option: str) -> Callable[[str], Any]:
    kind = _OPTION_TYPES[option]
    if get_origin(kind) is Literal:
        return {str(each): each for each in get_args(kind)}.__getitem__
    return _OPTION_CASTS.get(kind, str)
