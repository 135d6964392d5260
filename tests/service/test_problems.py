"""One table from errors to codes and statuses; every door goes by it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from overpaint import errors
from overpaint.service import problems
from overpaint.service.jobs import JobError
from overpaint.service.ports import Conflict, Damaged, Full, NoPlace, Stopping, TooLarge
from overpaint.service.problems import (
    ApiError,
    ClientGone,
    code_of,
    code_of_status,
    job_code_of,
    job_status_of,
    retry_header,
    status_of,
)
from overpaint.service.workers.port import WorkerGone, WorkerRefused

SERVICE = Path(problems.__file__).parent
EXPECTED: tuple[tuple[Exception, str, int, str], ...] = (
    (errors.RequestError("steps", 0, "give 1"), "invalid", 422, "invalid"),
    (errors.SettingError("steps", 0, "give 1"), "invalid", 422, "invalid"),
    (errors.PictureError("image: broken"), "picture", 422, "invalid"),
    (TooLarge("image: too large"), "too_large", 413, "invalid"),
    (errors.CheckpointError("m: no checkpoint"), "checkpoint", 422, "checkpoint"),
    (errors.SaveError("the disk is full"), "save", 503, "save"),
    (errors.SamplingError("NaN"), "sampling", 500, "sampling"),
    (Damaged("it was damaged"), "damaged", 410, "internal"),
    (Conflict("another one"), "conflict", 409, "internal"),
    (Full("full", 3.2), "full", 429, "internal"),
    (NoPlace(3, is_own=False), "full", 429, "internal"),
    (Stopping("stopping", 3.2), "stopping", 503, "internal"),
    (WorkerGone("gone"), "unavailable", 503, "internal"),
    (WorkerRefused(JobError(code="memory", message="no")), "unavailable", 503, "internal"),
    (ClientGone(), "cancelled", 499, "internal"),
    (ApiError("no_preview", "not now"), "no_preview", 404, "internal"),
)


@pytest.mark.parametrize("error, code, status, of_job", EXPECTED, ids=lambda each: type(each).__name__)
def test_every_class_has_a_code_and_a_status(error: Exception, code: str, status: int, of_job: str) -> None:
    assert (code_of(error), status_of(code_of(error)), job_code_of(error)) == (code, status, of_job)


def test_what_nobody_foresaw_is_an_error_of_the_program() -> None:
    assert job_code_of(KeyError("x")) == "internal" and status_of("internal") == 500


@pytest.mark.parametrize(
    "code, status",
    [
        *[("invalid", 422), ("checkpoint", 422), ("sampling", 500), ("memory", 503), ("save", 503), ("crashed", 503)],
        *[("deadline", 504), ("hung", 504), ("damaged", 500), ("internal", 500), ("of another version", 500)],
    ],
)
def test_statuses_of_failed_jobs(code: str, status: int) -> None:
    assert job_status_of(code) == status


def test_codes_of_what_only_has_a_status() -> None:
    shown = {status: code_of_status(status) for status in (400, 401, 403, 404, 405, 408, 413, 414, 415, 431, 500, 503)}
    assert shown == {
        400: "malformed",
        401: "unauthorized",
        403: "forbidden",
        404: "not_found",
        405: "method",
        408: "slow",
        413: "too_large",
        414: "too_large",
        415: "media_type",
        431: "too_large",
        500: "internal",
        503: "unavailable",
    }
    assert code_of_status(418) == "error"


def test_when_to_come_again() -> None:
    assert retry_header(429, Full("full", 3.2)) == {"Retry-After": "4"}
    assert retry_header(503) == {"Retry-After": "30"} and retry_header(422) == {}


def test_no_other_table_goes_from_classes_of_errors_to_codes_or_statuses() -> None:
    """A table of this kind is a tuple of tuples that begin with the name of an exception."""
    names = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
    names |= {type(each).__name__ for each, *_ in EXPECTED}
    found = [
        path.relative_to(SERVICE).as_posix()
        for path in sorted(SERVICE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Tuple | ast.List)
        and len(node.elts) > 1
        and all(_begins_with_one_of(names, each) for each in node.elts)
    ]
    assert found == ["problems.py"]


def _begins_with_one_of(names: set[str], node: ast.AST) -> bool:
    return isinstance(node, ast.Tuple) and bool(node.elts) and ast.unparse(node.elts[0]).split(".")[-1] in names
