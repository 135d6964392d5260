"""Every store, for the tests of what every store promises: one on SQLite, and one on a PostgreSQL of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from overpaint.service.limits import Limits
from overpaint.service.store.sqlite_store import JobStore
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

        store = postgres_store.PostgresStore(self.address, self.data, limits or Limits(), migrate=migrate)
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


@pytest.fixture
def postgres_stores(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresStores]:
    made = PostgresStores(cluster, tmp_path / "data", monkeypatch)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """A place where stores are opened, closed and opened again, of each kind."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_stores")
        return
    made = SqliteStores(tmp_path / "data")
    yield made
    made.close()
