"""The pictures below a prefix of an object store, as rows: listed anew each time, and nowhere held as a whole.

Which rows may want one name has to be known before the first is painted. So the prefix is listed once for that alone,
eight bytes a picture; rows that share names, mostly few, are held back to the end.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from overpaint.errors import PictureError, RequestError
from overpaint.files.rows import (
    BatchRow,
    MaskChoice,
    Rows,
    StreamedRows,
    UnreadableRow,
    is_hidden,
    manifest_rows,
    natural_key,
    picture_row,
    pictures_in_store,
    read_rows,
    with_mask,
)
from overpaint.files.shards import Shard, place_of, shorter_names
from overpaint.stores import AnyFile, StoreFile


def rows_of(source: AnyFile, out: AnyFile, *, masks: AnyFile | str | None = None, recursive: bool = False) -> Rows:
    """The rows of a folder, a prefix or a manifest; masks may be one in words."""
    if not isinstance(source, StoreFile):
        return read_rows(source, out, masks=masks, recursive=recursive)
    words = masks if isinstance(masks, str) else ""
    files = None if isinstance(masks, str) else masks
    if source.is_file():
        rows = manifest_rows(source, files)
        return [with_mask(each, words) for each in rows] if words else list(rows)
    return ListedRows(source, out, files, words=words, recursive=recursive)


class ListedRows(StreamedRows):
    """In the order in which the store lists them; those that share a name come last."""

    def __init__(
        self, source: StoreFile, out: AnyFile, masks: AnyFile | None = None, *, words: str = "", recursive: bool = False
    ) -> None:
        if source == out:
            raise RequestError("OUT", str(out), "this is SOURCE; give a place of its own, which may lie below it")
        self._source, self._recursive, self._words = source, recursive, words
        self._skipped = tuple(each for each in (out, masks) if isinstance(each, StoreFile) and not source.is_in(each))
        self._masks = MaskChoice(masks)
        self._part: Shard | None = None
        self._places, self._shared = self._looked()
        if not len(self._places):
            raise PictureError(f"{source}: there is no such folder or manifest, or no picture in it")

    def __len__(self) -> int:
        """Their number; that of a part is told by its names, as if none were shared."""
        part = self._part
        return len(self._places) if part is None else int(np.sum(self._places % part.of == part.number))

    def __iter__(self) -> Iterator[BatchRow | UnreadableRow]:
        for group in self.groups():
            yield from group

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)

    def part(self, shard: Shard) -> ListedRows:
        """The same listing, of which only these rows are given."""
        made = object.__new__(ListedRows)
        vars(made).update(vars(self) | {"_part": shard})
        return made

    def groups(self) -> Iterator[list[BatchRow | UnreadableRow]]:
        held: dict[str, list[tuple[PurePosixPath, BatchRow | UnreadableRow]]] = {}
        for number, (name, file) in enumerate(self._pictures(), 1):
            own = _own_name(name)
            family = self._family(own)
            if self._part is not None and not self._part.has(family or own):
                continue
            row = self._row(number, name, file)
            if family is None:
                yield [row]
            else:
                held.setdefault(family, []).append((name, row))
        for each in held.values():
            yield [row for _, row in sorted(each, key=lambda found: natural_key(found[0]))]

    def _looked(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint64]], frozenset[int]]:
        """Where each name lies among all, as the shards have it, and the names that several rows have in common."""
        places, shorter = array("Q"), array("Q")
        for name, _ in self._pictures():
            own = _own_name(name)
            places.append(place_of(own))
            shorter.extend(map(place_of, shorter_names(own)))
        known = np.array(places, dtype=np.uint64)
        ordered = np.sort(known)
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        numbered = np.intersect1d(np.array(shorter, dtype=np.uint64), ordered)
        return known, frozenset(np.union1d(twice, numbered).tolist())

    def _family(self, own: str) -> str | None:
        """The name that others have, too, or are numbered from."""
        if not self._shared:
            return None
        return next((each for each in (*shorter_names(own)[::-1], own) if place_of(each) in self._shared), None)

    def _pictures(self) -> Iterator[tuple[PurePosixPath, StoreFile]]:
        for name, file in pictures_in_store(self._source, self._recursive):
            if not is_hidden(name) and not any(file.is_in(each) for each in self._skipped):
                yield name, file

    def _row(self, number: int, name: PurePosixPath, file: StoreFile) -> BatchRow | UnreadableRow:
        if ".." in str(name).replace("\\", "/").split("/") or "\0" in str(name) or name.is_absolute():
            return UnreadableRow(number, str(name), "no result can have this name; use a manifest, with an output")
        row = picture_row(number, name, file, self._masks)
        return with_mask(row, self._words) if self._words else row


def _own_name(name: PurePosixPath) -> str:
    return str(name.with_suffix("")).casefold()
