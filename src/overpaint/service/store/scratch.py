"""A folder of one process, for what it needs on its own disk meanwhile. Whatever a killed one has left, the next takes
away."""

from __future__ import annotations

import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from overpaint.errors import RequestError
from overpaint.service.store.folder_lock import LOCK_FILE, FolderLock

_TRIES = 5


class Scratch:
    """`folder` is there until it is closed, and nobody else's."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for each in root.iterdir():
            if (each / LOCK_FILE).exists():
                _take_away(each)
        self.folder, self._lock = _own(root)

    def close(self) -> None:
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


def _own(root: Path) -> tuple[Path, FolderLock]:
    """Another process may be cleaning up just then, and take away what is not locked yet."""
    for _ in range(_TRIES):
        folder = root / secrets.token_hex(8)
        with suppress(RequestError, FileNotFoundError):
            folder.mkdir(mode=0o700)
            lock = FolderLock(folder)
            if (folder / LOCK_FILE).exists():
                return folder, lock
            lock.release()
    raise OSError(f"{root}: no folder can be made there")


def _take_away(folder: Path) -> None:
    with suppress(RequestError, OSError):  # somebody works there
        lock = FolderLock(folder)
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
