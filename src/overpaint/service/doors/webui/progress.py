"""Where a client's running job stands, in the reference's words (PROG-1 to PROG-5), and its task ids.

The reference runs one job at a time. Here several may run, so each client is told of its own, and stops its own.
"""

from __future__ import annotations

import asyncio
import base64
import random
import string
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request

from overpaint.service.doors.webui.bodies import ProgressResponse, ProgressTaskRequest
from overpaint.service.doors.webui.errors import ReferenceRoute
from overpaint.service.doors.webui.options_book import OptionsBook
from overpaint.service.intake.bodies import client_name
from overpaint.service.jobs import Live, Record
from overpaint.service.ports import Desk, Store

_FINISHED_KEPT = 16
_MOST_TASKS = 1024
_STOPS_KEPT = 64
_LOOKED_AT = 100  # jobs, for one that another process accepted
_LETTERS = string.ascii_uppercase + string.digits


@dataclass
class Tasks:
    """What clients that wait here call their jobs, and what they asked of running ones. It is gone with the server; the
    jobs, which have their names, are not."""

    names: dict[str, str] = field(default_factory=dict)  # job -> task id
    kinds: dict[str, str] = field(default_factory=dict)  # job -> "img2img" or "txt2img"
    finished: deque[str] = field(default_factory=lambda: deque(maxlen=_FINISHED_KEPT))  # task ids
    interrupted: deque[str] = field(default_factory=lambda: deque(maxlen=_STOPS_KEPT))  # jobs that were
    skipped: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=_STOPS_KEPT))  # job and batch
    previews: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # the latest of each job, and its number
    shown: int = 0  # previews so far

    def begin(self, job: str, kind: str, task: str) -> None:
        self.names[job] = task
        self.kinds[job] = kind
        while len(self.names) > _MOST_TASKS:
            oldest = next(iter(self.names))
            del self.names[oldest], self.kinds[oldest]

    def end(self, job: str) -> None:
        self.kinds.pop(job, None)
        self.previews.pop(job, None)
        if (name := self.names.pop(job, None)) is not None:
            self.finished.append(name)

    def job_of(self, task: str | None) -> str | None:
        """The latest job of this name that has not ended."""
        return next((job for job, name in reversed(self.names.items()) if name == task), None)

    def preview_number(self, job: str, preview: bytes | None) -> int:
        """Counts up with every new preview of any job."""
        number, latest = self.previews.get(job, (0, None))
        if preview is None or preview == latest:
            return number
        self.shown += 1
        self.previews[job] = (self.shown, preview)
        return self.shown


def task_name(kind: str) -> str:
    """For a job that its client gave none."""
    return f"task({kind}-{''.join(random.choices(_LETTERS, k=7))})"


def recent_job(store: Store, task: str) -> Record | None:
    """The latest job of this name, whichever process accepted it. Reads the store: call it in a thread."""
    return next((each for each in store.records(limit=_LOOKED_AT) if each.job.task == task), None)


@dataclass(frozen=True)
class Standing:
    """The numbers of a running job."""

    live: Live

    @property
    def job_count(self) -> int:
        """-1 until the job knows."""
        return max(self.live.batches, 1) if self.live.steps else -1

    @property
    def sampling_steps(self) -> int:
        return self.live.steps // max(self.live.batches, 1)

    @property
    def sampling_step(self) -> int:
        return min(max(self.live.step - self.live.batch * self.sampling_steps, 0), self.sampling_steps)

    @property
    def progress(self) -> float:
        """PROG-2."""
        done = 0.01
        if self.job_count > 0:
            done += self.live.batch / self.job_count
            if self.sampling_steps > 0:
                done += self.sampling_step / self.sampling_steps / self.job_count
        return min(done, 1.0)

    @property
    def eta(self) -> float:
        elapsed = max(time.time() - self.live.since, 0.0) if self.live.since else 0.0
        return elapsed / self.progress - elapsed


def state_of(live: Live | None, tasks: Tasks) -> dict[str, Any]:
    """PROG-3."""
    standing = Standing(live) if live is not None else None
    several = live is not None and live.batches > 1
    name = f"scripts_{tasks.kinds.get(live.job, 'img2img')}" if live is not None else ""
    return {
        "skipped": live is not None and (live.job, live.batch) in tasks.skipped,
        "interrupted": live is not None and live.job in tasks.interrupted,
        "stopping_generation": False,
        "job": f"Batch {live.batch + 1} out of {live.batches}" if live is not None and several else name,
        "job_count": standing.job_count if standing else 0,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(live.since if live and live.since else None)),
        "job_no": live.batch if live is not None else 0,
        "sampling_step": standing.sampling_step if standing else 0,
        "sampling_steps": standing.sampling_steps if standing else 0,
    }


def own_job(desk: Desk, request: Request) -> Live | None:
    """The client's job that runs longest, if any does."""
    client = client_name(request)
    return next((each for each in desk.all_running() if each.client in ("", client)), None)


def control_routes(desk: Desk, tasks: Tasks) -> APIRouter:
    """CTRL-1, CTRL-4."""
    routes = APIRouter(route_class=ReferenceRoute)

    @routes.post("/interrupt")
    async def interrupt(request: Request) -> dict[str, Any]:
        live = own_job(desk, request)
        if live is not None:
            tasks.interrupted.append(live.job)
            await desk.finish_early(live.job)
        return {}

    @routes.post("/skip")
    async def skip(request: Request) -> None:
        live = own_job(desk, request)
        if live is not None:
            tasks.skipped.append((live.job, live.batch))
            await desk.skip(live.job)

    return routes


def progress_routes(desk: Desk, book: OptionsBook, tasks: Tasks) -> APIRouter:
    """GET /progress."""
    routes = APIRouter(route_class=ReferenceRoute)

    @routes.get("/progress")
    async def progress(request: Request, skip_current_image: bool = False) -> ProgressResponse:
        live = own_job(desk, request)
        standing = Standing(live) if live is not None else None
        shown = None if live is None or skip_current_image else await _preview_of(live, book)
        return ProgressResponse(
            progress=standing.progress if standing else 0.0,
            eta_relative=standing.eta if standing else 0.0,
            state=state_of(live, tasks),
            current_image=base64.b64encode(shown).decode() if shown else None,
        )

    return routes


def internal_routes(desk: Desk, book: OptionsBook, tasks: Tasks) -> APIRouter:
    """PROG-4: what the reference's own page asks."""
    routes = APIRouter(prefix="/internal", route_class=ReferenceRoute)

    @routes.post("/progress")
    async def progress(body: ProgressTaskRequest) -> dict[str, Any]:
        job = tasks.job_of(body.id_task)
        has_ended = job is None and body.id_task in tasks.finished
        if body.id_task and job is None and not has_ended:
            found = await asyncio.to_thread(recent_job, desk.store, body.id_task)
            has_ended = found is not None and found.state.is_end
            job = None if found is None or has_ended else found.id
        live = None if job is None else desk.running(job)
        position = desk.position(job) if job is not None and live is None else None
        told: dict[str, Any] = {
            "active": live is not None,
            "queued": position is not None,
            "completed": has_ended,
            "progress": None,
            "eta": None,
            "live_preview": None,
            "id_live_preview": body.id_live_preview,
            "textinfo": None,
        }
        if live is None:
            return {**told, "textinfo": "Waiting..." if position is None else f"In queue: {position + 1}"}
        return {**told, **_standing(live), **await fresh_preview(live, body)}

    async def fresh_preview(live: Live, body: ProgressTaskRequest) -> Mapping[str, Any]:
        """One that the client has not seen."""
        number = tasks.preview_number(live.job, live.preview)
        wanted = body.live_preview and number != body.id_live_preview
        shown = await _preview_of(live, book) if wanted else None
        if shown is None:
            return {}
        return {"live_preview": f"data:image/png;base64,{base64.b64encode(shown).decode()}", "id_live_preview": number}

    @routes.get("/pending-tasks")
    async def pending_tasks() -> dict[str, Any]:
        waiting = [each.job.task or each.id for each in await asyncio.to_thread(desk.store.waiting)]
        return {"size": len(waiting), "tasks": waiting}

    @routes.get("/ping")
    async def ping() -> dict[str, Any]:
        return {}

    return routes


def _standing(live: Live) -> Mapping[str, Any]:
    standing = Standing(live)
    return {"progress": standing.progress, "eta": standing.eta}


async def _preview_of(live: Live, book: OptionsBook) -> bytes | None:
    """The latest preview, if the options show any."""
    if live.preview is None:
        return None
    settings = await asyncio.to_thread(book.settings)
    return live.preview if settings.live_previews_enable and settings.show_progress_every_n_steps != 0 else None
