"""A disk that takes nothing for a while: jobs wait for it, what was painted is written down later, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from overpaint.errors import SaveError
from overpaint.service.jobs import Job, JobEvent, JobState
from overpaint.service.limits import Limits
from overpaint.service.ports import Full
from overpaint.service.queue import runner as runner_module
from overpaint.service.queue.event_feed import ENDS
from overpaint.service.store import store_on_tables as tables_module
from overpaint.service.store.sqlite_store import JobStore
from tests.service.queue.desk_tools import (
    FAKE_WORKER,
    config_for,
    ended_well,
    opened,
    run,
    story_of,
    until_ready,
    until_running,
    wanted,
)

WRITING = ("accept", "claim", "progress", "keep_batch", "end", "requeue", "add_event", "expire")


class Refusing:
    """A store whose disk may refuse: everything, or by the names of calls."""

    def __init__(self, data: Path) -> None:
        self._store = JobStore(data)
        self.refused: set[str] = set()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in WRITING:
            return found

        def asked(*values: Any, **named: Any) -> Any:
            if name in self.refused:
                self.asked.append(name)
                raise SaveError(f"jobs.db: nothing was written down ({name})")
            return found(*values, **named)

        return asked


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    monkeypatch.setattr(runner_module, "_PAUSES", (0.05, 0.1))
    found = Refusing(tmp_path)
    yield found
    found.close()


def names(events: list[JobEvent]) -> list[str]:
    return [each.name for each in events]


async def until(what: Any) -> None:
    while not what():
        await asyncio.sleep(0.01)


def test_jobs_wait_for_the_disk_and_none_is_lost(tmp_path: Path, store: Refusing) -> None:
    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await until_ready(desk)
            await desk.submit(wanted("f0", "step=1 sleep=0.2 batch=0"))
            for number in (1, 2, 3):
                await desk.submit(wanted(f"f{number}", "batch=0", client=f"c{number}"))
            await until_running(desk, "f0", step=1)
            assert desk.can_write
            store.refused = set(WRITING)
            with pytest.raises(SaveError):
                await desk.submit(wanted("g0", "batch=0"))
            await until(lambda: store.asked.count("claim") > 3)
            assert (desk.can_write, desk.state()) == (False, "UNHEALTHY")
            for number in (1, 2, 3):
                record = await desk.get(f"f{number}")
                assert record is not None and record.state is JobState.QUEUED
            store.refused = set()
            assert ended_well(await desk.wait("f0", 20)).attempts == 2
            assert names(await story_of(desk, "f0")).count("painted") == 1
            for number in (1, 2, 3):
                assert ended_well(await desk.wait(f"f{number}", 20)).attempts == 1
                assert names(await story_of(desk, f"f{number}")) == ["queued", "started", "painted", "finished"]
            assert (desk.can_write, desk.state()) == (True, "READY")
            assert await desk.get("g0") is None

    run(story())


@pytest.mark.parametrize("which", WRITING[1:-1])
def test_whatever_is_refused_each_job_ends_once(tmp_path: Path, store: Refusing, which: str) -> None:
    """One kind of writing fails for a while."""

    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await until_ready(desk)
            store.refused = {which}
            for name in "abc":
                await desk.submit(wanted(name, "step=1 batch=0"))
            await desk.submit(wanted("off", "batch=0"))
            await asyncio.sleep(0.6)
            store.refused = set()
            with suppress(SaveError):
                await desk.cancel("off")
            for name in "abc":
                ended_well(await desk.wait(name, 20))
            assert (await desk.wait("off", 100)).state.is_end
            await desk.submit(wanted("next", "batch=0"))
            ended_well(await desk.wait("next", 100))
            for name in ("a", "b", "c", "off"):
                told = names(await story_of(desk, name))
                assert (told[0], told.count("queued")) == ("queued", 1), told
                assert sum(each in ENDS for each in told) == 1, told
            assert len(desk._runner._unsaved) == 0

    run(story())


def test_a_job_that_waits_for_the_disk_can_be_called_off(tmp_path: Path, store: Refusing) -> None:
    """Also one that is said to run, since the worker died of it and that could not be written down."""

    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await until_ready(desk)
            await desk.submit(wanted("a", "step=1 sleep=0.2 die=9"))
            await desk.submit(wanted("b", "batch=0"))
            await until_running(desk, "a", step=1)
            store.refused = {"requeue", "claim"}
            await until(lambda: "requeue" in store.asked)
            await until(lambda: desk.running() is None)
            record = await desk.get("a")
            assert record is not None and record.state is JobState.QUEUED
            assert (await desk.cancel("a")).state is JobState.CANCELLED
            store.refused = set()
            ended_well(await desk.wait("b", 100))
            assert names(await story_of(desk, "a")).count("cancelled") == 1

    run(story())


def test_what_never_can_be_written_fails_after_some_tries(
    tmp_path: Path, store: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result whose picture is not there any more is refused for ever, and no fault of the disk."""
    monkeypatch.setattr(runner_module, "_TENDING", 0.02)
    end = store._store.end

    def refused(job_id: str, state: JobState, *values: Any, **named: Any) -> Any:
        if job_id == "a" and state is JobState.FINISHED:
            raise SaveError("0.png: the picture is not there")
        return end(job_id, state, *values, **named)

    async def story() -> None:
        monkeypatch.setattr(store._store, "end", refused)
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await desk.submit(wanted("a", "batch=0"))
            await desk.submit(wanted("b", "batch=0"))
            record = await desk.wait("a", 100)
            assert record.error is not None and record.error.code == "save"
            ended_well(await desk.wait("b", 100))

    run(story())


def test_a_job_whose_pictures_the_disk_did_not_take_goes_on_when_there_is_room(
    tmp_path: Path, store: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_room = False
    monkeypatch.setattr(tables_module, "takes_files", lambda data: has_room)

    async def story() -> None:
        nonlocal has_room
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await until_ready(desk)
            await desk.submit(wanted("a", "batch=0 refused", request={"refusals": 2}))
            await desk.submit(wanted("b", "batch=0"))
            await until(lambda: not desk.can_write)
            await asyncio.sleep(0.3)
            assert desk.state() == "UNHEALTHY"
            for name, attempts in (("a", 1), ("b", 0)):
                record = await desk.get(name)
                assert record is not None and (record.state, record.attempts) == (JobState.QUEUED, attempts)
            has_room = True
            assert ended_well(await desk.wait("a", 100)).attempts == 3
            ended_well(await desk.wait("b", 100))
            assert names(await story_of(desk, "a")).count("painted") == 1
            assert desk.state() == "READY"

    run(story())


def test_a_job_that_is_refused_for_ever_ends(tmp_path: Path, store: Refusing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_PAUSES", (0.01,))

    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await desk.submit(wanted("a", "batch=0 refused", request={"refusals": 1000}))
            record = await desk.wait("a", 100)
            assert record.state is JobState.FAILED and record.error is not None and record.error.code == "save"
            await desk.submit(wanted("b", "batch=0"))
            ended_well(await desk.wait("b", 100))

    run(story())


def test_an_end_that_a_nearly_full_disk_does_not_take_waits_for_room(
    tmp_path: Path, store: Refusing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is shorter than a result, and may still find a place; the job has not failed all the same."""
    has_room = False
    monkeypatch.setattr(tables_module, "takes_files", lambda data: has_room)
    monkeypatch.setattr(runner_module, "_TENDING", 0.02)
    end, asked = store._store.end, 0

    def refused(job_id: str, state: JobState, *values: Any, **named: Any) -> Any:
        nonlocal asked
        if state is JobState.FINISHED and not has_room:
            asked += 1
            raise SaveError("jobs.db: nothing was written down")
        return end(job_id, state, *values, **named)

    async def story() -> None:
        nonlocal has_room
        monkeypatch.setattr(store._store, "end", refused)
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            await desk.submit(wanted("a", "batch=0"))
            await until(lambda: asked > 12)
            has_room = True
            ended_well(await desk.wait("a", 100))

    run(story())


def test_who_finds_no_place_is_told_when_one_is_free(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"waiting": 3, "waiting_per_client": 2}
    store = JobStore(tmp_path, Limits(**limits))

    async def story() -> None:
        async with opened(store, config_for(tmp_path, **limits), FAKE_WORKER) as desk:
            await until_ready(desk)
            steps = " ".join(f"step={number} sleep=0.2" for number in range(1, 100))
            await desk.submit(wanted("long", steps))
            await until_running(desk, "long", step=3)
            for number in range(2):
                await desk.submit(wanted(f"a{number}", "sleep=0", client="ann"))
            left = desk.eta("long")
            assert left is not None and left > 10.0
            with pytest.raises(Full, match="2 of your jobs") as own:
                await desk.submit(wanted("a2", "sleep=0", client="ann"))
            await desk.submit(wanted("b", "sleep=0", client="bob"))
            with pytest.raises(Full, match="3 jobs") as everybodys:
                await desk.submit(wanted("c", "sleep=0", client="cat"))
            for each in (own, everybodys):
                assert left - 3.0 <= each.value.retry_after <= left + 3.0
                assert f"try again in {each.value.retry_after:.0f} s" in str(each.value)
            await desk.cancel("long")

    run(story())
    store.close()


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="a disk is mounted")
def test_a_small_disk_that_is_full_and_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    monkeypatch.setattr(runner_module, "_PAUSES", (0.05, 0.1))

    async def story(store: JobStore) -> None:
        async with opened(store, config_for(disk / "data"), FAKE_WORKER) as desk:
            await until_ready(desk)
            for number in range(4):
                await desk.submit(_bulky(number))
            await until_running(desk, "f0", step=1)
            fill(disk / "filler")
            await until(lambda: not desk.can_write)
            await until(lambda: desk.state() == "UNHEALTHY")
            (disk / "filler").unlink()
            for number in range(4):
                record = await desk.wait(f"f{number}", 20)
                ended_well(record)
            assert desk.can_write
            assert store.integrity_check() == []

    try:
        store = JobStore(disk / "data")
        try:
            run(story(store))
        finally:
            store.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _bulky(number: int) -> Job:
    prompt = "step=1 sleep=0.4 batch=0" if number == 0 else "batch=0"
    return wanted(f"f{number}", prompt, client=f"c{number}", request={"negative_prompt": "x" * 20_000})


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass
