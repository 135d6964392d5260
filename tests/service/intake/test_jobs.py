"""The one way in: what is judged, handed in and waited for, whatever door it came through."""

from __future__ import annotations

import asyncio
import base64
import random
import sys
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from PIL import Image

from overpaint.errors import CheckpointError, RequestError
from overpaint.seeds import fix_seed
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.guard.budgets import ServerBudget
from overpaint.service.intake.jobs import Intake, NewJob
from overpaint.service.jobs import Job, JobState, Record
from overpaint.service.limits import Limits
from overpaint.service.problems import ClientGone
from overpaint.settings import Settings
from tests.service.doors.openai.openai_tools import file_of
from tests.service.fake_desk import FakeDesk
from tests.service.queue.desk_tools import run

SMALL = {"width": 64, "height": 64, "steps": 1, "seed": 3}
PICTURE = file_of(Image.new("RGB", (64, 64)))


@pytest.fixture
def intake(desk: FakeDesk, config: ServeConfig) -> Intake:
    return Intake(desk, replace(config, limits=Limits(disconnect_grace=0.2)))


def new(values: dict[str, Any], **changes: Any) -> NewJob:
    return NewJob(**{"values": values, "settings": Settings(), "origin": "v1", "client": "me", **changes})


class Caller:
    """A client as the wire sees it: its body was read, and it stays until it goes."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.request = Request({"type": "http", "headers": []}, self._receive)
        self.asked = 0

    async def _receive(self) -> dict[str, Any]:
        self.asked += 1
        await self.gone.wait()
        return {"type": "http.disconnect"}


# -- judged ------------------------------------------------------------------------------------------------------------


def test_a_job_has_all_that_painting_it_needs(intake: Intake) -> None:
    values = {**SMALL, "priority": 2.0, "run_seconds": 5}
    job = intake.judged(new(values, origin="openai", key="k"))
    assert (job.kind, job.origin, job.client, job.key) == ("paint", "openai", "me", "k")
    assert (job.priority, job.run_seconds, job.queue_seconds) == (2, 5.0, intake.config.limits.queue_deadline)
    assert not {"priority", "run_seconds", "queue_seconds"} & job.request.keys()
    assert Settings.from_json(job.settings).max_steps == intake.config.limits.steps


@pytest.mark.parametrize("name", [{"id": "mine"}, {"key": "k"}])
def test_what_is_sent_again_under_one_name_is_the_same_request(intake: Intake, name: dict[str, str]) -> None:
    jobs = [intake.judged(new({**SMALL, "seed": -1}, **name)) for _ in range(2)]
    assert jobs[0].fingerprint() == jobs[1].fingerprint()
    expected = fix_seed(-1, random.Random(name.get("id") or "me k"))
    assert jobs[0].request["seed"] == expected
    assert intake.judged(new({**SMALL, "seed": -1})).request["seed"] != expected


def test_a_checkpoint_is_named_or_chosen_by_the_door(intake: Intake) -> None:
    with pytest.raises(CheckpointError, match="checkpoint='nope': there is no such model; GET /v1/models lists them"):
        intake.judged(new({**SMALL, "checkpoint": "nope"}))
    assert intake.judged(new(SMALL, checkpoint="/a/b.safetensors")).request["checkpoint"] == "/a/b.safetensors"
    with pytest.raises(RequestError, match=r"^checkpoint="):  # which a client cannot do
        intake.judged(new({**SMALL, "checkpoint": "/a/b.safetensors"}))


@pytest.mark.parametrize("name, value", [("priority", 11), ("queue_seconds", 0), ("run_seconds", 1e9)])
def test_what_is_said_of_the_job_itself_is_judged(intake: Intake, name: str, value: float) -> None:
    with pytest.raises(RequestError, match=rf"^{name}="):
        intake.judged(new({**SMALL, name: value}))
    assert not intake.desk.store.records()


# -- waited for --------------------------------------------------------------------------------------------------------


async def _accepted(intake: Intake, desk: FakeDesk) -> Record:
    desk.held = True
    return await intake.handed_in(await asyncio.to_thread(intake.judged, new(SMALL)))


def test_the_end_of_a_job_is_waited_for_without_asking_in_between(
    intake: Intake, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred clients that wait cost nothing: the desk is asked once for each, and so is the wire."""
    waits: list[float | None] = []
    wait = desk.wait

    async def counted(job_id: str, seconds: float | None = None) -> Record:
        waits.append(seconds)
        return await wait(job_id, seconds)

    monkeypatch.setattr(desk, "wait", counted)

    async def story() -> None:
        caller, record = Caller(), await _accepted(intake, desk)
        waiting = asyncio.create_task(intake.ended(record, caller.request))
        await asyncio.sleep(1.2)
        assert not waiting.done() and (waits, caller.asked) == ([None], 1)
        await desk.paint_next()
        assert (await waiting).state is JobState.FINISHED

    run(story(), 20)


def test_the_time_of_a_client_is_up(intake: Intake, desk: FakeDesk) -> None:
    async def story() -> JobState:
        record = await _accepted(intake, desk)
        return (await intake.ended(record, Caller().request, 0.05)).state

    assert run(story(), 20) is JobState.QUEUED


@pytest.mark.parametrize(
    "may_return, is_painted, state",
    [
        (False, False, JobState.CANCELLED),
        (False, True, JobState.FINISHED),  # within the grace
        (True, False, JobState.QUEUED),
    ],
)
def test_a_client_that_goes_away(
    intake: Intake, desk: FakeDesk, may_return: bool, is_painted: bool, state: JobState
) -> None:
    async def story() -> None:
        caller, record = Caller(), await _accepted(intake, desk)
        waiting = asyncio.create_task(intake.ended(record, caller.request, may_return=may_return))
        await asyncio.sleep(0.02)
        caller.gone.set()
        await asyncio.sleep(0.02)
        if is_painted:
            await desk.paint_next()
        with pytest.raises(ClientGone):
            await waiting
        assert desk.store.jobs[record.id].state is state

    run(story(), 20)


def test_a_refusal_of_the_desk_comes_through(intake: Intake, desk: FakeDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(job_id: str, seconds: float | None = None) -> Record:
        raise OSError("the disk is gone")

    async def story() -> None:
        record = await _accepted(intake, desk)
        monkeypatch.setattr(desk, "wait", wait)
        await intake.ended(record, Caller().request)

    with pytest.raises(OSError, match="the disk is gone"):
        run(story(), 20)


# -- the walk ----------------------------------------------------------------------------------------------------------


def test_own_frames_between_a_route_and_the_desk(desk: FakeDesk, config: ServeConfig) -> None:
    """What a request walks through until it is handed in: the route, its door's one function, the intake."""
    walks: list[list[str]] = []
    submit = desk.submit

    async def seen(job: Job) -> Record:
        frame: FrameType | None = sys._getframe(1)
        names: list[str] = []
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if module.startswith(("overpaint.service.doors", "overpaint.service.intake")):
                names.append(f"{module.removeprefix('overpaint.service.')}.{frame.f_code.co_name}")
            frame = frame.f_back
        walks.append([each for each in reversed(names) if not each.endswith(".answered")])
        return await submit(job)

    desk.submit = seen  # type: ignore[method-assign]
    text = base64.b64encode(PICTURE).decode()
    with TestClient(create_app(desk, config), base_url="http://127.0.0.1:7860") as client:
        client.post("/v1/jobs", json={**SMALL, "images": [text]})
        client.post("/sdapi/v1/img2img", json={"init_images": [text], "width": 64, "height": 64, "steps": 1})
        client.post("/v1/images/edits", files={"image": ("a.png", PICTURE)}, data={"prompt": "x"})
    assert [walk[-1] for walk in walks] == ["intake.jobs.handed_in"] * 3
    assert all(len(walk) <= 4 for walk in walks), walks


def test_the_bytes_of_a_body_count_until_its_job_is_handed_in(
    desk: FakeDesk, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[ServerBudget] = []

    class NotedBudget(ServerBudget):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            budgets.append(self)

    monkeypatch.setattr("overpaint.service.guard.bodies.ServerBudget", NotedBudget)
    counted: list[tuple[str, int]] = []

    def noting(what: str, genuine: Any) -> Any:
        def noted(*given: Any, **named: Any) -> Any:
            counted.append((what, budgets[0].bytes))
            return genuine(*given, **named)

        return noted

    monkeypatch.setattr(Intake, "judged", noting("judged", Intake.judged))
    monkeypatch.setattr(desk, "submit", noting("submitted", desk.submit))
    monkeypatch.setattr(desk.store, "put_picture", noting("kept", desk.store.put_picture))
    text, size = base64.b64encode(PICTURE).decode(), len(PICTURE)
    with TestClient(create_app(desk, config), base_url="http://127.0.0.1:7860") as client:
        answers = [
            client.post("/v1/jobs", json={**SMALL, "images": [text]}, headers={"Prefer": "wait"}),
            client.post("/sdapi/v1/img2img", json={"init_images": [text], "width": 64, "height": 64, "steps": 1}),
            client.post("/sdapi/v1/extra-single-image", json={"image": text}),
            client.post("/v1/images/edits", files={"image": ("a.png", PICTURE)}, data={"prompt": "x"}),
            client.put("/v1/pictures", content=PICTURE),
        ]
        assert [each.status_code for each in answers] == [200] * 5 and budgets[0].bytes == 0
    assert [what for what, _ in counted] == ["judged", "kept", "submitted"] * 4 + ["kept"]
    for what, held in counted:
        assert held == 0 if what == "submitted" else held >= size, counted
