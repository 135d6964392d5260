"""The field `infotext` of a job (I2I-6): what it says fills the fields that the client left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from overpaint.other_names import REFERENCE
from overpaint.parts import SoftInpainting
from overpaint.service.doors.webui.bodies import StableDiffusionProcessingTxt2Img
from overpaint.service.doors.webui.control_units import units_told
from overpaint.settings import Settings
from overpaint.text.infotext import parse_infotext
from overpaint.text.pasting import HIRES_KEYS, REQUEST_KEYS, count, name_unless_same, number, option_overrides
from overpaint.text.styles import Style, extract_styles

_Reading = Callable[[str], Any]
_Table = tuple[tuple[str, str, _Reading], ...]  # API field, key of the text, how it is read


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _place(*names: str) -> Callable[[str], int]:
    return names.index


# The table of our fields in the reference's words: its choices are numbers, and it has words for what is left out.
_READ_AS: Mapping[_Reading, _Reading] = {number: _real, count: int, name_unless_same: str}
_NUMBERED: Mapping[str, _Reading] = {
    "invert_mask": _place("Inpaint masked", "Inpaint not masked"),
    "masked_content": _place("fill", "original", "latent noise", "latent nothing"),
}
_OTHERWISE: Mapping[str, str | None] = {
    "mask_blur_x": "mask_blur",
    "mask_blur_y": None,
    "clip_skip": None,
    "guidance": None,  # the reference knows no network that is told it
}


def _in_their_words(table: _Table, prefix: str = "") -> _Table:
    named = ((_OTHERWISE.get(ours, REFERENCE.get(prefix + ours, ours)), ours, key, read) for ours, key, read in table)
    return tuple(
        (theirs, key, _NUMBERED.get(ours, _READ_AS.get(read, read)))
        for theirs, ours, key, read in named
        if theirs is not None
    )


_ALL: _Table = (*_in_their_words(REQUEST_KEYS), ("batch_size", "Batch size", int))
_EVERYWHERE = frozenset(
    {"steps", "sampler_name", "scheduler", "seed", "subseed", "subseed_strength"}
    | {"refiner_checkpoint", "refiner_switch_at"}
)
_TXT2IMG = StableDiffusionProcessingTxt2Img.model_fields.keys()
_HIRES: _Table = _in_their_words(HIRES_KEYS, "hires.")
_SEED_SIZE = ("seed_resize_from_w", "seed_resize_from_h")
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
    order = _SEED_SIZE[::-1] if sparse else _SEED_SIZE
    sizes: _Table = tuple((name, f"Seed resize from-{i}", int) for i, name in enumerate(order, 1))
    if not is_img2img:
        return (*sizes, *(each for each in (*_ALL, *_HIRES) if each[0] in _TXT2IMG))
    return (*sizes, *(each for each in _ALL if not sparse or each[0] in _EVERYWHERE))


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
