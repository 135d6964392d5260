"""Pages for people: the one to paint on, and a list of the routes. And what is asked of paths rather than of routes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from overpaint.service import page_files
from overpaint.service.guard.guards import PAGE_FILES
from overpaint.version import __version__

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def router() -> APIRouter:
    """GET and HEAD of the page, which is / and everything below /page/, and of /docs."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def first(request: Request) -> Response:
        return page_files.answer(request, page_files.FIRST)

    @routes.api_route(PAGE_FILES + "{name:path}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        return page_files.answer(request, name)

    @routes.api_route("/docs", methods=["GET", "HEAD"])
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(_docs(request.app.openapi()))

    return routes


def _docs(document: Mapping[str, Any]) -> str:
    lines = "\n".join(_lines(document["paths"]))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>overpaint: routes</title>\n'
        f"<h1>overpaint {__version__}: routes</h1>\n"
        '<p><a href="openapi.json">openapi.json</a> describes them with their fields.</p>\n'
        f"<table>\n{lines}\n</table>\n</html>\n"
    )


def _lines(paths: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for path, operations in sorted(paths.items()):
        for method, operation in operations.items():
            about = html.escape(operation.get("description") or operation.get("summary") or "")
            yield f"<tr><td>{method.upper()}</td><td>{html.escape(path)}</td><td>{about}</td></tr>"


def options(request: Request) -> Response | None:
    """The answer to OPTIONS: what may be asked of this path; None where there is nothing."""
    allowed = tuple(each for each in _METHODS if _is_answered(request, each))
    return Response(status_code=204, headers={"Allow": ", ".join((*allowed, "OPTIONS"))}) if allowed else None


def _is_answered(request: Request, method: str) -> bool:
    routes: list[BaseRoute] = request.app.router.routes
    return any(each.matches({**request.scope, "method": method})[0] is Match.FULL for each in routes)


class NoSlashes:
    """A path with a slash at its end means the same as without: a redirect would cost clients their bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/"):
            path = scope["path"].rstrip("/") or "/"
            if _is_a_route({**scope, "path": path}):
                scope["path"] = path
        await self._app(scope, receive, send)


def _is_a_route(scope: Scope) -> bool:
    """Whether a route has this path; what is mounted has paths of its own."""
    routes: list[BaseRoute] = scope["app"].router.routes
    return any(not isinstance(each, Mount) and each.matches(scope)[0] is not Match.NONE for each in routes)
