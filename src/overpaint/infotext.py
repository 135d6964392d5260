"""The "parameters" text: what was asked, written so that people and programs can read it back.

Writing is INFO of the specification, reading is PARSE. Reading takes text from strangers: it is one pass over the text,
whatever the text is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from overpaint.prompt import uses_emphasis
from overpaint.request import MaskedContent, SoftInpainting
from overpaint.settings import OPTION_NAMES, Settings

_S = TypeVar("_S")
StyleExtractor = Callable[[str, str, Sequence[_S]], tuple[str, str, tuple[str, ...]]]

# INFO-5. Everything else follows in the order of insertion, then LAST_FIELDS.
FIELD_ORDER = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Image CFG scale", "Seed", "Face restoration", "Size"),
    *("Model hash", "Model", "FP8 weight", "Cache FP16 weight for LoRA", "VAE hash", "VAE"),
    *("Variation seed", "Variation seed strength", "Seed resize from", "Denoising strength"),
    *("Conditional mask weight", "Clip skip", "ENSD", "Token merging ratio", "Token merging ratio hr"),
    *("Init image hash", "RNG", "Tiling"),
)
LAST_FIELDS = ("Version", "User")
NEGATIVE_MARK = "Negative prompt:"
_FEWEST_PAIRS = 3  # PARSE-1: a last line with fewer is prompt


def quote(value: object) -> str:
    """INFO-3: a value that would be split or misread is written as a JSON string."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(each in text for each in ",\n:") else text


def ordered_fields(fields: Mapping[str, object], extras: Mapping[str, object]) -> dict[str, object]:
    """INFO-5: fixed fields at their places, then extras as they were inserted, then the version and the user.

    An extra that has a fixed place is written there, and wins.
    """
    merged = {**fields, **extras}
    head = {key: merged[key] for key in FIELD_ORDER if key in merged}
    tail = {key: merged[key] for key in LAST_FIELDS if key in merged}
    middle = {key: value for key, value in merged.items() if key not in head and key not in tail}
    return {**head, **middle, **tail}


def fields_of_image(fields: Mapping[str, object], index: int, **facts: object) -> dict[str, object]:
    """INFO-4: lists hold one value per picture, callables are asked for theirs."""

    def value_of(value: object) -> object:
        if callable(value):
            return value(index=index, **facts)
        return value[index] if isinstance(value, list | tuple) else value

    return {key: value_of(value) for key, value in fields.items()}


def format_infotext(prompt: str, negative: str, fields: Mapping[str, object]) -> str:
    """INFO-1: the whole text; fields that are None are left out, a key equal to its value stands alone."""
    written = {key: value for key, value in fields.items() if value is not None}
    parameters = ", ".join(key if key == str(value) else f"{key}: {quote(value)}" for key, value in written.items())
    negative_line = f"\n{NEGATIVE_MARK} {negative}" if negative else ""
    return f"{prompt}{negative_line}\n{parameters}".strip()


class Infotext(NamedTuple):
    """An infotext taken apart: nothing added, every value as text."""

    prompt: str
    negative_prompt: str
    fields: dict[str, str]


def split_infotext(text: str) -> Infotext:
    """PARSE-1, PARSE-3: the texts, and the parameters of the last line if it is a line of parameters."""
    *lines, last = text.strip().split("\n")
    pairs = list(_pairs(last))
    if len(pairs) < _FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    part = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE_MARK):
            part = negative
            line = line[len(NEGATIVE_MARK) :].strip()
        part.append(line)
    return Infotext("\n".join(prompt), "\n".join(negative), {key: _unquoted(value) for key, value in pairs})


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """PARSE-2 in one pass.

    A pattern would try each word again as the start of a key, which is quadratic. Here a key is looked for backwards
    from its colon, never past the text already used.
    """
    start = 0
    while (colon := line.find(":", start)) >= 0:
        key = _key_before(line, start, colon)
        if key:
            value, start = _value_after(line, colon + 1)
            yield key, value
        else:
            start = colon + 1


def _key_before(line: str, start: int, colon: int) -> str:
    first = colon
    while first > start and (line[first - 1].isalnum() or line[first - 1] in "_ -/"):
        first -= 1
    key = line[first:colon].lstrip(" -/")
    return key if len(key) >= 2 else ""


def _value_after(line: str, start: int) -> tuple[str, int]:
    """The value, and where the text behind its comma begins."""
    while start < len(line) and line[start].isspace():
        start += 1
    end = _end_of_quoted(line, start)
    if end == 0 or line[end : end + 1] not in ("", ","):
        comma = line.find(",", start)
        end = comma if comma >= 0 else len(line)
    return line[start:end], end + 1


def _end_of_quoted(line: str, start: int) -> int:
    """Where a non-empty quoted string ends; 0 if there is none.

    An opening quote follows a colon or a space, so no earlier scan can have passed it: all scans together are one pass.
    """
    if not line.startswith('"', start):
        return 0
    at = start + 1
    while at < len(line) and line[at] != '"':
        at += 2 if line[at] == "\\" else 1
    return at + 1 if start + 1 < at < len(line) else 0


def _unquoted(value: str) -> str:
    """PARSE-4: what cannot be decoded, or not be written again, stays as it is."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        text = str(json.loads(value))
        text.encode()
    except ValueError:
        return value
    return text


# PARSE-6
_DEFAULTS: dict[str, object] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Refiner switch by sampling steps": False,
}


def parse_infotext(
    text: str,
    *,
    settings: Settings | None = None,
    styles: Sequence[_S] = (),
    extract_styles: StyleExtractor[_S] | None = None,
    lora_aliases: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Every parameter by its key, with "Prompt", "Negative prompt" and the defaults of what was not written.

    `lora_aliases` names the local networks by the short hashes that infotexts carry.
    """
    settings = settings or Settings()
    prompt, negative, fields = split_infotext(text)
    result: dict[str, object] = {}
    for key, value in fields.items():
        result.update(_by_dimension(key, value))
    if extract_styles is not None and settings.infotext_styles != "Ignore":
        prompt, negative, names = extract_styles(prompt, negative, styles)
        if settings.infotext_styles == "Apply" or (settings.infotext_styles == "Apply if any" and names):
            result["Styles array"] = list(names)
    prompt = _with_networks(prompt, result, lora_aliases or {})
    result.update({"Prompt": prompt, "Negative prompt": negative})
    result = {**_DEFAULTS, **result}
    if uses_emphasis(prompt) or uses_emphasis(negative):
        result.setdefault("Emphasis", "Original")
    if settings.auto_backcompat:
        result.update(_as_old_versions_did(result))
    return {key: value for key, value in result.items() if key not in settings.infotext_skip_pasting}


def _by_dimension(key: str, value: str) -> dict[str, str]:
    """PARSE-4: "512x768" becomes two values."""
    width, cross, height = value.partition("x")
    if cross and width.isdecimal() and height.isdecimal():
        return {f"{key}-1": width, f"{key}-2": height}
    return {key: value}


_LORA_TAG = re.compile(r"<lora:([^:<>]+)")
_ADDNET_MODEL = re.compile(r"(?P<name>[^()]*)\((?P<hash>\w+)\)")


def _with_networks(prompt: str, fields: Mapping[str, object], aliases: Mapping[str, str]) -> str:
    """PARSE-6, PARSE-8: networks that were written outside the prompt become tags, known ones get their local names."""
    listed = (each.partition(": ") for each in str(fields.get("Lora hashes", "")).split(", "))
    local = {name: aliases[digest] for name, _, digest in listed if digest in aliases}
    prompt = _LORA_TAG.sub(lambda tag: f"<lora:{local.get(tag[1], tag[1])}", prompt)
    tags = "".join(_addnet_tags(fields, aliases))
    if tags:
        prompt = f"{prompt}\n{tags}"
    if fields.get("Hypernet"):
        prompt += f"<hypernet:{fields['Hypernet']}:{fields.get('Hypernet strength', '1.0')}>"
    return prompt


def _addnet_tags(fields: Mapping[str, object], aliases: Mapping[str, str]) -> Iterator[str]:
    number = 1
    while f"AddNet Module {number}" in fields:
        model = _ADDNET_MODEL.fullmatch(str(fields.get(f"AddNet Model {number}", "")))
        if fields[f"AddNet Module {number}"] == "LoRA" and model:
            both = fields.get(f"AddNet Weight {number}", "1.0")
            weight = fields.get(f"AddNet Weight A {number}", both)
            yield f"<lora:{aliases.get(model['hash'], model['name'])}:{weight}>"
        number += 1


_VERSION = re.compile(r"v([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})(?:-([0-9]{1,9})-)?")


def _as_old_versions_did(fields: Mapping[str, object]) -> dict[str, object]:
    """PARSE-7: switches that bring back what the version that wrote the text did.

    NOTE: the "v" is required. Other programs, this one too, count their versions from another zero.
    """
    found = _VERSION.match(str(fields.get("Version", "")))
    if found is None:
        return {}
    version = tuple(int(each or 0) for each in found.groups())
    old: dict[str, object] = {}
    if version < (1, 6, 0, 0) and "[" in str(fields["Prompt"]):
        old["Old prompt editing timelines"] = True
    if version < (1, 6, 0, 0) and fields.get("Sampler") in ("DDIM", "PLMS"):
        old["Pad conds v0"] = True
    if version < (1, 7, 0, 225):
        old["Downcast alphas_cumprod"] = True
    if version < (1, 8, 0, 0) and fields.get("Refiner"):
        old["Refiner switch by sampling steps"] = True
    return old


def _number(text: str) -> float:
    """As it was written: "7" stays an integer, so that it is written as "7" again."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_MASKED_CONTENT = {
    "fill": MaskedContent.FILL,
    "original": MaskedContent.ORIGINAL,
    "latent noise": MaskedContent.NOISE,
    "latent nothing": MaskedContent.NOTHING,
}
_REQUEST_FIELDS: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
    ("prompt", "Prompt", str),
    ("negative_prompt", "Negative prompt", str),
    ("steps", "Steps", int),
    ("sampler", "Sampler", str),
    ("scheduler", "Schedule type", str),
    ("cfg_scale", "CFG scale", _number),
    ("image_cfg_scale", "Image CFG scale", _number),
    ("seed", "Seed", int),
    ("width", "Size-1", int),
    ("height", "Size-2", int),
    ("strength", "Denoising strength", _number),
    ("variation_seed", "Variation seed", int),
    ("variation_strength", "Variation seed strength", _number),
    ("mask_blur_x", "Mask blur", int),
    ("mask_blur_y", "Mask blur", int),
    ("invert_mask", "Mask mode", lambda text: text == "Inpaint not masked"),
    ("masked_content", "Masked content", lambda text: _MASKED_CONTENT[text]),
    ("only_masked", "Inpaint area", lambda text: text == "Only masked"),
    ("padding", "Masked area padding", int),
    ("clip_skip", "Clip skip", int),
)
_SOFT_PREFIX = "Soft inpainting "
_SOFT_FIELDS = {name: _SOFT_PREFIX + name.replace("_", " ") for name in SoftInpainting.__dataclass_fields__}


def request_fields(parsed: Mapping[str, object]) -> dict[str, Any]:
    """PARSE-10: the request's fields that a parsed text speaks of; a value that is not of its kind is left out."""
    result = {}
    for name, key, cast in _REQUEST_FIELDS:
        if key in parsed and (value := _cast_or_none(cast, parsed[key])) is not None:
            result[name] = value
    if isinstance(styles := parsed.get("Styles array"), list | tuple):
        result["styles"] = tuple(styles)
    resize = [_cast_or_none(int, parsed.get(f"Seed resize from-{each}")) for each in (1, 2)]
    if None not in resize:
        result["seed_resize"] = tuple(resize)
    if parsed.get(f"{_SOFT_PREFIX}enabled") == "True":
        values = {name: _cast_or_none(_number, parsed.get(key)) for name, key in _SOFT_FIELDS.items()}
        result["soft_inpainting"] = SoftInpainting(**{k: v for k, v in values.items() if v is not None})
    return result


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
    "VAE": "sd_vae",
    "VAE Encoder": "sd_vae_encode_method",
    "VAE Decoder": "sd_vae_decode_method",
    "Conditional mask weight": "inpainting_mask_weight",
    "Noise multiplier": "initial_noise_multiplier",
    "Extra noise": "img2img_extra_noise",
    "NGMS": "s_min_uncond",
    "NGMS all steps": "s_min_uncond_all",
    "Token merging ratio": "token_merging_ratio",
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
    "UniPC variant": "uni_pc_variant",
    "UniPC skip type": "uni_pc_skip_type",
    "UniPC order": "uni_pc_order",
    "UniPC lower order final": "uni_pc_lower_order_final",
    "Noise Schedule": "sd_noise_schedule",
    "Skip Early CFG": "skip_early_cond",
    "Beta scheduler alpha": "beta_dist_alpha",
    "Beta scheduler beta": "beta_dist_beta",
}
_WRITTEN_BETA_KEYS = {"Beta schedule alpha": "beta_dist_alpha", "Beta schedule beta": "beta_dist_beta"}
_OPTION_TYPES = {name: kind for name, kind in get_type_hints(Settings).items() if name in OPTION_NAMES}
_OPTION_CASTS: dict[object, Callable[[str], Any]] = {
    bool: lambda text: text != "False",
    int: int,
    float: lambda text: float(_number(text)),
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
