"""A cluster of Ray on loopback: nodes that are processes here, to be killed like machines. All end with the test."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 180.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "OMP_NUM_THREADS": "1"}


_NODE = """
import signal, sys
from ray._private.node import Node
from ray._private.parameter import RayParams
address, cpus, folder = sys.argv[1:]
params = RayParams(
    gcs_address=address, redis_address=None, node_ip_address="127.0.0.1", num_cpus=int(cpus), num_gpus=0,
    object_store_memory=80 << 20, min_worker_port=0, max_worker_port=0, include_log_monitor=False, node_manager_port=0,
    temp_dir=folder,
)
params.dashboard_agent_listen_port = None
Node(params, head=False, shutdown_at_exit=True, spawn_reaper=True)
signal.pause()
"""


_OTHER_RAY = """
import sys
import ray
ray.__version__ = sys.argv.pop(1)
from ray.scripts.scripts import main
sys.exit(main())
"""


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


class LocalNodes:
    """The first node is the head; the others may come and go."""

    def __init__(self, folder: Path, cpus: int = 1, *, token: bool = True, version: str = "") -> None:
        self.folder, self._cpus = folder, cpus
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)} if token else {}
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment: Mapping[str, str] = {**own, **QUIET, **mode, "PYTHONPATH": str(ROOT)}
        self.nodes: list[subprocess.Popen[bytes]] = []
        command = ["-c", _OTHER_RAY, version] if version else ["-m", "ray.scripts.scripts"]
        self._run([*command, "start", "--head", "--port", str(self.port), *self._as_head()])
        self._until_it_answers()

    def add(self) -> None:
        """`ray start` joins a head on loopback only by its outward address; so this is what the command does itself."""
        self._run(["-c", _NODE, self.address, str(self._cpus), str(self.folder)])

    def _as_head(self) -> list[str]:
        return [
            *("--node-ip-address", "127.0.0.1", "--temp-dir", str(self.folder), "--include-dashboard", "false"),
            *("--num-cpus", str(self._cpus), "--num-gpus", "0", "--object-store-memory", str(80 << 20)),
            *("--block", "--disable-usage-stats"),
        ]

    def _run(self, arguments: list[str]) -> None:
        command = [sys.executable, *arguments]
        with (self.folder / f"node-{len(self.nodes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )
        self.nodes.append(process)

    def kill(self, number: int) -> None:
        """As a machine that loses its power."""
        for pid, _ in processes_below(self.nodes[number].pid):
            kill_process(pid)
        self.nodes[number].wait(PATIENCE)

    def close(self) -> None:
        for number, each in reversed(list(enumerate(self.nodes))):
            if each.poll() is None:
                self.kill(number)

    def _until_it_answers(self) -> None:
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "health-check",
            "--skip-version-check",
            "--address",
            self.address,
        ]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.nodes[0].poll() is None:
            if subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.5)
        raise RuntimeError((self.folder / "node-0.log").read_text(encoding="utf-8", errors="replace")[-2000:])


def kill_process(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def processes_below(pid: int) -> list[tuple[int, str]]:
    """A process and all below it, with their names; Linux only."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found.extend(map(int, (task / "children").read_text().split()))
    return [(each, _name_of(each)) for each in found]


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def local_nodes(count: int, cpus: int = 1, *, token: bool = True, version: str = "") -> Iterator[LocalNodes]:
    """`version`: of Ray, as the head says it."""
    with tempfile.TemporaryDirectory(prefix="rn-", ignore_cleanup_errors=True) as folder:  # short: sockets lie there
        nodes = LocalNodes(Path(folder), cpus, token=token, version=version)
        try:
            for _ in range(count - 1):
                nodes.add()
            yield nodes
        finally:
            nodes.close()
