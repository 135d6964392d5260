"""What a store asks of its database: SQL that SQLite and PostgreSQL both understand, and what differs, as calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Row = Any  # by name and by place, and dict(row) is what it holds


class Connection(Protocol):
    """Statements within one transaction. Places for values are `?` or `:name`."""

    locking: str  # behind a SELECT: its rows stay as they are until the transaction ends

    def execute(self, sql: str, parameters: Any = ..., /) -> Any: ...
    def executemany(self, sql: str, parameters: Iterable[Any], /) -> Any: ...
    def one_at_a_time(self) -> None:
        """From here to the end of the transaction no other one that asks for the same is under way."""
        ...

    def announce(self, what: str, job_id: str) -> None:
        """Tell everybody who works on this store, as soon as the transaction counts."""
        ...


class Tables(Protocol):
    """A database with the tables of jobs. Any thread may ask."""

    damage: str | None  # that was met while it is open

    def write(self) -> AbstractContextManager[Connection]:
        """One transaction: durable when the block is left, or nothing of it has happened."""
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """To see everything that was written before."""
        ...

    def integrity_check(self) -> Sequence[str]:
        """What is wrong with it; nothing if all is well."""
        ...

    def close(self) -> None: ...
