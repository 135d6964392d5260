"""Files that users name: pictures, masks, models, manifests."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from overpaint.errors import OverpaintError, PictureError


def check_regular(path: str | os.PathLike[str], error: Callable[[str], OverpaintError] = PictureError) -> None:
    """Refuse what can be opened and never read to an end.

    Whatever opens a file that a user names asks here before. A missing file and a folder say so themselves.
    """
    if is_endless(path):
        raise error(f"{os.fspath(path)}: this is a pipe or a device; give the path of a file")


def is_endless(path: str | os.PathLike[str]) -> bool:
    """Whether it is a pipe, a device or the like. Lists of a folder's files leave these out."""
    try:
        kind = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))
