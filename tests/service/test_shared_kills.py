"""Two web processes, two workers and their PostgreSQL, killed one after another: every accepted job ends once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.conftest import STOP_SECONDS
from tests.service.queue.desk_tools import source
from tests.service.store.postgres_cluster import Cluster, started

pytestmark = pytest.mark.long

SECONDS = 600.0
JOBS = 24


class Office:
    """Processes of one store, each started again when it was killed."""

    def __init__(self, address: str, data: Path, checkpoint: Path) -> None:
        self._options = ["--data", str(data), "--model", str(checkpoint)]
        own = {"OVERPAINT_STORE": address, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self._environment = {**os.environ, **own}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self.urls: dict[str, str] = {}

    def start(self, name: str) -> None:
        """A web process or a worker, by the beginning of its name; it takes part when this returns."""
        command = ["serve", "--port", "0"] if name.startswith("web") else ["worker", "--device", "cpu"]
        process = subprocess.Popen(
            [sys.executable, "-m", "overpaint", *command, *self._options],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._processes[name] = process
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "overpaint" in said, f"{name} did not start"
        if name.startswith("web"):
            self.urls[name] = "http://" + said.split("http://")[1].split()[0].rstrip("/")

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(STOP_SECONDS)
        assert process.stdout is not None
        process.stdout.close()

    def close(self) -> None:
        for each in list(self._processes):
            self.kill(each)


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """One that a test may kill."""
    yield from started()


@pytest.fixture
def office(own_cluster: Cluster, tmp_path: Path, tiny_checkpoint: Path) -> Iterator[Office]:
    made = Office(own_cluster.database(), tmp_path / "data", tiny_checkpoint)
    yield made
    made.close()


def asked(office: Office, what: Callable[[httpx.Client], Any]) -> Any:
    """Of any web process that answers, as a client behind a proxy would."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for url in list(office.urls.values()):
            with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=60.0) as client:
                return what(client)
        time.sleep(0.2)
    raise AssertionError("nobody answers")


def handed_in(office: Office, number: int, name: str) -> str:
    """A job's id, sent again under it until it is accepted."""
    request = {"prompt": f"a cat {number}", "steps": 3 + number % 3, "seed": number, "variation_seed": 1}

    def send(client: httpx.Client) -> str:
        picture = client.post("/v1/pictures", content=source(number)).raise_for_status().json()["picture"]
        job = client.put(f"/v1/jobs/{name}", json={**request, "images": [picture]}).raise_for_status().json()
        return str(job["id"])

    return str(asked(office, send))


def picture_of(office: Office, job_id: str) -> tuple[str, bytes]:
    """The state that a job ends in, and its picture."""

    def look(client: httpx.Client) -> tuple[str, bytes]:
        state = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()["state"]
        is_there = state == "finished"
        return state, client.get(f"/v1/jobs/{job_id}/images/0").raise_for_status().content if is_there else b""

    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        state, data = asked(office, look)
        if state not in ("queued", "running"):
            return str(state), bytes(data)
        time.sleep(0.2)
    raise AssertionError(f"{job_id} does not end")


@pytest.mark.timeout(1800)
def test_every_accepted_job_ends_once_whatever_is_killed(office: Office, own_cluster: Cluster) -> None:
    names = ("web-1", "web-2", "worker-1", "worker-2")
    for each in names:
        office.start(each)
    done = threading.Event()
    ids: list[str] = []

    def clients() -> None:
        ids.extend(handed_in(office, number, f"job-{number}") for number in range(JOBS))
        done.set()

    thread = threading.Thread(target=clients)
    thread.start()
    for victim in ("worker-1", "web-1", "postgres", "worker-2", "web-2", "worker-1"):
        time.sleep(2.0)  # something is going on by then; what it is, is different each time
        if victim == "postgres":
            own_cluster.stop()
            own_cluster.start()
        else:
            office.kill(victim)
            office.start(victim)
    assert done.wait(SECONDS)
    thread.join(SECONDS)
    first = [picture_of(office, each) for each in ids]
    assert [state for state, _ in first] == ["finished"] * JOBS
    rows = own_cluster.execute("SELECT id, count(*) FROM jobs GROUP BY id", office._environment["OVERPAINT_STORE"])
    assert len(rows) == JOBS and {count for _, count in rows} == {1}
    ends = "SELECT job FROM events WHERE name IN ('finished', 'failed', 'cancelled')"
    told = own_cluster.execute(ends, office._environment["OVERPAINT_STORE"])
    assert len(told) == len(set(told)) == JOBS, "each end is told once"
    in_peace = [handed_in(office, number, f"again-{number}") for number in range(0, JOBS, 5)]
    again = [picture_of(office, each) for each in in_peace]
    assert [data for _, data in again] == [data for _, data in first[::5]], "byte for byte, whatever was killed"
