"""What tests of the OpenAI API share: pictures, and a server in this process on a desk that paints flat pictures."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.doors.native.routes import router as native_router
from overpaint.service.doors.openai.api import router
from tests.service.fake_desk import FakeDesk

T = TypeVar("T")


def scene(width: int = 64, height: int = 64) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 3 % 256, y * 3 % 256, (x + y) % 256], -1).astype(np.uint8))


def hole(picture: Image.Image, box: tuple[int, int, int, int] = (16, 16, 40, 40)) -> Image.Image:
    """The picture, transparent within a box: what OpenAI's clients send as a mask."""
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, box)
    cut = picture.convert("RGBA")
    cut.putalpha(alpha)
    return cut


def file_of(picture: Image.Image, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    picture.save(data, kind)
    return data.getvalue()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def until(true: Callable[[], T], seconds: float = 60.0) -> T:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def app_on(desk: FakeDesk, config: ServeConfig, *, whole: bool = True) -> FastAPI:
    """Both APIs below /v1, or OpenAI's alone, without guards."""
    app = FastAPI()
    app.include_router(router(desk, config))
    if whole:
        app.include_router(native_router(desk, config))
    return app


@dataclass
class Served:
    """An app on a loopback port, and the desk behind it; the desk belongs to the loop."""

    url: str
    desk: FakeDesk
    loop: asyncio.AbstractEventLoop

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(10)

    def only_job(self) -> str:
        """The id of the one job that was handed in, when it is."""
        return until(lambda: next(iter(self.desk.store.jobs), ""))

    async def show(self, job_id: str, step: int, steps: int, preview: bytes) -> None:
        """The job is at a step, and looks like this."""
        await self.desk._tell(job_id, "preview", {"step": step, "steps": steps}, preview)


@contextmanager
def served(desk: FakeDesk, config: ServeConfig, *, guarded: bool = False) -> Iterator[Served]:
    app = create_app(desk, config) if guarded else app_on(desk, config)
    started: Future[asyncio.AbstractEventLoop] = Future()
    with socket.create_server(("127.0.0.1", 0)) as door:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))

        async def work() -> None:
            started.set_result(asyncio.get_running_loop())
            await server.serve(sockets=[door])

        thread = threading.Thread(target=lambda: asyncio.run(work()), daemon=True)
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{door.getsockname()[1]}", desk, started.result(10))
        finally:
            server.should_exit = True
            thread.join(60)
