"""Whether SQLite's write-ahead log lost something. SQLite itself reads it up to the first damage and says nothing.

What is looked at is described in https://www.sqlite.org/fileformat2.html#walformat and walformat.html.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # and the byte order of its checksums


@dataclass(frozen=True)
class Log:
    """A log as it lay there before anybody opened the database."""

    data: bytes
    promised: int  # frames that were committed, as far as its index tells

    @classmethod
    def of(cls, database: Path) -> Log:
        data, index = (_read(database.with_name(database.name + end)) for end in ("-wal", "-shm"))
        is_of_this_log = len(index) >= 48 and index[12] == 1 and index[32:40] == data[16:24]
        return cls(data, int(struct.unpack_from("=I", index, 16)[0]) if is_of_this_log else 0)

    def trouble(self, taken: int) -> str | None:
        """What is wrong with it, if SQLite could take so many frames of it."""
        if not self.data:
            return None
        if not self._has_header():
            return "its beginning is damaged, and nothing of it could be read"
        if taken < self.promised or self._commits_after(taken) > 1:  # the last one may have been torn by a power cut
            return f"it is damaged after {taken} pages"
        return None

    def _has_header(self) -> bool:
        if len(self.data) < _HEADER:
            return False
        order = _MAGIC.get(struct.unpack_from(">I", self.data)[0])
        if order is None:
            return False
        first = second = 0
        for one, other in struct.iter_unpack(f"{order}II", self.data[:24]):
            first = (first + one + second) & 0xFFFFFFFF
            second = (second + other + first) & 0xFFFFFFFF
        return (first, second) == struct.unpack_from(">II", self.data, 24)

    def _commits_after(self, taken: int) -> int:
        """Frames of this log that end a transaction, beyond those that could be read; older logs have other salts."""
        page = struct.unpack_from(">I", self.data, 8)[0]
        size = _FRAME_HEADER + (65_536 if page == 1 else page)
        starts = range(_HEADER + taken * size, len(self.data) - size + 1, size)
        frames = (self.data[at : at + _FRAME_HEADER] for at in starts)
        return sum(each[8:16] == self.data[16:24] and each[4:8] != bytes(4) for each in frames)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
