"""What is written below a picture on a contact sheet: told by its infotext, or by its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overpaint.errors import PictureError, RequestError
from overpaint.hints import did_you_mean

if TYPE_CHECKING:
    from overpaint.request import Picture

_LONGEST_PROMPT = 160
# field of an infotext: how it is written in a caption
_SETTINGS: Mapping[str, str] = {
    "Seed": "seed {}",
    "Steps": "{} steps",
    "Sampler": "{}",
    "CFG scale": "CFG {}",
    "Denoising strength": "strength {}",
}
# the same, by the names that a recipe has for them
_OF_RECIPE: Mapping[str, str] = {
    "seed": "Seed",
    "steps": "Steps",
    "sampler": "Sampler",
    "cfg_scale": "CFG scale",
    "strength": "Denoising strength",
}


def caption_words(text: str) -> tuple[str, ...]:
    """The lines that were asked for, in their order."""
    words = tuple(each.strip() for each in text.split(",") if each.strip())
    if words == ("none",):
        return ()
    for each in words:
        if each not in _LINES:
            remedy = did_you_mean(each, list(_LINES)) or f"give some of {', '.join(_LINES)}; or none"
            raise RequestError("--captions", each, remedy)
    return words


def caption_of(file: Path, picture: Picture | None, words: tuple[str, ...]) -> list[str]:
    """The lines of one picture; what is not known of it is left out."""
    told = _told(file) if set(words) - {"name", "size"} else {}
    size = picture.info.get("size") if picture is not None else None
    facts = {**told, "name": file.name, "size": size}
    return [line for each in words if (line := _LINES[each](facts))]


def _told(file: Path) -> dict[str, Any]:
    """Prompt and parameters of a painted picture; nothing of any other."""
    from overpaint.files.metadata import read_infotext, read_recipe
    from overpaint.text.infotext import split_infotext

    text, _ = read_infotext(file)
    if text:
        parts = split_infotext(text)
        return {"prompt": parts.prompt, **parts.fields}
    try:
        recipe = read_recipe(file) or {}
    except PictureError:
        return {}
    request, model = recipe.get("request"), recipe.get("model")
    told = dict(request) if isinstance(request, dict) else {}
    name = model.get("name") if isinstance(model, dict) else None
    named = {there: told[ours] for ours, there in _OF_RECIPE.items() if told.get(ours) is not None}
    return {"prompt": told.get("prompt", ""), "Model": name, **named}


def _settings(facts: Mapping[str, Any]) -> str:
    known = ((pattern, facts.get(name)) for name, pattern in _SETTINGS.items())
    return ", ".join(pattern.format(_plain(value)) for pattern, value in known if value is not None)


def _plain(value: object) -> str:
    """7.0 is 7."""
    text = str(value)
    return text.removesuffix(".0") if text.removesuffix(".0").isdecimal() else text


def _prompt(facts: Mapping[str, Any]) -> str:
    text = " ".join(str(facts.get("prompt") or "").split())
    return text if len(text) <= _LONGEST_PROMPT else f"{text[:_LONGEST_PROMPT].rstrip()} ..."


def _size(facts: Mapping[str, Any]) -> str:
    return "x".join(map(str, facts["size"] or ()))


_LINES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "name": lambda facts: str(facts["name"]),
    "settings": _settings,
    "prompt": _prompt,
    "model": lambda facts: str(facts.get("Model") or ""),
    "size": _size,
}
