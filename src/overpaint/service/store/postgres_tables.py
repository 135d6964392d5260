"""A database of PostgreSQL as a store asks for it: a few connections, made again whenever the server was away."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from overpaint.errors import RequestError, SaveError
from overpaint.service.store.postgres_address import connection_values, driver, shown
from overpaint.service.store.postgres_schema import prepared

CHANNEL = "overpaint"
PATIENCE = 5.0  # seconds in which a server that is being started again should be back
_KEPT = 8  # connections that nobody uses
_FRESH = 1.0  # seconds for which a connection is believed to be alive
_PAUSE = 0.1
_ACCEPTING = 7_303_002  # advisory lock of who lets a job in, or a source go
_SETTINGS = (
    "SET idle_in_transaction_session_timeout = '30s'",  # a process that is stopped keeps no row from others
    "SET lock_timeout = '20s'",
    "SET statement_timeout = '60s'",
    "SET default_transaction_isolation = 'read committed'",
)
_PLACES = re.compile(r"\?|(?<![:\w]):([a-z]\w*)")


class PgRow(tuple[Any, ...]):
    """By name, by place, and as what `dict` takes."""

    _names: tuple[str, ...]

    def __getitem__(self, at: Any) -> Any:
        return tuple.__getitem__(self, self._names.index(at) if isinstance(at, str) else at)

    def keys(self) -> tuple[str, ...]:
        return self._names


def pg_rows(cursor: Any) -> Any:
    names = tuple(each.name for each in cursor.description or ())

    def row(values: Sequence[Any]) -> PgRow:
        made = PgRow(values)
        made._names = names
        return made

    return row


@lru_cache(maxsize=512)
def translated(sql: str) -> str:
    """With the driver's own places for values."""
    return _PLACES.sub(lambda found: f"%({found[1]})s" if found[1] else "%s", sql.replace("%", "%%"))


class PgConnection:
    """Statements in the words of `tables.Connection`."""

    locking = " FOR UPDATE"

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.used = time.monotonic()
        self.is_flushed_apart = False  # this transaction's end is

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        return self.raw.execute(translated(sql), parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any:
        cursor = self.raw.cursor()
        cursor.executemany(translated(sql), list(parameters))
        return cursor

    def one_at_a_time(self) -> None:
        self._flush_apart()
        self.execute("SELECT pg_advisory_xact_lock(?)", (_ACCEPTING,))

    def announce(self, what: str, job_id: str) -> None:
        self._flush_apart()
        self.execute("SELECT pg_notify(?, ?)", (CHANNEL, f"{what} {job_id}"))

    def _flush_apart(self) -> None:
        """Let go of the locks of all before the disk has it.

        Whoever notifies holds a lock of the whole server until the commit is on the disk, as does whoever lets a job
        in: one commit a flush, whatever the number of processes. So the commit does not wait, and a message of its own
        does, which takes no lock: the server flushes those of many processes at once.
        """
        if not self.is_flushed_apart:
            self.is_flushed_apart = True
            self.execute("SET LOCAL synchronous_commit = off")

    def flush(self) -> None:
        """Wait until all that was committed is on the disk, and with whoever replicates it."""
        self.execute("SELECT pg_logical_emit_message(true, ?, '')", (CHANNEL,))


class PostgresTables:
    """Any thread may ask."""

    def __init__(self, address: str, *, is_open: bool = False, migrate: bool = False) -> None:
        self._values, self.address = connection_values(address, is_open=is_open), shown(address)
        self._psycopg: Any = driver()
        self._lock, self._idle, self._closed = threading.Lock(), list[PgConnection](), False
        self._is_away = False  # the server was, when somebody asked last; others then do not wait as long
        self.damage: str | None = None
        try:
            with self.write() as connection:
                prepared(connection.raw, self.address, migrate=migrate)
        except BaseException:
            self.close()
            raise

    def connected(self) -> Any:
        """A connection of one's own; whoever asks closes it."""
        # NOTE: statements are prepared by none, so that a pool such as pgbouncer may stand between.
        raw = self._psycopg.connect(**self._values, autocommit=True, row_factory=pg_rows, prepare_threshold=None)
        try:
            for each in _SETTINGS:
                raw.execute(each)
        except BaseException:
            raw.close()
            raise
        return raw

    @contextmanager
    def write(self) -> Iterator[PgConnection]:
        with self._explained(), self._taken() as connection:
            connection.is_flushed_apart = False
            with connection.raw.transaction():
                yield connection
            if connection.is_flushed_apart:
                connection.flush()

    @contextmanager
    def read(self) -> Iterator[PgConnection]:
        with self._explained(), self._taken() as connection:
            yield connection

    def integrity_check(self) -> Sequence[str]:
        return []  # the server's own affair

    def close(self) -> None:
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for each in idle:
            each.raw.close()

    @contextmanager
    def _taken(self) -> Iterator[PgConnection]:
        connection = self._alive()
        try:
            yield connection
        finally:
            connection.used = time.monotonic()
            is_whole = not connection.raw.closed and connection.raw.info.transaction_status == 0
            with self._lock:
                is_kept = is_whole and not self._closed and len(self._idle) < _KEPT
                if is_kept:
                    self._idle.append(connection)
            if not is_kept:
                connection.raw.close()

    def _alive(self) -> PgConnection:
        """One that answers. A server that was started again closed all that were there."""
        while (found := self._one_of_idle()) is not None:
            if time.monotonic() - found.used < _FRESH:
                return found
            with suppress(self._psycopg.OperationalError):
                found.raw.execute("SELECT 1")
                return found
            found.raw.close()
        until = time.monotonic() + (0.0 if self._is_away else PATIENCE)
        while True:
            try:
                found = PgConnection(self.connected())
                self._is_away = False
                return found
            except self._psycopg.OperationalError as error:  # noqa: PERF203 (it comes of trying again)
                if time.monotonic() >= until or not _may_pass(error):
                    self._is_away = True
                    raise
                time.sleep(_PAUSE)

    def _one_of_idle(self) -> PgConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the server refuses, in the house's words. Violated constraints are mistakes of ours and stay what they
        are."""
        psycopg = self._psycopg
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            said = f"{self.address}: the user may not do that ({_line(error)}): grant it, or give another user"
            raise SaveError(said) from error
        except (psycopg.OperationalError, psycopg.InternalError) as error:
            remedy = "nothing was written down; check that it runs, and the address"
            raise SaveError(f"{self.address}: the database does not answer ({_line(error)}): {remedy}") from error
        except psycopg.DataError as error:
            raise RequestError("job", "...", f"the database cannot hold it ({_line(error)}); leave it out") from error


def _may_pass(error: Any) -> bool:
    """Whether it may be that the server is only being started: no wrong password, no unknown database."""
    text = str(error)
    return not re.search(r"authentication failed|does not exist|no pg_hba.conf|could not translate|SSL", text)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
