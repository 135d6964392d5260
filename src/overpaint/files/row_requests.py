"""What a row of a batch asks for: its fields, its request with all pictures opened, and what decides its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from overpaint.errors import PictureError
from overpaint.files.batch_tools import asks_for_tool, sequence_of_row
from overpaint.files.kept_files import file_sha256
from overpaint.files.recipe import changed_options, quirks_on
from overpaint.files.rows import BatchRow
from overpaint.masks import draw, files_in, names_in
from overpaint.pictures import open_picture
from overpaint.request import PICTURE_FIELDS, PICTURE_LISTS, SOURCE_FIELDS, PaintRequest, Picture
from overpaint.sequences.story import PaintingSequence
from overpaint.settings import Settings
from overpaint.stores import AnyFile, StoreFile, below, content_of
from overpaint.text.shorthand import control_files, reference_files, with_pictures, without_second_pass


def fields_of(row: BatchRow, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Its own, before those of all rows as far as they fit a row of its kind."""
    unfit = {"hires"} if row.has_source else SOURCE_FIELDS
    return {**{name: value for name, value in shared.items() if name not in unfit}, **row.fields}


def asked_of(row: BatchRow, own: Mapping[str, Any], settings: Settings) -> PaintRequest | PaintingSequence:
    """The request of a row, or the tool's; its pictures are opened."""
    if asks_for_tool(own):
        return sequence_of_row(own, partial(_request_of, row, settings=settings), settings)
    return _request_of(row, own, settings=settings)


def fetched(row: BatchRow) -> BatchRow:
    """With the contents of its files that lie in a store, so that each is read once, where the row is painted."""
    if not any(isinstance(each, StoreFile) for each in row.files.values()):
        return row
    files = {name: each.fetched() if isinstance(each, StoreFile) else each for name, each in row.files.items()}
    return replace(row, files=files)


def row_digest(row: BatchRow, own: Mapping[str, Any], *, format: str, model: str, settings: Settings) -> str:
    """What a row's result depends on, as a name; equal rows have the same."""
    pictures = {name: _content_mark(path) for name, path in row.files.items()}
    guides = enumerate(control_files(own))
    pictures |= {f"controls[{number}]": _content_mark(path) for number, path in guides if path is not None}
    seen = enumerate(reference_files(own))
    pictures |= {f"references[{number}]": _content_mark(path) for number, path in seen if path is not None}
    named = {name for text in _masks_in_words(own).values() for name in names_in(text)}
    pictures |= {f"named {name}": _content_mark(below(row.folder, name)) for name in named}
    return digest(
        {
            "fields": own,
            "pictures": pictures,
            "output": str(row.output),
            "format": format,
            "model": model,
            "settings": changed_options(settings),
            "quirks": quirks_on(settings),
        }
    )


def _content_mark(file: AnyFile) -> str:
    """A store tells contents apart without that they are read."""
    return file.content_mark() if isinstance(file, StoreFile) else file_sha256(file)


def _masks_in_words(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: fields[name] for name in PICTURE_FIELDS - PICTURE_LISTS if isinstance(fields.get(name), str)}


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def _request_of(row: BatchRow, fields: Mapping[str, Any], *, settings: Settings) -> PaintRequest:
    pictures: dict[str, Any] = {name: _opened(name, path, settings) for name, path in row.files.items()}
    own = with_pictures(fields, lambda path: _opened("controls", path, settings))
    if row.has_source:
        read = files_in(row.folder, settings.max_source_pixels)
        own |= {name: draw(text, pictures["picture"], read) for name, text in _masks_in_words(own).items()}

        own, pictures["images"] = without_second_pass(own), [pictures.pop("picture")]
    return PaintRequest.from_json({**own, **pictures})


def _opened(name: str, path: AnyFile, settings: Settings) -> Picture:
    try:
        return open_picture(content_of(path), max_pixels=settings.max_source_pixels)
    except PictureError as error:
        told = f"{path}: " if isinstance(path, StoreFile) and str(path) not in str(error) else ""
        raise PictureError(f"{name}: {told}{error}") from error
