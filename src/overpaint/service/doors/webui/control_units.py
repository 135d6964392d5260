"""Units of the script "ControlNet" as its clients send them, in our own words.

Clients of all ages are out there: names that changed with time are read in every spelling. What would change the
picture and is not offered is refused; what changes nothing here is passed over.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image, ImageChops

from overpaint.errors import RequestError
from overpaint.parts import AMOUNTS, ControlMode, Preprocessor
from overpaint.pixels.mask import to_gray_mask
from overpaint.pixels.resize import CROP_AND_RESIZE, JUST_RESIZE, RESIZE_AND_FILL, resize_image
from overpaint.service.doors.webui.pictures import decoded
from overpaint.settings import Quirks
from overpaint.text.control_notes import MODES, MODULES, PASSES, controls_told

_T = TypeVar("_T")

TITLE = "controlnet"
SIGN = "controlnet m2m"  # another script of the extension
UNITS = 3  # as many as its page shows; a request may hold more
CANNY = (100, 200)  # the thresholds that -1 stands for

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
_READ |= {"guidance_start", "guidance_end", "threshold_a", "threshold_b", "control_mode", "guessmode", "guess_mode"}
_READ |= {"mask", "mask_image", "effective_region_mask", "hr_option", "save_detected_map"}
# Of memory and of the page; and how finely to look, since edges are found at the size of the pass.
_CHANGES_NOTHING = frozenset({"low_vram", "lowvram", "is_ui", "pixel_perfect", "processor_res", "use_preview_as_input"})
# What is offered of fields that would change the picture, beside null and what is empty.
_OFFERED: Mapping[str, tuple[Any, ...]] = {
    "input_mode": ("simple",),
    "loopback": (),
    "inpaint_crop_input_image": (True,),
    "advanced_weighting": (),
    "batch_images": (),
    "ipadapter_input": (),
}
_TOLD = {"weight": "weight", "guidance_start": "start", "guidance_end": "end"}
_TOLD |= {"threshold_a": "canny_low", "threshold_b": "canny_high"}
_MASKS = ("mask", "mask_image", "effective_region_mask")
_NO_MODEL = ("", "none")
_MODES_BY_NUMBER: tuple[ControlMode, ...] = ("balanced", "prompt", "control")


@dataclass(frozen=True)
class Unit:
    """One unit that is switched on; its pictures are still texts, its own may have to be the source."""

    place: str  # of its table in the request, for errors
    model: str | None  # None: its picture is only preprocessed
    preprocessor: Preprocessor
    picture: str | None
    masks: tuple[tuple[str, str], ...]  # places and texts; where all are white, it counts
    resize_mode: int
    others: Mapping[str, Any]  # fields of a ControlUnit

    @property
    def picture_place(self) -> str:
        return f"{self.place}.image"

    def fields(self, model: str | None, picture: bytes, mask: bytes | None) -> dict[str, Any]:
        """A `ControlUnit` as JSON has it, with its pictures as files."""
        pictures = {"image": picture, "mask": mask}
        return {"model": model, "preprocessor": self.preprocessor, **pictures, **self.others}


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


def units_told(parsed: Mapping[str, object]) -> tuple[dict[str, Any], ...]:
    """The units that an infotext speaks of, as clients send them; their pictures are not in it."""
    return tuple(
        {
            "model": unit["model"],
            "module": unit["preprocessor"],
            "control_mode": unit["mode"],
            "hr_option": next(name for name, each in PASSES.items() if each == unit["passes"]),
            **{theirs: unit[ours] for theirs, ours in _TOLD.items() if ours in unit},
        }
        for unit in controls_told(parsed)
    )


def is_on(given: object) -> bool:
    """Whether an argument of the script is a unit that is switched on."""
    return isinstance(given, Mapping) and bool(given.get("enabled", True))


def _unit(place: str, given: Mapping[str, Any]) -> Unit:
    _check_offered(place, given)
    preprocessor = _preprocessor(place, given.get("module"))
    others: dict[str, Any] = {
        "weight": _number(place, given, "weight", 1.0),
        "start": _number(place, given, "guidance_start", 0.0),
        "end": _number(place, given, "guidance_end", 1.0),
        "mode": _mode(place, given),
        "passes": _chosen(place, given, "hr_option", PASSES, "both"),
        "return_map": preprocessor != "none" and given.get("save_detected_map") is not False,
    }
    if preprocessor == "canny":
        for ours, theirs, usual in zip(("canny_low", "canny_high"), ("threshold_a", "threshold_b"), CANNY, strict=True):
            value = _number(place, given, theirs, usual)
            others[ours] = usual if value < 0 else round(value)
    elif preprocessor in AMOUNTS:
        standard, low, high = AMOUNTS[preprocessor]
        amount = _number(place, given, "threshold_a", standard)
        others["amount"] = amount if low <= amount <= high else standard  # clients send -1, or another module's
    return Unit(
        place=place,
        model=_model(place, given.get("model"), preprocessor),
        preprocessor=preprocessor,
        picture=_picture(place, given),
        masks=_masks(place, given),
        resize_mode=_resize_mode(place, given),
        others=others,
    )


def _model(place: str, model: object, preprocessor: str) -> str | None:
    """None where a picture is only to be preprocessed."""
    is_named = isinstance(model, str) and model.lower() not in _NO_MODEL
    is_empty = model is None or (isinstance(model, str) and model.lower() in _NO_MODEL)
    if is_named:
        return str(model)
    if is_empty and preprocessor != "none":
        return None
    raise RequestError(f"{place}.model", _shown(model), "give a name that GET /controlnet/model_list lists")


def _mode(place: str, given: Mapping[str, Any]) -> ControlMode:
    """Older clients have a switch that gives the ControlNet the last word."""
    if given.get("guessmode") or given.get("guess_mode"):
        return "control"
    value = given.get("control_mode")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(_MODES_BY_NUMBER):
        return _MODES_BY_NUMBER[value]
    return _chosen(place, given, "control_mode", MODES, "balanced")


def _chosen(place: str, given: Mapping[str, Any], name: str, known: Mapping[str, _T], usual: _T) -> _T:
    value = given.get(name)
    if value in (None, ""):
        return usual
    if not isinstance(value, str) or value.lower() not in known:
        raise RequestError(f"{place}.{name}", _shown(value), f"give one of {', '.join(known)}")
    return known[value.lower()]


def _masks(place: str, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """All that there are: of the unit, and beside the picture that newer clients wrap up with one."""
    found = [(f"{place}.{name}", given.get(name)) for name in _MASKS]
    image = given.get("image")
    if isinstance(image, Mapping):
        found.append((f"{place}.image.mask", image.get("mask")))
    for name, value in found:
        if value and not isinstance(value, str):
            raise RequestError(name, _shown(value), "give a picture as base64")
    return tuple((name, value) for name, value in found if value)


def _check_offered(place: str, given: Mapping[str, Any]) -> None:
    for name, offered in _OFFERED.items():
        value = given.get(name)
        if value and value not in offered:
            remedy = f"only {offered[-1]!r} is offered" if offered else "this is not offered; leave it out"
            raise RequestError(f"{place}.{name}", _shown(value), remedy)


def _passed_over(place: str, given: Mapping[str, Any]) -> list[str]:
    known = _READ | _CHANGES_NOTHING | _OFFERED.keys()
    return [f"{place}.{name}: not obeyed, there is no such field" for name in sorted(given.keys() - known)]


def preprocessor_of(name: object) -> Preprocessor | None:
    """Ours, if it is one that there is."""
    return MODULES.get(name.lower()) if isinstance(name, str) else None


def _preprocessor(place: str, module: object) -> Preprocessor:
    found = "none" if module in (None, "") else preprocessor_of(module)
    if found is None:
        known = ", ".join(MODULES)
        remedy = f"give one of {known}; of others only finished pictures are taken, with the module none"
        raise RequestError(f"{place}.module", _shown(module), remedy)
    return found


def _picture(place: str, given: Mapping[str, Any]) -> str | None:
    """None: the source. Newer clients wrap the picture up with a mask for it."""
    value = given.get("image") or given.get("input_image")
    if isinstance(value, Mapping):
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
        return _written(resize_image(mode, picture.convert("RGB"), wide, high, quirks=Quirks.reference()))


def mask_of(named: Sequence[tuple[str, bytes]]) -> bytes | None:
    """One mask of all, white where each is; None if it would be black: clients send empty layers along."""
    whole: Image.Image | None = None
    for name, data in named:
        with decoded(name, data) as picture:
            mask = to_gray_mask(picture, round_=False)
            whole = mask if whole is None else ImageChops.darker(whole, mask.resize(whole.size))
    return _written(whole) if whole is not None and whole.getbbox() is not None else None


def _written(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=1)
    return data.getvalue()
