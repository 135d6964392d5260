"""Upscalers as the reference's clients name them: many have names built in that are not listed here."""

from __future__ import annotations

from overpaint.errors import RequestError
from overpaint.models.upscaler_names import WELL_KNOWN, UpscalerName, find_upscaler_name, list_upscalers, why_missing
from overpaint.settings import Settings

INSTEAD = "Lanczos"

_REALESRGAN = frozenset(name for each in WELL_KNOWN if each.folder == "realesrgan_dir" for name in each.names)


def offered_upscalers(settings: Settings) -> tuple[UpscalerName, ...]:
    """As they are listed."""
    return list_upscalers(settings)


def realesrgan_models(settings: Settings) -> tuple[UpscalerName, ...]:
    """Those of Real-ESRGAN that are here."""
    return tuple(each for each in list_upscalers(settings) if each.name in _REALESRGAN)


def chosen_upscaler(field: str, name: str, settings: Settings) -> tuple[str, tuple[str, ...]]:
    """The name to go on with, and what is said where it is another one; a name that nobody knows is an error."""
    try:
        return find_upscaler_name(name, settings, field).name, ()
    except RequestError:
        missing = why_missing(name)
        if missing is None:
            raise
    return INSTEAD, (f"{field}={name!r}: {missing}; {INSTEAD} was used",)
