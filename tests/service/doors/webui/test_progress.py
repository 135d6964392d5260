"""Progress, control and disconnecting clients of the reference's API."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.api import router
from overpaint.service.jobs import JobState, Live
from overpaint.service.limits import Limits
from tests.service.conftest import client_of
from tests.service.fake_desk import FakeDesk

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4}
TXT2IMG = "/sdapi/v1/txt2img"


@asynccontextmanager
async def calling(desk: FakeDesk, config: ServeConfig) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(desk, config))
    async with client_of(app) as client:
        yield client


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(_told(story), 100))


async def _told(story: Callable[[], Awaitable[None]]) -> None:
    await story()


async def accepted(desk: FakeDesk, count: int = 1) -> str:
    """The id of the latest job, once there are so many."""
    while len(desk.store.jobs) < count:
        await asyncio.sleep(0.01)
    return list(desk.store.jobs)[-1]


def test_nothing_runs(desk: FakeDesk, config: ServeConfig, parity: Any) -> None:  # PROG-1, PROG-5
    async def story() -> None:
        async with calling(desk, config) as client:
            told = (await client.get("/sdapi/v1/progress")).json()
        assert (told["progress"], told["eta_relative"], told["current_image"]) == (0.0, 0.0, None)
        recorded = (parity / "api/GET_progress.json").read_text("utf-8")
        assert set(told) == set(json.loads(recorded))
        state = told["state"]
        assert set(state) == set(json.loads(recorded)["state"])
        assert (state["job"], state["job_count"], state["interrupted"], state["skipped"]) == ("", 0, False, False)
        assert len(state["job_timestamp"]) == 14

    run(story)


def test_a_job_runs(desk: FakeDesk, config: ServeConfig) -> None:  # PROG-2, PROG-3
    async def story() -> None:
        desk.held = True
        async with calling(desk, config) as client:
            waiting = asyncio.ensure_future(client.post(TXT2IMG, json={**SMALL, "n_iter": 2, "force_task_id": "mine"}))
            job = await accepted(desk)

            async def told(**live: Any) -> dict[str, Any]:
                desk.live = Live(job=job, since=time.time() - 10, **live)
                found: dict[str, Any] = (await client.get("/sdapi/v1/progress")).json()
                return found

            early = await told()
            assert (early["progress"], early["state"]["job_count"], early["state"]["job"]) == (
                0.01,
                -1,
                "scripts_txt2img",
            )
            half = await told(step=6, steps=8, batch=1, batches=2)
            assert half["progress"] == pytest.approx(0.01 + 0.5 + 0.5 * 2 / 4)
            assert half["eta_relative"] == pytest.approx(10 / 0.76 - 10, abs=0.2)
            state = half["state"]
            assert (state["job"], state["job_no"], state["job_count"]) == ("Batch 2 out of 2", 1, 2)
            assert (state["sampling_step"], state["sampling_steps"]) == (2, 4)
            done = await told(step=8, steps=8, batch=1, batches=2)
            assert done["progress"] == 1.0
            desk.live = None
            await desk.paint_next()
            assert (await waiting).status_code == 200

    run(story)


def test_previews(desk: FakeDesk, config: ServeConfig) -> None:  # PROG-2, PROG-4
    async def story() -> None:
        desk.held = True
        async with calling(desk, config) as client:
            waiting = asyncio.ensure_future(client.post(TXT2IMG, json={**SMALL, "force_task_id": "mine"}))
            job = await accepted(desk)
            desk.live = Live(job=job, step=1, steps=4, preview=b"a preview")
            shown = (await client.get("/sdapi/v1/progress")).json()["current_image"]
            assert base64.b64decode(shown) == b"a preview"
            told = (await client.get("/sdapi/v1/progress", params={"skip_current_image": True})).json()
            assert told["current_image"] is None

            async def asked(**fields: Any) -> dict[str, Any]:
                found: dict[str, Any] = (
                    await client.post("/internal/progress", json={"id_task": "mine", **fields})
                ).json()
                return found

            first = await asked()
            assert (first["active"], first["queued"], first["completed"]) == (True, False, False)
            assert first["live_preview"] == f"data:image/png;base64,{base64.b64encode(b'a preview').decode()}"
            again = await asked(id_live_preview=first["id_live_preview"])
            assert again["live_preview"] is None and again["progress"] == pytest.approx(0.26)
            assert (await asked(live_preview=False))["live_preview"] is None
            desk.live = replace(desk.live, preview=b"another")
            other = await asked(id_live_preview=first["id_live_preview"])
            assert other["live_preview"] and other["id_live_preview"] != first["id_live_preview"]
            await client.post("/sdapi/v1/options", json={"live_previews_enable": False})
            assert (await client.get("/sdapi/v1/progress")).json()["current_image"] is None
            desk.live = None
            await desk.paint_next()
            await waiting
            told = await asked()
            assert (told["active"], told["queued"], told["completed"]) == (False, False, True)

    run(story)


def test_tasks_that_wait(desk: FakeDesk, config: ServeConfig) -> None:  # PROG-4
    async def story() -> None:
        desk.held = True
        async with calling(desk, config) as client:
            bodies = ({**SMALL, "force_task_id": "first"}, SMALL)
            waiting = []
            for count, body in enumerate(bodies, 1):
                waiting.append(asyncio.ensure_future(client.post(TXT2IMG, json=body)))
                await accepted(desk, count)
            pending = (await client.get("/internal/pending-tasks")).json()
            assert pending["size"] == 2 and pending["tasks"][0] == "first"
            assert pending["tasks"][1].startswith("task(txt2img-") and len(pending["tasks"][1]) == 21
            told = (await client.post("/internal/progress", json={"id_task": pending["tasks"][1]})).json()
            assert (told["active"], told["queued"], told["textinfo"]) == (False, True, "In queue: 2")
            told = (await client.post("/internal/progress", json={"id_task": "nobody's"})).json()
            assert (told["active"], told["queued"], told["completed"]) == (False, False, False)
            await desk.paint_next()
            await desk.paint_next()
            assert [each.status_code for each in await asyncio.gather(*waiting)] == [200, 200]
            assert (await client.get("/internal/pending-tasks")).json() == {"size": 0, "tasks": []}

    run(story)


def test_interrupt_and_skip_mean_the_running_job(desk: FakeDesk, config: ServeConfig) -> None:  # CTRL-1, CTRL-4
    async def story() -> None:
        async with calling(desk, config) as client:
            assert (await client.post("/sdapi/v1/interrupt")).json() == {}
            assert (await client.post("/sdapi/v1/skip")).json() is None
            assert (desk.finished_early, desk.skips) == ([], 0)  # nothing runs, nothing is remembered
            desk.live = Live(job="one", step=1, steps=4)
            await client.post("/sdapi/v1/skip")
            state = (await client.get("/sdapi/v1/progress")).json()["state"]
            assert (state["skipped"], state["interrupted"], desk.skips) == (True, False, 1)
            await client.post("/sdapi/v1/interrupt")
            state = (await client.get("/sdapi/v1/progress")).json()["state"]
            assert (state["interrupted"], desk.finished_early) == (True, ["one"])
            desk.live = Live(job="two", step=1, steps=4)
            state = (await client.get("/sdapi/v1/progress")).json()["state"]
            assert (state["interrupted"], state["skipped"]) == (False, False)

    run(story)


def test_each_client_is_told_of_its_own_job_and_stops_no_other(desk: FakeDesk, config: ServeConfig) -> None:
    """The reference has one job at a time; here others may run beside it."""

    async def story() -> None:
        async with calling(desk, config) as client:

            async def told(name: str) -> dict[str, Any]:
                found: dict[str, Any] = (await client.get("/sdapi/v1/progress", headers={"X-Client": name})).json()
                return found

            desk.live = Live(job="a", client="ann", step=1, steps=4, preview=b"of ann")
            desk.beside = [Live(job="b", client="bob", step=3, steps=4, preview=b"of bob")]
            assert [(await told(name))["state"]["sampling_step"] for name in ("ann", "bob", "cat")] == [1, 3, 0]
            shown = [(await told(name))["current_image"] for name in ("ann", "bob", "cat")]
            assert [each and base64.b64decode(each) for each in shown] == [b"of ann", b"of bob", None]
            await client.post("/sdapi/v1/interrupt", headers={"X-Client": "bob"})
            await client.post("/sdapi/v1/interrupt", headers={"X-Client": "cat"})
            await client.post("/sdapi/v1/skip", headers={"X-Client": "ann"})
            assert (desk.finished_early, desk.skipped) == (["b"], ["a"])
            states = [(await told(name))["state"] for name in ("ann", "bob")]
            assert [(each["interrupted"], each["skipped"]) for each in states] == [(False, True), (True, False)]

    run(story)


def test_previews_are_numbered_for_each_job(desk: FakeDesk, config: ServeConfig) -> None:  # PROG-4
    async def story() -> None:
        desk.held = True
        async with calling(desk, config) as client:
            waiting, jobs = [], []
            for number, name in enumerate(("one", "two"), 1):
                waiting.append(asyncio.ensure_future(client.post(TXT2IMG, json={**SMALL, "force_task_id": name})))
                jobs.append(await accepted(desk, number))
            desk.live, second = (Live(job=each, step=1, steps=4, preview=each.encode()) for each in jobs)
            desk.beside = [second]

            async def asked(name: str, seen: int = -1) -> dict[str, Any]:
                body = {"id_task": name, "id_live_preview": seen}
                found: dict[str, Any] = (await client.post("/internal/progress", json=body)).json()
                return found

            first = {name: await asked(name) for name in ("one", "two")}
            assert all(each["active"] and each["live_preview"] for each in first.values())
            for name, each in first.items():  # and whoever asks in between changes nothing
                assert (await asked(name, each["id_live_preview"]))["live_preview"] is None
            desk.live, desk.beside = None, []
            await desk.paint_next()
            await desk.paint_next()
            await asyncio.gather(*waiting)

    run(story)


@pytest.mark.parametrize("comes_to_an_end", [True, False])
def test_a_client_that_goes_takes_its_job_along(desk: FakeDesk, config: ServeConfig, comes_to_an_end: bool) -> None:
    """After a grace; a job that ends within it is not cancelled."""
    app = FastAPI()
    app.include_router(router(desk, replace(config, limits=Limits(disconnect_grace=0.6))))
    desk.held = True

    async def story() -> None:
        body, gone = b'{"width": 64, "height": 64, "steps": 4}', asyncio.Event()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": TXT2IMG,
            "raw_path": TXT2IMG.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7860),
        }  # fmt: skip
        calling = asyncio.ensure_future(app(scope, receive, send))
        job = await accepted(desk)
        gone.set()
        await asyncio.sleep(0.2)
        assert desk.store.jobs[job].state is JobState.QUEUED
        if comes_to_an_end:
            await desk.paint_next()
        await calling
        expected = JobState.FINISHED if comes_to_an_end else JobState.CANCELLED
        assert desk.store.jobs[job].state is expected

    run(story)


def test_another_process_finds_a_task_in_the_store(desk: FakeDesk, config: ServeConfig) -> None:  # PROG-4
    """Two applications on one desk know nothing of each other but what is written down."""

    async def story() -> None:
        desk.held = True
        async with calling(desk, config) as one, calling(desk, config) as other:

            async def told() -> dict[str, Any]:
                found: dict[str, Any] = (await other.post("/internal/progress", json={"id_task": "mine"})).json()
                return found

            waiting = asyncio.ensure_future(one.post(TXT2IMG, json={**SMALL, "force_task_id": "mine"}))
            job_id = await accepted(desk)
            found = await told()
            assert (found["active"], found["queued"], found["completed"]) == (False, True, False)
            assert (await other.get("/internal/pending-tasks")).json() == {"size": 1, "tasks": ["mine"]}
            desk.live = Live(job=job_id, client="", step=2, steps=4)
            found = await told()
            assert found["active"] and found["progress"] > 0.3
            desk.live = None
            await desk.paint_next()
            assert (await waiting).status_code == 200
            found = await told()
            assert (found["active"], found["queued"], found["completed"]) == (False, False, True)

    run(story)
