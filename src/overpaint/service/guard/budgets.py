"""What all requests together may hold: the bytes of their bodies, decoded pictures, connections to fetch from.

A guard gives each request a `RequestBudget`. Whoever decodes a picture for it asks for room where it happens, deep
below the routes; outside of a request nobody is in the way, and there is always room.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

from PIL import Image

from overpaint.errors import PictureError
from overpaint.pictures import DEFAULT_MAX_PIXELS, open_picture
from overpaint.service.guard.foreign_pictures import as_png
from overpaint.service.guard.pictures_apart import LONGEST_MARK, MANY, WORTH_IT, BodyReader, PictureApart
from overpaint.service.guard.refusals import RequestRefused
from overpaint.service.limits import Limits
from overpaint.service.ports import Full

BODIES = 8  # of the largest size, held at one time
DECODED = 2  # pictures of the largest size, decoded at one time
FETCHED = 4  # URLs at one time
WAITING = 24  # requests that wait for room of one kind, each with a thread
THREADS = 3 * WAITING  # more than can wait, so that nobody stands behind them
TOGETHER = 30.0  # seconds for all URLs of one request
_READ_AT_ONCE = 2  # bodies and pictures, by threads that hold the interpreter as long as they read


_P = ParamSpec("_P")
_T = TypeVar("_T")


class Allowance:
    """So much of something for all; whoever finds it taken waits for his turn.

    NOTE: only those whose turn has come are woken. A thread that wakes to find nothing takes the interpreter from the
    event loop all the same.
    """

    def __init__(self, units: int, what: str, waiting: int = WAITING) -> None:
        self._free = self._units = units
        self._what, self._most = what, waiting
        self._queue: deque[tuple[threading.Event, int]] = deque()  # whose turn it is not yet, and how much they want
        self._lock = threading.Lock()

    @contextmanager
    def of(self, units: int) -> Iterator[None]:
        """Room for so much. Blocks: call it in a thread. What takes more than there is, is alone with it."""
        wanted, turn = min(units, self._units), threading.Event()
        with self._lock:
            if len(self._queue) >= self._most:
                raise Full(f"{self._what}: too many requests wait for this already, come back later", retry_after=5.0)
            self._queue.append((turn, wanted))
            self._let_in()
        turn.wait()
        try:
            yield
        finally:
            with self._lock:
                self._free += wanted
                self._let_in()

    def _let_in(self) -> None:
        while self._queue and self._queue[0][1] <= self._free:
            turn, wanted = self._queue.popleft()
            self._free -= wanted
            turn.set()


class ServerBudget:
    """One server's room. The bytes are counted on its event loop, the rest by threads."""

    def __init__(self, limits: Limits, reader: BodyReader | None = None) -> None:
        self.reader = reader
        self.most_bytes = BODIES * limits.body_bytes
        self.bytes = 0
        self.decoding = Allowance(DECODED * limits.source_pixels, "decoding pictures")
        self.fetching = Allowance(FETCHED, "fetching pictures")
        self.reading = Allowance(_READ_AT_ONCE, "reading pictures", waiting=2 * THREADS)
        self.threads = ThreadPoolExecutor(THREADS, "visit")


class RequestBudget:
    """One request while it is inside."""

    def __init__(self, hall: ServerBudget) -> None:
        self.hall = hall
        self.apart: dict[str, PictureApart] = {}  # by mark
        self._bytes = self._fetched = 0
        self._seconds = 0.0

    def hold(self, size: int) -> None:
        """So many bytes more of its body are in memory."""
        if self.hall.bytes + size > self.hall.most_bytes:
            raise RequestRefused(503, "too many large requests come in at once, send it again", {"Retry-After": "2"})
        self.hall.bytes += size
        self._bytes += size

    def let_go(self) -> None:
        """Its body is forgotten."""
        self.hall.bytes -= self._bytes
        self._bytes = 0

    def fetch(self, work: Callable[[], bytes], limits: Limits, name: str) -> bytes:
        """A picture from elsewhere: together they may be as large as a body, and take no more than their time."""
        if self._seconds > TOGETHER:
            raise PictureError(
                f"{name}: this request's URLs took more than {TOGETHER:g} s, give the pictures themselves"
            )
        with self.hall.fetching.of(1):
            started = time.monotonic()
            try:
                data = work()
            finally:
                self._seconds += time.monotonic() - started
        self._fetched += len(data)
        if self._fetched > limits.body_bytes:
            most = f"more than {limits.body_bytes} bytes together"
            raise PictureError(f"{name}: the pictures at this request's URLs have {most}, give smaller or fewer")
        return data


_VISIT: ContextVar[RequestBudget | None] = ContextVar("visit", default=None)


@contextmanager
def visiting(visit: RequestBudget) -> Iterator[None]:
    """What happens inside, in threads too, happens for this request."""
    before = _VISIT.set(visit)
    try:
        yield
    finally:
        _VISIT.reset(before)
        visit.let_go()
        for each in visit.apart.values():
            each.discard()


async def at_work(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do what may wait for room in a thread for that: the loop's own are for what is quick, also while many wait."""
    visit, context = _VISIT.get(), copy_context()
    threads = None if visit is None else visit.hall.threads
    return await asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(work, *args, **kwargs))


def room_for(pixels: int) -> AbstractContextManager[None]:
    """Room to decode so many pixels. Blocks: call it in a thread."""
    visit = _VISIT.get()
    return nullcontext() if visit is None else visit.hall.decoding.of(pixels)


def reading() -> AbstractContextManager[None]:
    """A turn to read bytes with Python's own means. Blocks: call it in a thread.

    NOTE: the event loop wants the interpreter back after each call of the system. Were thirty threads to want it too,
    it would get it in one of thirty turns, and all other clients would wait.
    """
    visit = _VISIT.get()
    return nullcontext() if visit is None else visit.hall.reading.of(1)


def read_apart(pieces: Sequence[bytes]) -> tuple[Any] | None:
    """The values of a large body of JSON, its pictures taken out; None if it is to be read here."""
    visit = _VISIT.get()
    found = None if visit is None or visit.hall.reader is None else visit.hall.reader.json(pieces)
    if visit is None or found is None:
        return None
    values, pictures = found
    visit.apart.update(pictures)
    return (values,)


def png_apart(pieces: Sequence[bytes], limits: Limits) -> bytes:
    """A picture of any format that can be read, as a PNG file. Blocks: call it in a thread."""
    visit = _VISIT.get()
    reader = None if visit is None else visit.hall.reader
    return as_png(b"".join(pieces), limits) if reader is None else reader.png(pieces)


def file_apart(pieces: Sequence[bytes]) -> PictureApart | None:
    """A large file that was sent as it is, looked at; None if it is to be read here. Blocks: call it in a thread."""
    visit = _VISIT.get()
    if visit is None or visit.hall.reader is None or sum(map(len, pieces)) < WORTH_IT:
        return None
    with reading():
        found = visit.hall.reader.picture(pieces)
    if found is not None and found.path is not None:
        visit.apart[found.path.name] = found  # as nobody can guess it
    return found if found is not None and found.pixels is not None else None


def opened_sent(data: bytes, pixels: int = 0, most_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """A picture that is fit to be decoded; a large one is decoded by who reads large bodies. Blocks, too."""
    visit = _VISIT.get()
    reader = None if visit is None else visit.hall.reader
    is_large = len(data) >= WORTH_IT or pixels >= MANY
    found = reader.decoded([data]) if reader is not None and is_large else None
    return open_picture(data, max_pixels=most_pixels) if found is None else found


def picture_apart(text: str) -> PictureApart | None:
    """The picture that a text of the present request stands for."""
    visit = _VISIT.get()
    return None if visit is None or len(text) > LONGEST_MARK else visit.apart.get(text)


def apart_of(data: bytes) -> PictureApart | None:
    """What is known of a file of the present request, if it was looked at apart and is fit to be decoded."""
    visit = _VISIT.get()
    known = {} if visit is None else {each.digest: each for each in visit.apart.values() if each.pixels is not None}
    return known.get(hashlib.sha256(data).hexdigest()) if known else None


def fetched(work: Callable[[], bytes], limits: Limits, name: str) -> bytes:
    """What `work` fetches for the present request, within its bounds."""
    visit = _VISIT.get()
    return work() if visit is None else visit.fetch(work, limits, name)


def forget_body() -> None:
    """The present request's body is no longer in memory, though its client still waits."""
    visit = _VISIT.get()
    if visit is not None:
        visit.let_go()
