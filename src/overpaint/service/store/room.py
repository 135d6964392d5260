"""Whether the disk of a data folder takes anything."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from overpaint.service.limits import MIB

DISK_ROOM = 16 * MIB  # free space, below which nothing can be accepted or kept
_PROBE = bytes(64 * 1024)


def has_space(data: Path) -> bool:
    """Quick enough to be asked by everybody."""
    try:
        return shutil.disk_usage(data).free >= DISK_ROOM
    except OSError:
        return False


def takes_files(data: Path) -> bool:
    """There is space, and a file can be written: a quota, or a disk that was turned read-only, allows none."""
    if not has_space(data):
        return False
    try:
        with tempfile.TemporaryFile(dir=data, buffering=0) as file:
            file.write(_PROBE)
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def size_of(folder: Path) -> int:
    """Of all files below it."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(map(_bytes_of, files))


def _bytes_of(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # it was just deleted
        return 0
