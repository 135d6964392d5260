"""Files that users name: pictures, masks, models, manifests."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from overpaint.errors import PictureError


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what can be opened and never read to an end, as pipes and devices are.

    Whatever opens a file that a user names asks here before. A missing file and a folder say so themselves.
    """
    try:
        kind = Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise PictureError(f"{os.fspath(path)}: this is a pipe or a device; give the path of a file")
