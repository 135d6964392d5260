"""Sources as they were given, each under the hash of its bytes, and no longer than somebody may need them."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Collection, Iterator, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

from overpaint.errors import RequestError, SaveError
from overpaint.files.saving import OWNER, save_bytes, sync_folder
from overpaint.service.jobs import PICTURE_REFERENCE
from overpaint.service.store.tables import Connection

GRACE = 60.0  # seconds in which an upload is safe until a job names it, however full the disk
_REFERENCE = re.compile(re.escape(PICTURE_REFERENCE) + "([0-9a-f]{64})")


class SourceFiles:
    """`inputs/ab/<sha256>` below the data folder."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root = root
        self.incoming = root / "incoming"  # files of processes of ours, until they get a name or are deleted
        # When nobody needed a file that was given at that time of day; anew with each server. Another one may give it.
        self._seen: dict[tuple[str, float], float] = {}
        self._lock = threading.Lock()  # a file that is there already must not be collected while it is counted on

    def keep(self, data: bytes) -> str:
        """Its reference; the file is durable when this returns."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not self._is_there(path, data):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_bytes(path, data, replace=True, mode=OWNER)
        sync_folder(path.parent)
        sync_folder(self._root)
        return PICTURE_REFERENCE + digest

    def take(self, file: Path, digest: str) -> str:
        """The same for a file that a process of ours has written and synced: it gets its name."""
        path = self._path(digest)
        with self._lock:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file.replace(path)
            except OSError as error:
                reason = error.strerror or error
                raise SaveError(f"picture {digest[:12]}: it was not kept ({reason}); send it again") from error
        sync_folder(path.parent)
        sync_folder(self._root)
        return PICTURE_REFERENCE + digest

    def read(self, reference: str) -> bytes:
        digest = digest_in(reference)
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            raise RequestError("picture", reference, "it is not kept here (any more); upload it again") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise RequestError("picture", reference, "its file was damaged; upload it again")
        return data

    def has(self, reference: str, connection: Connection) -> bool:
        return self.is_there(reference)

    def is_there(self, reference: str) -> bool:
        return self._path(reference.removeprefix(PICTURE_REFERENCE)).is_file()

    def remove(self, reference: str) -> None:
        with suppress(OSError):
            self._path(digest_in(reference)).unlink()

    def collect(
        self, wanted: Set[str], connection: Connection, uptime: float, *, keep_seconds: float, keep_bytes: int
    ) -> Collection[str]:
        """Delete what no job needs: what was not given again for so long, and the oldest of what is too much."""
        with self._lock:
            files = sorted(self._unwanted(wanted), key=lambda each: each[1].st_mtime)
            known = ((path.name, stat.st_mtime) for path, stat in files)
            self._seen = {each: self._seen.get(each, uptime) for each in known}
            excess = sum(stat.st_size for _, stat in files) - keep_bytes
            for path, stat in files:
                age = uptime - self._seen[path.name, stat.st_mtime]
                if age > max(keep_seconds, GRACE) or (excess > 0 and age > GRACE):
                    with suppress(OSError):
                        path.unlink()
                    excess -= stat.st_size
        return ()

    def delete(self, places: Collection[str]) -> None:
        """Nothing is left to be deleted."""

    def clean(self) -> None:
        """Take away what a killed process had begun to write."""
        for path in self._root.glob("*/.*.tmp"):
            path.unlink(missing_ok=True)
        for path in self.incoming.glob("*"):
            path.unlink(missing_ok=True)

    def _unwanted(self, wanted: Set[str]) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._root.glob("[0-9a-f][0-9a-f]/*"):
            if PICTURE_REFERENCE + path.name not in wanted:
                with suppress(FileNotFoundError):
                    yield path, path.stat()

    def _is_there(self, path: Path, data: bytes) -> bool:
        """Whole, that is, and from now on as young as a new one."""
        with self._lock:
            try:
                if path.read_bytes() != data:
                    return False
                os.utime(path)
            except OSError:
                return False
            return True

    def _path(self, digest: str) -> Path:
        return self._root / digest[:2] / digest


def digest_in(reference: str) -> str:
    """The SHA-256 that a picture is named by."""
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise RequestError("picture", reference, f"a picture is named {PICTURE_REFERENCE} and 64 digits of its hash")
    return found[1]


def references_in(value: Any) -> Iterator[str]:
    """Every picture that a stored request names."""
    if isinstance(value, str):
        if _REFERENCE.fullmatch(value):
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from references_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from references_in(each)
