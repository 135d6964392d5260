"""How each kind of text encoder is fed: one row each."""

from __future__ import annotations

from collections.abc import Mapping

from overpaint.models.specs import TextKind
from overpaint.text.long_texts import LONG_READINGS
from overpaint.text.tokens import CLIP_READINGS, TextReading

_READINGS: Mapping[TextKind, TextReading] = {**CLIP_READINGS, **LONG_READINGS}


def reading_of(kind: TextKind) -> TextReading:
    """The row of a kind of text encoder; a family's row names the kind."""
    return _READINGS[kind]
