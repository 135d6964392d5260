"""A database as it is found: whole, or made whole of what can still be read. What is damaged is set aside first."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from overpaint.errors import SaveError
from overpaint.service.store import job_rows as rows
from overpaint.service.store.database import Database, SqliteConnection
from overpaint.service.store.rescue import rescued
from overpaint.service.store.shelf import Shelf
from overpaint.service.store.wal import Log

_SHOWN = 3  # of what SQLite finds wrong


def opened(path: Path, shelf: Shelf) -> Database:
    """The database, which nobody else has open for writing."""
    log = Log.of(path)
    if not path.exists() or not path.stat().st_size:
        if log.data:
            shelf.say(f"{path.name}: it is not there, though its log is", shelf.keep(f"{path.name}-wal", log.data))
        elif _has_any(path.parent / "results"):
            shelf.say(f"{path.name}: it is not there, though there are results")
        return Database(path)
    taken, problems = found_in(path)
    if lost := log.trouble(taken):
        place = shelf.keep(f"{path.name}-wal", log.data)
        shelf.say(f"{path.name}-wal: {lost}; what was written down last may be lost", place)
    if problems:
        _mend(path, problems, log, shelf)
    return Database(path)


def found_in(path: Path) -> tuple[int, list[str]]:
    """How much of its log SQLite could read, and what is wrong with the database."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return 0, []
            taken = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_SHOWN})")]
    except sqlite3.OperationalError as error:
        raise SaveError(f"{path}: it cannot be read ({error}); check the disk") from error
    except sqlite3.DatabaseError as error:
        return 0, [str(error)]
    return max(0, taken), [" ".join(each.split()) for each in found if each != "ok"]


def _mend(path: Path, problems: list[str], log: Log, shelf: Shelf) -> None:
    new = path.with_name(f".{path.name}.tmp")
    for each in (new, *_beside(new)):
        each.unlink(missing_ok=True)
    Database(new).close()
    try:
        copied, lost = rescued(path, new)
        if not copied and not lost:
            said = f"the file is damaged ({problems[0]}) and nothing in it can be read"
            raise SaveError(f"{path}: {said}: move it away or restore a backup")
        with closing(sqlite3.connect(new, factory=SqliteConnection)) as connection, connection:
            for number, job_id in lost.items():
                rows.add_lost(connection, number, job_id)
        place = shelf.keep(path.name, path.read_bytes())
        if log.data:
            shelf.keep(f"{path.name}-wal", log.data)
        # NOTE: a log belongs to its database; beside the new one it would be taken for that one's.
        for each in _beside(path):
            each.unlink(missing_ok=True)
        new.replace(path)
    finally:
        for each in (new, *_beside(new)):
            each.unlink(missing_ok=True)
    told = f"{copied} jobs can be read" + (f", of {len(lost)} only the names" if lost else "")
    shelf.say(f"{path.name}: it is damaged ({'; '.join(problems[:_SHOWN])}); {told}", place)


def _has_any(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _beside(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))


def copy_of(path: Path, folder: Path) -> Path:
    """The database with its log as they are, to be looked at without touching them."""
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if each.exists():
            shutil.copyfile(each, folder / each.name)
    return folder / path.name
