"""What a command takes from an installed webui, said once on stderr. `overpaint settings --webui DIR` says it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overpaint.cli.option_values import option_kinds
from overpaint.cli.output import note, warn
from overpaint.errors import RequestError

if TYPE_CHECKING:
    from overpaint.cli.options import GivenOptions
    from overpaint.models.installation import Installation
    from overpaint.models.ui_defaults import Tab
    from overpaint.settings import Settings

_MOST_NAMED = 8


def tell_webui(asked: GivenOptions, hushed: bool, *, options_count: bool = True, tab: Tab | None = None) -> None:
    """Whose folders these are, which options were taken, and which were not. A repeated picture has its own options.

    `tab` is the one whose defaults the command goes by.
    """
    found = None if hushed else asked.installation()
    if found is None:
        return
    if options_count:
        for line in lines_of(found, asked.settings()):
            note(line)
        given = asked.fields()
        values = {name: each for name, each in asked.defaults_of(tab).items() if name not in given}
        if values:
            told = ", ".join(f"{name}={shown(value)}" for name, value in values.items())
            note(f"defaults of its {tab} tab: {told}")
    warn(found.troubles)


def refuse_webui_place(asked: GivenOptions, output: str | None) -> None:
    """Results get a new name where we are; inside a webui's folder nothing is written that was not asked for."""
    found = asked.installation() if output is None else None
    if found is not None and Path.cwd().is_relative_to(found.root.resolve()):
        told = f"we are inside {found.root}, where nothing is written unasked; name a place"
        raise RequestError("--output", None, told)


def lines_of(found: Installation, settings: Settings) -> Iterator[str]:
    from overpaint.hints import listed

    held = {name: value for name, value in found.options.items() if getattr(settings, name) == value}
    if held:
        yield f"options of {found.root}: {', '.join(f'{name}={shown(value)}' for name, value in held.items())}"
    if found.left_out:
        names = listed(sorted(found.left_out, key=_importance), _MOST_NAMED)
        yield f"options left out there: {names} (`overpaint settings --webui {found.root}` says why)"


def rows_of(found: Installation) -> list[dict[str, Any]]:
    """Every option that was changed there, and what becomes of it."""
    taken = [{"name": name, "value": value, "taken": True, "reason": ""} for name, value in found.options.items()]
    left = [{"name": name, "value": e.value, "taken": False, "reason": e.reason} for name, e in found.left_out.items()]
    return [*taken, *left]


def shown(value: object) -> str:
    """As it is written in the file, kept short."""
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) or not value else value
    return text if len(text) <= 60 else f"{text[:57]}..."


def _importance(name: str) -> tuple[bool, str]:
    """Options that we have, and whose value does not fit, come first."""
    return name not in option_kinds(), name
