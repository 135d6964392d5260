"""What the service's tests share: a desk without a worker, an app on it, and servers started on the tiny checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from overpaint.service.config import ServeConfig
from tests.service.fake_desk import FakeDesk
from tests.service.store.stores import cluster, object_stores, postgres_stores, stores

__all__ = ["cluster", "object_stores", "postgres_stores", "stores"]  # fixtures

START_SECONDS = 90.0  # the worker loads torch; on a busy machine that takes its time
STOP_SECONDS = 45.0


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    data: Path
    token: str | None = None
    lines: list[str] = field(default_factory=list)  # of its stderr

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def client(self, **changes: Any) -> httpx.Client:
        """A client of it; close it, or use it in a `with`."""
        return httpx.Client(**{"base_url": self.url, "headers": self.headers, "timeout": 60.0, **changes})

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Until /readyz says 200."""
        end = time.monotonic() + seconds
        with self.client() as client:
            while client.get("/readyz").status_code != 200:
                assert self.process.poll() is None, "the server ended:\n" + "".join(self.lines)
                assert time.monotonic() < end, "the server does not get ready:\n" + "".join(self.lines)
                time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """kill -9: nothing is tidied up."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        """It is gone afterwards, and so are its pipes."""
        self.kill()
        for each in (self.process.stdout, self.process.stderr):
            if each is not None:
                each.close()


StartServer = Callable[..., Server]


def start(data: Path, *options: str, environment: dict[str, str] | None = None, token: str | None = None) -> Server:
    """`overpaint serve` on a free port; returns once it listens, which is before it is ready."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **({"OVERPAINT_TOKEN": token} if token else {})}
    given = {name: value for name, value in os.environ.items() if name != "OVERPAINT_TOKEN"}
    command = [sys.executable, "-m", "overpaint", "serve", "--port", "0", "--data", str(data), *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**given, **own, **(environment or {})},
    )
    assert process.stdout is not None and process.stderr is not None
    lines: list[str] = []
    reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
    reader.start()
    first = process.stdout.readline()
    if "http://" not in first:
        process.kill()
        process.wait(STOP_SECONDS)
        reader.join(5)
        raise AssertionError(f"the server did not start: {first}{''.join(lines)}")
    url = "http://" + first.split("http://", 1)[1].split()[0].rstrip("/")
    return Server(process, url, data, token, lines)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint that the package makes by itself."""
    from tests.tiny import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "sketch.safetensors")


@pytest.fixture
def start_server(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers of this test, each with the given further options; all are gone at its end."""
    started: list[Server] = []

    def started_with(
        *options: str, data: Path | None = None, ready: bool = True, token: str | None = None, **environment: str
    ) -> Server:
        model = () if "--model" in options else ("--model", str(tiny_checkpoint), "--device", "cpu")
        server = start(data or tmp_path / "data", *model, *options, environment=environment, token=token)
        started.append(server)
        if ready:
            server.wait_ready()
        return server

    yield started_with
    for each in started:
        each.close()


@pytest.fixture(scope="module")
def running_server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module, ready."""
    data = tmp_path_factory.mktemp("data")
    server = start(data, "--model", str(tiny_checkpoint), "--device", "cpu")
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


@pytest.fixture
def server(running_server: Server) -> str:
    """The base URL of a server that is ready; it serves all tests of a module."""
    return running_server.url


def _end(server: Server) -> None:
    server.close()


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    """A server's configuration with a data folder of this test."""
    return ServeConfig(data=tmp_path / "data")


@pytest.fixture
def desk(config: ServeConfig) -> FakeDesk:
    config.data.mkdir(parents=True, exist_ok=True)
    return FakeDesk(config.data)


@pytest.fixture
def app(desk: FakeDesk, config: ServeConfig) -> Any:
    """The whole app on a desk that paints at once."""
    from overpaint.service.app import create_app

    return create_app(desk, config)


def client_of(app: Any, **changes: Any) -> httpx.AsyncClient:
    """An in-process client: no socket, no server. `base_url` gives the Host header."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(**{"transport": transport, "base_url": "http://127.0.0.1:7860", **changes})


def pytest_itemcollected(item: pytest.Item) -> None:
    """What starts servers and workers takes minutes in all."""
    if item.get_closest_marker("slow"):
        item.add_marker("long")
