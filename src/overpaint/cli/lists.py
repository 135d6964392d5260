"""`overpaint samplers`, `models` and `settings`: what there is to choose from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from overpaint.cli.options import choices_of, option_kinds
from overpaint.cli.output import say, say_json, table
from overpaint.cli.paint import AsJson
from overpaint.errors import CheckpointError


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
Folder = Annotated[
    Path, typer.Argument(metavar="[DIR]", help="Folder of checkpoints (default: here).", show_default=False)
]


def models(folder: Folder = Path(), as_json: AsJson = False) -> int:
    """List the checkpoints below a folder: title, family and, where it is known already, hash."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    from overpaint.models.hashes import list_checkpoints, user_hash_cache

    known = known_hashes(user_hash_cache())
    found = [_model(each.path, each.name, known) for each in list_checkpoints([folder])]
    if as_json:
        say_json({"models": found})
    elif found:
        rows = [(each["name"], each["hash"] or "", each["family"] or each["problem"]) for each in found]
        say(table(rows, ("MODEL", "HASH", "FAMILY")))
    else:
        say(f"no .safetensors or .ckpt file in {folder}")
    return 0


def _model(path: Path, name: str, hashes: dict[str, str]) -> dict[str, Any]:
    from overpaint.cli.info import spec_of

    stat = path.stat()
    digest = hashes.get(f"{os.path.abspath(path)}|{stat.st_mtime_ns}|{stat.st_size}", "")  # noqa: PTH100
    try:
        family, problem = spec_of(path).title, None
    except CheckpointError as error:
        family, problem = None, str(error)
    title = f"{name} [{digest[:10]}]" if digest else name
    return {
        "path": str(path),
        "name": name,
        "title": title,
        "hash": digest[:10] or None,
        "family": family,
        "problem": problem,
    }


def known_hashes(cache: Path) -> dict[str, str]:
    """The hashes that were computed before; none are computed here, which takes minutes for a folder."""
    import json

    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in known.items()} if isinstance(known, dict) else {}


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
