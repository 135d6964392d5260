"""Results used further: as the source of another job without travelling twice, and as small pictures for lists."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from PIL import Image

from overpaint.errors import RequestError
from overpaint.extras import LARGEST_RESULT
from overpaint.files.formats import fitting_profile
from overpaint.files.metadata import encode_picture
from overpaint.pictures import open_picture
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.answers import NativeRoute, Uploaded, errors, pictures_of
from overpaint.service.doors.native.jobs import JobId, known
from overpaint.service.guard.budgets import at_work, room_for
from overpaint.service.guard.inputs import admit_picture
from overpaint.service.intake.pictures import picture_file
from overpaint.service.jobs import Record, ResultPicture
from overpaint.service.ports import Desk
from overpaint.service.problems import ApiError

SIDES = (16, 1024)  # of a small picture
_QUALITY = 82

Number = Annotated[int, Path(ge=0, le=100_000)]
_BOX = r"^[0-9]{1,7}(,[0-9]{1,7}){3}$"
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}, "description": "The part."},
}
_WEBP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}, "description": "The picture."},
    304: {"description": "It is the one that you have."},
}


def result_routes(desk: Desk, config: ServeConfig) -> APIRouter:
    """What lies below a picture of a job."""
    routes = APIRouter(prefix="/v1/jobs/{job_id}/images/{number}", tags=["jobs"], route_class=NativeRoute)
    limits = config.limits

    @routes.post("/source", responses=errors(404, 410, 413, 422))
    async def as_source(job_id: JobId, number: Number) -> Uploaded:
        """Keep a finished picture as if it had been uploaded, to be named in requests."""
        record = await known(desk, job_id)
        return await at_work(keep, record, await _found(desk, record, number))

    def keep(record: Record, picture: ResultPicture) -> Uploaded:
        data = picture_file(record, picture, desk.store)
        admit_picture(data, limits, "picture")
        return Uploaded(picture=desk.store.put_picture(data), width=picture.width, height=picture.height)

    @routes.get("/thumbnail", response_class=Response, responses={**_WEBP, **errors(404, 410, 422)})
    async def thumbnail(
        request: Request,
        job_id: JobId,
        number: Number,
        side: Annotated[int, Query(ge=SIDES[0], le=SIDES[1], description="Of the square that it fits into.")] = 256,
    ) -> Response:
        """A finished picture, small, as WebP."""
        record = await known(desk, job_id)
        picture = await _found(desk, record, number)
        tag = f'"{record.id}-{number}-{side}"'  # what is finished never changes
        headers = {"ETag": tag, "Cache-Control": "private, max-age=3600, immutable"}
        if not record.gone and tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        data = await at_work(_small, record, picture, desk, side)
        return Response(data, media_type="image/webp", headers=headers)

    @routes.get("/crop", response_class=Response, responses={**_PNG, **errors(404, 410, 422)})
    async def crop(
        job_id: JobId,
        number: Number,
        box: Annotated[str, Query(pattern=_BOX, description="LEFT,TOP,RIGHT,BOTTOM; the last two are outside.")],
    ) -> Response:
        """A part of a finished picture as PNG, with all its bits: of a large picture, what was painted."""
        record = await known(desk, job_id)
        picture = await _found(desk, record, number)
        data = await at_work(_part, record, picture, desk, tuple(map(int, box.split(","))))
        headers = {"Cache-Control": "private, max-age=3600, immutable"}
        return Response(data, media_type="image/png", headers=headers)

    return routes


async def _found(desk: Desk, record: Record, number: int) -> ResultPicture:
    made = await asyncio.to_thread(pictures_of, record, desk)
    found = next((each for each in made if each.number == number), None)
    if found is None:
        raise ApiError("not_found", f"number={number}: the job has no such picture", "number")
    return found


def _part(record: Record, picture: ResultPicture, desk: Desk, box: Sequence[int]) -> bytes:
    left, top, right, bottom = box
    if not (left < right <= picture.width and top < bottom <= picture.height):
        remedy = f"give left < right and top < bottom within {picture.width}x{picture.height}"
        raise RequestError("box", ",".join(map(str, box)), remedy)
    data = picture_file(record, picture, desk.store)
    with room_for(picture.width * picture.height), open_picture(data, max_pixels=LARGEST_RESULT) as opened:
        part = opened.crop((left, top, right, bottom))
        return encode_picture(part, "png", icc=opened.info.get("icc_profile"))


def _small(record: Record, picture: ResultPicture, desk: Desk, side: int) -> bytes:
    data, out = picture_file(record, picture, desk.store), io.BytesIO()
    with room_for(picture.width * picture.height), open_picture(data, max_pixels=LARGEST_RESULT) as opened:
        small = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
        profile = fitting_profile(opened.info.get("icc_profile"), small.mode)
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small.save(out, "WEBP", quality=_QUALITY, **({"icc_profile": profile} if profile else {}))
    return out.getvalue()
