"""Enlarging finished pictures, and reading what is written in them (EX, PNG, IGT)."""

from __future__ import annotations

import asyncio
import base64
import html
from collections.abc import Awaitable, Sequence
from typing import Any

from fastapi import APIRouter, Request

from overpaint.errors import RequestError
from overpaint.extras import reference_fields
from overpaint.files.metadata import read_infotext
from overpaint.service.doors.webui.bodies import (
    ExtrasBatchImagesRequest,
    ExtrasBatchImagesResponse,
    ExtrasBody,
    ExtrasSingleImageRequest,
    ExtrasSingleImageResponse,
    InterrogateRequest,
    PNGInfoRequest,
    PNGInfoResponse,
)
from overpaint.service.doors.webui.errors import ReferenceRoute, Refusal, forget, http_refusal
from overpaint.service.doors.webui.jobs import result_pictures
from overpaint.service.doors.webui.options_book import OptionsBook
from overpaint.service.doors.webui.pictures import PictureReader
from overpaint.service.doors.webui.upscalers import chosen_upscaler
from overpaint.service.guard.budgets import at_work
from overpaint.service.intake.bodies import client_name
from overpaint.service.intake.jobs import Intake, NewJob
from overpaint.service.jobs import Job, Record
from overpaint.text.infotext import parse_infotext
from overpaint.text.styles import extract_styles, load_styles

_INTERROGATORS = ("clip", "deepdanbooru", "deepbooru")


def extras_routes(intake: Intake, book: OptionsBook, pictures: PictureReader) -> APIRouter:
    """POST /extra-single-image, /extra-batch-images, /png-info, /interrogate."""
    routes = APIRouter(route_class=ReferenceRoute)

    async def enlarged(
        body: ExtrasBody, sources: Awaitable[Sequence[bytes]], request: Request
    ) -> tuple[str, list[str]]:
        job, warnings = await at_work(_asked, body, await sources, client_name(request), book, intake)
        shows = body.show_extras_results is not False
        forget(request, body)
        record = await intake.ended(await intake.handed_in(job), request)
        found = await asyncio.to_thread(result_pictures, intake.desk.store, record)
        images = [base64.b64encode(data).decode() for _, data in found]
        return _html_info(record) + "".join(map(_paragraph, warnings)), images if shows else []

    @routes.post("/extra-single-image")
    async def extra_single_image(body: ExtrasSingleImageRequest, request: Request) -> ExtrasSingleImageResponse:
        source = pictures.read_all([("image", body.image or "")])
        said, images = await enlarged(body, source, request)
        return ExtrasSingleImageResponse(html_info=said, image=images[0] if images else None)

    @routes.post("/extra-batch-images")
    async def extra_batch_images(body: ExtrasBatchImagesRequest, request: Request) -> ExtrasBatchImagesResponse:
        if not body.imageList:
            return ExtrasBatchImagesResponse(html_info=_paragraph(""), images=[])
        sources = pictures.read_all([(f"imageList[{i}]", each.data) for i, each in enumerate(body.imageList)])
        said, images = await enlarged(body, sources, request)
        return ExtrasBatchImagesResponse(html_info=said, images=images)

    @routes.post("/png-info")
    async def png_info(body: PNGInfoRequest) -> PNGInfoResponse:
        data = await pictures.read("image", body.image)
        return await at_work(_info, data, book)

    @routes.post("/interrogate")
    async def interrogate(body: InterrogateRequest | None = None) -> dict[str, Any]:
        if body is not None and body.model not in _INTERROGATORS:
            raise http_refusal(404, "Model not found")
        raise http_refusal(501, "this server has no model that describes pictures")

    return routes


def _asked(
    body: ExtrasBody, sources: Sequence[bytes], client: str, book: OptionsBook, intake: Intake
) -> tuple[Job, tuple[str, ...]]:
    """EX-1 in our own words; and what was not obeyed."""
    values = reference_fields(body.known())
    warnings: list[str] = []
    for name, field in (("upscaler", "upscaler_1"), ("second_upscaler", "upscaler_2")):
        try:
            values[name], said = chosen_upscaler(field, values[name], book.base)
        except RequestError as error:  # EX-3
            raise Refusal(500, "AssertionError", str(error)) from None
        warnings.extend(said)
    values = {"kind": "extras", **values, "images": list(sources)}
    job = intake.judged(NewJob(values=values, settings=book.settings(), origin="sdapi", client=client))
    return job, tuple(warnings)


def _html_info(record: Record) -> str:
    told = record.result.extra.get("html_info")
    return str(told) if told is not None else _paragraph("\n".join(record.result.infotexts))


def _paragraph(text: str) -> str:
    return f"<p>{'<br>'.join(html.escape(line) for line in text.splitlines())}</p>"


def _info(data: bytes, book: OptionsBook) -> PNGInfoResponse:
    """PNG-1."""
    text, items = read_infotext(data)
    settings = book.settings()
    styles = load_styles(settings.styles_file) if settings.styles_file else ()
    parsed = parse_infotext(text or "", settings=settings, styles=styles, extract_styles=extract_styles)
    return PNGInfoResponse(info=text or "", items=items, parameters=parsed)
