"""Where damaged things are set aside: `damaged/` below the data folder. Nothing here ever reads or deletes them."""

from __future__ import annotations

import logging
import shutil
import time
from itertools import count
from pathlib import Path

from overpaint.files.saving import OWNER, save_bytes, sync_folder
from overpaint.service.logs import LOGGER, line

log = logging.getLogger(LOGGER)


class Shelf:
    """Takes a thing and says so, in one sentence."""

    def __init__(self, data: Path) -> None:
        self._root = data / "damaged"
        self.said: list[str] = []

    def say(self, sentence: str, place: Path | None = None) -> None:
        """`place`: where the thing lies by now."""
        self.said.append(sentence if place is None else f"{sentence}; it lies in {place}")
        log.error(line("damaged", what=self.said[-1]))

    def keep(self, name: str, data: bytes) -> Path:
        """A copy of something."""
        return save_bytes(self._place(name), data, mode=OWNER)

    def take(self, path: Path, name: str = "") -> Path:
        """A file or a folder, out of the way of everybody."""
        place = self._place(name or path.name)
        places = (place.with_name(f"{place.name}-{number}") if number else place for number in count())
        free = next(each for each in places if not each.exists())
        shutil.move(path, free)
        sync_folder(free.parent)
        sync_folder(path.parent)
        return free

    def _place(self, name: str) -> Path:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._root / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}"
