"""Results on disk: a file is there whole, or not at all, and no other file was lost for it."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from overpaint.errors import SaveError
from overpaint.files.formats import storable
from overpaint.files.metadata import Content, encode_picture, format_for, recipe_path, recipe_text
from overpaint.files.naming import NameFacts, subfolder, target_paths
from overpaint.settings import Settings

_SUFFIX_TRIES = 10_000
_REMEDIES = {
    errno.ENOSPC: "free space on the disk or save elsewhere",
    errno.EDQUOT: "free space within the quota or save elsewhere",
    errno.EROFS: "the disk is read-only; save elsewhere",
    errno.EACCES: "make the folder writable or save elsewhere",
    errno.EPERM: "make the folder writable or save elsewhere",
    errno.EFBIG: "raise the limit on file sizes or save a smaller file",
    errno.ENAMETOOLONG: "shorten the name pattern",
    errno.ENOTDIR: "a file stands where a folder is wanted; save elsewhere",
    errno.EEXIST: "the name is taken; choose another or allow replacing",
}
_NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK})


@dataclass(frozen=True)
class SavedPicture:
    """Where a picture went, and what lies beside it."""

    path: Path
    text_path: Path | None = None
    copy_path: Path | None = None
    recipe_path: Path | None = None


EVERYBODY, OWNER = 0o666, 0o600  # who may read a file, as far as the umask lets them


def save_bytes(path: Path, data: Content, *, replace: bool = False, mode: int = EVERYBODY) -> Path:
    """Writes a file, atomically; returns where: a taken name gets -1, -2, ... behind it unless it may be replaced."""
    if replace:
        return save_first_free([path], data, replace=True, mode=mode)
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(1))
    return save_first_free(chain([path], islice(numbered, _SUFFIX_TRIES)), data, mode=mode)


def save_first_free(paths: Iterable[Path], data: Content, *, replace: bool = False, mode: int = EVERYBODY) -> Path:
    """Writes a file under the first of several names of one folder that is not taken.

    Any number of processes may do so at once: the name is claimed by the file system, in one step, with the whole file.
    """
    names = iter(paths)
    first = next(names, None)
    if first is None:
        raise SaveError("no name is left for the picture: clear the folder or change the name pattern")
    path = first
    try:
        with _temporary_file(first.parent, data, mode) as temporary:
            for path in chain([first], names):
                if _claimed(temporary, path, replace):
                    sync_folder(path.parent)
                    return path
        raise FileExistsError(errno.EEXIST, "every name is taken")
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the folder or save elsewhere")
        reason = error.strerror or str(error)
        what = f"{len(data)} bytes were" if isinstance(data, bytes) else "the picture was"
        raise SaveError(f"{path}: {what} not saved ({reason}): {remedy}") from error


@contextmanager
def _temporary_file(folder: Path, data: Content, mode: int) -> Iterator[Path]:
    """The data on disk under a name of no meaning, in the folder where it is wanted; gone afterwards."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        try:
            for piece in (data,) if isinstance(data, bytes) else data:
                view = memoryview(piece)
                while view:
                    view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _claimed(temporary: Path, path: Path, may_replace: bool) -> bool:
    if may_replace:
        temporary.replace(path)
        return True
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _claimed_without_link(temporary, path)
    return True


def _claimed_without_link(temporary: Path, path: Path) -> bool:
    """For file systems without hard links: an empty file holds the name until the whole one takes its place."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, EVERYBODY))
    except FileExistsError:
        return False
    try:
        temporary.replace(path)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def sync_folder(folder: Path) -> None:
    """The name, too, should outlive a power cut. Where a folder cannot be synced, the file is saved all the same."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save_picture(
    image: Image.Image,
    infotext: str | None,
    root: Path,
    facts: NameFacts,
    settings: Settings,
    *,
    basename: str = "",
    suffix: str = "",
    name: str | None = None,
    is_grid: bool = False,
    items: Mapping[str, str] | None = None,
    exif: bytes | None = None,
    icc: bytes | None = None,
    recipe: Mapping[str, object] | None = None,
) -> SavedPicture:
    """Saves a picture below `root` under the name its facts give it, with what the settings want beside it.

    `name` stands for the pattern (a batch keeps the names of its sources). Nothing is overwritten, except by a name of
    the pattern without running number while `save_images_replace_action` says "Replace".
    """
    shown = settings.enable_pnginfo  # STORE-1
    contents = _Contents(infotext if shown else None, items if shown else None, exif, icc, recipe)
    extension = format_for(image, settings.grid_format if is_grid else settings.samples_format, contents.infotext)
    data = _encoded(image, extension, contents, settings)
    facts = _with_image_hash(image, facts, settings)
    folder = subfolder(root, facts, settings, is_grid=is_grid)
    targets = target_paths(
        folder, facts, settings, extension, basename=basename, suffix=suffix, name=name, is_grid=is_grid
    )
    may_replace = targets.is_pattern_alone and settings.save_images_replace_action == "Replace"
    texts = _texts_beside(infotext, recipe if extension != "png" else None, settings)
    free = (path for path in targets.paths if may_replace or not any(place(path).exists() for place in texts))
    path = save_first_free(free, data, replace=may_replace)
    beside = {place: save_bytes(place(path), text, replace=may_replace) for place, text in texts.items()}
    copy_path = None
    if copy := _small_copy(image, len(data), path, contents, settings):
        copy_path = save_bytes(path.with_suffix(".jpg"), copy, replace=may_replace and path.suffix != ".jpg")
    return SavedPicture(path, beside.get(_text_path), copy_path, beside.get(recipe_path))


class _Contents(NamedTuple):
    """What goes into a file besides the pixels."""

    infotext: str | None
    items: Mapping[str, str] | None
    exif: bytes | None
    icc: bytes | None
    recipe: Mapping[str, object] | None


def _encoded(image: Image.Image, extension: str, contents: _Contents, settings: Settings) -> bytes:
    quality, lossless = settings.jpeg_quality, settings.webp_lossless
    return encode_picture(image, extension, **contents._asdict(), quality=quality, lossless=lossless)


def _with_image_hash(image: Image.Image, facts: NameFacts, settings: Settings) -> NameFacts:
    patterns = settings.samples_filename_pattern + settings.directories_filename_pattern
    if facts.image_hash or "image_hash" not in patterns.lower():
        return facts
    return replace(facts, image_hash=hashlib.sha256(image.tobytes()).hexdigest())


def _text_path(path: Path) -> Path:
    return path.with_suffix(".txt")


def _texts_beside(
    infotext: str | None, recipe: Mapping[str, object] | None, settings: Settings
) -> dict[Callable[[Path], Path], bytes]:
    """STORE-6, and the recipe of a picture that cannot hold it: what is written, by where it lies."""
    texts: dict[Callable[[Path], Path], bytes] = {}
    if settings.save_txt and infotext is not None:
        texts[_text_path] = f"{infotext}\n".encode("utf-8", "replace")
    if recipe is not None:
        texts[recipe_path] = recipe_text(recipe).encode()
    return texts


def _small_copy(image: Image.Image, size: int, path: Path, contents: _Contents, settings: Settings) -> bytes | None:
    """STORE-7: a JPEG of a picture that is too large to be shown in many places."""
    longest, limit = max(image.size), settings.target_side_length
    is_heavy = size > settings.img_downscale_threshold * 1024 * 1024 and path.suffix not in (".jpg", ".jpeg")
    if not settings.export_for_4chan or not (is_heavy or longest > limit):
        return None
    copy = storable(image, "JPEG")
    if longest > limit:
        width, height = (max(1, round(each * limit / longest)) for each in image.size)
        copy = copy.resize((width, height), Image.Resampling.LANCZOS)
    if format_for(copy, "jpg", contents.infotext) != "jpg":
        contents = contents._replace(infotext=None)
    return _encoded(copy, "jpg", contents, settings) if format_for(copy, "jpg") == "jpg" else None
