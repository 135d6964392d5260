"""The SQLite file of a data folder: durable, one writer at a time, brought to this version's tables when opened."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from overpaint.errors import SaveError

OLDEST_SQLITE = (3, 37)  # the first with STRICT tables
PATIENCE = 5.0  # seconds that another program, such as one that makes a backup, may hold the file

# From each version of the tables to the next; what was released is never changed. A statement each, since a script of
# several would end the transaction that they belong to.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE jobs (
            number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of acceptance
            id TEXT NOT NULL UNIQUE,
            client TEXT NOT NULL,
            key TEXT,
            fingerprint TEXT NOT NULL,
            job TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'queued'
                CHECK (state IN ('queued', 'running', 'finished', 'failed', 'cancelled')),
            started REAL,
            ended REAL CHECK ((ended IS NULL) = (state IN ('queued', 'running'))),
            attempts INTEGER NOT NULL DEFAULT 0,
            step INTEGER NOT NULL DEFAULT 0,
            steps INTEGER NOT NULL DEFAULT 0,
            images_total INTEGER NOT NULL DEFAULT 0,
            result TEXT,
            error TEXT,
            gone INTEGER NOT NULL DEFAULT 0,
            last_event INTEGER NOT NULL DEFAULT 0,
            events INTEGER NOT NULL DEFAULT 0  -- how many are kept
        ) STRICT""",
        # Some file systems do not tell a from A, and a job's id is the name of its folder.
        "CREATE UNIQUE INDEX jobs_by_folder ON jobs (lower(id))",
        "CREATE UNIQUE INDEX jobs_by_key ON jobs (client, key) WHERE key IS NOT NULL",
        "CREATE INDEX jobs_by_state ON jobs (state, number)",
        "CREATE INDEX jobs_by_end ON jobs (gone, ended)",
        """CREATE TABLE events (
            job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
            number INTEGER NOT NULL,
            name TEXT NOT NULL,
            data TEXT NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (job, number)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE batches (
            job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
            number INTEGER NOT NULL,
            batch TEXT NOT NULL,
            PRIMARY KEY (job, number)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE files (
            job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
            name TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            sha256 TEXT NOT NULL,
            PRIMARY KEY (job, name)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE sources (
            job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
            reference TEXT NOT NULL,
            PRIMARY KEY (job, reference)
        ) STRICT, WITHOUT ROWID""",
        "CREATE TABLE options (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
    (  # moments in the uptime, which begins here
        "ALTER TABLE jobs ADD COLUMN accepted_at REAL NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN started_at REAL",
        "ALTER TABLE jobs ADD COLUMN ended_at REAL",
        "UPDATE jobs SET ended_at = 0 WHERE ended IS NOT NULL",
        "DROP INDEX jobs_by_end",
        "CREATE INDEX jobs_by_end ON jobs (gone, ended_at)",
    ),
    (  # who runs a job, until when in the uptime that counts, and the number of that claim
        "ALTER TABLE jobs ADD COLUMN worker TEXT",
        "ALTER TABLE jobs ADD COLUMN lease REAL",
        "ALTER TABLE jobs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0",
    ),
    ("ALTER TABLE jobs ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",),  # whether its results never get old
)


class SqliteConnection(sqlite3.Connection):
    """As a store asks for it. There is one writer at a time, and nobody else to tell anything."""

    locking = ""

    def one_at_a_time(self) -> None:
        """It is anyway."""

    def announce(self, what: str, job_id: str) -> None:
        """The one process there is knows."""


class Database:
    """Two connections, one to write and one to read, so that who reads need not wait for the disk. Any thread may."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self.damage: str | None = None  # that was met while it is open
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(map(str, OLDEST_SQLITE))
            raise SaveError(f"SQLite is {sqlite3.sqlite_version}: jobs are kept with {needed} or newer, update Python")
        with self._explained():
            _make_private(path)
            self._writer = _connected(path)
            self._migrate()
            self._reader = _connected(path)
            self._reader.execute("PRAGMA query_only = ON")

    @contextmanager
    def write(self) -> Iterator[SqliteConnection]:
        """One transaction: on disk when the block is left, or nothing of it has happened."""
        with self._writing, self._explained():
            connection = self._writer
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    if "is full" in str(error):  # of what the log takes of the disk, some may be had back
                        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                raise

    @contextmanager
    def read(self) -> Iterator[SqliteConnection]:
        """To see everything that was written before."""
        with self._reading, self._explained():
            yield self._reader

    def integrity_check(self) -> Sequence[str]:
        """What is wrong with the file; nothing if all is well."""
        with self.read() as connection:
            found = [str(each[0]) for each in connection.execute("PRAGMA integrity_check")]
            loose = [
                f"{each[0]} {each[1]} belongs to no job" for each in connection.execute("PRAGMA foreign_key_check")
            ]
        return [each for each in found if each != "ok"] + loose

    def close(self) -> None:
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the disk refuses, in the house's words. Violated constraints are mistakes of ours and stay what they
        are."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise SaveError(f"{self.path}: nothing was written down ({error}): free space or check the disk") from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.InterfaceError):
                raise
            self.damage = f"{self.path}: the file is damaged ({error}): move it away or restore a backup"
            raise SaveError(self.damage) from error

    def _migrate(self) -> None:
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise SaveError(f"{self.path}: a newer overpaint wrote this file; update, or give another data folder")
        for number in range(version, len(MIGRATIONS)):
            with self.write() as connection:
                for statement in MIGRATIONS[number]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number + 1}")


def _make_private(path: Path) -> None:
    """A new file is for its owner; SQLite makes those beside it alike."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _connected(path: Path) -> SqliteConnection:
    connection = sqlite3.connect(
        path, timeout=PATIENCE, isolation_level=None, check_same_thread=False, factory=SqliteConnection
    )
    connection.row_factory = sqlite3.Row
    connection.text_factory = lenient_text
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "fullfsync = ON",  # on macOS fsync alone does not reach the disk
        "checkpoint_fullfsync = ON",
        "foreign_keys = ON",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def lenient_text(data: bytes) -> str:
    """Damaged text is for those who read it; SQLite would refuse the whole row."""
    return data.decode(errors="replace")
