"""What tests of the desk share: jobs small enough to be painted in a moment, and ways to look at what came of them."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from overpaint.service.config import ServeConfig
from overpaint.service.jobs import Job, JobEvent, JobResult, JobState, Record
from overpaint.service.limits import Limits
from overpaint.service.ports import Store
from overpaint.service.queue.desk import LocalDesk
from overpaint.service.workers.worker_process import COMMAND, WorkerProcess
from overpaint.settings import Settings

FAKE_WORKER = (sys.executable, str(Path(__file__).parents[1] / "workers" / "fake_worker.py"))

_T = TypeVar("_T")


def run(coroutine: Coroutine[Any, Any, _T], seconds: float = 240.0) -> _T:
    """A test's coroutine on a loop of its own, for a limited time."""

    async def limited() -> _T:
        return await asyncio.wait_for(coroutine, seconds)

    return asyncio.run(limited())


def config_for(
    data: Path, checkpoint: Path | None = None, settings: Settings | None = None, **limits: Any
) -> ServeConfig:
    return ServeConfig(
        data=data,
        checkpoint=None if checkpoint is None else str(checkpoint),
        device="cpu",
        dtype="float32",
        settings=settings or Settings(),
        limits=replace(Limits(), **limits),
    )


@asynccontextmanager
async def opened(store: Store, config: ServeConfig, command: Sequence[str] = COMMAND) -> AsyncIterator[LocalDesk]:
    """A desk that was started, and is closed at the end."""
    desk = LocalDesk(store, config, command=command)
    await desk.start()
    try:
        yield desk
    finally:
        await desk.close()


def source(seed: int = 0, size: int = 32) -> bytes:
    """A picture with something on it, as a file."""
    y, x = np.mgrid[0:size, 0:size]
    grain = np.random.default_rng(seed).integers(-20, 20, (size, size, 3))
    values = np.stack([x * 255 // size, y * 255 // size, (x + y) * 127 // size], axis=-1) + grain
    data = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(data, format="PNG")
    return data.getvalue()


def painting(store: Store, job_id: str, *, settings: Settings | None = None, **fields: Any) -> Job:
    """A job of three steps on a small picture."""
    request = {
        "images": [store.put_picture(source())],
        "prompt": "a cat",
        "sampler": "Euler",
        "steps": 3,
        "seed": 7,
        "variation_seed": 8,
        **fields,
    }
    return Job(id=job_id, kind="paint", request=request, settings=(settings or Settings()).to_json(), client="test")


def wanted(job_id: str, what: str, **fields: Any) -> Job:
    """A job for the fake worker, which does what the prompt says."""
    return Job(id=job_id, kind="paint", request={"prompt": what, **fields.pop("request", {})}, settings={}, **fields)


def files_of(store: Store, record: Record) -> list[bytes]:
    return [store.result_file(record.id, each.file).read_bytes() for each in record.result.pictures]


def account_of(result: JobResult) -> tuple[Any, ...]:
    """All that is said of a result."""
    return (result.pictures, result.infotexts, result.info, result.warnings, result.comments, result.stopped)


async def story_of(desk: LocalDesk, job_id: str, after: int = 0) -> list[JobEvent]:
    return [each async for each in desk.events(job_id, after)]


async def until_running(desk: LocalDesk, job_id: str, step: int = 0) -> None:
    """Until the worker has come so far with a job."""
    while True:
        live = desk.running(job_id)
        if live is not None and live.step >= step:
            return
        record = await desk.get(job_id)
        assert record is None or not record.state.is_end, record
        await asyncio.sleep(0.01)


def worker_of(desk: LocalDesk, number: int = 0) -> WorkerProcess:
    worker = desk._runner.pool.workers[number]
    assert isinstance(worker, WorkerProcess)
    return worker


async def until_ready(desk: LocalDesk) -> None:
    while desk.state() != "READY":
        await asyncio.sleep(0.02)


def ended_well(record: Record) -> Record:
    assert record.state is JobState.FINISHED, record.error
    return record
