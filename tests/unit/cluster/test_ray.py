"""A batch on Ray itself: what it makes is what the plain batch makes. Skips where Ray is not installed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from overpaint.files.batch import Batch
from overpaint.files.journal import JOURNAL_NAME, journals_in
from tests.unit.cluster.ray_nodes import QUIET, ROOT, LocalNodes, local_nodes
from tests.unit.files.test_batch import contents, fill, paint_all

pytestmark = [
    pytest.mark.long,  # a cluster takes half a minute to start and end
    pytest.mark.timeout(580),
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]
NAMES = [f"p{number}.png" for number in range(4)]


def run(source: Path, out: Path, address: str, environment: Mapping[str, str], *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.unit.cluster.ray_run", str(source), str(out), address, *options]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def test_on_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Whatever an earlier cluster left behind, or the environment says of another one."""
    fill(tmp_path / "in", *NAMES)
    paint_all(tmp_path / "in", Batch(out=tmp_path / "plain", fields={"seed": 3}))
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray/ray_current_cluster").write_text("127.0.0.1:1", encoding="utf-8")
        environment = {**own, **QUIET, "RAY_TMPDIR": folder, "RAY_ADDRESS": "127.0.0.1:1", "PYTHONPATH": str(ROOT)}
        told = run(tmp_path / "in", tmp_path / "out", "local", environment, "--painters", "1,2")
    if any("the cluster cannot be used" in each for each in told["problems"]):
        pytest.skip(f"Ray does not start here: {told['problems']}")
    assert (told["told"], told["problems"]) == ({"RowPainted": len(NAMES)}, [])
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    assert [each.name for each in journals_in(tmp_path / "out")] == [JOURNAL_NAME]
    # For the plain batch everything is done.
    events = paint_all(tmp_path / "in", Batch(out=tmp_path / "out", fields={"seed": 3}))
    assert {type(each).__name__ for each in events} == {"RowSkipped"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[LocalNodes]:
    with local_nodes(2) as nodes:
        yield nodes


class TestOnNodes:
    def test_the_command_paints_what_it_paints_without(self, tmp_path: Path, nodes: LocalNodes) -> None:
        """With the built-in model, and a secret that is told to nobody."""
        fill(tmp_path / "in", *NAMES)
        secret = secrets.token_hex(16)
        environment = {**nodes.environment, "OVERPAINT_TOKEN": secret}
        line = [sys.executable, "-m", "overpaint", "batch", str(tmp_path / "in"), "--prompt", "a lake", "--seed", "3"]
        line += ["--steps", "4", "--device", "cpu"]
        for out, options in (("plain", []), ("out", ["--ray", nodes.address, "--cpus-per-worker", "1", "--json"])):
            ended = subprocess.run(
                [*line, *options, str(tmp_path / out)],
                env=environment, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False,
            )  # fmt: skip
            assert ended.returncode == 0, ended.stderr
        assert contents(tmp_path / "out") == contents(tmp_path / "plain")
        told = [json.loads(each) for each in ended.stdout.splitlines()]
        assert sorted(each["row"] for each in told[:-1]) == NAMES
        assert told[-1] == {"state": "finished", "painted": len(NAMES), "skipped": 0, "failed": 0}
        written = [each for folder in (tmp_path, nodes.folder) for each in folder.rglob("*") if each.is_file()]
        token = nodes.environment["RAY_AUTH_TOKEN"].encode()
        for path in written:
            data = path.read_bytes()
            assert secret.encode() not in data and token not in data, path

    def test_a_token_that_is_another(self, tmp_path: Path, nodes: LocalNodes) -> None:
        fill(tmp_path / "in", *NAMES)
        environment = {**nodes.environment, "RAY_AUTH_TOKEN": "b" * 64}
        told = run(tmp_path / "in", tmp_path / "out", nodes.address, environment)
        assert told["told"] == {} and "the one in RAY_AUTH_TOKEN is another" in told["problems"][0]
        assert not (tmp_path / "out").exists()

    def test_ctrl_c_keeps_what_is_finished(self, tmp_path: Path, nodes: LocalNodes) -> None:
        fill(tmp_path / "in", *(f"p{number}.png" for number in range(200)))
        line = [sys.executable, "-m", "overpaint", "batch", str(tmp_path / "in"), str(tmp_path / "out"), "--seed", "3"]
        command = [*line, "--steps", "20", "--device", "cpu", "--ray", nodes.address, "--cpus-per-worker", "1"]
        with subprocess.Popen(command, env=nodes.environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 400
            while not list((tmp_path / "out").glob("*.png")) and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
        assert process.returncode == 130 and "left for the next time" in said, said
        assert 0 < len(list((tmp_path / "out").glob("*.png"))) < 200
        assert [each.name for each in journals_in(tmp_path / "out")] == [JOURNAL_NAME]

    def test_no_gpu_is_there(self, tmp_path: Path, nodes: LocalNodes) -> None:
        fill(tmp_path / "in", *NAMES)
        line = [sys.executable, "-m", "overpaint", "batch", str(tmp_path / "in"), str(tmp_path / "out")]
        ended = subprocess.run(
            [*line, "--ray", nodes.address, "--gpus-per-worker", "1"],
            env=nodes.environment, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False,
        )  # fmt: skip
        assert ended.returncode == 2 and "no machine of the cluster has as many" in ended.stderr
        assert not (tmp_path / "out").exists()


def test_another_ray_there_is_told_before_anything_is_done(tmp_path: Path) -> None:
    fill(tmp_path / "in", *NAMES)
    with local_nodes(1, token=False, version="2.40.0") as other:
        told = run(tmp_path / "in", tmp_path / "out", other.address, other.environment)
    [problem] = told["problems"]
    assert "install the Ray and Python of the cluster here" in problem and "2.40.0" in problem
    assert told["told"] == {} and not (tmp_path / "out").exists()


def test_kills_lose_nothing(tmp_path: Path) -> None:
    from benchmarks.ray_batch import kills

    assert kills(tmp_path, rows=40, count=6)
