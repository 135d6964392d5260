"""Results as files: a folder for each job, whose names lead nowhere else."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Container, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from overpaint.errors import RequestError, SaveError
from overpaint.files.saving import sync_folder
from overpaint.service.store.shelf import Shelf

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class KeptFile:
    """What a file has to be, to be the one that was kept."""

    name: str
    bytes: int
    sha256: str
    place: str = ""  # of the object that it is, where results are in an object store


class ResultFiles:
    """`results/<job id>/<name>` below the data folder."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root.resolve()

    def path(self, job_id: str, name: str) -> Path:
        """Where a file lies or is to lie. It is not below here by a detour, through a link say, or it is refused."""
        for field, value in (("id", job_id), ("file", name)):
            check_name(field, value)
        path = self._root / job_id / name
        if path.resolve() != path:
            raise RequestError("file", name, "it is a link that leads elsewhere; remove it")
        return path

    def kept(self, job_id: str, names: Iterable[str]) -> list[KeptFile]:
        """Files of a job, durable when this returns; one that is missing is an error."""
        files = [self._measured(self.path(job_id, name)) for name in names]
        if files:
            sync_folder(self._root / job_id)
            sync_folder(self._root)
        return files

    def is_whole(self, job_id: str, file: KeptFile) -> bool:
        try:
            path = self.path(job_id, file.name)
            return path.stat().st_size == file.bytes and _digest(path) == file.sha256
        except (OSError, RequestError):
            return False

    def delete(self, job_id: str) -> None:
        """All files of a job. What the system does not let go of is left to the next start."""
        shutil.rmtree(self._root / job_id, ignore_errors=True)

    def set_unknown_aside(self, jobs: Container[str], shelf: Shelf) -> None:
        for folder in self._root.iterdir():
            if folder.is_dir() and not folder.is_symlink() and folder.name not in jobs:
                place = shelf.take(folder, f"results-{folder.name}")
                shelf.say(f"results/{folder.name}: nothing is known of its job any more", place)

    def clean(self, jobs: Mapping[str, Set[str] | None]) -> None:
        """Keep the files of these jobs by name, or (None) all that are whole; delete the rest."""
        for folder in self._root.iterdir():
            if folder.is_symlink() or not folder.is_dir():
                folder.unlink(missing_ok=True)
            elif folder.name not in jobs:
                self.delete(folder.name)
            else:
                _clean_folder(folder, jobs[folder.name])

    def _measured(self, path: Path) -> KeptFile:
        try:
            _sync_file(path)
            return KeptFile(path.name, path.stat().st_size, _digest(path))
        except OSError as error:
            reason = error.strerror or str(error)
            raise SaveError(f"{path}: the picture is not there ({reason}): paint it again") from error


def is_kept(file: KeptFile, data: bytes) -> bool:
    """Whether these are the bytes that were kept."""
    return len(data) == file.bytes and hashlib.sha256(data).hexdigest() == file.sha256


def check_name(field: str, value: str) -> None:
    """Something that becomes the name of a file or a folder."""
    if not _NAME.fullmatch(value):
        raise RequestError(field, value, "give 1 to 128 letters, digits or . _ - with no dot at either end")


def _clean_folder(folder: Path, names: Set[str] | None) -> None:
    for path in folder.iterdir():
        if path.name.endswith(".tmp") or (names is not None and path.name not in names):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
