"""POST /txt2img and /img2img (I2I-1 to I2I-9): a job is handed in at the desk, and its end waited for."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from fastapi import APIRouter, Request

from overpaint.errors import OverpaintError
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
from overpaint.service.doors.webui.saving import Saver
from overpaint.service.doors.webui.scripts import ScriptsAsked
from overpaint.service.guard.budgets import at_work
from overpaint.service.intake.bodies import client_name
from overpaint.service.intake.jobs import Intake
from overpaint.service.intake.pictures import picture_file
from overpaint.service.jobs import JobState, Record, ResultPicture
from overpaint.service.ports import Store

ControlPictures: TypeAlias = tuple[tuple[bytes | None, ...], tuple[bytes | None, ...]]  # those to follow, and masks


def job_routes(intake: Intake, reader: Reader, pictures: PictureReader, tasks: Tasks, saver: Saver) -> APIRouter:
    """The two routes that paint."""
    routes = APIRouter(route_class=ReferenceRoute)

    @routes.post("/txt2img")
    async def txt2img(body: StableDiffusionProcessingTxt2Img, request: Request) -> PaintingResponse:
        return await paint(await new_picture(body, client_name(request)), body, request)

    @routes.post("/img2img")
    async def img2img(body: StableDiffusionProcessingImg2Img, request: Request) -> PaintingResponse:
        return await paint(await over_pictures(body, client_name(request)), body, request)

    async def new_picture(body: StableDiffusionProcessingTxt2Img, client: str) -> JobOrder:
        scripts = await asyncio.to_thread(reader.scripts, body)
        controls, masks = await _control_pictures(scripts, pictures)
        return await at_work(reader.asked, body, Pictures(controls=controls, control_masks=masks), scripts, client)

    async def over_pictures(body: StableDiffusionProcessingImg2Img, client: str) -> JobOrder:
        check_sources(body)
        mask = await pictures.read("mask", body.mask) if body.mask else None  # I2I-1: before the scripts
        scripts = await asyncio.to_thread(reader.scripts, body)
        named = [(f"init_images[{i}]", each) for i, each in enumerate(body.init_images or ())]
        images = await pictures.read_all(named)
        latent_mask = await pictures.read("latent_mask", body.latent_mask) if body.latent_mask else None
        found = Pictures(images, mask, latent_mask, *await _control_pictures(scripts, pictures))
        return await at_work(reader.asked, body, found, scripts, client)

    async def paint(asked: JobOrder, body: PaintingBody, request: Request) -> PaintingResponse:
        forget(request, body)
        job_id = asked.job.id
        await saver.promise(job_id, asked.saving)
        tasks.begin(job_id, asked.saving.kind, asked.job.task or job_id)
        try:
            record = await submitted(asked)
            saved = saver.follow(job_id) if asked.saving else None
            record = await intake.ended(record, request)
        finally:
            tasks.end(job_id)
        if saved is not None:
            await asyncio.shield(saved)
        return await asyncio.to_thread(_answer, intake.desk.store, record, asked)

    async def submitted(asked: JobOrder) -> Record:
        """NOTE: only a refusal is sure to have left nothing behind; else what is to be saved stays written down."""
        try:
            return await intake.handed_in(asked.job)
        except OverpaintError:
            if asked.saving:
                await saver.withdraw(asked.job.id)
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


def result_pictures(store: Store, record: Record) -> list[tuple[ResultPicture, bytes]]:
    """The pictures of an ended job with their files; an end without any is an error."""
    if record.gone:
        raise Refusal(410, "Gone", f"job {record.id}: its pictures were kept for a time and are deleted; ask again")
    if record.state is not JobState.FINISHED and not (record.state is JobState.CANCELLED and record.result.pictures):
        raise job_refusal(record.error)
    found = sorted(record.result.pictures, key=lambda each: each.number)
    return [(each, picture_file(record, each, store)) for each in found]


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
