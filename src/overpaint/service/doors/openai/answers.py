"""What clients of OpenAI's Images API are answered: pictures, events of a stream, and errors in its shape."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from overpaint.errors import OverpaintError, RequestError
from overpaint.extras import LARGEST_RESULT
from overpaint.files.formats import fitting_profile, media_type_of
from overpaint.files.metadata import encode_picture
from overpaint.other_names import OPENAI, Names, theirs_of
from overpaint.pictures import open_picture, size_of
from overpaint.service.doors.openai.requests import MEDIA_TYPES, ImagesRequest
from overpaint.service.guard.budgets import room_for
from overpaint.service.guard.places import placeless
from overpaint.service.jobs import JobError, Record
from overpaint.service.problems import ApiError, code_of, job_status_of, retry_header, status_of
from overpaint.settings import Settings

CANCELLED = 499

# Our code -> theirs, and the status that goes with it where it is another one.
_REFUSED: Mapping[str, tuple[str, int | None]] = {
    **dict.fromkeys(("invalid", "picture"), ("invalid_value", 400)),
    "checkpoint": ("model_not_found", 404),
    "full": ("rate_limit_exceeded", None),
    "save": ("unavailable", None),
}
_FAILED: Mapping[str, int] = dict.fromkeys(("invalid", "checkpoint"), 400)  # job's code -> status
_NAMES: Names = {**OPENAI, "batch_size x iterations": "n"}


class OpenAIErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error as OpenAI's clients read it."""

    error: OpenAIErrorBody


class OpenAIPicture(BaseModel):
    """One of the two."""

    b64_json: str | None = None
    url: str | None = None


class OpenAITokens(BaseModel):
    image_tokens: int = 0
    text_tokens: int = 0


class OpenAIUsage(BaseModel):
    """Nothing is metered here; clients that reckon costs expect the numbers."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: OpenAITokens = OpenAITokens()


class OpenAIPictures(BaseModel):
    """The pictures."""

    created: int
    data: list[OpenAIPicture]
    output_format: str
    usage: OpenAIUsage


NO_USAGE: Mapping[str, Any] = OpenAIUsage().model_dump()


def refusal(error: OverpaintError | HTTPException) -> Response:
    """Why there will be no picture."""
    if isinstance(error, HTTPException):
        return _said(error.status_code, "malformed", None, str(error.detail))
    code = code_of(error)
    named, own = (code, None) if isinstance(error, ApiError) else _REFUSED.get(code, (code, None))
    status = own or status_of(code)
    name = error.field if isinstance(error, RequestError | ApiError) else None
    param = None if name is None else theirs_of(name.partition("[")[0], _NAMES)
    return _said(status, named, param, str(error), retry_header(status, error))


def failure(error: JobError | None) -> Response:
    """Why there is no picture. Painting the same again ends the same way, so clients are told not to try."""
    status, body = failure_body(error)
    return JSONResponse(body, status, {"X-Should-Retry": "false"})


def failure_body(error: JobError | None) -> tuple[int, dict[str, Any]]:
    """Status and body; without an error the job was cancelled."""
    if error is None:
        return CANCELLED, _body(CANCELLED, "cancelled", None, "the job was cancelled")
    status = _FAILED.get(error.code) or job_status_of(error.code)
    return status, _body(status, error.code, None, error.message)


def pictures_answer(record: Record, data: list[dict[str, str]], wanted: ImagesRequest) -> Response:
    answer = {"created": int(record.job.created), "data": data, "output_format": _format_of(record, wanted)}
    return JSONResponse({**answer, "usage": NO_USAGE}, headers=ignored_header(wanted))


def ignored_header(wanted: ImagesRequest) -> dict[str, str]:
    """Fields that nobody here knows are said to have had no effect."""
    return {"X-Overpaint-Ignored": ", ".join(wanted.ignored)} if wanted.ignored else {}


def stream_event(name: str, values: Mapping[str, Any], record: Record, wanted: ImagesRequest) -> str:
    """One event of a stream; `values` say what is particular to it."""
    told = {
        "type": name,
        "created_at": int(record.job.created),
        "output_format": wanted.format,
        "size": "x".join(map(str, wanted.size)) if wanted.size else "auto",
        "quality": "auto",
        "background": "auto",
        **values,
    }
    return f"event: {name}\ndata: {json.dumps(told)}\n\n"


def stream_failure(error: JobError | None) -> str:
    """The last event of a stream without a picture."""
    return f"event: error\ndata: {json.dumps({'type': 'error', **failure_body(error)[1]})}\n\n"


def packed(data: bytes, wanted: ImagesRequest, size: tuple[int, int] | None = None) -> str:
    """A picture's file as base64, in the format and, if told, of the size that is wanted."""
    own = size_of(data)
    if media_type_of(data) != MEDIA_TYPES[wanted.format] or size not in (None, own):
        with room_for(own[0] * own[1]), open_picture(data, max_pixels=LARGEST_RESULT) as picture:
            data = _converted(picture, wanted, size)
    return base64.b64encode(data).decode("ascii")


def _converted(picture: Image.Image, wanted: ImagesRequest, size: tuple[int, int] | None) -> bytes:
    """With its colour profile and depth, as far as the format holds them."""
    shown, profile = picture, picture.info.get("icc_profile")
    if size is not None:
        shown = shown.convert("RGBA" if shown.has_transparency_data else "RGB")
        shown = shown.resize(size, Image.Resampling.BICUBIC)
        profile = fitting_profile(profile, shown.mode)
    background = Settings.img2img_background_color
    return encode_picture(shown, wanted.format, icc=profile, quality=wanted.quality, background=background)


def _format_of(record: Record, wanted: ImagesRequest) -> str:
    """Of what a URL leads to, which is the file as it is kept."""
    if not wanted.as_url or not record.result.pictures:
        return wanted.format
    kept = record.result.pictures[0].media_type
    return next((name for name, media_type in MEDIA_TYPES.items() if media_type == kept), wanted.format)


def _said(
    status: int, code: str, param: str | None, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(_body(status, code, param, message), status, headers)


def _body(status: int, code: str, param: str | None, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    details = OpenAIErrorBody(message=placeless(message), type=kind, param=param, code=code)
    return OpenAIError(error=details).model_dump()
