"""What the service holds: memory over many jobs, a full queue, and many clients at once.

    python -m benchmarks.service soak      [--jobs 1000]
    python -m benchmarks.service load      [--requests 1000]
    python -m benchmarks.service isolation [--clients 32] [--jobs 3] [--workers 3]

Each starts a server of its own on the small checkpoint and prints its figures; the exit code is 1 if one of them is
beyond what is promised. Memory is read from /proc, so the soak needs Linux. The tests in tests/service run short forms.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.service.conftest import Server, start
from tests.tiny import make_tiny_checkpoint

MOST_GROWTH = 1.0  # MiB per 100 jobs
SLOWEST_HEALTH = 0.050  # seconds, of 99 in 100 requests
WAITING = 64  # the default of `Limits`; one client may fill it
CANCELLED = 0.3  # of all jobs

Job = Mapping[str, Any]


# -- jobs --------------------------------------------------------------------------------------------------------


def _encoded(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def mixed_jobs() -> tuple[Job, ...]:
    """Small jobs of every kind, no two alike in what they leave behind in a worker."""
    y, x = np.mgrid[0:64, 0:64]
    source = _encoded(Image.fromarray(np.stack([x * 3 % 256, y * 3 % 256, (x + y) % 256], -1).astype(np.uint8)))
    shape = Image.new("L", (64, 64))
    shape.paste(255, (20, 20, 44, 44))
    mask = _encoded(shape)
    small = {"width": 64, "height": 64, "steps": 4}
    painted = {**small, "images": [source], "strength": 0.6}
    return (
        {**small, "prompt": "a lake", "sampler": "Euler"},
        {**small, "prompt": "a (tall:1.3) tree", "sampler": "Euler a", "batch_size": 2},
        {**painted, "prompt": "a red sofa"},
        {**painted, "prompt": "a cat", "sampler": "DPM++ SDE", "iterations": 2},
        {**painted, "prompt": "a door", "mask": mask, "masked_content": "noise"},
        {**painted, "prompt": "a hat", "mask": mask, "only_masked": True, "padding": 8},
        {**painted, "prompt": "a hill", "mask": mask, "soft_inpainting": {}},
        {**small, "prompt": "a road", "hires": {"scale": 1.5, "steps": 2}, "clip_skip": 2},
        {"kind": "extras", "images": [source], "scale": 2, "upscaler": "Lanczos"},
    )


def seeded(job: Job, seed: int) -> Job:
    return job if job.get("kind") == "extras" else {**job, "seed": seed, "variation_seed": 1}


def painted(client: httpx.Client, job: Job, **headers: str) -> dict[str, Any]:
    """The job when it is over, with its pictures."""
    answer = client.post("/v1/jobs?images=base64", json=job, headers={"Prefer": "wait", **headers})
    answer.raise_for_status()
    told: dict[str, Any] = answer.json()
    assert told["state"] == "finished", told
    return told


# -- soak --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """What a process holds."""

    memory: float  # MiB
    files: int
    threads: int


@dataclass(frozen=True)
class Growth:
    """How a process changed over a soak."""

    name: str
    first: Use
    last: Use
    memory: float  # MiB per 100 jobs
    files: float  # per 100 jobs
    threads: float

    @property
    def is_flat(self) -> bool:
        return self.memory < MOST_GROWTH and self.files < 1 and self.threads < 1


def soak(server: Server, jobs: int, *, warm_up: int = 50, every: int = 10) -> list[Growth]:
    """Jobs of every kind one after another; what the server's processes hold is looked at now and then."""
    kinds = itertools.cycle(mixed_jobs())
    uses: list[Mapping[str, Use]] = []
    with server.client() as client:
        for number in range(warm_up + jobs):
            painted(client, seeded(next(kinds), number))
            if number >= warm_up and (number - warm_up) % every == 0:
                uses.append(uses_of(server.process.pid))
    assert len({tuple(each) for each in uses}) == 1, "a process was started again"
    return [_growth(name, [each[name] for each in uses], every) for name in uses[0]]


def uses_of(pid: int) -> dict[str, Use]:
    """Of a server and of the processes it started."""
    found = {f"web {pid}": _use(pid)}
    for each in _children(pid):
        found[f"worker {each}"] = _use(each)
    return found


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


def _use(pid: int) -> Use:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Use(int(status["VmRSS"].split()[0]) / 1024, files, int(status["Threads"]))


def _growth(name: str, uses: Sequence[Use], every: int) -> Growth:
    def slope(values: Sequence[float]) -> float:
        return 100 * statistics.linear_regression(range(0, every * len(values), every), values).slope

    slopes = (slope([getattr(each, what) for each in uses]) for what in ("memory", "files", "threads"))
    return Growth(name, uses[0], uses[-1], *slopes)


# -- load --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What a server says that is given too much."""

    accepted: int  # beside the one that runs
    status: int  # of the one after those
    retry_after: str
    idle: float  # seconds, 99 in 100 requests for /healthz took less, before there was a job
    health: float  # the same while one ran and the queue was full
    submitting: float  # the same of accepting jobs

    @property
    def is_kept(self) -> bool:
        return (self.accepted, self.status) == (WAITING, 429) and self.health < SLOWEST_HEALTH


def load(client: httpx.Client, requests: int, *, prompt: str = "a") -> Load:
    """Fill the queue behind a long job, ask how it goes, and cancel everything."""
    small = {"prompt": "a", "width": 64, "height": 64, "steps": 4}
    long = {**small, "prompt": prompt, "width": 256, "height": 256, "steps": 150, "iterations": 16}
    idle = _asked(client, requests)
    submit = Submitting(client)
    submit(long, "first")
    while not client.get("/v1/jobs?state=running").json()["jobs"]:
        time.sleep(0.01)
    answers = [submit(small, f"client-{number % 2}") for number in range(WAITING)]
    refused = submit(small, "late")
    health = _asked(client, requests)
    assert client.get("/v1/jobs?state=running").json()["jobs"], "the long job ended too early"
    for job in client.get("/v1/jobs?state=queued&state=running").json()["jobs"]:
        client.post(f"/v1/jobs/{job['id']}/cancel")
    return Load(
        accepted=sum(each.status_code == 202 for each in answers),
        status=refused.status_code,
        retry_after=refused.headers.get("Retry-After", ""),
        idle=_most(idle),
        health=_most(health),
        submitting=_most(submit.seconds),
    )


class Submitting:
    """Hands in jobs under a client's name, and knows how long each took."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self.seconds: list[float] = []

    def __call__(self, job: Job, name: str) -> httpx.Response:
        started = time.perf_counter()
        answer = self._client.post("/v1/jobs", json=job, headers={"X-Client": name})
        self.seconds.append(time.perf_counter() - started)
        return answer


def _asked(client: httpx.Client, requests: int) -> list[float]:
    seconds: list[float] = []
    for _ in range(requests):
        started = time.perf_counter()
        assert client.get("/healthz").status_code == 200
        seconds.append(time.perf_counter() - started)
        time.sleep(0.002)
    return seconds


def _most(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


# -- isolation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Isolation:
    """What came of many clients' jobs."""

    jobs: int
    cancelled: int
    equal: int  # finished, and byte for byte what a serial run gave
    different: Sequence[str]  # ids
    others: Sequence[str]  # neither finished nor cancelled

    @property
    def is_kept(self) -> bool:
        return not self.different and not self.others and self.equal + self.cancelled == self.jobs


def isolation(server: Server, clients: int, jobs: int, *, seeds: int = 2) -> Isolation:
    """Clients at once, each with jobs of its own one after another, of which some are cancelled at any moment."""
    kinds = mixed_jobs()
    # Few seeds, so that the serial run is short: what matters is what ran before and beside.
    wishes = [seeded(kind, 100 + each) for kind in kinds for each in range(seeds)]
    with server.client() as client:
        serial = [painted(client, each)["images_base64"] for each in wishes]

    def worked(number: int) -> list[tuple[int, dict[str, Any]]]:
        rng = random.Random(number)
        with server.client(timeout=300.0, headers={**server.headers, "X-Client": f"client-{number}"}) as own:
            chosen = [rng.randrange(len(wishes)) for _ in range(jobs)]
            return [(each, _ended(own, wishes[each], rng)) for each in chosen]

    with ThreadPoolExecutor(clients) as pool:
        told = [each for found in pool.map(worked, range(clients)) for each in found]
    finished = [(number, job) for number, job in told if job["state"] == "finished"]
    different = [job["id"] for number, job in finished if job["images_base64"] != serial[number]]
    cancelled = sum(job["state"] == "cancelled" for _, job in told)
    others = [f"{job['id']} {job['state']}" for _, job in told if job["state"] not in ("finished", "cancelled")]
    return Isolation(len(told), cancelled, len(finished) - len(different), different, others)


def _ended(client: httpx.Client, job: Job, rng: random.Random) -> dict[str, Any]:
    """A job of one client; some are cancelled while they wait or run."""
    answer = client.post("/v1/jobs", json=job)
    answer.raise_for_status()
    place = f"/v1/jobs/{answer.json()['id']}"
    cancel_at = None
    if rng.random() < CANCELLED:  # in the first half of its time, since an estimate may be too long
        cancel_at = time.monotonic() + rng.uniform(0, float(answer.json()["eta"] or 0) / 2)
    while (told := client.get(place).json())["state"] in ("queued", "running"):
        if cancel_at is not None and time.monotonic() >= cancel_at:
            status = client.post(f"{place}/cancel").status_code
            assert status in (202, 409), status  # 409: it was over already
            cancel_at = None
        time.sleep(0.02)
    found: dict[str, Any] = client.get(f"{place}?images=base64").json() if told["state"] == "finished" else told
    return found


# -- the command -------------------------------------------------------------------------------------------------


@contextmanager
def _server(workers: int) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny_checkpoint(Path(folder) / "sketch.safetensors")
        options = ("--model", str(model), "--device", "cpu", "--workers", str(workers))
        server = start(Path(folder) / "data", *options)
        try:
            server.wait_ready()
            yield server
        finally:
            server.kill()


def _report_soak(server: Server, args: argparse.Namespace) -> bool:
    found = soak(server, args.jobs)
    print(f"{'process':>16} {'MiB':>16} {'per 100 jobs':>13} {'files':>10} {'threads':>10}")
    for each in found:
        ends = (each.first, each.last)
        memory, files, threads = (
            " -> ".join(format(getattr(end, what), form) for end in ends)
            for what, form in (("memory", ".1f"), ("files", "d"), ("threads", "d"))
        )
        print(f"{each.name:>16} {memory:>16} {each.memory:+13.3f} {files:>10} {threads:>10}")
    return all(each.is_flat for each in found)


def _report_load(server: Server, args: argparse.Namespace) -> bool:
    with server.client() as client:
        found = load(client, args.requests)
    print(f"waiting: {found.accepted} accepted, then {found.status} with Retry-After: {found.retry_after}")
    print(f"p99 of /healthz {found.health * 1000:.1f} ms ({found.idle * 1000:.1f} ms idle)", end=", ")
    print(f"of accepting a job {found.submitting * 1000:.1f} ms")
    return found.is_kept


def _report_isolation(server: Server, args: argparse.Namespace) -> bool:
    found = isolation(server, args.clients, args.jobs)
    print(f"{found.jobs} jobs: {found.cancelled} cancelled, {found.equal} byte-equal to a serial run")
    print(f"different: {list(found.different)}, neither finished nor cancelled: {list(found.others)}")
    return found.is_kept


_REPORTS: Mapping[str, Callable[[Server, argparse.Namespace], bool]] = {
    "soak": _report_soak,
    "load": _report_load,
    "isolation": _report_isolation,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=_REPORTS)
    parser.add_argument("--jobs", type=int, help="in all for the soak (1000), of each client for the isolation (3)")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="of the server")
    args = parser.parse_args()
    args.jobs = args.jobs or (1000 if args.what == "soak" else 3)
    started = time.monotonic()
    with _server(args.workers) as server:
        is_kept = _REPORTS[args.what](server, args)
    print(f"{'kept' if is_kept else 'NOT KEPT'}, in {time.monotonic() - started:.0f} s")
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
