"""What is told of a painted picture: by itself, by its recipe or by its infotext, in a file or on stdin."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overpaint.errors import PictureError


@dataclass(frozen=True)
class Told:
    """A recipe, an infotext or both, and the folder from which a recipe's files are looked for."""

    name: str
    folder: Path
    recipe: dict[str, Any] | None = None
    infotext: str | None = None
    items: Mapping[str, object] = field(default_factory=dict)


def is_stdin(path: Path) -> bool:
    return str(path) == "-"


def from_stdin() -> bytes:
    """What comes in, to its end."""
    data = sys.stdin.buffer.read()
    if not data:
        raise PictureError("stdin: nothing came in; send a picture, as in `overpaint paint - PROMPT < cat.png`")
    return data


def told_of(path: Path) -> Told:
    """What a picture, a recipe (.json) or an infotext (.txt) tells; what stdin is, its content shows."""
    from overpaint.named_files import check_regular

    if is_stdin(path):
        return _told_by(from_stdin())
    if path.is_dir():
        raise PictureError(f"{path}: it is a folder; give one painted picture")
    check_regular(path)
    if path.suffix.lower() in (".json", ".txt"):
        return _told_in_text(str(path), path.parent, _bytes_of(path), is_recipe=path.suffix.lower() == ".json")
    return _told_by_picture(path, str(path), path.parent)


def _told_by(data: bytes) -> Told:
    is_recipe = data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    if is_recipe or _is_text(data):
        return _told_in_text("stdin", Path(), data, is_recipe=is_recipe)
    return _told_by_picture(data, "stdin", Path())


def _is_text(data: bytes) -> bool:
    """Every format of pictures has bytes that no text has."""
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _told_by_picture(source: Path | bytes, name: str, folder: Path) -> Told:
    from overpaint.files.metadata import read_infotext, read_recipe

    recipe = read_recipe(source)
    text, items = read_infotext(source)
    return Told(name, folder, recipe, text, items)


def _told_in_text(name: str, folder: Path, data: bytes, *, is_recipe: bool) -> Told:
    from overpaint.files.metadata import recipe_of
    from overpaint.text.infotext import split_infotext

    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise PictureError(f"{name}: it cannot be read ({error}); give a text in UTF-8") from None
    if is_recipe:
        return Told(name, folder, recipe_of(text, name))
    return Told(name, folder, infotext=text if split_infotext(text).fields else None)


def _bytes_of(path: Path) -> bytes:
    from overpaint.files.metadata import RECIPE_LIMIT

    try:
        with path.open("rb") as file:
            data = file.read(RECIPE_LIMIT + 1)
    except OSError as error:
        raise PictureError(f"{path}: it cannot be read ({error.strerror}); check the path and its rights") from None
    if len(data) > RECIPE_LIMIT:
        raise PictureError(f"{path}: a text of more than {RECIPE_LIMIT >> 20} MiB is not read; give the true one")
    return data
