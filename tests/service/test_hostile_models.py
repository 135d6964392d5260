"""What one client asks about a hostile model file ends no other client's job: a started server, end to end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.service.conftest import StartServer
from tests.unit.models.hostile_files import PICKLES, zipped

LONG_JOB = {"prompt": "x", "width": 256, "height": 256, "steps": 100, "iterations": 6, "seed": 1}
HOSTILE = ("a key of repeated tuples", "a key of nested tuples")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_plans_that_name_a_hostile_checkpoint_end_no_other_job(start_server: StartServer, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for number, name in enumerate(HOSTILE):
        (models / f"hostile{number}.ckpt").write_bytes(zipped(PICKLES[name]))
    server = start_server("--models", str(models))
    with server.client(headers={"X-Client": "ann"}) as ann, server.client(headers={"X-Client": "bob"}) as bob:
        job = ann.post("/v1/jobs", json=LONG_JOB).json()["id"]
        place = f"/v1/jobs/{job}"
        end = time.monotonic() + 60
        while ann.get(place).json()["state"] == "queued":
            assert time.monotonic() < end
            time.sleep(0.02)
        for number in range(len(HOSTILE)):
            answer = bob.post("/v1/plan", json={"prompt": "x", "checkpoint": f"hostile{number}", "steps": 1})
            assert 400 <= answer.status_code < 500 and f"hostile{number}.ckpt" in answer.text, answer.text
        assert ann.get(place).json()["state"] == "running", "the job was too short to be disturbed"
        end = time.monotonic() + 150
        while (told := ann.get(place).json())["state"] == "running":
            assert time.monotonic() < end
            time.sleep(0.1)
        assert told["state"] == "finished", told
        story = ann.get(f"{place}/events").text
        assert story.count("event: started\n") == 1, story[:2000]
