"""A PostgreSQL of the tests' own: started from the system's programs on a socket in a new folder, gone at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

SECONDS = 120.0
_numbers = count(1)


def programs() -> Path | None:
    """Where initdb and postgres lie: on the path, or where Debian puts them."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


def _user() -> str | None:
    """It refuses to run as root."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    names = {each.pw_name for each in pwd.getpwall()}
    return next(each for each in ("postgres", "nobody") if each in names)


class Cluster:
    """One server; each test gets a database of its own."""

    def __init__(self, programs: Path) -> None:
        self._programs, self._user = programs, _user()
        self.folder = Path(tempfile.mkdtemp(prefix="overpaint-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "--pgdata", self.folder / "data", "--username", "overpaint", "--auth", "trust", "--no-sync")

    def start(self, *, durable: bool = False) -> None:
        """`durable`: what is committed is on the disk; for figures, not for tests."""
        hasty = () if durable else ("-F", "-c", "full_page_writes=off")
        quick = (*hasty, "-c", "max_connections=60", "-c", "shared_buffers=32MB")
        place = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}")
        command: list[str | Path] = [self._programs / "postgres", "-D", self.folder / "data", *quick, *place]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, user=self._user, stdout=log, stderr=log, cwd="/")
        end = time.monotonic() + SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as if the machine had gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(3)
            process.wait(SECONDS)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, database: str) -> str:
        return f"postgresql:///{database}?host={self.folder}&user=overpaint"

    def database(self) -> str:
        """The address of a new one."""
        name = f"t{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def execute(self, sql: str, address: str = "") -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(address or self.address("postgres"), autocommit=True) as connection:
            found = connection.execute(sql.encode())
            return found.fetchall() if found.description else []

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            self.execute("SELECT 1")
            return True
        return False

    def _run(self, program: str, *options: object) -> None:
        command = [str(self._programs / program), *map(str, options)]
        subprocess.run(command, user=self._user, check=True, stdout=subprocess.DEVNULL, timeout=SECONDS, cwd="/")


def started() -> Iterator[Cluster]:
    """For a fixture: one that runs until it is done with."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    cluster = Cluster(found)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
