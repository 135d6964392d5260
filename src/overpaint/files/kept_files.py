"""Files that belong to a painted picture: named by place and content, found again, or carried inside when small."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from overpaint.errors import PictureError, RequestError
from overpaint.named_files import check_regular
from overpaint.pictures import open_picture
from overpaint.pixels.mask import to_gray_mask
from overpaint.request import Picture
from overpaint.stores import AnyFile, StoreFile

LARGEST_EMBEDDED = 262_144  # bytes of PNG; a larger picture is named by its file
LARGEST_CONTROLS = 524_288  # of all control pictures together; readers take a MiB of texts in a picture


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file by place and content. The path is relative to the painted picture where that is possible."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: AnyFile, beside: AnyFile | None = None, *, whole: bool = False) -> FileRecord:
        """The record of a file, as seen from the folder of the painted picture, or with its whole path."""
        if isinstance(path, StoreFile):
            return cls(path=path.url if whole else _seen_in_store(path, beside), sha256=file_sha256(path))
        beside = None if isinstance(beside, StoreFile) else beside
        place = path.resolve()
        return cls(path=place.as_posix() if whole else _seen_from(place, beside), sha256=file_sha256(path))


def find_file(record: FileRecord, what: str, near: Sequence[Path]) -> Path:
    """The recorded file, looked for near the given folders; one whose content changed is refused."""
    changed = None
    for candidate in dict.fromkeys(_candidates(record, near)):
        if not candidate.is_file():
            continue
        if file_sha256(candidate) == record.sha256:
            return candidate
        changed = changed or candidate
    if changed is not None:
        remedy = f"it changed since (its SHA-256 is another one); give --{what} to paint from it all the same"
        raise RequestError(what, str(changed), remedy)
    raise RequestError(what, record.path, f"it is not there any more; give --{what} with its new place")


def open_kept(kept: FileRecord | str | None, what: str, near: Sequence[Path], max_pixels: int) -> Picture | None:
    """A picture out of a recipe."""
    if kept is None:
        return None
    if isinstance(kept, FileRecord):
        return open_picture(find_file(kept, what, near), max_pixels=max_pixels)
    try:
        return open_picture(base64.b64decode(kept.partition(",")[2], validate=True), max_pixels=max_pixels)
    except ValueError as error:
        raise PictureError(f"the recipe's {what} cannot be read ({error}); give --{what}") from None


def file_sha256(path: AnyFile) -> str:
    """The SHA-256 of a file's bytes."""
    if isinstance(path, StoreFile):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    check_regular(path)
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def kept_mask(mask: Picture | None, round_mask: bool, record: FileRecord | None) -> FileRecord | str | None:
    """What a recipe keeps of a mask: itself as it is read, or where it is."""
    if mask is None:
        return None
    data = io.BytesIO()
    to_gray_mask(mask, round_mask).save(data, format="PNG", optimize=True)
    if data.tell() > LARGEST_EMBEDDED and record is not None:
        return record
    return _data_url(data.getvalue())


def embedded_controls(pictures: Sequence[Picture | None]) -> tuple[str | None, ...]:
    """Pictures as PNG data URLs; None for one that there is no room left for."""
    kept: list[str | None] = []
    room = LARGEST_CONTROLS
    for picture in pictures:
        data = b"" if picture is None else _png(picture)
        kept.append(_data_url(data) if 0 < len(data) <= room else None)
        room -= len(data) if kept[-1] is not None else 0
    return tuple(kept)


def _png(picture: Picture) -> bytes:
    data = io.BytesIO()
    shown = picture if picture.mode in ("1", "L", "RGB", "RGBA") else picture.convert("RGB")
    shown.save(data, format="PNG", optimize=True)
    return data.getvalue()


def _data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _candidates(record: FileRecord, near: Sequence[Path]) -> Iterator[Path]:
    path = Path(record.path)
    if path.is_absolute():
        yield path
    for folder in near:
        yield folder / path
        yield folder / path.name


def _seen_from(path: Path, folder: Path | None) -> str:
    """A relative path keeps pictures and sources movable together, and a user's home folder out of shared pictures.

    NOTE: between folders that share the root only, or the folder of all homes, it would be the whole path again.
    """
    if folder is None:
        return path.name
    try:
        folder = folder.resolve()
        shared = Path(os.path.commonpath((path, folder)))
        if shared in _above_homes():
            return path.name
        return PurePosixPath(Path(os.path.relpath(path, folder))).as_posix()
    except ValueError:  # another drive
        return path.name


def _seen_in_store(file: StoreFile, folder: AnyFile | None) -> str:
    """Within one bucket a relative path, as between folders; nobody else's business is which bucket it was."""
    if not isinstance(folder, StoreFile) or folder.bucket != file.bucket:
        return file.name
    return posixpath.relpath(file.path, folder.path)


def _above_homes() -> frozenset[Path]:
    """The root, and every folder that users' home folders lie in."""
    above = {Path(os.sep).resolve(), Path("/home"), Path("/Users")}
    with suppress(RuntimeError):  # a user without a home
        above.update(Path.home().resolve().parents)
    return frozenset(above)
