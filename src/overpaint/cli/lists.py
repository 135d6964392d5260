"""`overpaint samplers` and `settings`: what there is to choose from."""

from __future__ import annotations

from overpaint.cli.options import choices_of, option_kinds
from overpaint.cli.output import say, say_json, table
from overpaint.cli.paint import AsJson


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


def settings(as_json: AsJson = False) -> int:
    """List the options of --set with their defaults and choices."""
    from overpaint.settings import Settings

    defaults = Settings()
    rows = []
    for name, kind in option_kinds().items():
        if name != "quirks":
            rows.append({"name": name, "default": getattr(defaults, name), "choices": list(choices_of(kind))})
    if as_json:
        say_json({"settings": rows})
        return 0
    say(table([(each["name"], _value(each["default"]), " | ".join(each["choices"])) for each in rows], _SETTING_HEADER))
    return 0


_SETTING_HEADER = ("OPTION", "DEFAULT", "CHOICES")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value in ("", ()) else str(value)
