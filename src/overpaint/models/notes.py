"""What lies beside a model's file and tells of it: words that call it up, and a picture. Torch-free.

Trainers and download managers write such notes; they are read as text, never run, and may all be missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from overpaint.models.header import metadata_of

PICTURES = (".preview.png", ".preview.jpg", ".preview.jpeg", ".preview.webp", ".png", ".jpg", ".jpeg", ".webp")
_NOTES = (".civitai.info", ".json")
_MOST_BYTES = 1 << 20  # of a note
_MOST_WORDS, _LONGEST = 32, 300


def picture_beside(path: Path) -> Path | None:
    """A picture of the model: `name.preview.png`, or `name.png`."""
    places = (_sibling(path, suffix) for suffix in PICTURES)
    return next((each for each in places if each != path and each.is_file()), None)


def words_beside(path: Path) -> tuple[str, ...]:
    """Trigger words, as notes and the file itself give them; each once."""
    found = (word.strip() for word in _words(path))
    return tuple(dict.fromkeys(word[:_LONGEST] for word in found if word))[:_MOST_WORDS]


def _words(path: Path) -> Iterator[str]:
    for suffix in _NOTES:
        note = _read(_sibling(path, suffix))
        yield from _texts(note.get("trainedWords"))
        yield from _texts(note.get("activation text"))
    try:
        metadata = metadata_of(path)
    except OSError:  # it is gone meanwhile
        return
    yield from _texts(metadata.get("modelspec.trigger_phrase"))


def _texts(value: Any) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield each


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.stem + suffix) if path.suffix else path.with_name(path.name + suffix)
