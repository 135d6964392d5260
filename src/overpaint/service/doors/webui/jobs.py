"""POST /txt2img and /img2img (I2I-1 to I2I-9): a job is handed in at the desk, and its end waited for."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any, TypeAlias

from fastapi import APIRouter, Request

from overpaint.errors import OverpaintError
from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.bodies import (
    PaintingBody,
    PaintingResponse,
    StableDiffusionProcessingImg2Img,
    StableDiffusionProcessingTxt2Img,
)
from overpaint.service.doors.webui.control_units import mask_of
from overpaint.service.doors.webui.errors import ReferenceRoute, Refusal, forget, job_refusal
from overpaint.service.doors.webui.pictures import PictureReader
from overpaint.service.doors.webui.progress import Tasks
from overpaint.service.doors.webui.requests import JobOrder, Pictures, Reader, check_sources
from overpaint.service.doors.webui.saving import Saver, SavingOptions
from overpaint.service.doors.webui.scripts import ScriptsAsked
from overpaint.service.guard.budgets import at_work
from overpaint.service.intake import client_name
from overpaint.service.jobs import Job, JobState, Json, Kind, Record, ResultPicture
from overpaint.service.ports import Damaged, Desk, Store
from overpaint.service.requests import kind_of
from overpaint.settings import Settings

ControlPictures: TypeAlias = tuple[tuple[bytes | None, ...], tuple[bytes | None, ...]]  # those to follow, and masks

_LOOK_EVERY = 0.5  # seconds between two looks whether the client is still there


class ClientGone(Refusal):
    """The client went away; nobody reads this answer."""

    def __init__(self) -> None:
        super().__init__(499, "ClientDisconnect", "the client went away and the job was cancelled")


def job_routes(
    desk: Desk, config: ServeConfig, reader: Reader, pictures: PictureReader, tasks: Tasks, saver: Saver
) -> APIRouter:
    """The two routes that paint."""
    routes = APIRouter(route_class=ReferenceRoute)

    @routes.post("/txt2img")
    async def txt2img(body: StableDiffusionProcessingTxt2Img, request: Request) -> PaintingResponse:
        return await paint(await new_picture(body), body, request)

    @routes.post("/img2img")
    async def img2img(body: StableDiffusionProcessingImg2Img, request: Request) -> PaintingResponse:
        return await paint(await over_pictures(body), body, request)

    async def new_picture(body: StableDiffusionProcessingTxt2Img) -> JobOrder:
        scripts = await asyncio.to_thread(reader.scripts, body)
        controls, masks = await _control_pictures(scripts, pictures)
        return await at_work(reader.asked, body, Pictures(controls=controls, control_masks=masks), scripts)

    async def over_pictures(body: StableDiffusionProcessingImg2Img) -> JobOrder:
        check_sources(body)
        mask = await pictures.read("mask", body.mask) if body.mask else None  # I2I-1: before the scripts
        scripts = await asyncio.to_thread(reader.scripts, body)
        named = [(f"init_images[{i}]", each) for i, each in enumerate(body.init_images or ())]
        images = await pictures.read_all(named)
        latent_mask = await pictures.read("latent_mask", body.latent_mask) if body.latent_mask else None
        found = Pictures(images, mask, latent_mask, *await _control_pictures(scripts, pictures))
        return await at_work(reader.asked, body, found, scripts)

    async def paint(asked: JobOrder, body: PaintingBody, request: Request) -> PaintingResponse:
        forget(request, body)
        job = new_job(kind_of(asked.request), asked.request, asked.settings, config, request)
        await saver.promise(job.id, asked.saving)
        tasks.begin(job.id, asked.saving.kind, asked.task)
        try:
            await submitted(job, asked.saving)
            saved = saver.follow(job.id) if asked.saving else None
            record = await waited(desk, job.id, request, config.limits.disconnect_grace)
        finally:
            tasks.end(job.id)
        if saved is not None:
            await asyncio.shield(saved)
        return await asyncio.to_thread(_answer, desk.store, record, asked)

    async def submitted(job: Job, saving: SavingOptions) -> None:
        """NOTE: only a refusal is sure to have left nothing behind; else what is to be saved stays written down."""
        try:
            await desk.submit(job)
        except OverpaintError:
            if saving:
                await saver.withdraw(job.id)
            raise

    return routes


async def _control_pictures(scripts: ScriptsAsked, pictures: PictureReader) -> ControlPictures:
    """Those of the units, in their order."""
    given = [(each.picture_place, each.picture) for each in scripts.units if each.picture is not None]
    masks = [each for unit in scripts.units for each in unit.masks]
    read = iter(await pictures.read_all([*given, *masks]))
    own = tuple(None if each.picture is None else next(read) for each in scripts.units)
    named = [[(place, next(read)) for place, _ in each.masks] for each in scripts.units]
    return own, tuple([await at_work(mask_of, each) for each in named])


def new_job(kind: Kind, stored: Json, settings: Settings, config: ServeConfig, request: Request) -> Job:
    """A job of this API with the server's deadlines."""
    now = time.time()
    return Job(
        id=uuid.uuid4().hex,
        kind=kind,
        request=stored,
        settings=settings.to_json(),
        origin="sdapi",
        client=client_name(request),
        created=now,
        queue_seconds=config.limits.queue_deadline,
        run_seconds=config.limits.run_deadline,
    )


async def waited(desk: Desk, job_id: str, request: Request, grace: float) -> Record:
    """The job when it has ended; it is cancelled when its client went away and does not come back to it in time."""
    waiting = asyncio.ensure_future(desk.wait(job_id))
    try:
        while True:
            await asyncio.wait({waiting}, timeout=_LOOK_EVERY)
            if waiting.done():
                return waiting.result()
            if await request.is_disconnected():
                await asyncio.wait({waiting}, timeout=grace)
                if not waiting.done():
                    await desk.cancel(job_id)
                raise ClientGone
    finally:
        waiting.cancel()


def result_pictures(store: Store, record: Record) -> list[tuple[ResultPicture, bytes]]:
    """The pictures of an ended job with their files; an end without any is an error."""
    if record.gone:
        raise Refusal(410, "Gone", f"job {record.id}: its pictures were kept for a time and are deleted; ask again")
    if record.state is not JobState.FINISHED and not (record.state is JobState.CANCELLED and record.result.pictures):
        raise job_refusal(record.error)
    found = sorted(record.result.pictures, key=lambda each: each.number)
    return [(each, _file(store, record.id, each.file)) for each in found]


def _file(store: Store, job_id: str, file: str) -> bytes:
    try:
        return store.result_bytes(job_id, file.rpartition("/")[2])
    except Damaged as error:
        raise Refusal(410, "Gone", str(error)) from None


def _answer(store: Store, record: Record, asked: JobOrder) -> PaintingResponse:
    """I2I-7: a sheet if there is one, pictures, masks."""
    found = result_pictures(store, record)
    info = json.loads(record.result.info)
    if not asked.returns_grid and info.get("index_of_first_image"):
        found = [each for each in found if each[0].kind != "grid"]
        info = {**info, "index_of_first_image": 0, "infotexts": info["infotexts"][1:]}
    warnings = tuple(dict.fromkeys((*asked.warnings, *record.result.warnings)))
    return PaintingResponse(
        images=[base64.b64encode(data).decode() for _, data in found] if asked.sends else [],
        parameters=dict(asked.parameters),
        info=json.dumps(_with_warnings(info, warnings)),
    )


def _with_warnings(info: Mapping[str, Any], warnings: tuple[str, ...]) -> dict[str, Any]:
    """What was not obeyed is said; an answer to a request that was obeyed is the reference's own."""
    return {**info, "warnings": list(warnings)} if warnings else dict(info)
