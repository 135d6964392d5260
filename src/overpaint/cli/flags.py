"""Complaints of the core in the words of the command line: `--only-masked` for `only_masked`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from overpaint.cli.options import HIRES_OPTIONS, REQUEST_OPTIONS
from overpaint.errors import OverpaintError, RequestError, SettingError
from overpaint.settings import OPTION_NAMES

_OF_JOB = {
    "picture": "--picture",
    "mask": "--mask",
    "strength_map": "--strength-map",
    "checkpoint": "--model",
    "sd_vae": "--vae",
    "text_encoder_files": "--text-encoder",
    "control": "--control",
    "device": "--device",
    "dtype": "--dtype",
    "backend": "--backend",
    "device_memory": "--device-memory",
    "masks": "--masks",
    "format": "--format",
    "prompt": "PROMPT",
    "batch_size x iterations": "--count x --batch-size",
    "width x height": "--size",
}
_OF_TOOLS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *("left", "top", "right", "bottom", "to", "aspect", "anchor", "start", "context"),
        *("scale", "upscaler", "tile", "overlap", "loops", "final_strength", "curve"),
    )
} | {
    "left, top, right, bottom": "--left, --top, --right, --bottom",
    "to, aspect": "--to, --aspect",
    "grid": "--x, --y, --z",
    "axis": "--x, --y, --z",
}
OF_FIELD: Mapping[str, str] = (
    _OF_JOB | _OF_TOOLS | {name: each.main_flag for each in (*REQUEST_OPTIONS, *HIRES_OPTIONS) for name in each.fields}
)
_FIELD = re.compile(r"(?:[a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)?|width x height)(?==)")
# Within a sentence only names that cannot be plain words.
_TOLD = {name: flag for name, flag in OF_FIELD.items() if "_" in name and "." not in name}
_NAMED_OPTION = re.compile(r"\b(set )?the option (\w+)")
_NAMED_FIELD = re.compile(rf"(?<![\w.-])({'|'.join(sorted(map(re.escape, _TOLD), key=len, reverse=True))})(?![\w.])")
_FOLDERS = ("models_dir", "vae_dir", "lora_dir", "embeddings_dir", "hypernetwork_dir", "controlnet_dir", "esrgan_dir")


def as_flags(error: OverpaintError) -> str:
    """A complaint about a field in the words of the command line."""
    text = " ".join(str(error).split())
    found = _FIELD.match(text)
    name = error.field if isinstance(error, RequestError) else found[0] if found else ""
    if not name or not text.startswith(name):
        return in_flags(text)
    flag = _place_of(name, error)
    # A complaint of the command itself speaks its language already, of options apart.
    in_our_words = _in_options if flag == name else in_flags
    if isinstance(error, RequestError) and error.value in (None, {}):
        return f"{flag or name}: {in_our_words(error.remedy)}"
    value, colon, remedy = text.removeprefix(name).lstrip("=").partition(": ")
    joint = "=" if flag is None or flag.startswith("--set ") else " "
    return f"{flag or name}{joint}{value}{colon}{in_our_words(remedy)}"


def _place_of(name: str, error: OverpaintError) -> str | None:
    """Where on the command line a field was given."""
    if name.startswith("--") or name.isupper():
        return name
    if isinstance(error, SettingError) and name not in _OF_JOB:
        return f"--set {name}"
    flag = _flag_of(re.sub(r"\[\d+\]", "", name))
    return flag or (f"--set {name}" if name in OPTION_NAMES else None)


def in_flags(text: str) -> str:
    """A sentence with the names of options and fields as the command has them."""
    return _NAMED_FIELD.sub(lambda found: _TOLD[found[1]], _in_options(text))


def _in_options(text: str) -> str:
    return _NAMED_OPTION.sub(_told_option, text)


def _told_option(found: re.Match[str]) -> str:
    verb, name = found[1], found[2]
    if name not in OPTION_NAMES:
        return found[0]
    folder = "--models FOLDER or " if verb and name in _FOLDERS else ""
    return f"{'give ' if verb else ''}{folder}--set {name}=..."


def warning_in_flags(text: str) -> str:
    """A warning begins with the field that it is about."""
    name, colon, rest = text.partition(": ")
    flag = _flag_of(name)
    return f"{flag}{colon}{in_flags(rest)}" if colon and flag else in_flags(text)


def _flag_of(field: str) -> str | None:
    """The flag of a field, or of the part that it is in."""
    part, _, inner = field.partition(".")
    return OF_FIELD.get(field) or (f"{OF_FIELD[part]} {inner}" if part in OF_FIELD else None)
