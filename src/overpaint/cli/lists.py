"""`overpaint samplers` and `settings`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

from overpaint.cli.arguments import AsJson
from overpaint.cli.option_values import choices_of, option_kinds
from overpaint.cli.output import say, say_json, table


def samplers(as_json: AsJson = False) -> int:
    """List samplers and schedulers with their other names."""
    from overpaint.sampler_table import SAMPLERS, SCHEDULERS

    names = {each.name: each.label for each in SCHEDULERS}
    ours = [
        {
            "name": each.name,
            "aliases": list(each.aliases),
            "scheduler": names[each.default_scheduler] if each.default_scheduler else "Automatic",
        }
        for each in SAMPLERS
    ]
    schedules = [{"name": each.label, "aliases": [each.name, *each.aliases]} for each in SCHEDULERS]
    if as_json:
        say_json({"samplers": ours, "schedulers": schedules})
        return 0
    say(table([(each["name"], ", ".join(each["aliases"]), each["scheduler"]) for each in ours], _SAMPLER_HEADER))
    say("")
    say(table([(each["name"], ", ".join(each["aliases"])) for each in schedules], ("SCHEDULER", "OTHER NAMES")))
    return 0


_SAMPLER_HEADER = ("SAMPLER", "OTHER NAMES", "ITS OWN SCHEDULER")


def settings(
    like: Annotated[
        str, typer.Argument(metavar="WORD", help="Only those that have it in their name or line.", show_default=False)
    ] = "",
    webui: Annotated[
        str | None,
        typer.Option("--webui", metavar="DIR", help="Those that an installed webui has changed, and what counts here."),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """List the options of --set and what each is for."""
    if webui is not None:
        return _of_webui(webui, like, as_json)
    from overpaint.settings import Settings, option_meanings

    defaults, meanings = Settings(), option_meanings()
    rows = []
    for name, kind in option_kinds().items():
        meaning = meanings.get(name, "")
        if name != "quirks" and like.lower() in f"{name} {meaning}".lower():
            choices = list(choices_of(kind))
            rows.append({"name": name, "default": getattr(defaults, name), "choices": choices, "meaning": meaning})
    if as_json:
        say_json({"settings": rows})
    elif not rows:
        say(f"no option has {like!r} in its name or line")
    for each in () if as_json else rows:
        words = f"  ({' | '.join(each['choices'])})" if each["choices"] else ""
        say(f"{each['name']}={_value(each['default'])}{words}\n    {each['meaning']}")
    return 0


def _of_webui(folder: str, like: str, as_json: bool) -> int:
    from overpaint.cli.webui_told import rows_of, shown
    from overpaint.models.installation import read_installation

    rows = [each for each in rows_of(read_installation(folder)) if like.lower() in each["name"].lower()]
    if as_json:
        say_json({"settings": rows})
    elif not rows:
        say("no option was changed there" if not like else f"no option that was changed there has {like!r} in its name")
    else:
        told = [(each["name"], shown(each["value"]), "counts" if each["taken"] else each["reason"]) for each in rows]
        say(table(told, ("OPTION", "THERE", "HERE")))
    return 0


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value in ("", ()) else str(value)
