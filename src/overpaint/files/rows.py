"""The rows of a batch: which pictures, with which mask, to which name; of a folder, or of JSONL, CSV or Parquet.

A row of a manifest that names no picture asks for a new one.
"""

from __future__ import annotations

import json
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from overpaint.errors import PictureError, RequestError
from overpaint.files.journal import results_in
from overpaint.files.parquet_rows import PARQUET_SUFFIX, parquet_rows
from overpaint.files.table_rows import TABLE_SUFFIXES, table_rows
from overpaint.masks import means_mask, parse
from overpaint.stores import AnyFile, StoreFile, below, is_url, listed_below
from overpaint.text.shorthand import with_parts

if TYPE_CHECKING:
    from overpaint.files.shards import Shard

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".bmp", ".gif"}
)
_FILE_FIELDS = ("picture", "mask", "latent_mask", "strength_map")
_MASKS = _FILE_FIELDS[1:]  # which may be in words
_MOST_BYTES_A_LINE = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRow:
    """One request to be: its pictures on disk, the name of its result, and the fields that are its own."""

    number: int  # from 1: its line, or its place in the folder
    name: str  # for people
    output: PurePosixPath  # below the output folder, without ending
    files: Mapping[str, AnyFile]  # perhaps picture, mask, latent_mask, strength_map; control pictures are in the fields
    fields: Mapping[str, Any] = field(default_factory=dict)
    folder: AnyFile = Path()  # where the files lie that a mask in words names

    @property
    def has_source(self) -> bool:
        return "picture" in self.files


@dataclass(frozen=True)
class UnreadableRow:
    """A row that cannot become a request."""

    number: int
    name: str
    problem: str


Rows: TypeAlias = Collection[BatchRow | UnreadableRow]
"""All rows of a batch: a list, or a listing that is read anew each time."""


class StreamedRows(Collection[BatchRow | UnreadableRow]):
    """Rows that are nowhere held as a whole; each has a picture."""

    @abstractmethod
    def groups(self) -> Iterator[Sequence[BatchRow | UnreadableRow]]:
        """All of them, those together whose results may want one name."""

    @abstractmethod
    def part(self, shard: Shard) -> StreamedRows:
        """Those of one shard."""


def has_sources(rows: Rows) -> set[bool]:
    """Which kinds of rows there are: with a picture to paint over, and without."""
    if isinstance(rows, StreamedRows):
        return {True}
    return {row.has_source for row in rows if isinstance(row, BatchRow)}


def read_rows(
    source: Path, out: AnyFile, *, masks: AnyFile | str | None = None, recursive: bool = False
) -> list[BatchRow | UnreadableRow]:
    """The rows of a folder, or of a manifest when the source is a file; masks may be one in words."""
    if isinstance(masks, str):
        words = masks
        return [with_mask(each, words) for each in read_rows(source, out, recursive=recursive)]
    if source.is_dir():
        return list(_folder_rows(source, out, masks, recursive))
    if source.is_file():
        return list(manifest_rows(source, masks))
    raise PictureError(f"{source}: there is no such folder or manifest")


def with_mask(row: BatchRow | UnreadableRow, words: str) -> BatchRow | UnreadableRow:
    """A row that paints over a picture and has no mask of its own."""
    if not isinstance(row, BatchRow) or not row.has_source or "mask" in row.files or "mask" in row.fields:
        return row
    return replace(row, fields={**row.fields, "mask": words}, folder=Path())


def natural_key(path: PurePosixPath) -> list[tuple[int, str]]:
    """2.png before 10.png (BATCH-1)."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _folder_rows(
    folder: Path, out: AnyFile, masks: AnyFile | None, recursive: bool
) -> Iterator[BatchRow | UnreadableRow]:
    """BATCH-1, BATCH-2. The output and the masks may lie inside the folder, and results in it: they are no sources."""
    skipped = {path.resolve() for path in (out, masks) if isinstance(path, Path)} - {folder.resolve()}
    there = list(_pictures_below(folder, recursive, skipped))
    # NOTE: in this order. Another shard may be painting, and promises a file before it is there.
    results = results_in(out) if isinstance(out, Path) else set()
    found = sorted((each for each in there if (folder / each).resolve() not in results), key=natural_key)
    choose = MaskChoice(masks)
    for number, name in enumerate(found, 1):
        yield picture_row(number, name, folder / name, choose)


def picture_row(number: int, name: PurePosixPath, picture: AnyFile, masks: MaskChoice) -> BatchRow | UnreadableRow:
    """The row of a picture that was found under this name."""
    mask = masks.mask_for(name)
    if masks.place is not None and mask is None:
        return UnreadableRow(number, str(name), f"there is no mask {name.stem}.* for it in {masks.place}")
    files = {"picture": picture} | ({"mask": mask} if mask is not None else {})
    return BatchRow(number=number, name=str(name), output=name.with_suffix(""), files=files)


def _pictures_below(folder: Path, recursive: bool, skipped: set[Path]) -> Iterator[PurePosixPath]:
    for root, folders, names in os.walk(folder):
        here = Path(root)
        hidden = [each for each in folders if each.startswith(".") or (here / each).resolve() in skipped]
        folders[:] = [each for each in folders if recursive and each not in hidden]
        for name in names:
            is_picture = Path(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".")
            if is_picture and (here / name).resolve() not in skipped:
                yield PurePosixPath((here / name).relative_to(folder).as_posix())


class MaskChoice:
    """BATCH-2: one mask serves all, several serve the pictures of their names; the folder is listed once."""

    def __init__(self, masks: AnyFile | None) -> None:
        self.place = masks
        self._only = masks if masks is not None and masks.is_file() else None
        self._by_name: dict[PurePosixPath, AnyFile] = {}
        if masks is None or self._only is not None:
            return
        there = _masks_below(masks)
        found = sorted(there, key=natural_key)
        self._by_name = {each.with_suffix(""): there[each] for each in reversed(found)}
        if len(found) == 1:
            self._only = there[found[0]]

    def mask_for(self, name: PurePosixPath) -> AnyFile | None:
        if self._only is not None or not self._by_name:
            return self._only
        whole = name.with_suffix("")
        return self._by_name.get(whole) or self._by_name.get(PurePosixPath(whole.name))


def _masks_below(masks: AnyFile) -> dict[PurePosixPath, AnyFile]:
    there: dict[PurePosixPath, AnyFile] = {}
    if isinstance(masks, Path):
        there.update((each, masks / each) for each in _pictures_below(masks, True, set()))
        is_there = masks.is_dir()
    else:
        there.update((name, file) for name, file in pictures_in_store(masks, True) if not is_hidden(name))
        is_there = bool(there)
    if not is_there:
        raise RequestError("masks", str(masks), "there is no such file or folder")
    return there


def pictures_in_store(top: StoreFile, recursive: bool) -> Iterator[tuple[PurePosixPath, StoreFile]]:
    """Pictures by their names below a prefix, in the store's order."""
    start = len(top.url) + 1
    for each in listed_below(top, recursive):
        if each.suffix.lower() in PICTURE_SUFFIXES:
            yield PurePosixPath(each.url[start:]), each


def is_hidden(name: PurePosixPath) -> bool:
    return any(each.startswith(".") and each != ".." for each in name.parts)


def manifest_rows(manifest: AnyFile, masks: AnyFile | None) -> Iterator[BatchRow | UnreadableRow]:
    choose = MaskChoice(masks)
    for number, given in _READERS.get(manifest.suffix.lower(), _json_rows)(manifest):
        row = given if isinstance(given, RequestError) else _row_or_error(number, given, manifest.parent, choose)
        yield UnreadableRow(number, f"line {number}", str(row)) if isinstance(row, RequestError) else row


_READERS: Mapping[str, Callable[[AnyFile], Iterator[tuple[int, dict[str, Any] | RequestError]]]] = {
    **dict.fromkeys(TABLE_SUFFIXES, table_rows),
    PARQUET_SUFFIX: parquet_rows,
}


def _row_or_error(number: int, given: dict[str, Any], folder: AnyFile, masks: MaskChoice) -> BatchRow | RequestError:
    try:
        return _manifest_row(number, given, folder, masks)
    except RequestError as error:
        return error


def _json_rows(manifest: AnyFile) -> Iterator[tuple[int, dict[str, Any] | RequestError]]:
    with manifest.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, _object(line)
                except RequestError as error:
                    yield number, error


def _manifest_row(number: int, given: dict[str, Any], folder: AnyFile, masks: MaskChoice) -> BatchRow:
    if "images" in given:
        raise RequestError("images", given["images"], "a row has one source at most; name its file as picture")
    texts = {name: given.pop(name, None) for name in (*_FILE_FIELDS, "output")}
    for name, value in texts.items():
        if value is not None and (not isinstance(value, str) or not value or "\0" in value):
            raise RequestError(name, value, "give a path")
    words = {name: str(texts[name]) for name in _MASKS if means_mask(texts[name], folder)}
    named = {each: text for each in _FILE_FIELDS if (text := texts[each]) is not None and each not in words}
    files = {each: below(folder, text, each) for each, text in named.items()}
    given = with_parts(given, folder) | words
    for each in words.values():
        parse(each)
    if texts["picture"] is None:
        return _new_picture(number, texts["output"], files, given)
    url = is_url(texts["picture"])
    picture = PurePosixPath(files["picture"].name if url else Path(texts["picture"]).as_posix())
    if picture.name in ("", ".."):
        raise RequestError("picture", texts["picture"], "this is a folder; give the path of a picture")
    if (
        "mask" not in files
        and "mask" not in words
        and (mask := masks.mask_for(PurePosixPath(picture.name))) is not None
    ):
        files["mask"] = mask
    output = _output_name(texts["output"]) if texts["output"] is not None else _inside(picture)
    return BatchRow(
        number=number, name=f"line {number}: {picture}", output=output, files=files, fields=given, folder=folder
    )


def _new_picture(number: int, output: str | None, files: Mapping[str, AnyFile], fields: Mapping[str, Any]) -> BatchRow:
    if files:
        raise RequestError("picture", None, f"give the path of the source picture that the {next(iter(files))} is for")
    if not fields:
        raise RequestError("picture", None, "give the path of a source picture, or the prompt of a new one")
    name = _output_name(output) if output is not None else PurePosixPath(f"txt2img-{number}")
    return BatchRow(number=number, name=f"line {number}: {name}", output=name, files={}, fields=fields)


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > _MOST_BYTES_A_LINE:
        raise RequestError("row", f"{len(line)} bytes", "give at most 1 MiB a line")
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError("row", line[:60].decode(errors="replace"), f"it is not JSON ({error})") from None
    if not isinstance(given, dict):
        raise RequestError("row", given, "give one JSON object a line")
    return given


def _output_name(text: str) -> PurePosixPath:
    path = PurePosixPath(text.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or Path(text).drive or not path.name:
        raise RequestError("output", text, "give a name inside the output folder")
    return path.with_suffix("") if path.suffix.lower() in PICTURE_SUFFIXES else path


def _inside(picture: PurePosixPath) -> PurePosixPath:
    """The picture's own place, unless it lies elsewhere than below the manifest."""
    elsewhere = picture.is_absolute() or ".." in picture.parts
    return PurePosixPath(picture.stem) if elsewhere else picture.with_suffix("")
