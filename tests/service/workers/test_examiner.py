"""What a file is, is found out in a process whose end costs nobody anything."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from overpaint.models.files import read_all
from overpaint.service.workers import helper as helping
from overpaint.service.workers.examiner import Examiner
from overpaint.service.workers.port import WorkerRefused
from tests.service.fake_store import FakeStore
from tests.service.queue.desk_tools import FAKE_WORKER, config_for, opened, run, until_running, wanted, worker_of
from tests.unit.models.hostile_files import PICKLES, zipped

FAKE = (sys.executable, str(Path(__file__).with_name("fake_examiner.py")))


@asynccontextmanager
async def fake(seconds: float = 60.0) -> AsyncIterator[Examiner]:
    examiner = Examiner(command=FAKE, seconds=seconds)
    try:
        yield examiner
    finally:
        await examiner.close()


def files(folder: Path, *names: str) -> list[dict[str, Any]]:
    for name in names:
        (folder / f"{name}.ckpt").write_bytes(name.encode())
    return [{"path": str(folder / f"{name}.ckpt")} for name in names]


def test_a_file_is_looked_at_once_until_it_changes(tmp_path: Path) -> None:
    async def story() -> None:
        good, bad = files(tmp_path, "good", "bad")
        async with fake() as examiner:
            first, second = await asyncio.gather(examiner.recognise(good), examiner.recognise(good))
            assert first is second and first["asked"] == good["path"]
            for _ in range(2):
                with pytest.raises(WorkerRefused, match="it is no checkpoint"):
                    await examiner.recognise(bad)
            Path(good["path"]).write_bytes(b"another one")
            again = await examiner.recognise(good)
            assert again is not first and again["pid"] == first["pid"]

    run(story())


@pytest.mark.parametrize(("name", "seconds"), [("dies", 60.0), ("hangs", 1.0)])
def test_a_file_that_ends_the_examiner_is_refused_and_others_are_answered(
    name: str, seconds: float, tmp_path: Path
) -> None:
    async def story() -> None:
        good, deadly, next_one = files(tmp_path, "good", name, "next")
        async with fake(seconds=60.0) as examiner:
            first = await examiner.recognise(good)
            examiner.helper.seconds = seconds
            for _ in range(2):
                with pytest.raises(WorkerRefused, match=rf"{name}\.ckpt: reading it takes more .* use a \.safetensors"):
                    await examiner.recognise(deadly)
            examiner.helper.seconds = 60.0
            assert (await examiner.recognise(next_one))["pid"] != first["pid"]

    run(story())


def test_an_examiner_that_nobody_asks_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helping, "IDLE", 0.05)

    async def story() -> None:
        good, other = files(tmp_path, "good", "other")
        async with fake() as examiner:
            first = await examiner.recognise(good)
            with pytest.raises(ProcessLookupError):
                while True:
                    os.kill(first["pid"], 0)
                    await asyncio.sleep(0.01)
            assert (await examiner.recognise(other))["pid"] != first["pid"]

    run(story())


def test_whoever_goes_away_leaves_the_answer_for_others(tmp_path: Path) -> None:
    async def story() -> None:
        (good,) = files(tmp_path, "good")
        async with fake() as examiner:
            gone = asyncio.create_task(examiner.recognise(good))
            while not examiner._asked:
                await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            assert (await examiner.recognise(good))["asked"] == good["path"]

    run(story())


def test_questions_about_a_deadly_file_leave_the_running_job_alone(tmp_path: Path) -> None:
    """A worker that died of them would have to begin again."""
    store = FakeStore(tmp_path)

    async def story() -> None:
        async with opened(store, config_for(tmp_path), FAKE_WORKER) as desk:
            desk._examiner.helper.command = FAKE
            await desk.submit(wanted("a", "step=1 listen"))
            await until_running(desk, "a")
            worker = worker_of(desk).pid
            (deadly,) = files(tmp_path, "dies")
            for _ in range(2):
                with pytest.raises(WorkerRefused):
                    await desk.ask("recognise", deadly)
            running = await desk.get("a")
            assert running is not None and not running.state.is_end and worker_of(desk).pid == worker
            assert (await desk.cancel("a")).attempts == 1

    run(story())


@pytest.mark.slow
def test_the_true_examiner(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """What it says of a checkpoint that only torch can open, and of one that was made to crash who looks at it."""
    torch.save({"state_dict": read_all(tiny_checkpoint)}, tmp_path / "old.ckpt")
    (tmp_path / "deadly.ckpt").write_bytes(zipped(PICKLES["a key of repeated tuples among many"]))
    (tmp_path / "deep.ckpt").write_bytes(zipped(PICKLES["a key of nested tuples"]))

    async def story() -> None:
        examiner = Examiner()
        try:
            told = await examiner.recognise({"path": str(tmp_path / "old.ckpt")})
            assert told["family"] == "sd1" and told["unet"]["in_channels"] == 4
            pid = examiner.helper.pid
            assert pid is not None and pid != os.getpid()
            for name in ("deadly", "deep"):
                with pytest.raises(WorkerRefused, match=f"{name}.ckpt: .*a table with a key that is no text"):
                    await examiner.recognise({"path": str(tmp_path / f"{name}.ckpt")})
            assert examiner.helper.pid == pid
        finally:
            await examiner.close()

    run(story())
