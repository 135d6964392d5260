"""OPTION=VALUE: options of the settings as they are written on a command line."""

from __future__ import annotations

from typing import Any

from overpaint.errors import RequestError, SettingError


def read_option(text: str) -> tuple[str, Any]:
    """OPTION=VALUE, the value read as what the option holds."""
    from overpaint.settings import OPTION_NAMES, Settings

    name, equals, value = text.partition("=")
    if not equals:
        raise RequestError("--set", text, "give OPTION=VALUE, like randn_source=CPU")
    if name not in OPTION_NAMES:
        Settings().with_changes({name: value})  # the error names the nearest
    return name, _as_kind(name, value, option_kinds()[name])


def option_kinds() -> dict[str, Any]:
    """The type of every option."""
    from typing import get_type_hints

    from overpaint.settings import Settings

    return get_type_hints(Settings)


def choices_of(kind: Any) -> tuple[str, ...]:
    """The words an option may hold; empty if any."""
    from typing import Literal, get_args, get_origin

    return get_args(kind) if get_origin(kind) is Literal else ()


def _as_kind(name: str, text: str, kind: Any) -> Any:
    choices = choices_of(kind)
    if choices and text not in choices:
        raise SettingError(name, text, f"choose one of {', '.join(choices)}")
    if kind is bool:
        if text.lower() not in _SWITCH:
            raise SettingError(name, text, "say true or false")
        return _SWITCH[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise SettingError(name, text, f"give a {'whole ' if kind is int else ''}number") from None
    if kind == tuple[str, ...]:
        return tuple(each.strip() for each in text.split(",") if each.strip())
    return text


_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
