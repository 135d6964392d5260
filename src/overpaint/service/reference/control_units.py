"""Units of the script "ControlNet" as its clients send them, in our own words.

Clients of all ages are out there: names that changed with time are read in every spelling. What would change the
picture and is not offered is refused; what changes nothing here is passed over.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from overpaint.errors import RequestError
from overpaint.pixels.resize import CROP_AND_RESIZE, JUST_RESIZE, RESIZE_AND_FILL, resize_image
from overpaint.service.reference.pictures import decoded
from overpaint.settings import Quirks

TITLE = "controlnet"
SIGN = "controlnet m2m"  # another script of the extension
UNITS = 3  # as many as its page shows; a request may hold more
CANNY = (100, 200)  # the thresholds that -1 stands for

PREPROCESSORS: Mapping[str, str] = {
    "none": "none",
    "canny": "canny",
    "invert (from white bg & black line)": "invert",
    "invert": "invert",
}
_RESIZE_MODES: Mapping[str, int] = {
    "just resize": JUST_RESIZE,
    "resize": JUST_RESIZE,
    "crop and resize": CROP_AND_RESIZE,
    "scale to fit (inner fit)": CROP_AND_RESIZE,
    "inner fit": CROP_AND_RESIZE,
    "resize and fill": RESIZE_AND_FILL,
    "envelope (outer fit)": RESIZE_AND_FILL,
    "outer fit": RESIZE_AND_FILL,
}
_SIZES = (JUST_RESIZE, CROP_AND_RESIZE, RESIZE_AND_FILL)

_READ = frozenset({"enabled", "image", "input_image", "model", "module", "weight", "resize_mode"})
_READ |= {"guidance_start", "guidance_end", "threshold_a", "threshold_b"}
# Of memory, of the page, of what is sent back; and how finely to look, since edges are found at the size of the pass.
_CHANGES_NOTHING = frozenset({"low_vram", "lowvram", "save_detected_map", "is_ui", "pixel_perfect", "processor_res"})
# What is offered of fields that would change the picture, beside null and what is empty.
_OFFERED: Mapping[str, tuple[Any, ...]] = {
    "control_mode": (0, "Balanced"),
    "guessmode": (),
    "guess_mode": (),
    "mask": (),
    "mask_image": (),
    "effective_region_mask": (),
    "input_mode": ("simple",),
    "hr_option": ("Both",),
    "loopback": (),
    "inpaint_crop_input_image": (True,),
    "advanced_weighting": (),
    "batch_images": (),
    "ipadapter_input": (),
}


@dataclass(frozen=True)
class Unit:
    """One unit that is switched on; its picture is still a text, or is to be the source."""

    place: str  # of its table in the request, for errors
    model: str
    preprocessor: str
    picture: str | None
    resize_mode: int
    numbers: Mapping[str, float]  # fields of a ControlUnit

    @property
    def picture_place(self) -> str:
        return f"{self.place}.image"

    def fields(self, model: str, picture: bytes) -> dict[str, Any]:
        """A `ControlUnit` as JSON has it, with the picture as a file."""
        return {"model": model, "image": picture, "preprocessor": self.preprocessor, **self.numbers}


def units_of(place: str, args: tuple[Any, ...]) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    """The units that are switched on, and warnings."""
    units: list[Unit] = []
    warnings: list[str] = []
    for index, given in enumerate(args):
        here = f"{place}.args[{index}]"
        if given is None or isinstance(given, bool):  # what a page's other controls leave there
            continue
        if not isinstance(given, Mapping):
            raise RequestError(here, given, "give a unit as an object with image, model and weight")
        if is_on(given):
            units.append(_unit(here, given))
            warnings.extend(_passed_over(here, given))
    return tuple(units), tuple(warnings)


def is_on(given: object) -> bool:
    """Whether an argument of the script is a unit that is switched on."""
    return isinstance(given, Mapping) and bool(given.get("enabled", True))


def _unit(place: str, given: Mapping[str, Any]) -> Unit:
    _check_offered(place, given)
    preprocessor = _preprocessor(place, given.get("module"))
    model = given.get("model")
    if not isinstance(model, str) or model.lower() in ("", "none"):
        raise RequestError(f"{place}.model", model, "give a name that GET /controlnet/model_list lists")
    numbers = {
        "weight": _number(place, given, "weight", 1.0),
        "start": _number(place, given, "guidance_start", 0.0),
        "end": _number(place, given, "guidance_end", 1.0),
    }
    if preprocessor == "canny":
        for ours, theirs, usual in zip(("canny_low", "canny_high"), ("threshold_a", "threshold_b"), CANNY, strict=True):
            value = _number(place, given, theirs, usual)
            numbers[ours] = usual if value < 0 else round(value)
    return Unit(place, model, preprocessor, _picture(place, given), _resize_mode(place, given), numbers)


def _check_offered(place: str, given: Mapping[str, Any]) -> None:
    for name, offered in _OFFERED.items():
        value = given.get(name)
        if value and value not in offered:
            remedy = f"only {offered[-1]!r} is offered" if offered else "this is not offered; leave it out"
            raise RequestError(f"{place}.{name}", _shown(value), remedy)


def _passed_over(place: str, given: Mapping[str, Any]) -> list[str]:
    known = _READ | _CHANGES_NOTHING | _OFFERED.keys()
    return [f"{place}.{name}: not obeyed, there is no such field" for name in sorted(given.keys() - known)]


def preprocessor_of(name: object) -> str | None:
    """Ours, if it is one that there is."""
    return PREPROCESSORS.get(str(name).lower()) if isinstance(name, str) else None


def _preprocessor(place: str, module: object) -> str:
    found = "none" if module in (None, "") else preprocessor_of(module)
    if found is None:
        raise RequestError(f"{place}.module", module, f"give one of {', '.join(PREPROCESSORS)}, or a finished picture")
    return found


def _picture(place: str, given: Mapping[str, Any]) -> str | None:
    """None: the source. Newer clients wrap the picture up with a mask for it."""
    value = given.get("image") or given.get("input_image")
    if isinstance(value, Mapping):
        if value.get("mask"):
            raise RequestError(f"{place}.image.mask", "...", "this is not offered; leave it out")
        value = value.get("image")
    if value and not isinstance(value, str):
        raise RequestError(f"{place}.image", _shown(value), "give a picture as base64")
    return value or None


def _resize_mode(place: str, given: Mapping[str, Any]) -> int:
    value = given.get("resize_mode", CROP_AND_RESIZE)
    if value is None:
        return CROP_AND_RESIZE
    found = _RESIZE_MODES.get(value.lower()) if isinstance(value, str) else value
    if isinstance(found, bool) or found not in _SIZES:
        remedy = "give 0 Just Resize, 1 Crop and Resize, or 2 Resize and Fill"
        raise RequestError(f"{place}.resize_mode", _shown(value), remedy)
    return int(found)


def _number(place: str, given: Mapping[str, Any], name: str, usual: float) -> float:
    value = given.get(name)
    if value is None:
        return usual
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{place}.{name}", _shown(value), "give a number")
    return number


def _shown(value: Any) -> Any:
    """Not a picture of megabytes."""
    return value if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 80) else "..."


def fitted_picture(name: str, data: bytes, mode: int, size: tuple[int, int]) -> bytes:
    """The picture in the shape of what is painted, by the unit's way to resize; as it is, if it has that shape."""
    wide, high = size
    with decoded(name, data) as picture:
        if picture.width * high == picture.height * wide:
            return data
        shaped = resize_image(mode, picture.convert("RGB"), wide, high, quirks=Quirks.reference())
    written = io.BytesIO()
    shaped.save(written, "PNG", compress_level=1)
    return written.getvalue()
