"""Pictures as the reference's clients send them (API-6): base64, with or without "data:...;base64,", or a URL.

URLs are fetched by threads of their own: sites that dawdle keep nobody else waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field

from PIL import Image

from overpaint.errors import PictureError
from overpaint.pictures import FORMATS, size_of
from overpaint.service.config import ServeConfig
from overpaint.service.doors.webui.errors import http_refusal
from overpaint.service.guard.budgets import at_work, fetched, opened_sent, room_for
from overpaint.service.guard.inputs import admit_picture, decoded_text, is_url
from overpaint.service.ports import TooLarge

PATIENCE = 30.0  # seconds for one picture, until its turn comes included (API-6)

_FETCHERS = 4
_LONGEST_SIGNATURE = 16  # bytes; what Pillow's formats are recognised by


@dataclass(frozen=True)
class PictureReader:
    """Reads them within the server's limits, in threads: decoding takes time, and sites may dawdle."""

    config: ServeConfig
    _fetchers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_FETCHERS, "fetch"), repr=False)

    async def read(self, name: str, text: str) -> bytes:
        """The bytes of a picture that is fit to be decoded."""
        if not is_url(text):
            return await at_work(self._decoded, name, text)
        if not self.config.url_inputs:
            raise http_refusal(500, "Requests not allowed")
        loop, visit = asyncio.get_running_loop(), copy_context()  # whose request it is goes along
        work = loop.run_in_executor(self._fetchers, lambda: visit.run(self._fetched, name, text.strip()))
        try:
            return await asyncio.wait_for(work, PATIENCE)
        except asyncio.TimeoutError:
            said = f"{name}: it did not come within {PATIENCE:g} s, give the picture itself"
            raise http_refusal(500, "Invalid image url", said) from None

    async def read_all(self, named: Sequence[tuple[str, str]]) -> tuple[bytes, ...]:
        """Several of one request; too many are refused before the first is looked at."""
        if len(named) > (most := self.config.limits.pictures):
            raise TooLarge(f"{named[most][0]}: the request holds more than {most} pictures; send fewer")
        return tuple([await self.read(name, text) for name, text in named])

    def _fetched(self, name: str, url: str) -> bytes:
        from overpaint.service.guard.fetching import fetch

        limits = self.config.limits
        try:
            data = fetched(lambda: fetch(url, limits, name, resolve=_public_addresses), limits, name)
            admit_picture(data, limits, name)
        except TooLarge:
            raise
        except PictureError as error:
            raise http_refusal(500, "Invalid image url", str(error)) from None
        return data

    def _decoded(self, name: str, text: str) -> bytes:
        data = b""
        try:
            data = decoded_text(text, self.config.limits, name)
            admit_picture(data, self.config.limits, name)
        except TooLarge:
            raise
        except PictureError:
            if _is_a_picture(data):  # a broken one, or beyond the limits: that is told in our own words
                raise
            raise http_refusal(500, "Invalid encoded image") from None
        return data


def _public_addresses(host: str) -> tuple[str, ...]:
    """A name's addresses. If one is not public, the reference has words for it; nobody has been connected to yet."""
    from overpaint.service.guard.fetching import is_public, resolved

    found = tuple(resolved(host))
    if not all(map(is_public, found)):
        raise http_refusal(500, "Request to local resource not allowed")
    return found


@contextmanager
def decoded(name: str, data: bytes) -> Iterator[Image.Image]:
    """An admitted picture, decoded when there is room for it. Blocks: use it in a thread."""
    try:
        wide, high = size_of(data)
    except PictureError as error:
        raise PictureError(f"{name}: {error}") from None
    with room_for(wide * high):
        yield opened_sent(data, wide * high)


def _is_a_picture(data: bytes) -> bool:
    """By its first bytes alone: what comes behind them may be hostile."""
    Image.init()
    start = data[:_LONGEST_SIGNATURE].ljust(_LONGEST_SIGNATURE, b"\0")
    known = (Image.OPEN[each][1] for each in FORMATS if each in Image.OPEN)
    return any(accept is not None and accept(start) is True for accept in known)
