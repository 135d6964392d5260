"""Kill a server, or its worker, over and over, and look what became of what it had accepted.

    python -m tests.service.kill_harness --points 200 --workers 3

After each kill the database is checked and the server started again. In the end every job must have finished once, with
the bytes and texts that a server gives which nobody killed, and its story must tell each thing once.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from overpaint.service.jobs import JobState, Record
from overpaint.service.store.sqlite_store import JobStore
from tests.service.kill_points import OF_DATABASE, OF_SERVER, OF_WORKER, VARIABLE, KillPoint
from tests.service.queue.desk_tools import account_of, files_of, source
from tests.tiny import make_tiny_checkpoint

PATIENCE = 300.0  # seconds for whatever is waited for; a busy machine takes its time to start three workers

Moment = tuple[str, Literal["before", "middle", "after"], int, Literal["server", "worker"]]

_PICTURE = base64.b64encode(source(3)).decode("ascii")
TEMPLATES: tuple[Mapping[str, Any], ...] = (
    {"iterations": 3, "steps": 4, "overrides": {"return_grid": True}},
    {"iterations": 2, "batch_size": 2, "sampler": "Euler a", "steps": 3},
    {"iterations": 1, "steps": 12, "sampler": "DPM++ 2M SDE", "strength": 1.0},
    {"iterations": 4, "steps": 2, "prompt": "a (dog:1.3) [red:blue:0.5]"},
    {"kind": "extras", "images": [_PICTURE, _PICTURE], "scale": 2},
)


def request_of(template: int) -> dict[str, Any]:
    values = dict(TEMPLATES[template])
    if values.get("kind") == "extras":
        return values
    common = {"prompt": "a cat", "sampler": "Euler", "seed": 40 + template, "variation_seed": 1, "images": [_PICTURE]}
    return {**common, **values}


class Server:
    """A server under this harness."""

    def __init__(
        self, data: Path, checkpoint: Path, log: Path, point: KillPoint | None = None, workers: int = 1
    ) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", VARIABLE: point.to_json() if point else ""}
        served = ("serve", str(data), str(checkpoint), str(workers))
        command = [sys.executable, "-m", "tests.service.kill_points", *served]
        self.started = time.monotonic()
        self._log = log.open("ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, env=environment)
        self.url = ""
        self.client: httpx.Client | None = None
        self.answered_after: float | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def answers(self) -> bool:
        """Wait until it does; false if it was killed before."""
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        if not self.url:
            self.process.wait(PATIENCE)
            return False
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)
        if self.ask("GET", "/healthz") is None:
            return False
        self.answered_after = time.monotonic() - self.started
        return True

    def ask(self, method: str, path: str, **values: Any) -> httpx.Response | None:
        """None if the server was killed over it."""
        assert self.client is not None
        try:
            return self.client.request(method, path, **values)
        except httpx.TransportError:
            return None

    def kill(self) -> None:
        if self.is_alive:
            self.process.kill()
        self.process.wait(PATIENCE)
        if self.client is not None:
            self.client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@dataclass
class Findings:
    """What was found out, for people."""

    points: Counter[str] = field(default_factory=Counter)
    restarts: list[float] = field(default_factory=list)
    integrity: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield f"{sum(self.points.values())} kills, {self.jobs} jobs, {len(self.wrong)} wrong"
        yield f"integrity_check: {dict(self.integrity)}"
        slowest = sorted(self.restarts)
        yield f"until the web side answers: median {slowest[len(slowest) // 2]:.2f} s, slowest {slowest[-1]:.2f} s"
        yield from (f"  {count:4} {name}" for name, count in sorted(self.points.items()))
        yield from self.wrong


class Harness:
    """One data folder, killed again and again."""

    def __init__(
        self,
        folder: Path,
        rng: random.Random,
        *,
        jobs_per_point: int = 2,
        moments: Sequence[Moment] = (),
        workers: int = 1,
        checkpoint: Path | None = None,
    ) -> None:
        self._workers = workers
        self._folder, self._rng, self._jobs_per_point = folder, rng, jobs_per_point
        self._moments = moments  # instead of chosen ones
        self._data, self._log = folder / "data", folder / "server.log"
        self._checkpoint = checkpoint or make_tiny_checkpoint(folder / "tiny.safetensors")
        self._templates: dict[str, int] = {}  # of the jobs that were handed in
        self._waiting: list[str] = []  # handed in, and not known to be accepted
        self.findings = Findings()

    def run(self, points: int) -> Findings:
        expected = self._undisturbed()
        for number in range(points):
            self._point(number)
        with self._server() as server:
            assert server.answers()
            self._submit_waiting(server)
            self._until_done(server)
            self._follow(server)
        self._check(expected)
        return self.findings

    @contextmanager
    def _server(self, point: KillPoint | None = None, data: Path | None = None) -> Iterator[Server]:
        server = Server(data or self._data, self._checkpoint, self._log, point, self._workers)
        try:
            yield server
        finally:
            server.kill()

    def _undisturbed(self) -> dict[int, Record]:
        """What each kind of job gives on a server that nobody kills."""
        data = self._folder / "undisturbed"
        with self._server(data=data) as server:
            assert server.answers()
            for template in range(len(TEMPLATES)):
                answer = server.ask("PUT", f"/v1/jobs/t{template}", json=request_of(template))
                assert answer is not None and answer.status_code == 202, answer and answer.text
            for template in range(len(TEMPLATES)):
                self._until_over(server, f"t{template}")
        store = JobStore(data)
        try:
            return {n: _known(store, f"t{n}") for n in range(len(TEMPLATES))}
        finally:
            store.close()

    def _point(self, number: int) -> None:
        """One life of a server, and its end."""
        point = self._choice(number)
        for n in range(self._jobs_per_point):
            job_id = f"p{number}-{n}"
            self._templates[job_id] = self._rng.randrange(len(TEMPLATES))
            self._waiting.append(job_id)
        with self._server(point) as server:
            timer = None
            if point is None:
                timer = threading.Timer(self._rng.uniform(0.3, 5.0), server.process.kill)
                timer.start()
            if server.answers():
                assert server.answered_after is not None
                self.findings.restarts.append(server.answered_after)
                self._submit_waiting(server)
                self._until_done(server)
            if timer is not None:
                timer.cancel()
        self.findings.points[_name_of(point)] += 1
        self._check_database()

    def _choice(self, number: int) -> KillPoint | None:
        if self._moments:
            return KillPoint(*self._moments[number % len(self._moments)], str(self._folder / f"mark{number}"))
        if number % 5 == 4:
            return None
        place = self._rng.choice(OF_SERVER + OF_DATABASE + OF_WORKER)
        victim: Literal["server", "worker"] = "server"
        moment: Literal["before", "middle", "after"] = self._rng.choice(("before", "after"))
        if place in OF_DATABASE:
            moment = "before"
        if place in OF_WORKER:
            victim = self._rng.choice(("server", "worker"))
            if place in ("write", "tell"):
                moment = self._rng.choice(("before", "middle", "after"))
        most = {"step": 30, "tell": 30, "add_event": 15, "load": 2, "recover": 1, "put_picture": 2, "source": 1}
        most |= {"statement": 60, "commit": 30}
        count = self._rng.randint(1, most.get(place, 4))
        return KillPoint(place, moment, count, victim, str(self._folder / f"mark{number}"))

    def _submit_waiting(self, server: Server) -> None:
        while self._waiting:
            job_id = self._waiting[0]
            answer = server.ask("PUT", f"/v1/jobs/{job_id}", json=request_of(self._templates[job_id]))
            if answer is None:
                return
            if answer.status_code == 429:  # of the backlog of earlier lives
                time.sleep(0.2)
                continue
            assert answer.status_code in (200, 202), answer.text
            self._waiting.pop(0)

    def _until_done(self, server: Server) -> None:
        """Until nothing is left to do, or it was killed."""
        end = time.monotonic() + PATIENCE
        while server.is_alive:
            answer = server.ask("GET", "/v1/jobs", params={"state": ["queued", "running"]})
            if answer is None or not answer.json()["jobs"]:
                return
            assert time.monotonic() < end, answer.text
            time.sleep(0.1)

    def _until_over(self, server: Server, job_id: str) -> None:
        end = time.monotonic() + PATIENCE
        while (answer := server.ask("GET", f"/v1/jobs/{job_id}")) is not None:
            if JobState(answer.json()["state"]).is_end:
                return
            assert time.monotonic() < end, answer.text
            time.sleep(0.1)

    def _follow(self, server: Server) -> None:
        """What clients hear of each job: an end that a crash kept from being told is told now."""
        for job_id in self._templates:
            answer = server.ask("GET", f"/v1/jobs/{job_id}/events")
            assert answer is not None
            names = [line.partition(": ")[2] for line in answer.text.splitlines() if line.startswith("event: ")]
            if names[-1:] != ["finished"] or names.count("finished") != 1:
                self.findings.wrong.append(f"{job_id}: told of {names}")

    # -- what became of it ---------------------------------------------------------------------------------------

    def _check_database(self) -> None:
        if not (self._data / "jobs.db").exists():
            return
        connection = sqlite3.connect(self._data / "jobs.db")
        try:
            self.findings.integrity[str(connection.execute("PRAGMA integrity_check").fetchone()[0])] += 1
        finally:
            connection.close()

    def _check(self, expected: Mapping[int, Record]) -> None:
        undisturbed, store = JobStore(self._folder / "undisturbed"), JobStore(self._data)
        try:
            known = {each.id for each in store.records(limit=100_000)}
            if known != set(self._templates):
                self.findings.wrong.append(f"other jobs than were handed in: {known ^ set(self._templates)}")
            for job_id in sorted(known):
                record, right = _known(store, job_id), expected[self._templates[job_id]]
                self.findings.wrong += [f"{job_id}: {each}" for each in _differences(store, record, undisturbed, right)]
            self.findings.jobs = len(known)
        finally:
            undisturbed.close()
            store.close()


def _name_of(point: KillPoint | None) -> str:
    if point is None:
        return "any time -> server"
    return f"{point.place} {point.moment} -> {point.victim}" if Path(point.mark).exists() else "all done -> server"


def _known(store: JobStore, job_id: str) -> Record:
    record = store.get(job_id)
    assert record is not None
    return record


def _differences(store: JobStore, record: Record, undisturbed: JobStore, right: Record) -> Iterator[str]:
    """What is not as it would have been without kills."""
    if record.state is not JobState.FINISHED:
        yield f"{record.state.value} {record.error}"
        return
    if account_of(record.result) != account_of(right.result) or record.result.extra != right.result.extra:
        yield "another result"
    if files_of(store, record) != files_of(undisturbed, right):
        yield "other bytes"
    folder = store.result_file(record.id, "0.png").parent
    if {each.name for each in folder.iterdir()} != {each.file for each in record.result.pictures}:
        yield f"files that nobody names: {sorted(each.name for each in folder.iterdir())}"
    events = store.events_after(record.id, 0)
    names = Counter(each.name for each in events)
    if (names["queued"], names["finished"], names["failed"], events[-1].name) != (1, 1, 0, "finished"):
        yield f"its story: {names}"
    painted = [each.data["batch"] for each in events if each.name == "painted"]
    if painted != [each.number for each in undisturbed.batches(right.id)] and painted != sorted(set(painted)):
        yield f"batches told of: {painted}"
    if [each.number for each in events] != list(range(1, len(events) + 1)):
        yield "numbers of its events"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="that are handed in at each point")
    parser.add_argument("--workers", type=int, default=1, help="side by side, on the CPU")
    parser.add_argument("--folder", type=Path, help="keep everything here, to look at it afterwards")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        harness = Harness(folder, random.Random(given.seed), jobs_per_point=given.jobs, workers=given.workers)
        findings = harness.run(given.points)
    print(*findings.lines(), sep="\n")  # noqa: T201
    print(f"{time.monotonic() - started:.0f} s")  # noqa: T201
    return 1 if findings.wrong or set(findings.integrity) != {"ok"} else 0


if __name__ == "__main__":
    sys.exit(main())
