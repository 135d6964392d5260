"""The server's document names what generated clients make classes of, and says how the token is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.document import finished
from overpaint.service.schema import NAME, named
from tests.service.fake_desk import FakeDesk

REFERENCE = "#/components/schemas/"


@pytest.fixture
def document(desk: FakeDesk, config: ServeConfig) -> dict[str, Any]:
    return create_app(desk, config).openapi()


def all_within(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from all_within(each)


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for place, methods in document["paths"].items():
        for operation in methods.values():
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                yield place, media_type, content["schema"]


def test_every_body_of_fields_has_a_name(document: dict[str, Any]) -> None:
    found = {}
    for place, media_type, schema in bodies(document):
        if media_type == "application/octet-stream" or not place.startswith("/v1/"):  # a file; the reference's bodies
            continue
        assert set(schema) == {"$ref"}, (place, schema)
        found[place, media_type] = schema["$ref"].removeprefix(REFERENCE)
    names = document["components"]["schemas"]
    assert found["/v1/jobs", "application/json"] == found["/v1/jobs/{job_id}", "application/json"] == "Job"
    assert found["/v1/plan", "application/json"] == "PlanRequest"
    assert found["/v1/images/edits", "multipart/form-data"] == "ImageEditForm"
    assert names["Job"]["oneOf"] == [
        {"$ref": f"{REFERENCE}{each}"} for each in ("Img2ImgJob", "Txt2ImgJob", "ExtrasJob", "SequenceJob")
    ]
    assert {"Hires", "Lora", "ControlUnit", "SoftInpainting", "Img2ImgPlan", "Txt2ImgPlan"} < names.keys()


def test_every_door_has_its_own_error(document: dict[str, Any]) -> None:
    names = document["components"]["schemas"]
    assert {"ErrorBody", "SdapiErrorBody", "OpenAIErrorBody"} < names.keys()
    assert not [each for each in names if "__" in each]  # FastAPI tells two classes of one name apart by their modules


def test_references_lead_somewhere_and_defaults_are_of_one_kind(document: dict[str, Any]) -> None:
    names = document["components"]["schemas"]
    for each in all_within(document):
        assert NAME not in each
        assert not ("anyOf" in each and each.get("default") == {})
        if isinstance(target := each.get("$ref"), str):
            assert target.removeprefix(REFERENCE) in names


def test_the_token_is_told_of(desk: FakeDesk, config: ServeConfig) -> None:
    for token, needed in ((None, [{}, {"bearer": []}, {"basic": []}]), ("secret", [{"bearer": []}, {"basic": []}])):
        told = create_app(desk, replace(config, token=token)).openapi()
        assert told["security"] == needed
        assert told["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
        assert told["paths"]["/healthz"]["get"]["security"] == []


def test_two_schemas_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    def plain() -> dict[str, Any]:
        shapes = [named("Thing", {"type": each}) for each in ("object", "string")]
        return {"components": {"schemas": {}}, "paths": {"/": {"get": {"responses": shapes}}}}

    with pytest.raises(AssertionError, match="Thing"):
        finished(plain, has_token=False)()


def test_the_document_is_made_once(desk: FakeDesk, config: ServeConfig) -> None:
    app = create_app(desk, config)
    assert app.openapi() is app.openapi()
