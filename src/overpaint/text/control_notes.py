"""ControlNets in an infotext, in the form that the reference's extension gave them: written and read back.

ControlNet 0: "Module: canny, Model: lines, Weight: 1.0, ..., Control Mode: Balanced, Hr Option: Both"

The picture that a ControlNet followed is not in the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, get_args

from overpaint.parts import AMOUNTS, ControlMode, ControlUnit, Passes, Preprocessor

# What the extension calls them, the usual name first; read in any case.
MODULES: Mapping[str, Preprocessor] = MappingProxyType(
    {
        "none": "none",
        "canny": "canny",
        "invert (from white bg & black line)": "invert",
        "invert": "invert",
        **{name: name for name in get_args(Preprocessor) if name in AMOUNTS},
    }
)
MODES: Mapping[str, ControlMode] = MappingProxyType(
    {
        "balanced": "balanced",
        "my prompt is more important": "prompt",
        "controlnet is more important": "control",
        "prompt": "prompt",
        "control": "control",
    }
)
PASSES: Mapping[str, Passes] = MappingProxyType({"both": "both", "low res only": "first", "high res only": "second"})
_MODE_TEXTS = {"balanced": "Balanced", "prompt": "My prompt is more important"}
_MODE_TEXTS |= {"control": "ControlNet is more important"}
_PASS_TEXTS = {"both": "Both", "first": "Low res only", "second": "High res only"}
_RESIZE_TEXTS = {"crop": "Crop and Resize", "fill": "Resize and Fill"}
_USUAL_SIDE = 512
_MOST = 10  # as many as the extension ever shows
_HASH = re.compile(r"\s*\[[0-9a-fA-F]+\]$")


def control_notes(units: tuple[ControlUnit, ...], resize_mode: str) -> dict[str, str]:
    """The fields of an infotext, one for each ControlNet."""
    return {f"ControlNet {i}": _note(each, resize_mode) for i, each in enumerate(units)}


def _note(unit: ControlUnit, resize_mode: str) -> str:
    has_edges = unit.preprocessor == "canny"
    facts = {
        "Module": _module_of(unit.preprocessor),
        "Model": _model_name(unit.model),
        "Weight": float(unit.weight),
        "Resize Mode": _RESIZE_TEXTS.get(resize_mode, "Just Resize"),
        "Processor Res": _USUAL_SIDE,
        "Threshold A": float(unit.canny_low) if has_edges else float(_amount(unit)),
        "Threshold B": float(unit.canny_high) if has_edges else 0.5,
        "Guidance Start": float(unit.start),
        "Guidance End": float(unit.end),
        "Pixel Perfect": True,  # edges are found at the size of the pass
        "Control Mode": _MODE_TEXTS[unit.mode],
        "Hr Option": _PASS_TEXTS[unit.passes],
    }
    return ", ".join(f"{name}: {value}" for name, value in facts.items())


def _amount(unit: ControlUnit) -> float:
    return AMOUNTS.get(unit.preprocessor, (0.5,))[0] if unit.amount is None else unit.amount


def _module_of(preprocessor: str) -> str:
    return next(name for name, each in MODULES.items() if each == preprocessor)


def _model_name(model: str | None) -> str:
    """As others may know it: a folder of this machine is nobody's business."""
    if model is None:
        return "None"
    name = PurePath(model).stem if PurePath(model).is_absolute() else model
    return name.replace(",", "").replace(":", "")


def controls_told(parsed: Mapping[str, object]) -> tuple[dict[str, Any], ...]:
    """The ControlNets of a parsed infotext as fields of `ControlUnit`s, without their pictures."""
    told = (parsed.get(f"ControlNet {i}") for i in range(_MOST))
    found = (_unit(_pairs(str(each))) for each in told if each is not None)
    return tuple(each for each in found if each["model"] is not None)


def _pairs(text: str) -> dict[str, str]:
    split = (each.partition(": ") for each in text.split(", "))
    return {name.strip().lower(): value.strip() for name, colon, value in split if colon}


_NUMBERS: tuple[tuple[str, str, Callable[[float], float]], ...] = (
    ("weight", "weight", float),
    ("start", "guidance start", float),
    ("end", "guidance end", float),
)
_EDGES: tuple[tuple[str, str, Callable[[float], float]], ...] = (
    ("canny_low", "threshold a", round),
    ("canny_high", "threshold b", round),
)
_AMOUNT: tuple[tuple[str, str, Callable[[float], float]], ...] = (("amount", "threshold a", float),)


def _unit(told: Mapping[str, str]) -> dict[str, Any]:
    model = _HASH.sub("", told.get("model", "None"))
    module = MODULES.get(told.get("module", "none").lower(), "none")  # of others, the finished picture is given
    unit: dict[str, Any] = {"model": None if model.lower() in ("", "none") else model, "preprocessor": module}
    unit["mode"] = MODES.get(told.get("control mode", "").lower(), "balanced")
    unit["passes"] = PASSES.get(told.get("hr option", "").lower(), "both")
    own = _EDGES if module == "canny" else _AMOUNT if module in AMOUNTS else ()
    for field, name, kind in (*_NUMBERS, *own):
        value = _number(told.get(name))
        if value is not None:
            unit[field] = kind(value)
    if "amount" in unit and not AMOUNTS[module][1] <= unit["amount"] <= AMOUNTS[module][2]:
        del unit["amount"]  # what another module had there
    return unit


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
