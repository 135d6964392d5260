"""What a request is made of besides plain fields: frozen, validated values that read from and write to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, TypeVar, get_args

from PIL import Image

from overpaint.errors import RequestError
from overpaint.hints import did_you_mean

Picture = Image.Image
Preprocessor = Literal["none", "canny", "invert"]
_P = TypeVar("_P")

LARGEST_SIDE = 16_384


@dataclass(frozen=True, kw_only=True)
class SoftInpainting:
    """Parameters of soft inpainting: the mask's gray decides how much each place may change."""

    schedule_bias: float = 1
    preservation_strength: float = 0.5
    transition_contrast_boost: float = 4
    mask_influence: float = 0
    difference_threshold: float = 0.5
    difference_contrast: float = 2

    def __post_init__(self) -> None:
        for each in fields(self):
            check_number(f"soft_inpainting.{each.name}", getattr(self, each.name), low=0, high=100)


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A LoRA (or one of its kin) by name, as `<lora:name:text_weight:weight>` in a prompt would ask for it."""

    name: str
    weight: float = 1.0
    text_weight: float | None = None  # None: as `weight`

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise RequestError("loras.name", self.name, "give the name of a file in the option lora_dir")
        check_number("loras.weight", self.weight, low=-100, high=100)
        if self.text_weight is not None:
            check_number("loras.text_weight", self.text_weight, low=-100, high=100)


@dataclass(frozen=True, kw_only=True)
class ControlUnit:
    """A ControlNet and the picture it follows, for a part of the steps."""

    model: str  # a name in the option controlnet_dir, or a path
    image: Picture
    weight: float = 1.0
    start: float = 0.0  # fractions of the steps
    end: float = 1.0
    preprocessor: Preprocessor = "none"
    canny_low: int = 100
    canny_high: int = 200

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise RequestError("controls.model", self.model, "give the name of a file in the option controlnet_dir")
        if not isinstance(self.image, Image.Image):
            raise RequestError("controls.image", self.image, "give the picture that the ControlNet should follow")
        if self.preprocessor not in get_args(Preprocessor):
            names = ", ".join(get_args(Preprocessor))
            raise RequestError("controls.preprocessor", self.preprocessor, f"choose one of {names}")
        check_number("controls.weight", self.weight, low=-10, high=10)
        check_number("controls.start", self.start, low=0, high=1)
        check_number("controls.end", self.end, low=self.start, high=1)
        check_number("controls.canny_low", self.canny_low, low=0, high=2_000, whole=True)
        check_number("controls.canny_high", self.canny_high, low=0, high=2_000, whole=True)


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass over an enlarged picture. A size of None follows from `scale`; one side alone keeps the shape."""

    scale: float = 2.0
    width: int | None = None
    height: int | None = None
    upscaler: str | None = None  # None: "Latent"
    steps: int | None = None  # None: as in the first pass
    strength: float = 0.75
    sampler: str | None = None
    scheduler: str | None = None
    checkpoint: str | None = None
    prompt: str | tuple[str, ...] = ""  # empty: the first pass's
    negative_prompt: str | tuple[str, ...] = ""

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
            check_texts(f"hires.{name}", getattr(self, name))
        check_number("hires.scale", self.scale, low=1 / 16, high=16)
        check_number("hires.strength", self.strength, low=0, high=1)
        for name, high in (("width", LARGEST_SIDE), ("height", LARGEST_SIDE), ("steps", 10_000)):
            if getattr(self, name) is not None:
                check_number(f"hires.{name}", getattr(self, name), low=1, high=high, whole=True)


def check_number(name: str, value: object, *, low: float, high: float, whole: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise RequestError(name, value, f"give {'a whole number' if whole else 'a number'} from {low:g} to {high:g}")
    if math.isnan(value) or not low <= value <= high:
        raise RequestError(name, value, f"give a value from {low:g} to {high:g}")


def check_texts(name: str, value: object) -> None:
    if isinstance(value, tuple) and value and all(isinstance(each, str) for each in value):
        return
    if not isinstance(value, str):
        raise RequestError(name, value, "give a text, or a non-empty list of texts, one per picture")


def part_from_json(name: str, kind: type[_P], value: object) -> _P:
    """One of the values above, from a table of its fields; unknown names are errors that name the nearest."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise RequestError(name, value, "a table of its fields belongs there")
    known = frozenset(each.name for each in fields(kind))  # type: ignore[arg-type]
    unknown = sorted(set(value) - known)
    if unknown:
        raise RequestError(f"{name}.{unknown[0]}", value[unknown[0]], nearest(unknown[0], known))
    try:
        return kind(**value)
    except TypeError:
        raise RequestError(name, dict(value), f"it needs {', '.join(sorted(known - value.keys()))}") from None


def nearest(name: str, known: frozenset[str]) -> str:
    near = did_you_mean(name, sorted(known))
    return f"there is no such field; {near}" if near else "there is no such field"
