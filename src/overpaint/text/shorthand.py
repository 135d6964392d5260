"""A LoRA or a ControlNet in one word, as command lines and manifests write them, and where control pictures lie.

ink                  a LoRA
ink:0.8              with its weight
ink:0.8:0.5          and another one for the text encoders
depth=room.png       a ControlNet and the picture it follows
canny=room.jpg,weight=0.7,start=0.1,end=0.8,pre=canny,low=50,high=150
canny=room.jpg,mode=prompt,passes=first
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, TypeVar

from overpaint.errors import RequestError
from overpaint.parts import ControlUnit
from overpaint.stores import AnyFile, below, file_named

_T = TypeVar("_T")

_LORA = "give NAME, NAME:WEIGHT or NAME:WEIGHT:TEXT_WEIGHT, like ink:0.8"
_CONTROL = "give MODEL=PICTURE, like canny=room.png,weight=0.8"
_LAST_SETTING = re.compile(r",(\w+)=([^,]*)$")
_SETTINGS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "weight": ("weight", float),
    "start": ("start", float),
    "end": ("end", float),
    "pre": ("preprocessor", str),
    "low": ("canny_low", int),
    "high": ("canny_high", int),
    "amount": ("amount", float),
    "mode": ("mode", str),
    "passes": ("passes", str),
}


def lora_from_text(text: str, argument: str = "loras") -> dict[str, Any]:
    """The fields of a `Lora`."""
    name, *numbers = text.split(":")
    if not name.strip() or len(numbers) > 2:
        raise RequestError(argument, text, _LORA)
    weights = [_read(float, each, argument, text, _LORA) for each in numbers]
    return {"name": name.strip(), **dict(zip(("weight", "text_weight"), weights, strict=False))}


def control_from_text(text: str, argument: str = "controls", folder: AnyFile | None = None) -> dict[str, Any]:
    """The fields of a `ControlUnit`, its picture still a path; relative ones are those of the folder.

    Names may hold "=" and ",": what is taken for the picture is the longest beginning that is a file.
    """
    folder = folder or Path()
    head, fields = text, dict[str, Any]()
    while not _is_file(head, folder) and (last := _LAST_SETTING.search(head)):
        if last[1] not in _SETTINGS:
            raise RequestError(argument, text, f"{last[1]!r} is none of {', '.join(_SETTINGS)}")
        name, kind = _SETTINGS[last[1]]
        fields.setdefault(name, _read(kind, last[2], argument, text, f"{last[1]} is a number, like {last[1]}=1"))
        head = head[: last.start()]
    splits = [(head[:at], head[at + 1 :]) for at, each in enumerate(head) if each == "="]
    usable = [(model.strip(), picture.strip()) for model, picture in splits if model.strip() and picture.strip()]
    if not usable:
        raise RequestError(argument, text, _CONTROL)
    model, picture = next((each for each in usable if _is_there(folder, each[1])), usable[0])
    return {"model": model, "image": str(below(folder, picture)), **fields}


def control_text(unit: Mapping[str, Any], picture: str = "PICTURE") -> str:
    """The fields of a `ControlUnit` in one word, as `control_from_text` reads them; what is usual is left out."""
    usual = {each.name: each.default for each in fields_of(ControlUnit)}
    named = ((short, name) for short, (name, _) in _SETTINGS.items() if unit.get(name, usual[name]) != usual[name])
    return ",".join((f"{unit['model']}={picture}", *(f"{short}={unit[name]}" for short, name in named)))


def _is_file(head: str, folder: AnyFile) -> bool:
    """Whether some of it behind a "=" is the name of a file."""
    return any(_is_there(folder, head[at + 1 :]) for at, each in enumerate(head) if each == "=")


def _is_there(folder: AnyFile, name: str) -> bool:
    return below(folder, name).is_file()


def _read(kind: Callable[[str], _T], value: str, argument: str, text: str, remedy: str) -> _T:
    try:
        return kind(value)
    except ValueError:
        raise RequestError(argument, text, remedy) from None


def with_parts(fields: Mapping[str, Any], folder: AnyFile | None = None) -> dict[str, Any]:
    """Fields as a manifest has them: LoRAs and ControlNets in one word become tables, pictures full paths."""
    result = dict(fields)
    if isinstance(loras := result.get("loras"), list | tuple):
        result["loras"] = [lora_from_text(each) if isinstance(each, str) else each for each in loras]
    if isinstance(controls := result.get("controls"), list | tuple):
        result["controls"] = [_control(each, folder or Path()) for each in controls]
    if isinstance(seen := result.get("references"), list | tuple):
        result["references"] = [str(below(folder or Path(), each)) if _is_path(each) else each for each in seen]
    return result


def _control(given: Any, folder: AnyFile) -> Any:
    if isinstance(given, str):
        return control_from_text(given, folder=folder)
    if isinstance(given, Mapping) and _is_path(given.get("image")):
        return {**given, "image": str(below(folder, given["image"]))}
    return given


def control_files(fields: Mapping[str, Any]) -> tuple[AnyFile | None, ...]:
    """The files of the control pictures, in order; none for one that is there already."""
    given = fields.get("controls") or ()
    if not isinstance(given, Sequence) or isinstance(given, str):
        return ()
    images = (each.get("image") if isinstance(each, Mapping) else None for each in given)
    return tuple(file_named(str(image)) if _is_path(image) else None for image in images)


def reference_files(fields: Mapping[str, Any]) -> tuple[AnyFile | None, ...]:
    """The same of the pictures that an edit model looks at."""
    given = fields.get("references") or ()
    if not isinstance(given, list | tuple):
        return ()
    return tuple(file_named(each) if _is_path(each) else None for each in given)


def with_pictures(fields: Mapping[str, Any], opened: Callable[[AnyFile], Any]) -> dict[str, Any]:
    """The fields with control pictures and references in the places of their files."""
    result = dict(fields)
    if any(files := control_files(fields)):
        pairs = zip(fields["controls"], files, strict=True)
        result["controls"] = [each if path is None else {**each, "image": opened(path)} for each, path in pairs]
    if any(files := reference_files(fields)):
        named = zip(fields["references"], files, strict=True)
        result["references"] = [each if path is None else opened(path) for each, path in named]
    return result


def _is_path(image: object) -> bool:
    return isinstance(image, str) and bool(image) and not image.startswith("data:") and "\0" not in image


def without_second_pass(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a picture that is painted over; one that asks for a second pass is refused."""
    if fields.get("hires") is not None:
        remedy = "only a picture painted from noise has a second pass; leave it out, and ask for the size at once"
        raise RequestError("hires", fields["hires"], remedy)
    return {name: value for name, value in fields.items() if name != "hires"}
