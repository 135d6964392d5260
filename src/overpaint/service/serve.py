"""A server from its start to its end: a socket, a desk, the application; signals, and time to finish what runs."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import h11
import uvicorn
from PIL import _imaging
from uvicorn.protocols.http.h11_impl import H11Protocol

from overpaint.errors import CheckpointError, OverpaintError, RequestError, SaveError
from overpaint.service.app import create_app
from overpaint.service.config import ServeConfig
from overpaint.service.guard.guards import HEADER_BYTES
from overpaint.service.limits import MIB
from overpaint.service.logs import LOGGER, line
from overpaint.service.queue.desk import LocalDesk
from overpaint.service.store.sqlite_store import JobStore

STOPPED = 130  # the exit code after a second signal
HEADER_SECONDS = 10.0
READER_SECONDS = 60.0  # for a client that takes nothing of its answer
CONNECTIONS = 512
THREADS = 32  # for what is quick; who decodes or fetches has others (visits.py)
PICTURE_BLOCK = 64 * MIB
KEEP_ALIVE = 15
_FAREWELL = 2  # seconds for answers that are on their way when everything else has ended
_CLOSING = 5.0  # seconds for the end after a second signal

log = logging.getLogger(LOGGER)


def serve(config: ServeConfig, announce: Callable[[str], None]) -> int:
    """Serve until a signal comes; the exit code. `announce` is told the URL once there is somebody to answer."""
    _log_to_stderr()
    # NOTE: in smaller blocks the memory of large pictures comes from malloc's heaps, of which each thread has its own
    # and gives nothing back: 32 pictures that are decoded two at a time would hold 5 GiB instead of 0.8.
    _imaging.set_block_size(PICTURE_BLOCK)
    store = _store(config)
    try:
        with listening(config) as listener:
            return asyncio.run(_served(config, store, listener, announce))
    finally:
        store.close()


def _store(config: ServeConfig) -> JobStore:
    try:
        return JobStore(config.data, config.limits)
    except (OSError, sqlite3.Error, SaveError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = f"nothing can be kept there ({reason}); give a folder that may be written to"
        raise RequestError("--data", str(config.data), remedy) from error


async def _served(
    config: ServeConfig, store: JobStore, listener: socket.socket, announce: Callable[[str], None]
) -> int:
    desk, signals = LocalDesk(store, config), _Signals()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "work"))
    server = _Server(uvicorn_config(create_app(desk, config), config))
    with signals.caught():
        await desk.start()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        trouble = asyncio.create_task(_trouble(desk))
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            if server.started:
                # What is there by now stays; looking through it again and again would hold answers up, for 90 ms each.
                gc.freeze()
                announce(url_of(listener))
            await _first(serving, signals.first, trouble)
            if not trouble.done():
                log.info(line("stopping", seconds=config.limits.drain))
                await _first(desk.drain(config.limits.drain), signals.second, serving)
        finally:
            server.should_exit = True
            server.force_exit = signals.second.is_set()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(desk.close(), _CLOSING if signals.second.is_set() else None)
            await serving
            unfit = await _ended(trouble)
    log.info(line("stopped"))
    if unfit is not None:
        raise unfit
    return STOPPED if signals.second.is_set() else 0


async def _trouble(desk: LocalDesk) -> OverpaintError:
    """Why the very first worker cannot paint at all. Never comes if it can."""
    unfit = await desk.unfit()
    if unfit is None:
        await asyncio.Event().wait()
    assert unfit is not None
    if unfit.code == "internal":
        return OverpaintError("the worker cannot open its model: the lines above say why")
    return CheckpointError(unfit.message) if unfit.code == "checkpoint" else OverpaintError(unfit.message)


async def _ended(trouble: asyncio.Task[OverpaintError]) -> OverpaintError | None:
    trouble.cancel()
    with suppress(asyncio.CancelledError):
        return await trouble
    return None


async def _first(*awaited: Any) -> None:
    """Until one of these is over; what was only waited for is cancelled, tasks of others are not."""
    tasks = [each if isinstance(each, asyncio.Task) else asyncio.ensure_future(_of(each)) for each in awaited]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    own = [task for task, each in zip(tasks, awaited, strict=True) if task is not each]
    for task in own:
        task.cancel()
    for outcome in await asyncio.gather(*own, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _of(awaited: Any) -> None:
    await (awaited.wait() if isinstance(awaited, asyncio.Event) else awaited)


class _Signals:
    """The first SIGTERM or SIGINT asks for an end, the second for it at once."""

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()

    @contextmanager
    def caught(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def came(number: int, frame: object) -> None:
            loop.call_soon_threadsafe(self._take)

        before = {each: signal.signal(each, came) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _take(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


class _Server(uvicorn.Server):
    """Ended by us, who know what else has to end first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Punctual(H11Protocol):
    """Clients that dawdle over their headers, or never take their answer, are hung up on."""

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._late)
        self._stop(self._unread)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop(self._unread)
        super().resume_writing()

    def _wait_for_headers(self) -> None:
        """The time runs from the first moment of a request until its headers are complete."""
        if self.conn.their_state is not h11.IDLE:
            self._stop(self._late)
            self._late = None
        elif self._late is None and self.timeout_keep_alive_task is None:
            self._late = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def uvicorn_config(app: Any, config: ServeConfig) -> uvicorn.Config:
    """uvicorn with everything off that is not needed; it logs no URLs, since a query may hold what is private."""
    return uvicorn.Config(
        app,
        http=Punctual,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS + 1,  # uvicorn refuses the one that reaches it
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=_FAREWELL,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )


@contextmanager
def listening(config: ServeConfig) -> Iterator[socket.socket]:
    """The socket that the configuration names."""
    try:
        listener = _bound(config)
    except (OSError, UnicodeError) as error:
        is_host = isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL
        reason = getattr(error, "strerror", None) or error
        if is_host:
            remedy = f"this is no address of this machine ({reason}); give another one"
            raise RequestError("--host", config.host, remedy) from error
        place = f"{config.host}:{config.port}"
        raise RequestError("--port", place, f"nobody can listen there ({reason}); give another one") from error
    with listener:
        listener.setblocking(False)
        yield listener


def _bound(config: ServeConfig) -> socket.socket:
    found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, _, _, address = found[0]
    # NOTE: the protocol has to be named. Otherwise asyncio does not know that connections are TCP and leaves Nagle's
    # algorithm on, which makes every answer wait 40 ms for an acknowledgement.
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(CONNECTIONS)
    except BaseException:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """Where to reach it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _log_to_stderr() -> None:
    """One line for each event, with its time in UTC."""
    form = logging.Formatter("at=%(asctime)s.%(msecs)03dZ level=%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    for name, level in ((LOGGER, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
