"""Where things lie on this machine is no client's business: answers name files as they lie below the site's folders.

The outermost guard says which folders those are; whatever makes a sentence out of an error asks here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from overpaint.service.config import ServeConfig
from overpaint.settings import OPTION_NAMES

_HIDDEN: ContextVar[re.Pattern[str] | None] = ContextVar("hidden_places", default=None)


def places_of(config: ServeConfig) -> re.Pattern[str] | None:
    """The site's folders, as they are written by whoever names a file in them; the longest first."""
    given = [
        str(config.data),
        *(getattr(config.settings, name) for name in sorted(OPTION_NAMES) if name.endswith("_dir")),
    ]
    if config.checkpoint is not None and ("/" in config.checkpoint or "\\" in config.checkpoint):
        given.append(str(Path(config.checkpoint).parent))
    folders = {form for each in given if each for form in _forms(Path(each))}
    written = sorted(map(re.escape, folders), key=len, reverse=True)
    return re.compile(rf"(?<![\w./\\-])(?:{'|'.join(written)})(?:(?P<inside>[/\\])|(?![\w.-]))") if written else None


@contextmanager
def hidden(places: re.Pattern[str] | None) -> Iterator[None]:
    """What is said inside is said without these places."""
    before = _HIDDEN.set(places)
    try:
        yield
    finally:
        _HIDDEN.reset(before)


def placeless(text: str) -> str:
    """The sentence with files named relative to the folders of this site, and the folders by their bare names."""
    places = _HIDDEN.get()
    return text if places is None else places.sub(_shortened, text)


def _shortened(found: re.Match[str]) -> str:
    return "" if found["inside"] else Path(found[0]).name


def _forms(folder: Path) -> Iterator[str]:
    """As it was given, and as the system has it. A folder that all others are in, or this one, would hide nothing."""
    for each in (folder, folder.absolute(), folder.resolve()):
        if len(each.parts) > 1 or (not each.is_absolute() and each.name not in ("", "..")):
            yield str(each)
