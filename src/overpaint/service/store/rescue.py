"""Out of a damaged database, every row that can still be read, into a new one."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from overpaint.service.store.database import lenient_text

_OF_JOBS = ("events", "batches", "files", "sources")
_FARTHEST = 1_000_000  # numbers that are tried one by one, where no list of them can be read
_DATABASE = ("", "-wal")

Numbers = dict[int, str]  # of jobs, with their ids


def rescued(damaged: Path, new: Path) -> tuple[int, Numbers]:
    """How many jobs were copied into the tables of `new`, and those of which only the id was left."""
    with tempfile.TemporaryDirectory(dir=new.parent) as folder:
        copy = Path(folder) / "copy.db"
        for end in _DATABASE:
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{damaged}{end}", f"{copy}{end}")
        with closing(sqlite3.connect(new, isolation_level=None)) as into:
            found = _copied(copy, into)
            if not any(found):
                shutil.copyfile(damaged, copy)
                Path(f"{copy}-wal").unlink(missing_ok=True)
                _give_first_page(copy, new)
                found = _copied(copy, into)
    return found


def _copied(source: Path, into: sqlite3.Connection) -> tuple[int, Numbers]:
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.text_factory = lenient_text
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cell_size_check = ON")
        into.execute("BEGIN IMMEDIATE")
        listed = _listed(connection)
        copied = {row[0] for row in _jobs(connection, listed) if _added(into, "jobs", row)}
        for table in _OF_JOBS:
            for number in copied:
                query = f"SELECT * FROM {table} WHERE job = ?"
                for row in _read(connection, query, number):
                    _added(into, table, row)
        for row in _read(connection, "SELECT * FROM options"):
            _added(into, "options", row)
        into.execute("COMMIT")
    return len(copied), {number: name for number, name in listed.items() if number not in copied}


def _listed(connection: sqlite3.Connection) -> Numbers:
    """All jobs, as the index of their ids has them."""
    found: Numbers = {}
    for direction in ("ASC", "DESC"):
        query = f"SELECT number, id FROM jobs INDEXED BY sqlite_autoindex_jobs_1 ORDER BY id {direction}"
        found |= {number: name for number, name in _read(connection, query) if isinstance(name, str)}
    return found


def _jobs(connection: sqlite3.Connection, listed: Iterable[int]) -> Iterator[Sequence[Any]]:
    """From both ends as far as the table can be read, and one by one between."""
    seen: set[int] = set()
    lowest, highest = 0, max(listed, default=0)
    for row in _read(connection, "SELECT * FROM jobs NOT INDEXED ORDER BY number"):
        lowest = row[0]
        seen.add(lowest)
        yield row
    for row in _read(connection, "SELECT * FROM jobs NOT INDEXED ORDER BY number DESC"):
        if row[0] in seen:
            break
        highest = row[0]
        seen.add(highest)
        yield row
    for number in sorted({*range(lowest, min(highest, lowest + _FARTHEST)), *listed} - seen):
        yield from _read(connection, "SELECT * FROM jobs NOT INDEXED WHERE number = ?", number)


def _read(connection: sqlite3.Connection, query: str, *values: Any) -> Iterator[Sequence[Any]]:
    """Rows up to the first that cannot be read."""
    with suppress(sqlite3.DatabaseError):
        yield from connection.execute(query, values)


def _added(into: sqlite3.Connection, table: str, row: Sequence[Any]) -> bool:
    try:
        into.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    except sqlite3.Error:  # it is no row of this table any more, or is there twice
        return False
    return True


def _give_first_page(damaged: Path, whole: Path) -> None:
    """The first page says where tables begin, which is the same in every database of ours."""
    first = bytearray(whole.read_bytes()[:4096])
    pages = damaged.stat().st_size // len(first)
    struct.pack_into(">I", first, 28, pages)
    struct.pack_into(">II", first, 32, 0, 0)  # what is free is not asked for
    first[92:96] = first[24:28]  # of the same change as that size
    with damaged.open("r+b") as file:
        file.write(first)
