"""What the value of an option may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overpaint.errors import SettingError

_LONGEST_PATH, _LONGEST_NAME = 1024, 255
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a list"}


def coerced(name: str, value: Any, default: Any, choices: Sequence[Any]) -> Any:
    """An option's value, of the kind of its default and one of the choices, if it has any.

    JSON clients send 20.0 where an integer is meant; anything else of another kind is an error.
    """
    if choices and value not in choices:
        raise SettingError(name, value, f"choose one of {', '.join(map(str, choices))}")
    if value is None:
        return value
    if isinstance(default, bool) and value in (0, 1) and isinstance(value, int | float):
        return bool(value)
    if isinstance(default, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    kind = str if default is None else type(default)
    if not isinstance(value, kind):
        raise SettingError(name, value, f"give {_KINDS[kind]}")
    if _is_place(name) and isinstance(value, str) and not _may_be_there(value):
        raise SettingError(name, value, "give a name that a file or a folder can have")
    if name.endswith("_memory") and not (isinstance(value, float) and 0 <= value < float("inf")):
        raise SettingError(name, value, "give a number of GiB, 0 or more")
    if name == "jpeg_quality" and not (isinstance(value, int) and 1 <= value <= 100):
        raise SettingError(name, value, "give a quality from 1 to 100")
    return value


def _is_place(name: str) -> bool:
    return name == "sd_vae" or name.startswith("outdir_") or name.endswith(("_dir", "_file"))


def _may_be_there(path: str) -> bool:
    """Whether a system can be asked for it; of what it refuses outright, the error comes here and not from a job."""
    try:
        parts = path.encode().replace(b"\\", b"/").split(b"/")
    except UnicodeEncodeError:  # half a character
        return False
    return "\0" not in path and len(path) <= _LONGEST_PATH and all(len(each) <= _LONGEST_NAME for each in parts)
