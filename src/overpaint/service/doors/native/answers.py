"""What the native API answers: the shapes of its document, jobs in plain values, and one shape for every error."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from overpaint.errors import OverpaintError, PictureError, RequestError
from overpaint.service.document import answer_of
from overpaint.service.guard.places import placeless
from overpaint.service.intake.pictures import picture_file, url_of
from overpaint.service.jobs import JobError, JobState, Record, ResultPicture
from overpaint.service.known_models import UnknownCheckpoint
from overpaint.service.ports import Desk
from overpaint.service.problems import ApiError, code_of, code_of_status, retry_header, status_of

Responses = dict[int | str, dict[str, Any]]


class ErrorBody(BaseModel):
    code: str
    message: str
    field: str | None = None


class RefusalBody(ErrorBody):
    """An error as our clients read it, and OpenAI's: they list and look up models here."""

    type: Literal["invalid_request_error", "server_error"]
    param: str | None = Field(default=None, description="The same as `field`.")


class ErrorAnswer(BaseModel):
    """Every error."""

    error: RefusalBody


class SeamView(BaseModel):
    """How visible the edge of the mask is in an inpainted picture."""

    step: float = Field(description="Mean colour step across the edge beyond the source's own, in CIE Lab delta E.")
    step_p95: float = Field(description="The same at its worst twentieth.")
    source_step: float = Field(description="The mean step that the source has there of itself.")
    shift: float = Field(description="How far the painted side is off the source in colour, in delta E.")
    gradient_jump: float = Field(description="How much steeper the lightness is on the edge than beside it.")
    coverage: float = Field(description="Percent of the picture that the mask lets change.")
    outside: int = Field(description="Pixels that changed outside the mask.")
    blend: Literal["plain", "colour", "bands"] = Field(description="How the edge was blended.")


class PictureView(BaseModel):
    """One picture of a result."""

    number: int
    url: str
    kind: Literal["picture", "mask", "grid", "control"]
    media_type: str
    infotext: str
    seed: int | None
    width: int
    height: int
    seam: SeamView | None = Field(description="Of an inpainted picture; null of any other.")


class JobView(BaseModel):
    """A job: where it stands and what came of it."""

    id: str
    kind: Literal["paint", "extras", "sequence"]
    state: JobState
    position: int | None = Field(description="How many jobs come before it; null when it is over.")
    progress: float = Field(ge=0, le=1)
    step: int
    steps: int
    eta: float | None = Field(description="Seconds until it is done, as far as earlier jobs tell.")
    priority: int
    client: str
    created: float
    started: float | None
    ended: float | None
    images: list[str] = Field(description="URLs of the pictures that are finished.")
    images_base64: list[str] | None = Field(default=None, description="The same, if ?images=base64 asks for it.")
    pictures: list[PictureView] = Field(description="All that was made, masks and grids too.")
    infotexts: list[str]
    warnings: list[str]
    stopped: bool = Field(description="It ended early on request, with what it had.")
    gone: bool = Field(description="Its pictures were kept long enough, or deleted on request.")
    pinned: bool = Field(description="Its pictures are kept until somebody deletes them.")
    bytes: int = Field(description="What its pictures take on the server's disk.")
    error: ErrorBody | None


class JobDetails(JobView):
    """A job with its request: send that again to get the same pictures."""

    request: dict[str, Any]
    info: str = Field(description="The account of the result as JSON text, as clients of the reference know it.")


class JobList(BaseModel):
    jobs: list[JobView] = Field(description="The newest first.")


class FailedJob(ErrorAnswer):
    """A job that was waited for and failed."""

    job: JobDetails


class Uploaded(BaseModel):
    picture: str = Field(pattern="^sha256:[0-9a-f]{64}$", description="What names this picture in a request.")
    width: int
    height: int


BODY = (400, 408, 413, 415, 503)  # what the guards may say of a body

_NAMES: Mapping[str, str] = {"save": "unavailable"}  # of what our clients know otherwise
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)?): ")
_MEANINGS: Mapping[int, str] = {
    400: "It is malformed.",
    401: "The token is missing or wrong.",
    403: "The Host or Origin header is not allowed.",
    404: "There is no such thing.",
    408: "Its body came too slowly.",
    409: "It contradicts what is there.",
    410: "It was kept long enough and is deleted.",
    413: "It is too large.",
    415: "It is not of a media type that is understood.",
    422: "A field holds what cannot be used.",
    429: "Too many jobs are waiting; Retry-After says in how many seconds to come again.",
    500: "The job failed.",
    503: "The server cannot do it now.",
    504: "It took too long.",
}


def errors(*statuses: int) -> Responses:
    """Documentation of what may go wrong; who may not ask at all is told so everywhere."""
    return {each: {**answer_of(ErrorAnswer), "description": _MEANINGS[each]} for each in (401, 403, *statuses)}


class NativeRoute(APIRoute):
    """A route that says no in one shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except (OverpaintError, HTTPException, RequestValidationError) as error:
                return error_answer(error)

        return answered


def error_answer(error: Exception) -> JSONResponse:
    """One sentence with a code for programs, and the field where there is one."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        field = ".".join(str(each) for each in first["loc"][1:])
        return _error(422, "invalid", f"{field}: {first['msg']}", field)
    if isinstance(error, HTTPException):
        return _error(error.status_code, code_of_status(error.status_code), str(error.detail))
    code = code_of(error)
    status = status_of(code)
    return _error(status, _NAMES.get(code, code), str(error), _field_of(error), retry_header(status, error))


def _field_of(error: Exception) -> str | None:
    """Complaints about pictures begin with the field's name."""
    if isinstance(error, RequestError | ApiError | UnknownCheckpoint):
        return error.field
    found = _FIELD.match(str(error)) if isinstance(error, PictureError) else None
    return found[1] if found else None


def _error(
    status: int, code: str, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = ErrorAnswer(error=refusal_body(status, code, placeless(message), field))
    return JSONResponse(body.model_dump(), status, headers)


def refusal_body(status: int, code: str, message: str, field: str | None = None) -> RefusalBody:
    kind: Literal["invalid_request_error", "server_error"] = "invalid_request_error" if status < 500 else "server_error"
    return RefusalBody(code=code, message=message, field=field, type=kind, param=field)


def not_found(job_id: str) -> ApiError:
    return ApiError("not_found", f"id={job_id[:80]!r}: there is no such job; GET /v1/jobs lists them", "id")


def pictures_of(record: Record, desk: Desk) -> tuple[ResultPicture, ...]:
    """What is finished so far."""
    if record.state.is_end:
        return record.result.pictures
    return tuple(each for batch in desk.store.batches(record.id) for each in batch.pictures)


async def job_view(record: Record, desk: Desk) -> JobView:
    """A record in plain values."""
    place = (desk.position(record.id), desk.eta(record.id))
    return JobView(**await asyncio.to_thread(_job_values, record, desk, place))


async def job_details(record: Record, desk: Desk, *, as_base64: bool = False) -> JobDetails:
    """A record with everything about it, and if asked for with its pictures."""
    place = (desk.position(record.id), desk.eta(record.id))
    values = await asyncio.to_thread(_job_values, record, desk, place, as_base64)
    request = {name: value for name, value in record.job.request.items() if name != "kind"}
    return JobDetails(**values, request=request, info=record.result.info)


def _job_values(
    record: Record, desk: Desk, place: tuple[int | None, float | None], as_base64: bool = False
) -> dict[str, Any]:
    job, result = record.job, record.result
    made = () if record.gone else pictures_of(record, desk)
    shown = [each for each in made if each.kind == "picture"]
    files = [picture_file(record, each, desk.store) for each in shown] if as_base64 else None
    return {
        **{name: getattr(job, name) for name in ("id", "kind", "priority", "client", "created")},
        **{
            name: getattr(record, name)
            for name in ("state", "step", "steps", "started", "ended", "gone", "pinned", "bytes")
        },
        "position": place[0],
        "eta": place[1],
        "progress": progress_of(record),
        "images": [url_of(record, each) for each in shown],
        "images_base64": None if files is None else [base64.b64encode(each).decode("ascii") for each in files],
        "pictures": [_picture_view(record, each) for each in made],
        "infotexts": list(result.infotexts) or [each.infotext for each in made if each.infotext],
        "warnings": list(map(placeless, result.warnings)),
        "stopped": result.stopped,
        "error": error_body(record.error),
    }


def _picture_view(record: Record, picture: ResultPicture) -> PictureView:
    names = ("number", "kind", "media_type", "infotext", "seed", "width", "height")
    seam = None if picture.seam is None else SeamView(**picture.seam)
    return PictureView(url=url_of(record, picture), seam=seam, **{name: getattr(picture, name) for name in names})


def progress_of(record: Record) -> float:
    """From 0 to 1; what ended early stays where it was."""
    if record.state is JobState.FINISHED:
        return 1.0
    return min(1.0, record.step / record.steps) if record.steps else 0.0


def error_body(error: JobError | None) -> ErrorBody | None:
    return None if error is None else ErrorBody(code=error.code, message=placeless(error.message))
