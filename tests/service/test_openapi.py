"""The document of the native API is true: whatever it allows is answered, and only as it says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings

from overpaint.extras import ExtrasRequest
from overpaint.request import SOURCE_FIELDS, Img2ImgRequest, Txt2ImgRequest
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.limits import Limits
from overpaint.service.schema import ENVELOPE_FIELDS, job_schema
from tests.service.conftest import Server
from tests.service.fake_desk import FakeDesk
from tests.service.test_requests import MASK, SOURCE, encoded, file_of

schemathesis = pytest.importorskip("schemathesis")

# The long form: OVERPAINT_FUZZ=500 pytest tests/service/test_openapi.py
EXAMPLES = int(os.environ.get("OVERPAINT_FUZZ", "5"))
NATIVE = r"^/v1/(jobs|pictures|plan|models|samplers|limits|gallery|presets|tokens|styles)"
FILES = (SOURCE, MASK, file_of("RGBA", (20, 20), (1, 2, 3, 0)), file_of("RGB", (64, 48), 5, "JPEG"))
ALL_AT_ONCE = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="OVERPAINT_FUZZ" not in os.environ,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

schemathesis.openapi.format("picture", st.sampled_from([encoded(each) for each in FILES]))
schemathesis.openapi.media_type("application/octet-stream", st.sampled_from(FILES))


CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "unsupported_method", "missing_required_header", "negative_data_rejection"),
)


def checks_of(status: int) -> list[Any]:
    """All but one, for what a schema allows may still name no sampler that there is; 413 is a refusal too."""
    names = CHECKS[:-1] if status == 413 else CHECKS
    return [schemathesis.checks.CHECKS.get_one(each) for each in names]


def app_on(data: Path) -> FastAPI:
    return create_app(FakeDesk(data), ServeConfig(data=data, allowed_hosts=("testserver",)))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    app = app_on(tmp_path_factory.mktemp("data"))
    return schemathesis.openapi.from_asgi("/openapi.json", app).include(path_regex=NATIVE)


@pytest.fixture(scope="module")
def started(running_server: Server) -> Any:
    found = schemathesis.openapi.from_url(f"{running_server.url}/openapi.json")
    return found.include(path_regex=NATIVE)


OPERATIONS = [
    *(("GET", place) for place in ("/v1/jobs", "/v1/models", "/v1/models/{name}", "/v1/samplers", "/v1/limits")),
    *(("GET", f"/v1/jobs/{{job_id}}{end}") for end in ("", "/events", "/images/{number}", "/preview")),
    ("GET", "/v1/jobs/{job_id}/images/{number}/crop"),
    *(("POST", f"/v1/jobs/{{job_id}}/{end}") for end in ("cancel", "finish")),
    *(("GET", "/v1/jobs/{job_id}/images/{number}/thumbnail"), ("POST", "/v1/jobs/{job_id}/images/{number}/source")),
    *(("PUT", "/v1/jobs/{job_id}/pin"), ("DELETE", "/v1/jobs/{job_id}/pin"), ("DELETE", "/v1/jobs/{job_id}")),
    *(("GET", "/v1/gallery"), ("GET", "/v1/presets"), ("GET", "/v1/styles"), ("POST", "/v1/tokens")),
    *(("PUT", "/v1/presets/{name}"), ("DELETE", "/v1/presets/{name}")),
    ("POST", "/v1/plan/box"),
    *(("POST", "/v1/jobs"), ("PUT", "/v1/jobs/{job_id}"), ("POST", "/v1/plan")),
    *(("PUT", "/v1/pictures"), ("POST", "/v1/pictures"), ("POST", "/v1/pictures/png")),
]
# Nothing that may be said there is wrong by its shape.
NEVER_WRONG = {
    "/v1/models/{name}",
    "/v1/samplers",
    "/v1/limits",
    "/v1/pictures",
    "/v1/pictures/png",
    "/v1/presets",
    "/v1/styles",
}
CASES = [(*each, "POSITIVE") for each in OPERATIONS]
CASES += [(*each, "NEGATIVE") for each in OPERATIONS if each[1] not in NEVER_WRONG]


def tried(schema: Any, method: str, place: str, mode: str, **how: Any) -> None:
    """Cases that the document allows, or that it does not, are answered as it says."""
    operation = schema[place][method]

    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    @ALL_AT_ONCE
    def answered(case: Any) -> None:
        if how:
            case.headers.pop("Prefer", None)  # painting is another test's business
        response = case.call(**how)
        case.validate_response(response, checks=checks_of(response.status_code))

    answered()


@pytest.mark.parametrize(("method", "place", "mode"), CASES)
def test_the_document_is_true(native: Any, method: str, place: str, mode: str) -> None:
    tried(native, method, place, mode)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "place", "mode"), CASES)
def test_a_started_server_does_as_its_document_says(started: Any, method: str, place: str, mode: str) -> None:
    tried(started, method, place, mode, timeout=20)


def test_every_operation_is_tried(tmp_path: Path) -> None:
    paths = app_on(tmp_path).openapi()["paths"]
    native = {place: each for place, each in paths.items() if re.match(NATIVE, place)}
    assert {(method.upper(), place) for place, each in native.items() for method in each} == set(OPERATIONS)


def test_every_field_of_a_request_is_documented() -> None:
    img2img, txt2img, extras, *_ = job_schema(Limits())["oneOf"]
    beside = ENVELOPE_FIELDS | {"kind"}
    assert set(img2img["properties"]) == Img2ImgRequest.field_names() | beside
    assert set(txt2img["properties"]) == (Txt2ImgRequest.field_names() - SOURCE_FIELDS) | beside
    assert set(extras["properties"]) == set(ExtrasRequest.__dataclass_fields__) | beside
    whole = {"type": "integer", "minimum": 1, "maximum": 150, "default": 20}  # what forms show; null is the model's own
    assert img2img["properties"]["steps"] == {"anyOf": [whole, {"type": "null"}], "default": None}
    assert img2img["properties"]["resize_mode"]["enum"] == ["stretch", "crop", "fill", "latent"]
    assert img2img["required"] == ["images"] and txt2img["required"] == []


def test_every_route_documents_its_errors_in_one_shape(tmp_path: Path) -> None:
    found = app_on(tmp_path).openapi()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for place, methods in found["paths"].items():
        if not re.match(NATIVE, place):
            continue
        for method, operation in methods.items():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    shape = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                    assert shape in ("ErrorAnswer", "FailedJob"), (method, place, status)
