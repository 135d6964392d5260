"""The field `infotext` of a job (I2I-6): what it says fills the fields that the client left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overpaint.parts import SoftInpainting
from overpaint.service.doors.webui.control_units import units_told
from overpaint.settings import Settings
from overpaint.text.infotext import parse_infotext
from overpaint.text.pasting import option_overrides
from overpaint.text.styles import Style, extract_styles

_Table = tuple[tuple[str, str, Callable[[str], Any]], ...]


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _place(*names: str) -> Callable[[str], int]:
    return names.index


# API field, key of the text, how it is read
_EVERYWHERE: _Table = (
    ("steps", "Steps", int),
    ("sampler_name", "Sampler", str),
    ("scheduler", "Schedule type", str),
    ("seed", "Seed", int),
    ("subseed", "Variation seed", int),
    ("subseed_strength", "Variation seed strength", _real),
    ("refiner_checkpoint", "Refiner", str),
    ("refiner_switch_at", "Refiner switch at", _real),
)
_SEED_SIZE: _Table = (
    ("seed_resize_from_w", "Seed resize from-1", int),
    ("seed_resize_from_h", "Seed resize from-2", int),
)
_SEED_SIZE_SWAPPED: _Table = (
    ("seed_resize_from_h", "Seed resize from-1", int),
    ("seed_resize_from_w", "Seed resize from-2", int),
)
_TEXTS_AND_SIZE: _Table = (
    ("prompt", "Prompt", str),
    ("negative_prompt", "Negative prompt", str),
    ("cfg_scale", "CFG scale", _real),
    ("width", "Size-1", int),
    ("height", "Size-2", int),
    ("batch_size", "Batch size", int),
    ("denoising_strength", "Denoising strength", _real),
)
_TXT2IMG: _Table = (
    ("hr_scale", "Hires upscale", _real),
    ("hr_upscaler", "Hires upscaler", str),
    ("hr_second_pass_steps", "Hires steps", int),
    ("hr_resize_x", "Hires resize-1", int),
    ("hr_resize_y", "Hires resize-2", int),
    ("hr_checkpoint_name", "Hires checkpoint", str),
    ("hr_sampler_name", "Hires sampler", str),
    ("hr_scheduler", "Hires schedule type", str),
    ("hr_prompt", "Hires prompt", str),
    ("hr_negative_prompt", "Hires negative prompt", str),
)
_IMG2IMG: _Table = (
    ("image_cfg_scale", "Image CFG scale", _real),
    ("mask_blur", "Mask blur", int),
    ("inpainting_mask_invert", "Mask mode", _place("Inpaint masked", "Inpaint not masked")),
    ("inpainting_fill", "Masked content", _place("fill", "original", "latent noise", "latent nothing")),
    ("inpaint_full_res", "Inpaint area", lambda text: text == "Only masked"),
    ("inpaint_full_res_padding", "Masked area padding", int),
)
_HIRES_MARKS = ("Hires upscale", "Hires upscaler")


@dataclass(frozen=True)
class Filled:
    """What a text adds to a job."""

    fields: Mapping[str, Any]
    overrides: Mapping[str, Any]
    soft: tuple[Any, ...] = ()  # the arguments of the script "Soft inpainting"
    units: tuple[Mapping[str, Any], ...] = ()  # those of the script "ControlNet", without their pictures


def filled_by(
    text: str, given: frozenset[str], settings: Settings, *, is_img2img: bool, styles: Sequence[Style] = ()
) -> Filled:
    """Fields that are not in `given`, and the options that the text asks to be otherwise."""
    parsed = parse_infotext(text, settings=settings, styles=styles, extract_styles=extract_styles)
    found: dict[str, Any] = {}
    for field, key, read in _table(settings, is_img2img):
        value = _read(read, parsed.get(key))
        if value is not None and field not in given:
            found[field] = value
    is_sparse = is_img2img and settings.quirks.sparse_infotext_field
    names = parsed.get("Styles array")
    if isinstance(names, list | tuple) and "styles" not in given and not is_sparse:
        found["styles"] = [str(each) for each in names]
    if not is_img2img and "enable_hr" not in given and any(key in parsed for key in _HIRES_MARKS):
        found["enable_hr"] = True
    soft = _soft(parsed) if is_img2img else ()
    return Filled(found, option_overrides(parsed, settings), soft, units_told(parsed))


def _table(settings: Settings, is_img2img: bool) -> _Table:
    sparse = settings.quirks.sparse_infotext_field
    table = _EVERYWHERE + (_SEED_SIZE_SWAPPED if sparse else _SEED_SIZE)
    if not is_img2img:
        return table + _TEXTS_AND_SIZE + _TXT2IMG
    return table if sparse else table + _TEXTS_AND_SIZE + _IMG2IMG


def _soft(parsed: Mapping[str, object]) -> tuple[Any, ...]:
    """The arguments by position, the defaults where the text says nothing."""
    if parsed.get("Soft inpainting enabled") != "True":
        return ()
    defaults = SoftInpainting()
    values = []
    for name in SoftInpainting.__dataclass_fields__:
        value = _read(_real, parsed.get(f"Soft inpainting {name.replace('_', ' ')}"))
        values.append(getattr(defaults, name) if value is None else value)
    return (True, *values)


def _read(read: Callable[[str], Any], value: object) -> Any:
    """A value that is not of its kind says nothing."""
    try:
        return None if value is None else read(str(value))
    except ValueError:
        return None
