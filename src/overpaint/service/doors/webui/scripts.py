"""The scripts of the reference's API (I2I-3, LIST-2, LIST-3): those that work here, with their arguments.

ControlNet is among them where the site has any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from overpaint.hints import did_you_mean
from overpaint.sampler_table import SAMPLERS, SCHEDULERS
from overpaint.sequences.script_arguments import SCRIPTS, ScriptEntry, axis_types
from overpaint.service.doors.webui import control_units
from overpaint.service.doors.webui.control_units import Unit, units_of
from overpaint.service.doors.webui.errors import Refusal, http_refusal
from overpaint.service.doors.webui.unoffered import is_known_elsewhere, left_out

_SELECTABLE = frozenset({"controlnet m2m", *(each.title.lower() for each in SCRIPTS)})
_CHOSEN = "name it in script_name, with its arguments in script_args"
_NO_CONTROLNETS = "this server has no ControlNets; its option controlnet_dir names a folder of them"


@dataclass(frozen=True)
class Argument:
    """One argument of a script, as its listing shows it."""

    label: str
    value: Any
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Script:
    """A script that is always on. `obeyed`: what it is given counts; the others' place is taken by request fields.

    One that is `selectable` is asked for by name, in the place of a plain job; the sign of ControlNet does nothing.
    """

    title: str
    arguments: tuple[Argument, ...] = ()
    obeyed: bool = False
    img2img_only: bool = False
    selectable: bool = False


def scripts(
    checkpoints: Iterable[str] = (),
    *,
    has_controlnets: bool = False,
    upscalers: Iterable[str] = (),
    is_img2img: bool = True,
) -> tuple[Script, ...]:
    """The scripts in the order of their listing; the checkpoints are the refiner's choices.

    ControlNet is an extension of the stock program, so it comes last, and only where there are ControlNets. Its other
    script comes first, as selectable ones do: webuiapi knows by it that there is a ControlNet.
    """
    extension = (Script(control_units.TITLE, _CONTROL_UNITS, obeyed=True),) if has_controlnets else ()
    sign = (Script(control_units.SIGN, selectable=True),) if has_controlnets else ()
    choices = {"upscaler": tuple(upscalers), **dict.fromkeys(_AXES, axis_types(is_img2img=is_img2img))}
    return (
        *sign,
        *(_selectable(each, choices) for each in SCRIPTS),
        Script("extra options"),
        Script("soft inpainting", _SOFT, obeyed=True, img2img_only=True),
        Script("refiner", _refiner(tuple(checkpoints))),
        Script("sampler", _SAMPLER),
        Script("seed", _SEED),
        *extension,
    )


_SOFT = (
    Argument("Soft inpainting", False),
    Argument("Schedule bias", 1, 0, 8, 0.1),
    Argument("Preservation strength", 0.5, 0, 8, 0.05),
    Argument("Transition contrast boost", 4, 1, 32, 0.5),
    Argument("Mask influence", 0, 0, 1, 0.05),
    Argument("Difference threshold", 0.5, 0, 8, 0.25),
    Argument("Difference contrast", 2, 0, 8, 0.25),
)
_SAMPLER = (
    Argument("Sampling steps", 20, 1, 150, 1),
    Argument("Sampling method", "DPM++ 2M", choices=tuple(each.name for each in SAMPLERS)),
    Argument("Schedule type", "Automatic", choices=tuple(each.label for each in SCHEDULERS)),
)
_SEED = (
    Argument("Seed", -1, step=1),
    Argument("Extra", False),
    Argument("Variation seed", -1, step=1),
    Argument("Variation strength", 0.0, 0, 1, 0.01),
    Argument("Resize seed from width", 0, 0, 2048, 8),
    Argument("Resize seed from height", 0, 0, 2048, 8),
)


_CONTROL_UNITS = tuple(Argument(f"ControlNet Unit {number}", None) for number in range(control_units.UNITS))


_AXES = ("x_type", "y_type", "z_type")


def _selectable(script: ScriptEntry, choices: Mapping[str, tuple[str, ...]]) -> Script:
    arguments = tuple(
        Argument(
            each.label,
            each.value,
            each.minimum,
            each.maximum,
            each.step,
            choices.get(each.name, each.choices),
        )
        for each in script.arguments
    )
    return Script(script.title.lower(), arguments, img2img_only=not script.in_txt2img, selectable=True)


def _refiner(checkpoints: tuple[str, ...]) -> tuple[Argument, ...]:
    return (
        Argument("Refiner", False),
        Argument("Checkpoint", "", choices=checkpoints),
        Argument("Switch at", 0.8, 0.01, 1.0, 0.01),
    )


def check_script_name(name: str | None, *, is_img2img: bool) -> None:
    """I2I-1: titles in any case; those of pictures are not found in txt2img."""
    known = [each.title.lower() for each in SCRIPTS if is_img2img or each.in_txt2img]
    if name and name.lower() not in known:
        elsewhere = "it works in img2img only" if name.lower() in _SELECTABLE else ""
        near = did_you_mean(name.lower(), known)
        reason = elsewhere or (f"{near}; there are {', '.join(known)}" if near else "")  # else the recorded silence
        raise http_refusal(422, f"Script '{name}' not found", reason)


@dataclass(frozen=True)
class ScriptsAsked:
    """What the always-on scripts of a job come to."""

    soft: tuple[Any, ...] = ()
    units: tuple[Unit, ...] = ()
    warnings: tuple[str, ...] = ()


def always_on(
    given: Mapping[str, Any] | None, *, is_img2img: bool, has_controlnets: bool = False, is_strict: bool = False
) -> ScriptsAsked:
    """I2I-3: titles in any case; arguments without "args" count for nothing, those beyond the last are passed over.

    Scripts that other sites have are left out, if they are on with a warning; where that is strict they are refused.
    """
    listed = scripts(has_controlnets=has_controlnets)
    known = {each.title: each for each in listed if not each.selectable and (is_img2img or not each.img2img_only)}
    soft: tuple[Any, ...] = ()
    units: tuple[Unit, ...] = ()
    warnings: list[str] = []
    for title, asked in (given or {}).items():
        script = known.get(title.lower())
        args = _arguments(title, asked)
        if script is None:
            warnings.extend(_left_out(title, args or (), is_strict))
            continue
        if args is None:
            continue
        if script.title == control_units.TITLE:
            units, said = units_of(f"alwayson_scripts.{title}", args)
            warnings.extend(said)
        elif script.obeyed:
            soft = args[: len(script.arguments)]
        elif args:
            warnings.append(f"alwayson_scripts.{title}: not obeyed, use the request's own fields")  # I2I-5
    return ScriptsAsked(soft, units, tuple(warnings))


def _left_out(title: str, args: tuple[Any, ...], is_strict: bool) -> tuple[str, ...]:
    """What is said of a script that is not here. A picture without its ControlNet would be another one: that is said no
    to."""
    if title.lower() == control_units.TITLE and not any(map(control_units.is_on, args)):
        return ()
    if not is_known_elsewhere(title):
        raise _refused(title)
    said = left_out(f"alwayson_scripts.{title}", args)
    if said and is_strict:
        raise _refused(title)
    return said


def _refused(title: str) -> Refusal:
    if title.lower() in _SELECTABLE:
        return http_refusal(422, "Cannot have a selectable script in the always on scripts params", _CHOSEN)
    reason = _NO_CONTROLNETS if title.lower() == control_units.TITLE else ""
    return http_refusal(422, f"Script '{title}' not found", reason)


def _arguments(title: str, asked: Any) -> tuple[Any, ...] | None:
    args = asked.get("args") if isinstance(asked, Mapping) else None
    if args is None:
        return None
    if not isinstance(args, list):
        raise http_refusal(422, f"alwayson_scripts.{title}.args: give a list of arguments by position")
    return tuple(args)
