"""The server's own document: what FastAPI tells of the routes, made fit for programs that write clients from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from overpaint.service.guard.guards import OPEN_TO_ALL
from overpaint.service.schema import NAME

Document = dict[str, Any]

_PLACE = "#/components/schemas/{model}"
_SCHEMES = {each: {"type": "http", "scheme": each} for each in ("bearer", "basic")}


def answer_of(*models: type[BaseModel]) -> dict[str, Any]:
    """How a route tells of an answer in the shape of one of these models.

    FastAPI, given the models themselves, makes a reader for each of the some hundred refusals, which nobody reads with;
    that was most of a server's start.
    """
    each = [{"$ref": _PLACE.format(model=model.__name__)} for model in models]
    return {"content": {"application/json": {"schema": each[0] if len(each) == 1 else {"anyOf": each}}}}


def finished(
    plain: Callable[[], Document], answers: Sequence[type[BaseModel]] = (), *, has_token: bool
) -> Callable[[], Document]:
    """The document with names for its schemas and a word about the token. It is made once, when it is first wanted.

    `answers` are the models that `answer_of` told of.
    """

    @cache
    def document() -> Document:
        _, described = models_json_schema([(each, "serialization") for each in answers], ref_template=_PLACE)
        found: Document = _without_none(described.get("$defs", {}))
        told = _named(plain(), found)
        told["components"]["schemas"] = dict(sorted({**told["components"]["schemas"], **found}.items()))
        return _with_token(told, has_token)

    return document


def _named(value: Any, found: Document) -> Any:
    """What has a name is moved to the others that have one, and referred to: generated classes are called by it."""
    if isinstance(value, list):
        return [_named(each, found) for each in value]
    if not isinstance(value, dict):
        return value
    told = {key: _named(each, found) for key, each in value.items() if key != NAME}
    if told.get("default") == {} and "anyOf" in told:
        del told["default"]  # "nothing" may also be null, and generators ask which of the two this is
    name = value.get(NAME)
    if name is None:
        return told
    assert found.setdefault(name, told) == told, f"two schemas are called {name}"
    return {"$ref": f"#/components/schemas/{name}"}


def _without_none(value: Any) -> Any:
    """As FastAPI tells of schemas: what is null is not there."""
    if isinstance(value, list):
        return [_without_none(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return value


def _with_token(told: Document, has_token: bool) -> Document:
    """A server without a token takes no notice of one that is sent."""
    needed: list[dict[str, list[str]]] = [{each: []} for each in _SCHEMES]
    told["components"]["securitySchemes"] = _SCHEMES
    told["security"] = needed if has_token else [{}, *needed]
    for operation in told["paths"].get(OPEN_TO_ALL, {}).values():
        operation["security"] = []
    return told
