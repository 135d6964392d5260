"""What a request is made of besides plain fields: frozen, validated values that read from and write to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from PIL import Image

from overpaint.errors import RequestError, RequestTypeError
from overpaint.hints import did_you_mean
from overpaint.named import by_name, missing
from overpaint.other_names import hint
from overpaint.taking import as_picture

Picture = Image.Image
Preprocessor = Literal[
    "none",
    "canny",
    "invert",
    "threshold",
    "blur_gaussian",
    "tile_resample",
    "recolor_luminance",
    "recolor_intensity",
    "scribble_xdog",
]
# Of those that take a number: the usual one, the least and the most.
AMOUNTS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "threshold": (127, 0, 255),  # how light is white
        "blur_gaussian": (9, 0.01, 64),  # sigma, in pixels
        "tile_resample": (2, 1, 64),  # how many times coarser
        "recolor_luminance": (1, 0.1, 2),  # gamma
        "recolor_intensity": (1, 0.1, 2),
        "scribble_xdog": (80, 0, 255),  # how dark is a stroke
    }
)
ControlMode = Literal["balanced", "prompt", "control"]
Passes = Literal["both", "first", "second"]
Blend = Literal["plain", "auto"]
_P = TypeVar("_P")

LARGEST_SIDE = 16_384


@by_name
@dataclass(frozen=True, kw_only=True)
class SoftInpainting:
    """Parameters of soft inpainting: the mask's gray decides how much each place may change."""

    schedule_bias: float = 1
    preservation_strength: float = 0.5
    transition_contrast_boost: float = 4
    mask_influence: float = 0
    difference_threshold: float = 0.5
    difference_contrast: float = 2

    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        _refuse_unknown("soft_inpainting", cls, given)

    def __post_init__(self) -> None:
        for each in fields(self):
            check_number(f"soft_inpainting.{each.name}", getattr(self, each.name), low=0, high=100)


@by_name
@dataclass(frozen=True, kw_only=True)
class Lora:
    """A LoRA (or one of its kin) by name, as `<lora:name:text_weight:weight>` in a prompt would ask for it."""

    name: str
    weight: float = 1.0
    text_weight: float | None = None  # None: as `weight`

    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        _refuse_unknown("loras", cls, given)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise RequestTypeError("loras.name", self.name, "give the name of a file in the option lora_dir")
        check_number("loras.weight", self.weight, low=-100, high=100)
        if self.text_weight is not None:
            check_number("loras.text_weight", self.text_weight, low=-100, high=100)


@by_name
@dataclass(frozen=True, kw_only=True)
class ControlUnit:
    """A ControlNet and the picture it follows, for a part of the steps."""

    model: str | None  # a name in the option controlnet_dir, or a path; None: the picture is only preprocessed
    image: Picture
    mask: Picture | None = None  # where it counts is white; None: everywhere
    weight: float = 1.0
    start: float = 0.0  # fractions of the steps
    end: float = 1.0
    preprocessor: Preprocessor = "none"
    canny_low: int = 100
    canny_high: int = 200
    amount: float | None = None  # of a preprocessor that takes a number; None: its usual one
    mode: ControlMode = "balanced"  # which has the last word, the prompt or the ControlNet
    passes: Passes = "both"  # of a job with a second pass
    return_map: bool = False  # the job gives back what the ControlNet saw

    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        _refuse_unknown("controls", cls, given)

    def __post_init__(self) -> None:
        if self.model is None and self.preprocessor == "none":
            raise RequestError("controls.model", None, "give the name of a file in the option controlnet_dir")
        if self.model is not None and (not isinstance(self.model, str) or not self.model):
            raise RequestTypeError("controls.model", self.model, "give the name of a file in the option controlnet_dir")
        object.__setattr__(self, "image", as_picture("controls.image", self.image))
        if self.mask is not None:
            object.__setattr__(self, "mask", as_picture("controls.mask", self.mask))
        for name, kind in (("preprocessor", Preprocessor), ("mode", ControlMode), ("passes", Passes)):
            if getattr(self, name) not in get_args(kind):
                remedy = f"choose one of {', '.join(get_args(kind))}"
                if name == "preprocessor":
                    remedy += "; others need networks that are not here, so give the finished picture with none"
                raise RequestError(f"controls.{name}", getattr(self, name), remedy)
        self._check_amount()
        if not isinstance(self.return_map, bool):
            raise RequestTypeError("controls.return_map", self.return_map, "say true or false")
        check_number("controls.weight", self.weight, low=-10, high=10)
        check_number("controls.start", self.start, low=0, high=1)
        check_number("controls.end", self.end, low=self.start, high=1)
        check_number("controls.canny_low", self.canny_low, low=0, high=2_000, whole=True)
        check_number("controls.canny_high", self.canny_high, low=0, high=2_000, whole=True)

    def _check_amount(self) -> None:
        if self.amount is None:
            return
        if self.preprocessor not in AMOUNTS:
            remedy = f"leave it out: only {', '.join(AMOUNTS)} take one"
            raise RequestError("controls.amount", self.amount, remedy)
        _, low, high = AMOUNTS[self.preprocessor]
        check_number("controls.amount", self.amount, low=low, high=high)


@by_name
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

    @classmethod
    def _refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        _refuse_unknown("hires", cls, given)

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
        kind = "a whole number" if whole else "a number"
        raise RequestTypeError(name, value, f"give {kind} from {low:g} to {high:g}")
    if math.isnan(value) or not low <= value <= high:
        raise RequestError(name, value, f"give a value from {low:g} to {high:g}")


def check_texts(name: str, value: object) -> None:
    if isinstance(value, tuple) and value and all(isinstance(each, str) for each in value):
        return
    if not isinstance(value, str):
        raise RequestTypeError(name, value, "give a text, or a non-empty list of texts, one per picture")


def part_from_json(name: str, kind: type[_P], value: object) -> _P:
    """One of the values above, from a table of its fields; unknown names are errors that name the nearest."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        what = kind.__name__
        raise RequestTypeError(name, value, f"give an overpaint.{what}, or a table of its fields")
    _refuse_unknown(name, kind, value)
    if lacking := missing(kind, value):
        raise RequestTypeError(name, dict(value), f"it needs {', '.join(lacking)}")
    return kind(**value)


def _refuse_unknown(name: str, kind: type, given: Mapping[str, Any]) -> None:
    known = frozenset(each.name for each in fields(kind))
    unknown = sorted(set(given) - known)
    if unknown:
        raise RequestTypeError(f"{name}.{unknown[0]}", given[unknown[0]], nearest(unknown[0], known))


def nearest(name: str, known: frozenset[str]) -> str:
    if (told := hint(name, known)) is not None:
        return told
    near = did_you_mean(name, sorted(known))
    return f"there is no such field; {near}" if near else "there is no such field"
