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
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn
from PIL import _imaging
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from overpaint.errors import CheckpointError, OverpaintError, RequestError, SaveError
from overpaint.service.config import ServeConfig
from overpaint.service.front import Front
from overpaint.service.guard.guards import HEADER_BYTES
from overpaint.service.jobs import JobError
from overpaint.service.limits import PICTURE_BLOCK
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import Desk, Store
from overpaint.service.queue.desk import LocalDesk
from overpaint.service.queue.shared_desk import SharedDesk
from overpaint.service.shared_ports import SharedStore
from overpaint.service.store.sqlite_store import JobStore

if TYPE_CHECKING:
    from fastapi import FastAPI

STOPPED = 130  # the exit code after a second signal
HEADER_SECONDS = 10.0
READER_SECONDS = 60.0  # for a client that takes nothing of its answer
CONNECTIONS = 512
THREADS = 32  # for what is quick; who decodes or fetches has others (visits.py)
KEEP_ALIVE = 15
SWITCHING = 0.0005  # seconds after which a thread that reads a picture lets the event loop have its turn
_CONNECTION = "connection"  # in the state of each request
_FAREWELL = 2  # seconds for answers that are on their way when everything else has ended
_CLOSING = 5.0  # seconds for the end after a second signal

log = logging.getLogger(LOGGER)


class ServedDesk(Desk, Protocol):
    """A desk with its life."""

    async def start(self) -> None: ...
    async def drain(self, seconds: float) -> None: ...
    async def close(self) -> None: ...
    async def unfit(self) -> JobError | None:
        """Why a worker cannot paint at all, as soon as that is known of any; None once all can."""
        ...


def serve(config: ServeConfig, announce: Callable[[str], None]) -> int:
    """Serve until a signal comes; the exit code. `announce` is told the URL once there is somebody to answer.

    With `config.announces_page` that is the page alone: whatever else is asked then waits until the rest is loaded."""
    log_to_stderr()
    _imaging.set_block_size(PICTURE_BLOCK)
    sys.setswitchinterval(SWITCHING)
    store, desk = _store_and_desk(config)
    try:
        with listening(config) as listener:
            return asyncio.run(_served(config, desk, listener, announce))
    finally:
        store.close()


def _store_and_desk(config: ServeConfig) -> tuple[Store, Callable[[], ServedDesk]]:
    """The desk belongs to the event loop that is still to be."""
    if config.store is not None:
        shared = shared_store(config)
        return shared, lambda: SharedDesk(shared, config)
    store = _store(config)
    return store, lambda: LocalDesk(store, config)


def shared_store(config: ServeConfig) -> SharedStore:
    """The store on PostgreSQL; what wants it is loaded only then."""
    from overpaint.service.store.postgres_store import PostgresStore

    assert config.store is not None
    opened = {"is_open": config.is_store_open, "migrate": config.migrate}
    if config.blobs is None:
        return PostgresStore(config.store, config.data, config.limits, **opened)
    from overpaint.service.store.postgres_objects import PostgresObjectStore

    return PostgresObjectStore(config.store, config.data, config.blobs, config.limits, **opened)


def _store(config: ServeConfig) -> JobStore:
    try:
        return JobStore(config.data, config.limits)
    except (OSError, sqlite3.Error, SaveError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = f"nothing can be kept there ({reason}); give a folder that may be written to"
        raise RequestError("--data", str(config.data), remedy) from error


async def _served(
    config: ServeConfig, open_desk: Callable[[], ServedDesk], listener: socket.socket, announce: Callable[[str], None]
) -> int:
    """The page is there first; its application is loaded meanwhile, and what else is asked waits for that."""
    desk, signals, front = open_desk(), Signals(), Front(config)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "work"))
    server = _Server(uvicorn_config(front, config))
    with signals.caught():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.001)
            if server.started and config.announces_page:
                announce(url_of(listener))
            app = await asyncio.to_thread(_application, desk, config)
            async with app.router.lifespan_context(app):
                await desk.start()
                front.open(app)
                if server.started and not config.announces_page:
                    announce(url_of(listener))
                # What is there by now stays; looking through it again and again would hold answers up, for 90 ms each.
                gc.freeze()
                unfit = await _until_the_end(config, desk, signals, server, serving)
        finally:
            server.should_exit = server.force_exit = True  # it has ended by now, unless something went wrong
            await serving
    log.info(line("stopped"))
    if unfit is not None:
        raise unfit
    return STOPPED if signals.second.is_set() else 0


def _application(desk: Desk, config: ServeConfig) -> FastAPI:
    """NOTE: to load it takes most of the start, so it must not be loaded with this module."""
    from overpaint.service.app import create_app

    return create_app(desk, config)


async def _until_the_end(
    config: ServeConfig, desk: ServedDesk, signals: Signals, server: _Server, serving: asyncio.Task[None]
) -> OverpaintError | None:
    """Until a signal or a trouble comes and all of it has been closed; the trouble."""
    trouble = asyncio.create_task(_trouble(desk))
    try:
        await first_of(serving, signals.first, trouble)
        if not trouble.done():
            log.info(line("stopping", seconds=config.limits.drain))
            await first_of(desk.drain(config.limits.drain), signals.second, serving)
    finally:
        server.should_exit = True
        server.force_exit = signals.second.is_set()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(desk.close(), _CLOSING if signals.second.is_set() else None)
        await serving
        unfit = await _ended(trouble)
    return unfit


async def _trouble(desk: ServedDesk) -> OverpaintError:
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


async def first_of(*awaited: Any) -> None:
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


class Signals:
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


class Punctual(asyncio.Protocol):
    """A connection: uvicorn's protocol with two clocks of ours around it, by asyncio's own calls alone.

    Clients that dawdle over their headers, or never take their answer, are hung up on.
    """

    def __init__(self, *, app_state: dict[str, Any], **given: Any) -> None:
        self._http: asyncio.Protocol = H11Protocol(app_state={**app_state, _CONNECTION: self}, **given)
        self._transport: asyncio.Transport | None = None
        self._requests = 0  # whose headers are there, and whose answer is not
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._http.connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        self._expect_headers()
        self._http.data_received(data)

    def eof_received(self) -> bool | None:
        return self._http.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        _stop(self._late)
        _stop(self._unread)
        self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        self._http.pause_writing()
        self._unread = self._hang_up_after(READER_SECONDS)

    def resume_writing(self) -> None:
        _stop(self._unread)
        self._http.resume_writing()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """A request whose headers are there; the time for those of the next one runs from its first bytes."""
        _stop(self._late)
        self._late = None
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def _expect_headers(self) -> None:
        if self._late is None and not self._requests:
            self._late = self._hang_up_after(HEADER_SECONDS)

    def _hang_up_after(self, seconds: float) -> asyncio.TimerHandle:
        assert self._transport is not None
        return asyncio.get_running_loop().call_later(seconds, self._transport.abort)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _timed(app: ASGIApp) -> ASGIApp:
    """The application, of which a connection is told when it is asked and when it has answered."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope.get("state", {}).pop(_CONNECTION, None)
        with nullcontext() if connection is None else connection.answering():
            await app(scope, receive, send)

    return called


def uvicorn_config(app: Any, config: ServeConfig) -> uvicorn.Config:
    """uvicorn with everything off that is not needed; it logs no URLs, since a query may hold what is private."""
    return uvicorn.Config(
        _timed(app),
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


def log_to_stderr() -> None:
    """One line for each event, with its time in UTC."""
    form = logging.Formatter("at=%(asctime)s.%(msecs)03dZ level=%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    for name, level in ((LOGGER, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
