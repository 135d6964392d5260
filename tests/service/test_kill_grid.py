"""kill -9 in the middle of a 6x5 grid over two checkpoints: what was finished stays, and the sheet is the same."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.queue.desk_tools import source
from tests.tiny import make_tiny_checkpoint

CELLS, CUT = 60, 37  # within the second checkpoint's cells
GRID: dict[str, Any] = {
    "kind": "grid",
    "images": [base64.b64encode(source()).decode()],
    "prompt": "a cat",
    "sampler": "Euler",
    "steps": 2,
    "seed": 7,
    "x": "cfg_scale=1-6",
    "y": "strength=0.4-0.8 [5]",
    "z": "checkpoint=one,two",
}

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "two")):
        make_tiny_checkpoint(folder / f"{name}.safetensors", seed=seed)
    return folder


@contextmanager
def served(data: Path, models: Path) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "tests.service.grid_server", str(data), str(models)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client, process
    finally:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def until(client: httpx.Client, job: str, count: int) -> dict[str, Any]:
    """The job, as soon as it has so many finished pictures or is over."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
        if found["state"] in ("finished", "failed", "cancelled") or len(found["images"]) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{job} did not get so far")


@pytest.mark.long  # by default the command is killed, in tests/engine/test_killed_grid.py
def test_in_the_service(models: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with served(data, models) as (client, process):
        assert client.put("/v1/jobs/cut", json=GRID).status_code == 202
        before = until(client, "cut", CUT)
        assert before["state"] == "running"
        process.kill()
    kept = sorted((data / "results/cut").glob("*.png"), key=lambda path: int(path.stem))
    assert CUT <= len(kept) < CELLS
    marks = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept[: len(kept) - 1]}
    with served(data, models) as (client, _):
        cut = until(client, "cut", CELLS + 2)
        assert cut["state"] == "finished", cut
        assert client.put("/v1/jobs/whole", json=GRID).status_code == 202
        whole = until(client, "whole", CELLS + 2)
        pictures = [
            [client.get(f"/v1/jobs/{job}/images/{number}").content for number in range(CELLS + 1)]
            for job in ("cut", "whole")
        ]
    assert whole["state"] == "finished"
    assert pictures[0] == pictures[1]
    for name, mark in marks.items():  # nothing that was finished was painted again
        path = data / "results/cut" / name
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == mark
