"""What holds for every command of a user: environment variables, and the file `overpaint.toml`.

An option on the command line beats the environment, the environment beats the file, and the file beats the defaults.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overpaint.errors import RequestError
from overpaint.hints import did_you_mean, listed

FILE_NAME = "overpaint.toml"
FILE_VARIABLE = "OVERPAINT_CONFIG"
DEBUG_VARIABLE = "OVERPAINT_DEBUG"
SHOW_VARIABLE = "OVERPAINT_SHOW"

# key of the file, which is the option's name: (what it holds, its variable, what that is for)
KEYS: Mapping[str, tuple[type, str, str]] = {
    "model": (str, "OVERPAINT_MODEL", "Checkpoint where `--model` is not given: a file, or a name."),
    "models": (str, "OVERPAINT_MODELS", "Folder of models where `--models` is not given."),
    "webui": (str, "OVERPAINT_WEBUI", "Folder of an installed webui where `--webui` is not given."),
    "vae": (str, "OVERPAINT_VAE", "VAE where `--vae` is not given."),
    "device": (str, "OVERPAINT_DEVICE", "Device where `--device` is not given."),
    "dtype": (str, "OVERPAINT_DTYPE", "Precision where `--dtype` is not given."),
    "backend": (str, "OVERPAINT_BACKEND", "Who computes on a CPU where `--backend` is not given."),
    "reference": (
        bool,
        "OVERPAINT_REFERENCE",
        "Whether to paint as the reference does, where `--reference` is not given.",
    ),
    "url": (str, "OVERPAINT_URL", "The server's address for `submit`, `watch`, `cancel` and `jobs`."),
    "token": (str, "OVERPAINT_TOKEN", "The server's token, for `serve` and for those that ask it."),
}
OTHER_VARIABLES = {
    FILE_VARIABLE: "Another place for `overpaint.toml`; empty means none.",
    SHOW_VARIABLE: "How `--show` draws: kitty, iterm2, sixel, blocks or none; else as the terminal says.",
    DEBUG_VARIABLE: "1 shows the traceback of an error.",
}
OPTIONS_TABLE = "set"
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def config_path() -> Path | None:
    """Where the file is, or would be; None where a user wants none."""
    named = os.environ.get(FILE_VARIABLE)
    if named is not None:
        return Path(named).expanduser() if named else None
    import platformdirs

    return platformdirs.user_config_path("overpaint", appauthor=False) / FILE_NAME


def standing_values() -> dict[str, Any]:
    """The values of all keys that are set anywhere; `set` is the table of options."""
    return {**_of_file(config_path()), **_of_environment()}


def _of_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, (kind, variable, _) in KEYS.items():
        text = os.environ.get(variable)
        if not text:
            continue
        if kind is bool and text.lower() not in _SWITCH:
            raise RequestError(variable, text, "set it to true or false")
        found[key] = _SWITCH[text.lower()] if kind is bool else text
    return found


def _of_file(path: Path | None) -> dict[str, Any]:
    if path is None or not path.is_file():
        if path is not None and os.environ.get(FILE_VARIABLE):
            raise RequestError(FILE_VARIABLE, str(path), "there is no such file; leave it empty to use none")
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(FILE_NAME, str(path), f"it cannot be read ({error}); mend or remove it") from None
    values = _parsed(path, text)
    for key, value in values.items():
        _check(path, key, value)
    return values


def _parsed(path: Path, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(FILE_NAME, str(path), f"it is not TOML ({error}); mend or remove it") from None


def _check(path: Path, key: str, value: object) -> None:
    names = (*KEYS, OPTIONS_TABLE)
    if key not in names:
        near = did_you_mean(key, names)
        raise RequestError(f"{path}: {key}", value, f"there is no such key; {near or f'known: {listed(names, 20)}'}")
    kind = dict if key == OPTIONS_TABLE else KEYS[key][0]
    if not isinstance(value, kind):
        wanted = {bool: "true or false", str: "a text in quotes", dict: "a table of options, headed [set]"}[kind]
        raise RequestError(f"{path}: {key}", value, f"give {wanted}")
    if key == OPTIONS_TABLE:
        _check_options(path, value)


def _check_options(path: Path, table: Any) -> None:
    from overpaint.settings import Settings

    try:
        Settings().with_changes(table)
    except RequestError as error:
        raise RequestError(f"{path}: [set] {error.field}", error.value, error.remedy) from None
