"""A job's walk from its route to the engine: few functions of the house stand between the two."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import overpaint
from overpaint.events import Stop
from overpaint.service.app import create_app
from overpaint.service.jobs import JobError, JobResult, JobState, Json
from overpaint.service.painter.jobs_in_hand import JobsInHand
from overpaint.service.painter.worker import Worker
from overpaint.service.queue import desk as desks
from overpaint.service.queue.entrance import JobEntrance
from overpaint.service.queue.store_thread import StoreThread
from overpaint.service.store.forms import plain
from overpaint.service.store.sqlite_store import JobStore
from overpaint.service.wire import Message
from tests.service.conftest import client_of
from tests.service.queue.desk_tools import config_for, run
from tests.unit.toy_job import planned

MOST = 12
PACKAGE = str(Path(overpaint.__file__).parent)
SMALL = {"prompt": "a cat", "width": 64, "height": 64, "steps": 1}


def own_frames() -> list[str]:
    """The functions of the house that called this one's caller, the outermost first."""
    frame: FrameType | None = sys._getframe(1)
    found: list[str] = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            found.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")
        frame = frame.f_back
    return found[::-1]


class NotedWorker:
    """A worker that notes who hands it a job, and says that it was cancelled."""

    name, device, unfit, model, holds, slots, deaths, switches = "0", "cpu", None, None, None, 1, 0, 0
    encodings, pid, state, is_prepared = None, None, "READY", True

    def __init__(self) -> None:
        self.handed: list[str] = []
        self.job: Json = {}

    def open(self, changed: Callable[[], None] = lambda: None) -> None: ...
    async def close(self) -> None: ...
    async def prepared(self) -> None: ...
    def stop(self, job: str, how: Stop) -> None: ...
    def kill(self, culprit: str | None = None) -> None: ...

    async def work(self, message: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        self.handed, self.job = [*own_frames(), "worker_process.work"], message["job"]
        ended = {"state": JobState.CANCELLED.value, "result": plain(JobResult()), "error": None, "refused": False}
        yield {"type": "ended", "job": message["job"]["id"], **ended}

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> JobError | None:
        return None


def test_few_functions_stand_between_the_route_and_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, stored, begun = NotedWorker(), list[str](), list[str]()
    monkeypatch.setattr(desks, "local_workers", lambda *given: [worker])
    call = StoreThread.call

    async def noted(self: StoreThread, what: Any, *values: Any) -> Any:
        name = getattr(what, "__name__", "")
        if name == "accept":
            stored.extend([*own_frames(), "store_thread.call"])
        elif name == "claim":
            begun.extend(each for each in own_frames() if each.startswith("runner."))
        return await call(self, what, *values)

    monkeypatch.setattr(StoreThread, "call", noted)
    handed_in = handed_in_at(monkeypatch)
    run(submitted_to_a_desk(tmp_path))
    walk = [*handed_in, *stored, *begun, *worker.handed, *painted_by(worker.job, tmp_path, monkeypatch)]
    assert walk[0] == "jobs.answer" and walk[-1] == "jobs_in_hand.begin", walk
    assert {"runner._work", "attempts.run", "worker.run"} < set(walk), walk
    assert len(walk) == len(set(walk)) <= MOST, walk


def handed_in_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Filled with who hands a job in, from the route on."""
    found: list[str] = []
    submit = JobEntrance.submit

    async def noted(self: JobEntrance, job: Any) -> Any:
        frames = own_frames()
        found.extend([*frames[frames.index("jobs.submit") + 1 :], "entrance.submit"])
        return await submit(self, job)

    monkeypatch.setattr(JobEntrance, "submit", noted)
    return found


async def submitted_to_a_desk(folder: Path) -> None:
    store = JobStore(folder)
    desk = desks.LocalDesk(store, config_for(folder))
    await desk.start()
    try:
        async with client_of(create_app(desk, config_for(folder))) as client:
            answer = await client.post("/v1/jobs", json=SMALL)
            assert answer.status_code == 202, answer.text
            await asyncio.wait_for(desk.wait(answer.json()["id"]), 60)
    finally:
        await desk.close()
        store.close()


def painted_by(job: Json, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who has the job in the worker's process, up to where the engine gets it."""
    found: list[str] = []

    class Engine:
        device, model = "cpu", None

        def plan(self, request: Any, settings: Any) -> Any:
            return planned(settings)

    class Shared:
        names = ()

        def begin(self, name: str, *given: Any) -> None:
            found.extend(each for each in own_frames() if not each.startswith("test_"))
            raise SystemExit  # that is as far as it is followed

    class Holder:
        has_engine, in_memory, slots = True, (), 1
        picture = staticmethod(lambda reference: b"")

        def __init__(self, *given: Any) -> None: ...
        def engine(self) -> Any:
            return Engine()

        def together(self) -> Any:
            return Shared()

        def use_usual(self) -> None: ...

    monkeypatch.setattr("overpaint.service.painter.worker.EngineHolder", Holder)
    monkeypatch.setattr("overpaint.service.painter.worker.model_values", lambda model: {})
    worker = Worker(io.BytesIO(), io.BytesIO())
    monkeypatch.setattr(worker, "_listen", lambda: None)
    worker._todo.put({"type": "start"})
    monkeypatch.setattr(JobsInHand, "__init__", _and_a_job(worker, job, folder))
    with pytest.raises(SystemExit):
        worker.run()
    return found


def _and_a_job(worker: Worker, job: Json, folder: Path) -> Callable[..., None]:
    """The jobs in hand as they are made, and one that is handed over at that moment."""
    made = JobsInHand.__init__

    def make(self: JobsInHand, *given: Any, **named: Any) -> None:
        made(self, *given, **named)
        worker._take({"type": "job", "job": job, "done": [], "folder": str(folder / "results")})

    return make
