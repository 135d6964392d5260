"""What was painted, for who looks through it later: found by words, pinned, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import JobDetails, JobView, NativeRoute, errors, job_details, job_view
from overpaint.service.doors.native.jobs import JobId, known
from overpaint.service.jobs import JobState, Record
from overpaint.service.ports import Desk
from overpaint.service.problems import ApiError

_MOST = 10_000  # jobs that are looked through: of so many the records are kept
_TEXTS = ("prompt", "negative_prompt", "checkpoint")


class GalleryJob(JobView):
    """A finished job with what was asked for."""

    prompt: str


class Gallery(BaseModel):
    """Finished jobs whose pictures are there."""

    jobs: list[GalleryJob] = Field(description="The newest first.")
    found: int = Field(description="How many there are of them, shown or not.")
    pinned_bytes: int = Field(description="What all pinned pictures take on disk.")
    most_pinned_bytes: int = Field(description="What they may take.")
    keep_seconds: float = Field(description="For how long pictures are kept that nobody has pinned.")


def gallery_routes(desk: Desk, config: ServeConfig) -> APIRouter:
    """GET /v1/gallery, and what may be done with a finished job."""
    routes = APIRouter(route_class=NativeRoute)
    _add_list(routes, desk, config)
    _add_keeping(routes, desk, config)
    return routes


def _add_list(routes: APIRouter, desk: Desk, config: ServeConfig) -> None:
    @routes.get("/v1/gallery", tags=["jobs"], responses=errors(422))
    async def gallery(
        search: Annotated[
            str, Query(max_length=400, description="Words that stand in its texts; each must be found.")
        ] = "",
        pinned: Annotated[bool, Query(description="Only those that are pinned.")] = False,
        skip: Annotated[int, Query(ge=0, le=_MOST, description="So many of the newest are left out.")] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 60,
    ) -> Gallery:
        """Finished jobs whose pictures are kept, and how long they will be."""
        found, size = await asyncio.to_thread(lambda: (_found(desk, search, pinned), desk.store.pinned_bytes()))
        shown = found[skip : skip + limit]
        jobs = [_entry(await job_view(each, desk), each) for each in shown]
        limits = config.limits
        return Gallery(
            jobs=jobs,
            found=len(found),
            pinned_bytes=size,
            most_pinned_bytes=limits.result_bytes,
            keep_seconds=limits.result_seconds,
        )


def _add_keeping(routes: APIRouter, desk: Desk, config: ServeConfig) -> None:
    @routes.put("/v1/jobs/{job_id}/pin", tags=["jobs"], responses=errors(404, 409, 410, 413, 422))
    async def pin(job_id: JobId) -> JobDetails:
        """Keep the pictures of a finished job until somebody deletes them."""
        record = await known(desk, job_id)
        _check_ended(record)
        if record.gone:
            raise ApiError("gone", f"id={job_id!r}: its pictures are deleted; send the job again", "id")
        most = config.limits.result_bytes
        if not record.pinned and await asyncio.to_thread(desk.store.pinned_bytes) + record.bytes > most:
            said = f"id={job_id!r}: pinned pictures may take {most} bytes, and it would be more; unpin or delete some"
            raise ApiError("too_large", said, "id")
        return await job_details(await asyncio.to_thread(desk.store.pin, record.id, True), desk)

    @routes.delete("/v1/jobs/{job_id}/pin", tags=["jobs"], responses=errors(404, 422))
    async def unpin(job_id: JobId) -> JobDetails:
        """From now on they get old as others do."""
        record = await known(desk, job_id)
        return await job_details(await asyncio.to_thread(desk.store.pin, record.id, False), desk)

    @routes.delete("/v1/jobs/{job_id}", tags=["jobs"], status_code=204, responses=errors(404, 409, 422))
    async def delete(job_id: JobId) -> Response:
        """Delete the pictures of a job that is over, pinned or not. What it was stays in the list of jobs."""
        _check_ended(await known(desk, job_id))
        await asyncio.to_thread(desk.store.delete, job_id)
        return Response(status_code=204)


def _check_ended(record: Record) -> None:
    if not record.state.is_end:
        raise ApiError("conflict", f"id={record.id!r}: the job is {record.state.value}; cancel it first", "id")


def _found(desk: Desk, search: str, pinned: bool) -> Sequence[Record]:
    words = search.lower().split()
    ended = [JobState.FINISHED, JobState.CANCELLED]
    records = desk.store.records(states=ended, limit=_MOST)
    kept = (each for each in records if each.result.pictures and not each.gone and (each.pinned or not pinned))
    return [each for each in kept if all(word in _text_of(each) for word in words)]


def _text_of(record: Record) -> str:
    texts = [record.job.request.get(name) for name in _TEXTS]
    flat = [" ".join(map(str, each)) if isinstance(each, list | tuple) else str(each or "") for each in texts]
    return " ".join([*flat, record.id]).lower()


def _entry(view: JobView, record: Record) -> GalleryJob:
    prompt = record.job.request.get("prompt") or ""
    told = "; ".join(map(str, prompt)) if isinstance(prompt, list | tuple) else str(prompt)
    return GalleryJob(**view.model_dump(), prompt=told)
