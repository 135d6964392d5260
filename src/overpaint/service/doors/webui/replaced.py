"""Names that the reference replaces or passes over without a word (NAME-1, STY-2, XN-7): the job goes on as there, and
its answer says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from overpaint.sampler_table import SCHEDULERS, normalise
from overpaint.settings import Settings
from overpaint.text.prompt import take_network_tags
from overpaint.text.styles import load_styles

_SCHEDULERS = frozenset(name for each in SCHEDULERS for name in (each.name, each.label))
_SAMPLERS = (("sampler_name", "scheduler"), ("hr_sampler_name", "hr_scheduler"))
_SAME = (None, "", "Use same sampler", "Use same scheduler")
_PROMPTS = ("prompt", "hr_prompt")


def replaced_names(fields: Mapping[str, Any], settings: Settings, is_lora: Callable[[str], bool]) -> tuple[str, ...]:
    """What is said of the names in a body that nobody here knows."""
    return (*_samplers(fields, settings), *_styles(fields, settings), *_loras(fields, is_lora))


def _samplers(fields: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    for sampler, scheduler in _SAMPLERS:
        name, schedule = fields.get(sampler), fields.get(scheduler)
        if name not in _SAME:
            found, _ = normalise(name, None, quirks=settings.quirks)
            if name != found.name and not name.startswith(f"{found.name} "):
                yield f"{sampler}={name!r}: there is no such sampler, {found.name!r} was used"
        if schedule not in _SAME and schedule not in _SCHEDULERS:
            yield f"{scheduler}={schedule!r}: there is no such schedule, the sampler's own was used"


def _styles(fields: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    wanted = fields.get("styles") or ()
    known = {each.name for each in load_styles(settings.styles_file)} if wanted and settings.styles_file else set()
    for name in dict.fromkeys(wanted):
        if name not in known:
            yield f"styles={name!r}: not obeyed, there is no such style"


def _loras(fields: Mapping[str, Any], is_lora: Callable[[str], bool]) -> Iterator[str]:
    tags = (tag for name in _PROMPTS for tag in take_network_tags(fields.get(name) or "")[1])
    named = dict.fromkeys(tag.args[0] for tag in tags if tag.name in ("lora", "lyco") and tag.args)
    for name in named:
        if not is_lora(name):
            yield f"prompt: not obeyed, there is no LoRA {name!r}"
