"""Alive, ready, and in numbers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from overpaint.service import health
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.health import Metrics
from overpaint.service.jobs import Job, JobState, Live, WorkerStatus
from overpaint.service.store import room
from overpaint.service.store.sqlite_store import JobStore
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def ask(app: Any, *paths: str) -> list[tuple[int, str]]:
    async def asked() -> list[tuple[int, str]]:
        async with client_of(app) as client:
            responses = [await client.get(each) for each in paths]
            return [(each.status_code, each.text) for each in responses]

    return asyncio.run(asked())


def numbers_of(text: str) -> Numbers:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def metrics(app: Any, *paths: str) -> Numbers:
    return numbers_of(ask(app, *paths, "/metrics")[-1][1])


def test_a_full_disk_is_no_place_for_jobs(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, status in ((room.DISK_ROOM, 200), (room.DISK_ROOM - 1, 503)):
        monkeypatch.setattr("shutil.disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        [(found, text)] = ask(app, "/readyz")
        assert found == status
    assert '"status":"UNHEALTHY"' in text


def test_a_store_that_cannot_be_read_is_no_place_for_jobs(
    app: FastAPI, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trouble, status in ((None, 200), ("jobs.db: the file is damaged", 503)):
        monkeypatch.setattr(desk.store, "trouble", lambda trouble=trouble: trouble)
        [(found, text)] = ask(app, "/readyz")
        assert found == status and "jobs.db" not in text


@pytest.mark.parametrize(
    ("word", "status"), [("STARTING", 503), ("READY", 200), ("BUSY", 200), ("UNHEALTHY", 503), ("ELSE", 503)]
)
def test_ready(app: FastAPI, desk: FakeDesk, word: str, status: int) -> None:
    desk.word = word
    [(found, text)] = ask(app, "/readyz")
    assert found == status
    assert f'"status":"{word}"' in text
    if word in health.WORDS:
        values = metrics(app)
        assert {each: values["overpaint_state", (("state", each),)] for each in health.WORDS} == {
            each: float(each == word) for each in health.WORDS
        }


def test_alive_asks_nobody(config: ServeConfig) -> None:
    """Not even a desk that is broken."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    class Desk(FakeDesk):
        def state(self) -> str:
            raise AssertionError("asked for its state")

    desk = Desk(config.data)
    app = create_app(desk, config)
    desk._store = Broken()  # type: ignore[assignment]
    for word in ("STARTING", "UNHEALTHY"):
        desk.word = word
        [(status, text)] = ask(app, "/healthz")
        assert status == 200 and '"status":"ok"' in text


def test_requests_are_counted_by_the_declared_route(app: FastAPI) -> None:
    values = metrics(app, "/v1/jobs/one", "/v1/jobs/two", "/sdapi/v1/samplers", "/readyz", "/no/such", "/nor/this")

    def count(route: str, status: str) -> float:
        return values["overpaint_http_requests_total", (("method", "GET"), ("route", route), ("status", status))]

    assert count("/v1/jobs/{job_id}", "404") == 2
    assert count("/sdapi/v1/samplers", "200") == 1
    assert count("/readyz", "200") == 1
    assert count("none", "404") == 2
    assert values["overpaint_http_request_seconds_count", (("route", "/v1/jobs/{job_id}"),)] == 2
    assert not [name for name, labels in values if any("/one" in value or "/such" in value for _, value in labels)]


def test_routes_are_known_of_requests_with_bodies_and_tokens(desk: FakeDesk, config: ServeConfig) -> None:
    app = create_app(desk, replace(config, token="t"))

    async def asked() -> Numbers:
        async with client_of(app, headers={"Authorization": "Bearer t"}) as client:
            await client.post("/sdapi/v1/txt2img", json={"prompt": "x", "steps": 0})
            await client.request("FROB", "/readyz")
            return numbers_of((await client.get("/metrics")).text)

    routes = {dict(labels).get("route") for name, labels in asyncio.run(asked()) if name.endswith("requests_total")}
    methods = {dict(labels).get("method") for name, labels in asyncio.run(asked()) if name.endswith("requests_total")}
    assert "/sdapi/v1/txt2img" in routes
    assert methods <= {"POST", "GET", "other"}


def test_jobs_and_results_are_counted(app: FastAPI, desk: FakeDesk) -> None:
    def job(name: str) -> Job:
        return Job(id=name, kind="paint", request={"width": 64, "height": 64, "seed": 1}, settings={})

    async def submitted() -> None:
        await desk.submit(job("a"))
        desk.held = True
        await desk.submit(job("b"))
        await desk.submit(job("c"))
        await desk.cancel("c")

    asyncio.run(submitted())
    values = metrics(app)
    states = {each.value: values["overpaint_jobs", (("state", each.value),)] for each in JobState}
    assert states == {"queued": 1, "running": 0, "finished": 1, "failed": 0, "cancelled": 1}
    assert values["overpaint_queue_length", ()] == 1
    size = sum(each.stat().st_size for each in (desk.data / "results").rglob("*.png"))
    assert values["overpaint_results_bytes", ()] == size > 0


def test_jobs_of_the_true_store_are_counted(desk: FakeDesk, tmp_path: Path) -> None:
    store = JobStore(tmp_path / "kept")
    desk._store = store  # type: ignore[assignment]
    for name in ("a", "b"):
        store.accept(Job(id=name, kind="paint", request={}, settings={}, client=name))
    store.claim("a", "w", 60.0, at=1.0)
    found = Metrics()
    found.measure(desk)
    values = {each: found.registry.get_sample_value("overpaint_jobs", {"state": each.value}) for each in JobState}
    assert values == {each: float(each in (JobState.QUEUED, JobState.RUNNING)) for each in JobState}
    assert found.registry.get_sample_value("overpaint_queue_length") == 1
    store.end("a", JobState.FINISHED, 2.0)
    store.end("b", JobState.CANCELLED, 2.0)
    found.measure(desk)
    assert found.registry.get_sample_value("overpaint_jobs", {"state": "running"}) == 0
    assert found.registry.get_sample_value("overpaint_queue_length") == 0
    store.close()


def counted_looks(desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each time that somebody asks what is running."""
    looks: list[None] = []
    running = desk.all_running

    def looked() -> list[Live]:
        looks.append(None)
        return running()

    monkeypatch.setattr(desk, "all_running", looked)
    return looks


async def until_looked_at(looks: list[None]) -> None:
    """Until what is true now was seen."""
    before = len(looks)
    while len(looks) == before:
        await asyncio.sleep(0.005)


def test_steps_are_measured(desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PULSE", 0.01)

    looks = counted_looks(desk, monkeypatch)

    async def followed(lives: Iterable[Live | None]) -> Metrics:
        found = Metrics()
        following = asyncio.create_task(found.follow(desk))
        for each in lives:
            desk.live = each
            await asyncio.sleep(0.05)
            await until_looked_at(looks)
        following.cancel()
        return found

    lives = [
        None,
        *(Live(job="a", step=each, steps=9) for each in (0, 1, 2, 4)),
        Live(job="b", step=3),
        Live(job="b", step=4),
    ]
    started = time.monotonic()
    found = asyncio.run(followed(lives))
    passed = time.monotonic() - started
    count = found.registry.get_sample_value("overpaint_step_seconds_count")
    total = found.registry.get_sample_value("overpaint_step_seconds_sum")
    assert count == 4  # 1 to 2, twice 2 to 4, 3 to 4 of the other job
    assert total is not None and 0.1 < total < passed


def test_steps_of_jobs_side_by_side_are_told_apart(desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PULSE", 0.01)

    looks = counted_looks(desk, monkeypatch)

    async def followed() -> Metrics:
        found = Metrics()
        following = asyncio.create_task(found.follow(desk))
        for step in range(1, 4):
            desk.live, desk.beside = Live(job="a", step=step, steps=9), [Live(job="b", step=5 - step, steps=9)]
            await until_looked_at(looks)
        following.cancel()
        return found

    count = asyncio.run(followed()).registry.get_sample_value("overpaint_step_seconds_count")
    assert count == 2  # of a; that b went back is no step


WORKERS = [
    WorkerStatus(
        id="0",
        device="cuda:0",
        state="BUSY",
        model={"name": "sd15", "hash": "6ce0161689", "vae_name": None, "vae_hash": None},
        jobs=("a", "b"),
        slots=4,
        deaths=1,
        switches=3,
        encodings={"made": 4, "reused": 5, "bytes": 6},
        memory={"ram": {"free": 1, "used": 2, "total": 3}, "cuda": {"active": {"current": 7, "peak": 9}}},
    ),
    WorkerStatus(id="1", device="cuda:1", state="STARTING"),
]


def test_each_worker_is_told_of(app: FastAPI, desk: FakeDesk) -> None:
    desk.worker_list = WORKERS
    [(status, text)] = ask(app, "/v1/workers")
    busy, starting = json.loads(text)["workers"]
    assert status == 200
    assert busy == {
        "id": "0",
        "device": "cuda:0",
        "state": "BUSY",
        "model": {"name": "sd15", "hash": "6ce0161689", "vae": None},
        "jobs": ["a", "b"],
        "slots": 4,
        "deaths": 1,
        "switches": 3,
        "encodings": {"made": 4, "reused": 5, "bytes": 6},
        "memory": {"ram": 2, "device": 7},
    }
    assert (starting["model"], starting["jobs"], starting["memory"]) == (None, [], None)
    values = metrics(app)
    first = (("device", "cuda:0"), ("worker", "0"))
    found = {name: values[f"overpaint_worker_{name}", first] for name in ("jobs", "deaths", "switches")}
    assert found == {"jobs": 2, "deaths": 1, "switches": 3}
    assert [values[f"overpaint_worker_encodings_{name}", first] for name in ("made", "reused", "bytes")] == [4, 5, 6]
    assert ("overpaint_worker_encodings_made", (("device", "cuda:1"), ("worker", "1"))) not in values
    assert values["overpaint_worker_state", (("device", "cuda:1"), ("state", "STARTING"), ("worker", "1"))] == 1
    assert values["overpaint_worker_state", (("device", "cuda:0"), ("state", "READY"), ("worker", "0"))] == 0
    desk.worker_list = WORKERS[1:]
    assert ("overpaint_worker_jobs", first) not in metrics(app)


def test_the_document_names_what_is_told_of_workers(app: FastAPI) -> None:
    document = app.openapi()
    answer = document["paths"]["/v1/workers"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/WorkersAnswer"}
    assert {"WorkerAnswer", "WorkerModel", "WorkerMemory", "WorkerEncodings"} <= set(document["components"]["schemas"])


def test_nothing_is_registered_for_the_whole_process(desk: FakeDesk, config: ServeConfig) -> None:
    before = {each.name for each in REGISTRY.collect()}
    first, second = create_app(desk, config), create_app(desk, config)
    assert metrics(first, "/readyz") and metrics(second)
    assert {each.name for each in REGISTRY.collect()} == before
