"""A started server with two true workers: each checkpoint is read once, and each is told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.workers import NAMES, make_models, served
from tests.service.conftest import StartServer


@pytest.mark.long
@pytest.mark.timeout(600)
def test_forty_jobs_of_two_checkpoints_are_two_loads(tmp_path: Path) -> None:
    found = served(make_models(tmp_path), tmp_path / "data", workers=2, jobs=40)
    assert found.switches == len(NAMES)
    assert sorted(found.by_worker) == sorted(NAMES)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_server_with_two_workers(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    with server.client() as client:
        told = client.get("/v1/workers").json()["workers"]
        assert [(each["id"], each["device"], each["jobs"]) for each in told] == [("0", "cpu", []), ("1", "cpu", [])]
        small = {"prompt": "a lake", "width": 64, "height": 64, "steps": 2, "seed": 7}
        jobs = [client.post("/v1/jobs", json=small).json()["id"] for _ in range(4)]
        for each in jobs:
            client.get(f"/v1/jobs/{each}/events")
        done = [client.get(f"/v1/jobs/{each}?images=base64").json() for each in jobs]
        assert {each["state"] for each in done} == {"finished"}
        assert len({each["images_base64"][0] for each in done}) == 1, "whichever worker had it"
        memory = client.get("/sdapi/v1/memory").json()
        assert memory["ram"]["used"] > 0 and set(memory) == {"ram", "cuda"}
        told = client.get("/v1/workers").json()["workers"]
        assert {each["state"] for each in told} == {"READY"}
        assert all(each["memory"] and each["switches"] == 1 for each in told), told
        assert all(each["encodings"]["made"] == 2 for each in told), "the text and its negative, once a worker"
        numbers = client.get("/metrics").text
        assert 'overpaint_worker_switches{device="cpu",worker="1"} 1.0' in numbers
        assert client.post("/sdapi/v1/unload-checkpoint").status_code == 200
    assert server.stop() == 0
