"""What a grid varies along a side: a field of the request, an option, the weight of a LoRA, words of the prompt."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from types import MappingProxyType
from typing import Any

import numpy as np

from overpaint.errors import RequestError
from overpaint.hints import did_you_mean
from overpaint.parts import Lora
from overpaint.request import MaskedContent, PaintRequest, ResizeMode
from overpaint.request_checks import NUMBERS
from overpaint.settings import OPTION_NAMES, Settings

REPLACE, ORDER, SIZE, LORA = "replace", "order", "size", "lora"
LONGEST_AXIS = 1_000

_TEXTS = ("prompt", "negative_prompt", "sampler", "scheduler", "checkpoint", "refiner")
_CHOICES = {"resize_mode": ResizeMode, "masked_content": MaskedContent}
_SWITCHES = ("invert_mask", "round_mask", "only_masked", "use_networks", "exact", "tiling", "color_correction")
_OF_A_CELL = ("batch_size", "iterations")
FIELDS = (
    *(name for name in NUMBERS if name not in _OF_A_CELL),
    *("seed", "variation_seed", "styles", *_TEXTS, *_CHOICES, *_SWITCHES),
)
HIRES = ("hires.steps", "hires.sampler", "hires.scheduler", "hires.upscaler", "hires.strength", "hires.scale")
_RANGE = re.compile(
    r"\s*([+-]?\d+(?:\.\d+)?)\s*-\s*([+-]?\d+(?:\.\d+)?)\s*(?:\(\s*([+-]?\d+(?:\.\d+)?)\s*\)|\[\s*(\d+)\s*\])?\s*"
)


@dataclass(frozen=True, kw_only=True)
class GridAxis:
    """A field and its values. `lora NAME` is the weight of a LoRA, `replace` puts words in the place of the first
    value, `order` puts words into every order, `size` is WIDTHxHEIGHT; any other name is a field or an option.
    """

    field: str
    values: tuple[Any, ...]
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        check_field(self.field)
        if not self.values:
            raise RequestError("axis", f"{self.field}=", "it needs at least one value; give some")
        if len(self.values) > LONGEST_AXIS:
            raise RequestError(f"axis {self.field}", f"{len(self.values)} values", f"give at most {LONGEST_AXIS}")

    @property
    def name(self) -> str:
        """As the sheet shows it."""
        return self.title or self.field.replace("_", " ")

    def label(self, index: int) -> str:
        """Of one of its values, as the sheet shows it."""
        value = self.values[index]
        if isinstance(value, tuple | list):
            return ", ".join(map(str, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    def applied(self, request: PaintRequest, index: int) -> PaintRequest:
        """The request with the value of this index."""
        value = self.values[index]
        if self.field == REPLACE:
            return _with_texts(request, lambda text: text.replace(str(self.values[0]), str(value)))
        if self.field == ORDER:
            return _with_texts(request, lambda text: _reordered(text, self.values[0], value))
        if self.field == SIZE:
            return request.with_changes(width=value[0], height=value[1])
        if self.field.startswith(f"{LORA} "):
            return request.with_changes(loras=_weighted(request.loras, self.field.removeprefix(f"{LORA} "), value))
        if self.field in HIRES or (self.field == "strength" and not request.has_source):
            return _with_hires(request, self.field, value)
        if self.field in FIELDS:
            return request.with_changes(**{self.field: value})
        return request.with_changes(overrides={**request.overrides, self.field: value})

    def check(self, request: PaintRequest) -> None:
        """Refuse what would change nothing: words that are not there."""
        words = [str(self.values[0])] if self.field == REPLACE else []
        words = list(map(str, self.values[0])) if self.field == ORDER else words
        both = "\n".join(_texts(request))
        for word in words:
            if word not in both:
                raise RequestError(f"axis {self.field}", word, "neither prompt nor negative prompt has it; mend one")


def check_field(field: object) -> None:
    if not isinstance(field, str):
        raise RequestError("axis", field, "give the name of a field, an option, or `lora NAME`")
    known = field in FIELDS or field in OPTION_NAMES or field in (REPLACE, ORDER, SIZE, *HIRES)
    if known or (field.startswith(f"{LORA} ") and field.removeprefix(f"{LORA} ").strip()):
        return
    near = did_you_mean(field, sorted({*FIELDS, *HIRES, *OPTION_NAMES, REPLACE, ORDER, SIZE}))
    raise RequestError(
        "axis", field, near or "give a field of a request, an option, `lora NAME`, replace, order or size"
    )


def axis_of(given: Any, name: str = "axis") -> GridAxis | None:
    """An axis from what people write: `steps=10,20,30`, {"steps": [10, 20]}, ("steps", [10, 20]), or an axis itself."""
    if given is None or isinstance(given, GridAxis):
        return given
    if isinstance(given, str):
        field, equals, text = given.partition("=")
        if not equals:
            raise RequestError(name, given, "write it as FIELD=VALUE,VALUE, such as steps=10,20,30")
        return axis_from_text(field.strip(), text)
    title = ""
    if isinstance(given, Mapping) and set(given) >= {"field", "values"}:
        title = str(given.get("title", ""))
        given = (given["field"], given["values"])
    elif isinstance(given, Mapping) and len(given) == 1:
        given = next(iter(given.items()))
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise RequestError(name, given, "give a field and its values, such as {'steps': [10, 20, 30]}")
    field, values = given
    if isinstance(values, str):
        return axis_from_text(field, values)
    if not isinstance(values, tuple | list | range):
        raise RequestError(f"{name} {field}", values, "give a list of values")
    listed = tuple(tuple(each) if isinstance(each, list) else each for each in values)
    return _finished(GridAxis(field=field, values=listed, title=title))


def axis_from_text(field: str, text: str, title: str = "") -> GridAxis:
    """Values between commas; numbers also as ranges: 1-5, 1-5 (+2), 0.2-0.8 [4]."""
    check_field(field)
    values = [each.strip() for each in next(csv.reader([text], skipinitialspace=True), []) if each.strip()]
    kind = _kind_of(field)
    parsed = [value for each in values for value in _values(field, kind, each)]
    return _finished(GridAxis(field=field, values=tuple(parsed), title=title))


def _finished(axis: GridAxis) -> GridAxis:
    """Some axes are not their values one by one: the words of an order are put into every order."""
    if axis.field == ORDER and not isinstance(axis.values[0], tuple):
        if len(axis.values) > 6:
            raise RequestError("axis order", f"{len(axis.values)} words", "give at most 6, which have 720 orders")
        return replace(axis, values=tuple(permutations(map(str, axis.values))))
    if axis.field == SIZE:
        return replace(axis, values=tuple(map(_size, axis.values)))
    return axis


def _values(field: str, kind: type, text: str) -> list[Any]:
    if kind in (int, float):
        found = _RANGE.fullmatch(text)
        if found:
            return _range(field, kind, *found.groups())
        try:
            return [kind(float(text)) if kind is int and float(text).is_integer() else kind(text)]
        except ValueError:
            whole = "whole " if kind is int else ""
            raise RequestError(f"axis {field}", text, f"give {whole}numbers, or a range such as 1-5 (+2)") from None
    if kind is bool:
        if text.lower() not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
            raise RequestError(f"axis {field}", text, "give true or false")
        return [text.lower() in ("true", "yes", "on", "1")]
    if field == "styles":
        return [tuple(each.strip() for each in text.split("+") if each.strip())]
    if field in ("checkpoint", "refiner") and text.lower() in ("none", ""):
        return [None]
    return [text]


def _range(field: str, kind: type, first: str, last: str, step: str | None, count: str | None) -> list[Any]:
    start, end = float(first), float(last)
    if count is not None:
        if not 1 <= int(count) <= LONGEST_AXIS:
            raise RequestError(f"axis {field}", count, f"give 1 to {LONGEST_AXIS} values")
        return [kind(round(each, 10)) for each in np.linspace(start, end, int(count))]
    by = float(step) if step is not None else (1.0 if end >= start else -1.0)
    if by == 0 or (end - start) / by < 0:
        raise RequestError(f"axis {field}", f"{first}-{last} ({step})", "this step never reaches the end")
    steps = int((end - start) / by + 1e-9)
    if steps >= LONGEST_AXIS:
        raise RequestError(f"axis {field}", f"{steps + 1} values", f"give at most {LONGEST_AXIS}")
    return [kind(round(start + i * by, 10)) for i in range(steps + 1)]


def _kind_of(field: str) -> type:
    if field in ("seed", "variation_seed"):
        return int
    if field in HIRES:
        return {"hires.steps": int, "hires.strength": float, "hires.scale": float}.get(field, str)
    if field in NUMBERS:
        return int if NUMBERS[field][2] else float
    if field in _SWITCHES:
        return bool
    if field.startswith(f"{LORA} "):
        return float
    if field in OPTION_NAMES and field not in FIELDS:
        default = getattr(_DEFAULTS, field)
        return type(default) if isinstance(default, bool | int | float) else str
    return str


_DEFAULTS = Settings()


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", value)
        if not found:
            raise RequestError("axis size", value, "write sizes as 512x768")
        return int(found[1]), int(found[2])
    if isinstance(value, tuple | list) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise RequestError("axis size", value, "write sizes as 512x768")


def _texts(request: PaintRequest) -> list[str]:
    both = (request.prompt, request.negative_prompt)
    return [text for each in both for text in ((each,) if isinstance(each, str) else each)]


def _with_texts(request: PaintRequest, change: Callable[[str], str]) -> PaintRequest:
    def changed(value: str | tuple[str, ...]) -> Any:
        return change(value) if isinstance(value, str) else tuple(map(change, value))

    return request.with_changes(prompt=changed(request.prompt), negative_prompt=changed(request.negative_prompt))


def _with_hires(request: PaintRequest, field: str, value: Any) -> PaintRequest:
    """A field of the second pass; the strength of a job without a source is that of its second pass."""
    if request.hires is None:
        raise RequestError(f"axis {field}", value, "the job has no second pass; switch it on, or leave the axis out")
    return request.with_changes(hires=replace(request.hires, **{field.removeprefix("hires."): value}))


def _reordered(text: str, words: Sequence[str], order: Sequence[str]) -> str:
    """The words in another order, each in a place where one of them stood."""
    if not all(each in text for each in words):
        return text
    pattern = "|".join(re.escape(each) for each in sorted(words, key=len, reverse=True))
    left = iter(order)
    return re.sub(pattern, lambda found: next(left, found[0]), text, count=len(words))


def _weighted(loras: Sequence[Lora], name: str, weight: Any) -> tuple[Lora, ...]:
    """The same LoRAs, one with another weight; it is added where it was not among them."""
    others = tuple(each for each in loras if each.name != name)
    return (*others, Lora(name=name, weight=weight))


REFERENCE_AXES: Mapping[str, str] = MappingProxyType(
    {
        "Seed": "seed",
        "Var. seed": "variation_seed",
        "Var. strength": "variation_strength",
        "Steps": "steps",
        "CFG Scale": "cfg_scale",
        "Image CFG Scale": "image_cfg_scale",
        "Hires steps": "hires.steps",
        "Hires sampler": "hires.sampler",
        "Hires upscaler": "hires.upscaler",
        "Prompt S/R": REPLACE,
        "Prompt order": ORDER,
        "Sampler": "sampler",
        "Checkpoint name": "checkpoint",
        "Negative Guidance minimum sigma": "s_min_uncond",
        "Sigma Churn": "s_churn",
        "Sigma min": "s_tmin",
        "Sigma max": "s_tmax",
        "Sigma noise": "s_noise",
        "Schedule type": "scheduler",
        "Schedule min sigma": "sigma_min",
        "Schedule max sigma": "sigma_max",
        "Schedule rho": "rho",
        "Beta schedule alpha": "beta_dist_alpha",
        "Beta schedule beta": "beta_dist_beta",
        "Eta": "eta",
        "Clip skip": "clip_skip",
        "Denoising": "strength",
        "Initial noise multiplier": "noise_multiplier",
        "Extra noise": "img2img_extra_noise",
        "Cond. Image Mask Weight": "inpainting_mask_weight",
        "VAE": "sd_vae",
        "Styles": "styles",
        "UniPC Order": "uni_pc_order",
        "Always discard next-to-last sigma": "always_discard_next_to_last_sigma",
        "SGM noise multiplier": "sgm_noise_multiplier",
        "Refiner checkpoint": "refiner",
        "Refiner switch at": "refiner_switch_at",
        "RNG source": "randn_source",
        "Size": SIZE,
    }
)
"""The reference's names of axes, and what they are here."""
