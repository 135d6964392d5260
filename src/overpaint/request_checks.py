"""What the fields of a request may hold, apart from its pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

from overpaint.errors import RequestError, RequestTypeError
from overpaint.parts import LARGEST_SIDE, check_number, check_texts

if TYPE_CHECKING:
    from overpaint.request import PaintRequest

SEED_LIMIT = 2**63

# name: (least, greatest, integers only, None allowed)
NUMBERS: dict[str, tuple[float, float, bool, bool]] = {
    "strength": (0, 1, False, True),
    "width": (1, LARGEST_SIDE, True, True),
    "height": (1, LARGEST_SIDE, True, True),
    "mask_blur_x": (0, 256, True, False),
    "mask_blur_y": (0, 256, True, False),
    "padding": (0, LARGEST_SIDE, True, False),
    "variation_strength": (0, 1, False, False),
    "batch_size": (1, 1_000, True, False),
    "iterations": (1, 100_000, True, False),
    "steps": (1, 10_000, True, True),
    "cfg_scale": (-100, 1_000, False, True),
    "image_cfg_scale": (-100, 1_000, False, True),
    "guidance": (0, 100, False, True),
    "eta": (0, 100, False, True),
    "s_churn": (0, 10_000, False, True),
    "s_tmin": (0, 1e9, False, True),
    "s_tmax": (0, math.inf, False, True),
    "s_noise": (0, 100, False, True),
    "s_min_uncond": (0, 1e9, False, True),
    "noise_multiplier": (0, 100, False, True),
    "refiner_switch_at": (0, 1, False, True),
    "clip_skip": (1, 64, True, True),
}
_SWITCHES = (
    *("invert_mask", "round_mask", "only_masked", "use_networks", "exact"),
    *("tiling", "color_correction"),
)


def check_texts_of(request: PaintRequest) -> None:
    for name in ("prompt", "negative_prompt"):
        check_texts(name, getattr(request, name))
    if not isinstance(request.styles, tuple) or not all(isinstance(each, str) for each in request.styles):
        raise RequestTypeError("styles", request.styles, "give a list of style names")
    for name in ("checkpoint", "refiner"):
        if not isinstance(getattr(request, name), str | None):
            raise RequestTypeError(name, getattr(request, name), "give a name; `overpaint models` lists them")
    for name in ("sampler", "scheduler"):
        if not isinstance(getattr(request, name), str):
            raise RequestTypeError(name, getattr(request, name), "give a name; `overpaint samplers` lists them")
    both = (request.prompt, request.negative_prompt)
    if all(isinstance(each, tuple) for each in both) and len(both[0]) != len(both[1]):
        raise RequestError("negative_prompt", f"{len(both[1])} texts", f"give {len(both[0])}, one per prompt")


def check_numbers(request: PaintRequest) -> None:
    for name in NUMBERS:
        check_number_of(name, getattr(request, name))
    for name in _SWITCHES:
        _take_switch(request, name)
    resize: Any = request.seed_resize
    if resize is not None and (not isinstance(resize, tuple) or len(resize) != 2):
        raise RequestTypeError("seed_resize", resize, "give (width, height)")
    for side in resize or ():
        check_number("seed_resize", side, low=8, high=LARGEST_SIDE, whole=True)


def check_number_of(name: str, value: Any) -> None:
    """A field of a request that holds a number."""
    low, high, whole, optional = NUMBERS[name]
    if value is not None or not optional:
        check_number(name, value, low=low, high=high, whole=whole)


def _take_switch(request: PaintRequest, name: str) -> None:
    """JSON clients may send 0 and 1; a text such as "no" is nothing that could be guessed."""
    value: Any = getattr(request, name)
    if value is None and name in ("tiling", "color_correction"):
        return
    if not isinstance(value, bool | int) or value not in (0, 1):
        raise RequestTypeError(name, value, "give True or False")
    object.__setattr__(request, name, bool(value))


def check_word(name: str, value: object, words: Any) -> None:
    """A field that is one of a few words."""
    if value not in get_args(words):
        raise RequestError(name, value, f"choose one of {', '.join(get_args(words))}")


def check_seeds(request: PaintRequest) -> None:
    for name in ("seed", "variation_seed"):
        value = getattr(request, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, bool) or not isinstance(each, int):
                raise RequestTypeError(name, each, "give a whole number below 2^63, or -1 for a new one")
            if not -SEED_LIMIT <= each < SEED_LIMIT:
                raise RequestError(name, each, "give a whole number below 2^63, or -1 for a new one")
        if value == ():
            raise RequestError(name, value, "give at least one seed, or -1 for a new one")
