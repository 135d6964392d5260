"""Many jobs, and many clients: nothing grows, and nobody minds the others. benchmarks/service.py has the long forms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.service import isolation, soak
from tests.service.conftest import Server, start


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.long
@pytest.mark.parametrize(("jobs", "warm_up"), [(45, 24), (150, 30)])
def test_a_short_soak(running_server: Server, jobs: int, warm_up: int) -> None:
    for each in soak(running_server, jobs, warm_up=warm_up, every=3):
        assert each.memory < 10 or each.last.memory - each.first.memory < 5, each  # over so few jobs an allocator's
        assert each.last.files <= each.first.files + 1, each  # whims weigh more than a leak
        assert each.last.threads <= each.first.threads + 1, each


@pytest.fixture(scope="module")
def wide_server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--model", str(tiny_checkpoint), "--device", "cpu", "--workers", "3")
    server = start(tmp_path_factory.mktemp("data"), *options)
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_survivors_are_what_a_serial_run_gives_whichever_worker_has_them(wide_server: Server) -> None:
    found = isolation(wide_server, 32, 2, seeds=1)
    assert found.is_kept, found
    assert found.jobs == 64 and found.equal


@pytest.mark.parametrize(("clients", "jobs"), [(4, 2), pytest.param(8, 4, marks=pytest.mark.long)])
def test_survivors_are_what_a_serial_run_gives(running_server: Server, clients: int, jobs: int) -> None:
    """Some of the clients cancel: the others get, byte for byte, what they would get alone."""
    found = isolation(running_server, clients, jobs, seeds=1)
    assert found.is_kept, found
    assert found.jobs == clients * jobs and found.equal
