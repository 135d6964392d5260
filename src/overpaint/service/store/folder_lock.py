"""One server to a data folder."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from overpaint.errors import RequestError

LOCK_FILE = "server.lock"
_FAR = 1 << 20  # where Windows locks a byte, so that others can read what stands at the beginning

if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> None:
        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FolderLock:
    """A lock on an open file, which the system lifts when its process dies, however it dies.

    NOTE: the file stays. Were it deleted, two servers could hold locks on two files of one name.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_FILE
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _try_lock(handle)
        except OSError as error:
            os.close(handle)
            remedy = f"another server{_holder(path)} works in this folder; stop it or give another folder"
            raise RequestError("--data", str(folder), remedy) from error
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        with suppress(OSError):  # only what others are told
            os.write(handle, str(os.getpid()).encode())
        self._handle: int | None = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def check_nobody_works(folder: Path) -> None:
    """Refuse a folder that a server works in; nothing is made or changed there."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:  # no server has been there, or none could be
        return
    try:
        _try_lock(handle)
    except OSError as error:
        raise RequestError("--data", str(folder), f"a server{_holder(folder / 'server.lock')} works there") from error
    finally:
        os.close(handle)


def _holder(path: Path) -> str:
    try:
        number = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return f" (process {number})" if number.isdigit() else ""
