"""A server and its worker, both as processes, in trouble: the job that was hit says so, the others are painted."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from overpaint.service.jobs import JobState
from overpaint.service.store.sqlite_store import JobStore
from tests.service.queue.desk_tools import source

PATIENCE = 60.0
SOURCE = base64.b64encode(source(4)).decode("ascii")

Answer = dict[str, Any]


class Running:
    """A server, and how it is spoken to."""

    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client) -> None:
        self.process, self.client = process, client

    def submit(self, prompt: str, **fields: Any) -> str:
        small = {"images": [SOURCE], "strength": 1.0, "sampler": "Euler", "steps": 2, "seed": 5, "variation_seed": 1}
        answer = self.client.post("/v1/jobs", json={**small, "prompt": prompt, "iterations": 3, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, job: str) -> Answer:
        answer = self.client.get(f"/v1/jobs/{job}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def until(self, job: str, *states: str, images: int = 0) -> Answer:
        """Until it stands so."""
        end = time.monotonic() + PATIENCE
        while (found := self.get(job))["state"] not in states or len(found["images"]) < images:
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found

    def ended(self, job: str) -> Answer:
        return self.until(job, "finished", "failed", "cancelled")

    def painted(self, job: str) -> list[bytes]:
        found = self.ended(job)
        assert found["state"] == "finished", found
        return [self.client.get(each).content for each in found["images"]]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def running(data: Path, checkpoint: Path | str, **limits: Any) -> Iterator[Running]:
    command = [sys.executable, "-m", "tests.service.trouble_server", "serve", str(data), str(checkpoint)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (data.parent / "log.txt").open("ab") as log:
        process = subprocess.Popen([*command, json.dumps(limits)], stdout=subprocess.PIPE, stderr=log, env=environment)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().decode().strip()
        assert url, (data.parent / "log.txt").read_text()
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            yield Running(process, client)
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("troubled") / "data", tiny_checkpoint) as found:
        yield found


@pytest.fixture(scope="module")
def right(server: Running) -> list[bytes]:
    """What a job gives that nothing happens to."""
    return server.painted(server.submit("a cat"))


@pytest.mark.parametrize("trouble", ["memory", "nan"])
def test_one_smaller_try_and_then_that_job_only_fails(server: Running, right: list[bytes], trouble: str) -> None:
    once, always = server.submit(f"once {trouble}"), server.submit(trouble)
    after = server.submit("a cat")
    found = server.ended(once)
    assert (found["state"], len(found["images"]), len(found["warnings"])) == ("finished", 3, 1), found
    failed = server.ended(always)
    code = {"memory": "memory", "nan": "sampling"}[trouble]
    assert (failed["state"], failed["error"]["code"], len(failed["images"])) == ("failed", code, 1)
    assert server.client.get(failed["images"][0]).status_code == 200  # what was finished before
    assert server.painted(after) == right


@pytest.mark.slow
def test_a_step_that_hangs_and_one_that_kills(server: Running, right: list[bytes]) -> None:
    hung, killed, after = server.submit("hangs"), server.submit("dies"), server.submit("a cat")
    found = server.ended(hung)
    assert (found["state"], found["error"]["code"], len(found["images"])) == ("failed", "hung", 1)
    found = server.ended(killed)
    assert (found["state"], found["error"]["code"], len(found["images"])) == ("failed", "crashed", 1)
    assert server.painted(after) == right


def test_deadlines_of_running_and_of_waiting(server: Running, right: list[bytes]) -> None:
    long = server.submit("a cat", steps=150, iterations=16, width=128, height=128, run_seconds=1.0)
    server.until(long, "running")
    waiting = server.submit("a cat", queue_seconds=0.2)
    after = server.submit("a cat")
    for job in (waiting, long):
        found = server.ended(job)
        assert (found["state"], found["error"]["code"]) == ("failed", "deadline")
    assert server.get(waiting)["started"] is None
    assert server.painted(after) == right


@pytest.mark.slow
def test_it_lets_the_running_job_end_and_keeps_the_waiting_one(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """SIGTERM; and results that are kept for a time, and then are gone."""
    data = tmp_path / "data"
    with running(data, tiny_checkpoint) as first:
        now = first.submit("a cat", iterations=4, steps=10)
        first.until(now, "running", images=1)
        later = first.submit("a dog")
        assert first.stop() == 0
    store = JobStore(data)
    records = {each.id: each for each in store.records()}
    assert (records[now].state, len(records[now].result.pictures)) == (JobState.FINISHED, 4)
    assert records[later].state is JobState.QUEUED
    places = [f"/v1/jobs/{now}/images/{n}" for n in range(4)]
    assert all(store.result_file(now, each.file).stat().st_size for each in records[now].result.pictures)
    store.close()
    with running(data, tiny_checkpoint, result_seconds=0.5) as second:
        assert second.ended(later)["state"] == "finished"
        end = time.monotonic() + PATIENCE
        while not all(second.get(each)["gone"] for each in (now, later)):
            assert time.monotonic() < end
            time.sleep(0.05)
        answers = [second.client.get(each) for each in places]
        assert [(each.status_code, each.json()["error"]["code"]) for each in answers] == 4 * [(410, "gone")]
        assert second.get(now)["state"] == "finished"
        assert not list((data / "results").rglob("*.png"))


@pytest.mark.slow
def test_what_does_not_end_in_time_goes_on_at_the_next_start(tiny_checkpoint: Path, tmp_path: Path) -> None:
    fields = {"iterations": 6, "steps": 20, "width": 64, "height": 64}
    with running(tmp_path / "data", tiny_checkpoint, drain=0.1) as first:
        job = first.submit("a cat", **fields)
        first.until(job, "running", images=2)
        assert first.stop() == 0
    with running(tmp_path / "data", tiny_checkpoint) as second:
        found = second.get(job)
        assert found["state"] in ("queued", "running") and len(found["images"]) >= 2
        again = second.submit("a cat", **fields)
        assert second.painted(job) == second.painted(again)
        events = second.client.get(f"/v1/jobs/{job}/events").text
        assert events.count("event: painted") == 6 and events.count("event: finished") == 1
