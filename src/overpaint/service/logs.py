"""One line of a log for each thing that happens: `event=... job=... name=value`, for people and for programs."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any

LOGGER = "overpaint.service"

_BARE = re.compile(r"[\w.:+/-]+")


def line(event: str, **values: Any) -> str:
    """The line; what is None is left out, and what is not one plain word is written as JSON."""
    pairs = {"event": event, **values}
    return " ".join(f"{name}={_written(value)}" for name, value in pairs.items() if value is not None)


def formatter() -> logging.Formatter:
    """Puts the time, in UTC, and the level before a line."""
    form = logging.Formatter("at=%(asctime)s.%(msecs)03dZ level=%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    return form


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=True)
