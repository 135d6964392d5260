"""The application: three APIs and the health routes on one desk, behind one row of guards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from overpaint.service import health, pages
from overpaint.service.config import ServeConfig
from overpaint.service.document import finished
from overpaint.service.doors.native import routes as native
from overpaint.service.doors.native.answers import ErrorAnswer
from overpaint.service.doors.openai import api as openai_api
from overpaint.service.doors.openai.answers import OpenAIError
from overpaint.service.doors.webui import api as reference
from overpaint.service.doors.webui.bodies import SdapiErrorBody, WrongFields
from overpaint.service.guard.bodies import BodyGuard
from overpaint.service.guard.guards import Frontdoor, HostGuard, OriginGuard, TokenGuard
from overpaint.service.guard.places import places_of
from overpaint.service.guard.refusals import RequestRefused, is_reference, refusal
from overpaint.service.ports import Desk
from overpaint.service.workers.readers import BodyReaders
from overpaint.version import __version__

REFUSALS = (ErrorAnswer, OpenAIError, SdapiErrorBody, WrongFields)  # the shapes of the three APIs' errors
DESCRIPTION = "Paint over pictures, and new ones, with Stable Diffusion checkpoints: a queue behind three APIs."


def create_app(desk: Desk, config: ServeConfig) -> FastAPI:
    """The whole application. The desk is somebody else's to start and to close."""
    metrics = health.Metrics()
    reader = BodyReaders(desk.store.incoming, config.limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(metrics.follow(desk))
        yield
        following.cancel()
        await asyncio.to_thread(reader.close)

    app = FastAPI(
        title="overpaint",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # those pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(Frontdoor, observe=metrics.observe, places=places_of(config)),
            Middleware(HostGuard, config=config),
            Middleware(OriginGuard, config=config),
            Middleware(TokenGuard, config=config),
            Middleware(pages.NoSlashes),  # behind the guards, which judge paths as they were given
            Middleware(BodyGuard, limits=config.limits, reader=reader),
        ],
        exception_handlers={HTTPException: _refused},
    )
    app.include_router(pages.router())
    app.include_router(health.router(desk, config, metrics))
    for each in (native, openai_api, reference):
        app.include_router(each.router(desk, config))
    app.openapi = finished(app.openapi, REFUSALS, has_token=bool(config.token))  # type: ignore[method-assign]
    return app


async def _refused(request: Request, error: Exception) -> Response:
    """Where no route answers: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)
    if request.method == "OPTIONS" and (answer := pages.options(request)) is not None:
        return answer
    said = str(error.detail)
    if error.status_code == 404 and not is_reference(request.url.path):
        shown = request.url.path[:80]
        said = (
            f"{shown}: there is nothing; the APIs are /v1, /v1/images and /sdapi/v1, and /openapi.json describes them"
        )
    return refusal(request.scope, RequestRefused(error.status_code, said, error.headers))
