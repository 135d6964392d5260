"""Who answers while the application is loaded: the page's own files at once, and everything else when it is there.

Loading it takes most of a server's start. A browser needs only those files until somebody has painted a mask.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from overpaint.service import page_files
from overpaint.service.config import ServeConfig
from overpaint.service.guard.guards import PAGE_FILES, Frontdoor, HostGuard, OriginGuard
from overpaint.service.guard.places import places_of


class Front:
    """What the server calls, from its first moment on. The application's life is somebody else's."""

    def __init__(self, config: ServeConfig) -> None:
        guarded = HostGuard(OriginGuard(_page, config), config)
        self._page: ASGIApp = Frontdoor(guarded, observe=_uncounted, places=places_of(config))
        self._app: ASGIApp | None = None
        self._is_there = asyncio.Event()

    def open(self, app: ASGIApp) -> None:
        """From now on the application answers everything, what has been waiting first."""
        self._app = app
        self._is_there.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif self._app is None and _file_of(scope) is not None:
            await self._page(scope, receive, send)
        else:
            await self._is_there.wait()
            assert self._app is not None
            await self._app(scope, receive, send)


def _file_of(scope: Scope) -> str | None:
    """The page's file that is asked for, if it is one."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return None
    path = scope["path"]
    name = page_files.FIRST if path == "/" else path.removeprefix(PAGE_FILES)
    return name if name != path and page_files.is_file(name) else None


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    name = _file_of(scope)
    assert name is not None
    await page_files.answer(Request(scope), name)(scope, receive, send)


def _uncounted(scope: Scope, status: int, seconds: float) -> None:
    """The metrics come with the application; a few files of its first second are missing there."""


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
