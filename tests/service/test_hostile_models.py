"""What one client asks about a hostile model file ends no other client's job: a started server, end to end."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from overpaint.models.files import read_all
from tests.service.conftest import Server, StartServer
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


def examiner_of(server: Server) -> int:
    """The process that a server asks what files are: its child that runs `examining`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == server.process.pid and b"examining" in command:
            return int(entry.name)
    raise AssertionError("there is none")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for as Linux lists them")
def test_an_examiner_that_crashes_is_a_sentence_and_the_next_file_is_recognised(
    start_server: StartServer, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in ("first", "deadly", "next"):  # pickled ones: of others the header tells what they are
        torch.save({"state_dict": read_all(tiny_checkpoint)}, models / f"{name}.ckpt")
    server = start_server("--models", str(models))
    wish = {"prompt": "x", "steps": 1}
    with server.client() as client, ThreadPoolExecutor(1) as beside:

        def planned(name: str) -> tuple[int, str]:
            answer = client.post("/v1/plan", json={**wish, "checkpoint": name})
            return answer.status_code, answer.text

        def recognised(name: str) -> bool:
            """On a busy machine the examiner, which stands back for others, may be given up before torch is loaded."""
            end = time.monotonic() + 120
            while (answer := planned(name))[0] != 200 and time.monotonic() < end:
                assert answer[0] == 503 or "takes more memory or time" in answer[1], answer
            return answer[0] == 200

        assert recognised("first")
        examiner = examiner_of(server)
        os.kill(examiner, signal.SIGSTOP)  # so that it is sure to be asked when it dies
        asked = beside.submit(planned, "deadly")
        time.sleep(1)
        assert not asked.done()
        os.kill(examiner, signal.SIGKILL)
        status, said = asked.result(60)
        assert 400 <= status < 500 and "deadly.ckpt: reading it takes more memory or time" in said, said
        assert client.get("/readyz").status_code == 200
        assert recognised("next")
        assert examiner_of(server) != examiner
        assert recognised("deadly")  # that it died may have been for want of time: it is asked again
