"""Jobs and what comes of them as plain JSON values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from overpaint.service.jobs import DoneBatch, Job, JobError, JobResult, Json, ResultPicture


def plain(value: Any) -> Any:
    """Dataclasses and their parts as dicts, lists and scalars."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value


def job_of(values: Json) -> Job:
    """Also one that a server of version 0.1 kept, which wrote down until when a job may wait."""
    given = dict(values)
    until = given.pop("queue_deadline", None)
    if until is not None:
        given["queue_seconds"] = max(0.0, until - given["created"])
    return Job(**given)


def error_of(values: Json | None) -> JobError | None:
    return None if values is None else JobError(**values)


def picture_of(values: Json) -> ResultPicture:
    return ResultPicture(**values)


def batch_of(values: Json) -> DoneBatch:
    texts = {name: tuple(values[name]) for name in ("comments", "warnings")}
    return DoneBatch(**{**values, **texts, "pictures": tuple(map(picture_of, values["pictures"]))})


def result_of(values: Json) -> JobResult:
    texts = {name: tuple(values[name]) for name in ("infotexts", "warnings")}
    return JobResult(**{**values, **texts, "pictures": tuple(map(picture_of, values["pictures"]))})
