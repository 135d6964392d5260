"""A desk that paints flat pictures at once, without a worker and without torch: what routes are tested against.

`desk.held = True` leaves jobs in the queue until `await desk.paint_next()`; `desk.script` says how the next one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from overpaint.service.jobs import (
    DoneBatch,
    Job,
    JobError,
    JobEvent,
    JobResult,
    JobState,
    Json,
    Live,
    Record,
    ResultPicture,
    WorkerStatus,
)
from tests.service.fake_store import FakeStore

STEPS = 4


@dataclass
class FakeDesk:
    """All that routes may ask of a desk. What they asked of the worker is in `asked`."""

    data: Path
    held: bool = False
    word: str = "READY"
    script: JobError | None = None  # the next painted job fails with it
    answers: dict[str, Any] = field(default_factory=dict)  # to questions
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    finished_early: list[str | None] = field(default_factory=list)
    skips: int = 0
    skipped: list[str | None] = field(default_factory=list)
    live: Live | None = None
    beside: list[Live] = field(default_factory=list)  # what runs besides
    worker_list: list[WorkerStatus] = field(default_factory=lambda: [WorkerStatus(id="0", device="cpu", state="READY")])
    pictures: dict[tuple[str, int], bytes | None] = field(default_factory=dict)  # of previews, by job and number
    _store: FakeStore = field(init=False)
    _changed: asyncio.Condition = field(init=False, default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self._store = FakeStore(self.data)

    @property
    def store(self) -> FakeStore:
        return self._store

    async def submit(self, job: Job) -> Record:
        accepted = self._store.accept(job)
        if accepted.event is not None:
            await self._notify()
            if not self.held:
                await self.paint_next()
        return accepted.record

    async def get(self, job_id: str) -> Record | None:
        return self._store.get(job_id)

    async def wait(self, job_id: str, seconds: float | None = None) -> Record:
        async def ended() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: self._store.jobs[job_id].state.is_end)

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended(), seconds)
        return self._store.jobs[job_id]

    async def cancel(self, job_id: str) -> Record:
        record = self._store.jobs[job_id]
        return record if record.state.is_end else await self._end(job_id, JobState.CANCELLED)

    async def finish_early(self, job_id: str | None = None) -> None:
        self.finished_early.append(job_id)

    async def skip(self, job_id: str | None = None) -> None:
        self.skips += 1
        self.skipped.append(job_id)

    async def events(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        while True:
            for event in (new := self._store.events_after(job_id, after)):
                after = event.number
                yield replace(event, picture=self.pictures.get((job_id, event.number)))
            if new:  # more may have come meanwhile
                continue
            if self._store.jobs[job_id].state.is_end:
                return
            async with self._changed:
                await self._changed.wait()

    def position(self, job_id: str) -> int | None:
        record = self._store.get(job_id)
        if record is None or record.state.is_end:
            return None
        waiting = [each.id for each in self._store.waiting()]
        return waiting.index(job_id) if job_id in waiting else 0

    def eta(self, job_id: str) -> float | None:
        position = self.position(job_id)
        return None if position is None else 2.0 * (position + 1)

    def running(self, job_id: str | None = None) -> Live | None:
        return next((each for each in self.all_running() if job_id in (None, each.job)), None)

    def all_running(self) -> list[Live]:
        return [*([] if self.live is None else [self.live]), *self.beside]

    def workers(self) -> list[WorkerStatus]:
        return self.worker_list

    async def workers_in_full(self) -> list[WorkerStatus]:
        return self.worker_list

    async def unfit(self) -> JobError | None:
        return None

    def state(self) -> str:
        return self.word

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        self.asked.append((what, dict(values or {})))
        return self.answers.get(what, {})

    async def paint_next(self) -> Record | None:
        """Paint the job that has waited longest, if there is one."""
        waiting = self._store.waiting()
        if not waiting:
            return None
        job = waiting[0].job
        self._store.claim(job.id, "w", 60.0)
        await self._tell(job.id, "started", {"images": _count(job.request), "steps": STEPS})
        if self.script is not None:
            error, self.script = self.script, None
            return await self._end(job.id, JobState.FAILED, error=error)
        for step in range(1, STEPS + 1):
            self._store.progress(Live(job=job.id, step=step, steps=STEPS, images=_count(job.request)))
            await self._notify()
        result = paint(job, self._store)
        self._store.keep_batch(job.id, DoneBatch(number=0, pictures=result.pictures))
        await self._notify()
        return await self._end(job.id, JobState.FINISHED, result=result)

    async def _end(
        self, job_id: str, state: JobState, *, result: JobResult | None = None, error: JobError | None = None
    ) -> Record:
        ended = self._store.end(job_id, state, time.time(), result=result, error=error)
        await self._notify()
        return ended.record

    async def _tell(self, job_id: str, name: str, data: Json, picture: bytes | None = None) -> None:
        event = self._store.add_event(job_id, name, data, time.time())
        self.pictures[job_id, event.number] = picture
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def paint(job: Job, store: FakeStore) -> JobResult:
    """Flat pictures of the size that was asked for, their colour by the seed."""
    request = job.request
    seed = int(request.get("seed") or 0)
    if job.kind == "extras":
        picture = _picture(job, store, 0, seed, "postprocessed")
        return JobResult(pictures=(picture,), infotexts=("postprocessed",), extra={"html_info": "<p>fake</p>"})
    seeds = [seed + index for index in range(_count(request))]
    texts = [f"{request.get('prompt', '')}\nSteps: {request.get('steps', 20)}, Seed: {each}" for each in seeds]
    pictures = tuple(_picture(job, store, *each) for each in zip(range(len(seeds)), seeds, texts, strict=True))
    return JobResult(pictures=pictures, infotexts=tuple(texts), info=_info(request, seeds, texts))


def _picture(job: Job, store: FakeStore, number: int, seed: int, text: str) -> ResultPicture:
    width, height = int(job.request.get("width") or 64), int(job.request.get("height") or 64)
    written = PngInfo()
    written.add_text("parameters", text)
    data = io.BytesIO()
    Image.new("RGB", (width, height), (seed % 256, number, 128)).save(data, "PNG", pnginfo=written)
    path = store.result_file(job.id, f"{number}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())
    file = path.relative_to(store.data).as_posix()
    seam = {"step": 0.5, "step_p95": 1.0, "source_step": 2.0, "shift": 0.1, "gradient_jump": 0.0, "coverage": 25.0}
    told = {**seam, "outside": 0, "blend": "plain"} if job.request.get("mask") else None
    made = ResultPicture(number=number, file=file, infotext=text, seed=seed, width=width, height=height)
    return replace(made, seam=told)


def _count(request: Json) -> int:
    return int(request.get("batch_size") or 1) * int(request.get("iterations") or 1)


def _info(request: Json, seeds: list[int], texts: list[str]) -> str:
    prompts = [str(request.get("prompt", ""))] * len(seeds)
    size = {"width": request.get("width"), "height": request.get("height")}
    known = {"prompt": prompts[0], "all_prompts": prompts, "seed": seeds[0], "all_seeds": seeds, "infotexts": texts}
    return json.dumps({**known, **size, "index_of_first_image": 0})
