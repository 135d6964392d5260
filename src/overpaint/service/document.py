"""The server's own document: what FastAPI tells of the routes, made fit for programs that write clients from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from overpaint.service.guard.guards import OPEN_TO_ALL
from overpaint.service.schema import NAME

Document = dict[str, Any]

_SCHEMES = {each: {"type": "http", "scheme": each} for each in ("bearer", "basic")}


def finished(plain: Callable[[], Document], *, has_token: bool) -> Callable[[], Document]:
    """The document with names for its schemas and a word about the token. It is made once, when it is first wanted."""

    @cache
    def document() -> Document:
        found: Document = {}
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


def _with_token(told: Document, has_token: bool) -> Document:
    """A server without a token takes no notice of one that is sent."""
    needed: list[dict[str, list[str]]] = [{each: []} for each in _SCHEMES]
    told["components"]["securitySchemes"] = _SCHEMES
    told["security"] = needed if has_token else [{}, *needed]
    for operation in told["paths"].get(OPEN_TO_ALL, {}).values():
        operation["security"] = []
    return told
