"""Several web processes and workers on one PostgreSQL, killed and stalled one after another, under many clients.

    python -m tests.service.shared_harness --clients 24 --workers 3 --kills 20 --stalls 3

Clients use all three APIs and ask again when an answer did not come, as theirs do. In the end every accepted job must
have ended once, and each picture must be the one that a service gives which nobody disturbs.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from overpaint.service.queue.runner import LEASE
from tests.service.conftest import STOP_SECONDS
from tests.service.queue.desk_tools import source
from tests.service.store.postgres_cluster import Cluster, programs
from tests.tiny import make_tiny_checkpoint
from tests.unit.s3_store import LocalS3, local_s3

SECONDS = 900.0  # for whatever is waited for
PAST_LEASE = LEASE + 10.0
BETWEEN = (0.5, 4.0)  # seconds from one trouble to the next
REQUESTS = 8  # that differ; clients share them
PASSING = (429, 500, 503, 504, 507)  # what may be said while something is away
_ENDS = "('finished', 'failed', 'cancelled')"

T = TypeVar("T")


class Office:
    """Processes on one store, each started again when it was killed."""

    def __init__(self, cluster: Cluster, folder: Path, checkpoint: Path, s3: LocalS3 | None = None) -> None:
        self.cluster, self.address = cluster, cluster.database()
        self._data, self._options = folder, ["--model", str(checkpoint)]
        if s3 is not None:
            self._options += ["--blobs", f"s3://bucket/{folder.name}"]
        self._has_own_disk = s3 is not None  # each process
        own = {"OVERPAINT_STORE": self.address, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self._environment = {**(os.environ if s3 is None else s3.environment), **own}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self.urls: dict[str, str] = {}
        self.servers = folder.with_name(f"{folder.name}.servers")  # for who asks how they are
        self._note_servers()

    def start(self, name: str) -> None:
        """A web process or a worker, by the beginning of its name; it takes part when this returns."""
        command = ["serve", "--port", "0"] if name.startswith("web") else ["worker", "--device", "cpu"]
        data = self._data / name if self._has_own_disk else self._data
        process = subprocess.Popen(
            [sys.executable, "-m", "overpaint", *command, "--data", str(data), *self._options],
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
            self._note_servers()

    def kill(self, name: str) -> None:
        self.urls.pop(name, None)
        self._note_servers()
        process = self._processes.pop(name)
        process.kill()
        process.wait(STOP_SECONDS)
        assert process.stdout is not None
        process.stdout.close()

    def stall(self, name: str, seconds: float) -> None:
        """It does not know that time passes; what it paints with goes on."""
        process = self._processes[name]
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def busy(self) -> str | None:
        """A worker that has a job, by its name here."""
        hosts = [host for (host,) in self.rows("SELECT worker FROM jobs WHERE state = 'running'")]
        of_pid = {f"-{process.pid}-": name for name, process in self._processes.items()}
        return next((name for pid, name in of_pid.items() if any(pid in each for each in hosts)), None)

    def close(self) -> None:
        for each in list(self._processes):
            self.kill(each)

    def _note_servers(self) -> None:
        told = {self._processes[name].pid: httpx.URL(url) for name, url in list(self.urls.items())}
        (fresh := self.servers.with_suffix(".new")).write_text(
            "".join(f"{p} {u.host} {u.port}\n" for p, u in told.items())
        )
        fresh.replace(self.servers)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.cluster.execute(sql, self.address)


# -- clients -----------------------------------------------------------------------------------------------------


def fields_of(number: int) -> dict[str, Any]:
    """What is asked for, in names that all three APIs have."""
    return {"prompt": f"a cat {number}", "steps": 15 + number % 3, "seed": number}


def by_v1(client: httpx.Client, number: int, name: str) -> bytes:
    picture = client.post("/v1/pictures", content=source(number)).raise_for_status().json()["picture"]
    wanted = {**fields_of(number), "variation_seed": 1, "images": [picture]}
    client.put(f"/v1/jobs/{name}", json=wanted).raise_for_status()
    end = time.monotonic() + SECONDS
    while (state := client.get(f"/v1/jobs/{name}").raise_for_status().json()["state"]) in ("queued", "running"):
        assert time.monotonic() < end, f"{name} does not end"
        time.sleep(0.1)
    assert state == "finished", f"{name} has {state}"
    return client.get(f"/v1/jobs/{name}/images/0").raise_for_status().content


def by_webui(client: httpx.Client, number: int, name: str) -> bytes:
    del name  # it knows none: whoever asks again has it painted again
    size = {"width": 64, "height": 64, "subseed": 1}
    picture = base64.b64encode(source(number)).decode("ascii")
    wanted = {**fields_of(number), **size, "init_images": [picture], "sampler_name": "Euler"}
    told = client.post("/sdapi/v1/img2img", json=wanted).raise_for_status().json()
    return base64.b64decode(told["images"][0])


def by_openai(client: httpx.Client, number: int, name: str) -> bytes:
    form = {key: str(value) for key, value in {**fields_of(number), "variation_seed": 1, "size": "auto"}.items()}
    files = {"image": ("cat.png", source(number), "image/png")}
    headers = {"Idempotency-Key": name}
    told = client.post("/v1/images/edits", data=form, files=files, headers=headers).raise_for_status().json()
    return base64.b64decode(told["data"][0]["b64_json"])


ROADS: Mapping[str, Callable[..., bytes]] = {
    "v1": by_v1,
    "webui": by_webui,
    "openai": by_openai,
}


def asked(office: Office, what: Callable[[httpx.Client], T]) -> T:
    """Of any web process that answers, as a client behind a proxy would, until there is an answer."""
    end, last = time.monotonic() + SECONDS, "there is none"
    while time.monotonic() < end:
        for url in list(office.urls.values()):
            with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=SECONDS) as client:
                try:
                    return what(client)
                except httpx.HTTPStatusError as error:
                    last = error.response.text
                    assert error.response.status_code in PASSING, last
        time.sleep(0.2)
    raise AssertionError(f"nobody answers: {last}")


# -- troubles ----------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """What came of it, for people."""

    troubles: Counter[str] = field(default_factory=Counter)
    health: list[Sequence[float]] = field(default_factory=list)  # as `health_probe` tells
    jobs: int = 0
    attempts: int = 0
    pictures: int = 0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        counted = f"{self.jobs} jobs in {self.attempts} attempts, {self.pictures} pictures that differ"
        yield f"{counted}, {len(self.wrong)} wrong"
        yield ", ".join(f"{count} {what}" for what, count in sorted(self.troubles.items()))
        if self.health:
            whole, own = (
                sorted(each[0] for each in self.health),
                sorted(each[0] - each[1] - each[2] for each in self.health),
            )
            told = f"/healthz: {len(whole)} asked, p99 {_p99(whole):.0f} ms, slowest {whole[-1] * 1e3:.0f} ms"
            yield f"{told}; without the waiting for a core p99 {_p99(own):.0f} ms"
        yield from self.wrong


def _p99(seconds: Sequence[float]) -> float:
    return seconds[min(int(len(seconds) * 0.99), len(seconds) - 1)] * 1e3


class Troubled:
    """A service under many clients, and what befalls it meanwhile."""

    def __init__(self, office: Office, rng: random.Random, *, webs: int, workers: int, account: Account) -> None:
        self._office, self._rng, self._account = office, rng, account
        self._webs = [f"web-{number}" for number in range(webs)]
        self._workers = [f"worker-{number}" for number in range(workers)]
        self._is_calm, self._over = threading.Event(), threading.Event()

    def run(self, clients: int, kills: int, stalls: int) -> dict[tuple[str, int], set[str]]:
        """The hashes of the pictures by road and request."""
        for each in (*self._webs, *self._workers):
            self._office.start(each)
        threads = [threading.Thread(target=self._trouble, args=(kills, stalls)), threading.Thread(target=self._look)]
        for thread in threads:
            thread.start()
        with ThreadPoolExecutor(clients) as pool:
            found = list(pool.map(self._client, range(clients)))
        self._over.set()
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        merged: dict[tuple[str, int], set[str]] = {}
        for asked_for, digest in itertools.chain.from_iterable(found):
            merged.setdefault(asked_for, set()).add(digest)
        return merged

    def _client(self, number: int) -> list[tuple[tuple[str, int], str]]:
        """One after another, at least two, until there is no trouble any more."""
        road, found = list(ROADS)[number % len(ROADS)], list[tuple[tuple[str, int], str]]()
        while len(found) < 2 or not self._is_calm.is_set():
            request, name = (number + len(found)) % REQUESTS, f"{road}-{number}-{len(found)}"
            data = asked(self._office, partial(ROADS[road], number=request, name=name))
            found.append(((road, request), hashlib.sha256(data).hexdigest()))
        return found

    def _trouble(self, kills: int, stalls: int) -> None:
        deeds = ["kill"] * kills + ["stall"] * stalls
        self._rng.shuffle(deeds)
        for number, deed in enumerate(deeds):
            time.sleep(self._rng.uniform(*BETWEEN))
            if deed == "stall":
                self._office.stall(self._office.busy() or self._rng.choice(self._workers), PAST_LEASE)
                self._account.troubles["worker stalled"] += 1
            else:
                at_random = self._rng.choice([*self._webs, *self._workers])
                usual = at_random if number % 2 else self._office.busy() or at_random
                self._kill("postgres" if number % 7 == 3 else usual)
        self._is_calm.set()

    def _kill(self, victim: str) -> None:
        self._account.troubles[f"{victim.partition('-')[0]} killed"] += 1
        if victim == "postgres":
            self._office.cluster.stop()
            self._office.cluster.start()
            return
        self._office.kill(victim)
        self._office.start(victim)

    def _look(self) -> None:
        """How long a web process that is there takes to say so: asked by a process that does nothing else."""
        command = [sys.executable, "-m", "tests.service.health_probe", str(self._office.servers)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
            self._over.wait()
            told, _ = probe.communicate(timeout=SECONDS)
        self._account.health.extend(json.loads(told))


# -- what became of it -------------------------------------------------------------------------------------------


def run(
    folder: Path,
    *,
    clients: int,
    webs: int,
    workers: int,
    kills: int,
    stalls: int,
    seed: int,
    s3: LocalS3 | None = None,
) -> Account:
    found = programs()
    if found is None:
        raise SystemExit("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    account, checkpoint = Account(), make_tiny_checkpoint(folder / "tiny.safetensors")
    cluster = Cluster(found)
    offices = list[Office]()
    try:
        cluster.start()
        offices.append(Office(cluster, folder / "troubled", checkpoint, s3))
        troubled = Troubled(offices[0], random.Random(seed), webs=webs, workers=workers, account=account)
        pictures = troubled.run(clients, kills, stalls)
        _check_jobs(offices[0], account)
        offices[0].close()
        offices.append(Office(cluster, folder / "in-peace", checkpoint, s3))
        _check_pictures(offices[1], pictures, account)
    finally:
        for each in offices:
            each.close()
        cluster.close()
    return account


def _check_jobs(office: Office, account: Account) -> None:
    end = time.monotonic() + SECONDS
    while office.rows("SELECT 1 FROM jobs WHERE state IN ('queued', 'running')"):
        assert time.monotonic() < end, office.rows("SELECT id, state, attempts FROM jobs WHERE ended IS NULL")
        time.sleep(0.5)
    told = f"(SELECT count(*) FROM events WHERE job = jobs.number AND name IN {_ENDS})"
    for name, state, attempts, error, ends in office.rows(f"SELECT id, state, attempts, error, {told} FROM jobs"):
        account.jobs += 1
        account.attempts += attempts
        if state not in ("finished", "cancelled"):  # cancelled: its client was cut off, and nobody waits for it
            account.wrong.append(f"{name} has {state} after {attempts} attempts: {error}")
        if ends != 1:
            account.wrong.append(f"{name}: its end is told {ends} times")


def _check_pictures(office: Office, pictures: Mapping[tuple[str, int], set[str]], account: Account) -> None:
    """Against those of a service that does one job after another."""
    office.start("web-0")
    office.start("worker-0")
    for (road, request), digests in sorted(pictures.items()):
        account.pictures += 1
        data = asked(office, partial(ROADS[road], number=request, name=f"{road}-{request}"))
        if digests != {hashlib.sha256(data).hexdigest()}:
            account.wrong.append(f"{road}, request {request}: {len(digests)} pictures, and not the one in peace")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = {"clients": 24, "webs": 2, "workers": 3, "kills": 20, "stalls": 3, "seed": 0}
    for name, usual in counts.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--s3", action="store_true", help="pictures in a bucket, and a folder for each process")
    given = vars(parser.parse_args(arguments))
    is_in_bucket = given.pop("s3")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        s3 = stack.enter_context(local_s3(Path(folder))) if is_in_bucket else None
        account = run(Path(folder), **given, s3=s3)
    print(*account.lines(), sep="\n")  # noqa: T201
    return 1 if account.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
