"""Every store, for the tests of what every store promises: one on SQLite, one on a PostgreSQL of the tests' own, and
one there whose pictures are objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from overpaint.service.limits import Limits
from overpaint.service.store.sqlite_store import JobStore
from overpaint.stores import StoreFile
from tests.service.store import postgres_cluster
from tests.service.store.postgres_cluster import Cluster
from tests.service.store.store_tools import Clock, Stores

if TYPE_CHECKING:
    from overpaint.service.store.postgres_store import PostgresStore


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    yield from postgres_cluster.started()


class SqliteStores(Stores):
    """In one data folder, one after another."""

    def __init__(self, data: Path) -> None:
        self.data, self.clock, self._opened = data, Clock(), list[JobStore]()

    def open(self, limits: Limits | None = None, *, clock: Clock | None = None) -> JobStore:
        self._opened.append(JobStore(self.data, limits or Limits(), uptime=clock))
        return self._opened[-1]

    def close(self) -> None:
        for each in self._opened:
            if each._lock._handle is not None:
                assert not each.integrity_check()
                each.close()


class ServerClock(Clock):
    """The uptime of a database, which then goes where a test wants it."""

    def __init__(self, cluster: Cluster, address: str, now: float) -> None:
        self._cluster, self._address = cluster, address
        body = "$$ SELECT seconds FROM clock $$"
        function = f"CREATE OR REPLACE FUNCTION overpaint_uptime() RETURNS float8 LANGUAGE sql VOLATILE AS {body}"
        cluster.execute(function, address)
        self.now = now

    @property
    def now(self) -> float:
        return float(self._cluster.execute("SELECT seconds FROM clock", self._address)[0][0])

    @now.setter
    def now(self, seconds: float) -> None:
        self._cluster.execute(f"UPDATE clock SET seconds = {seconds!r}", self._address)


class PostgresStores(Stores):
    """On one database, as many at once as a test wants."""

    def __init__(self, cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster, self.data, self._monkeypatch = cluster, data, monkeypatch
        self.address, self._opened = cluster.database(), list[Any]()

    def open(self, limits: Limits | None = None, *, clock: Clock | None = None, migrate: bool = False) -> PostgresStore:
        from overpaint.service.store import postgres_store

        store = self._made(limits or Limits(), migrate=migrate)
        if clock is not None:
            self._monkeypatch.setattr(postgres_store, "TICK", "SELECT 1")
            moved = ServerClock(self.cluster, self.address, clock.now)
            clock.follow(moved)
            store.uptime = clock  # type: ignore[method-assign]
        self._opened.append(store)
        return store

    def close(self) -> None:
        for each in self._opened:
            each.close()

    def _made(self, limits: Limits, *, migrate: bool) -> PostgresStore:
        from overpaint.service.store.postgres_store import PostgresStore

        return PostgresStore(self.address, self.data, limits, migrate=migrate)


class ObjectStores(PostgresStores):
    """The same with pictures in an object store, which here is memory; it is empty before and afterwards."""

    top = StoreFile("memory://bucket/overpaint")

    def __init__(self, cluster: Cluster, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(cluster, data, monkeypatch)
        self.is_away, self.refuses = False, "nothing"  # whether nothing is taken, or which names are not
        self.fails, self.refused = 0, 0  # how often still, and how often it was so
        self.error: OSError = OSError("the line is cut at http://bucket.example")
        memory, pipe_file = type(self._memory()), type(self._memory()).pipe_file

        def piped(fs: Any, path: str, value: bytes, *more: Any, **options: Any) -> Any:
            if self.is_away or self.refuses in path or self.fails > 0:
                self.refused, self.fails = self.refused + 1, self.fails - 1
                raise self.error
            return pipe_file(fs, path, value, *more, **options)

        monkeypatch.setattr(memory, "pipe_file", piped)
        self._forget()

    def objects(self) -> dict[str, bytes]:
        """All pictures that there are, by name."""
        start = len("/bucket/overpaint/")
        found = {path[start:]: self._memory().cat_file(path) for path in self._memory().find("/bucket")}
        return {name: data for name, data in found.items() if "/" in name}

    def put(self, name: str, data: bytes) -> None:
        self._memory().pipe_file(f"/bucket/overpaint/{name}", data)

    def remove(self, name: str) -> None:
        self._memory().rm_file(f"/bucket/overpaint/{name}")

    def close(self) -> None:
        super().close()
        self._forget()

    def _made(self, limits: Limits, *, migrate: bool) -> PostgresStore:
        from overpaint.service.store.postgres_objects import PostgresObjectStore

        return PostgresObjectStore(self.address, self.data, self.top, limits, migrate=migrate)

    def _forget(self) -> None:
        self._memory().store.clear()
        self._memory().pseudo_dirs[:] = [""]

    @staticmethod
    def _memory() -> Any:
        from fsspec.implementations.memory import MemoryFileSystem

        return MemoryFileSystem(use_listings_cache=False)


@pytest.fixture
def object_stores(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStores]:
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    made = ObjectStores(cluster, tmp_path / "data", monkeypatch)
    yield made
    made.close()


@pytest.fixture
def postgres_stores(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStores]:
    made = PostgresStores(cluster, tmp_path / "data", monkeypatch)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres", "objects"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """A place where stores are opened, closed and opened again, of each kind."""
    if request.param != "sqlite":
        yield request.getfixturevalue("postgres_stores" if request.param == "postgres" else "object_stores")
        return
    made = SqliteStores(tmp_path / "data")
    yield made
    made.close()
