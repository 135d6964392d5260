"""What one request, one client and one server may use: frozen values, with the defaults of docs/reference/limits.md."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any

from overpaint.errors import RequestError

MIB = 2**20
# NOTE: in smaller blocks the memory of large pictures comes from malloc's heaps, of which each thread has its own and
# gives nothing back: 32 pictures that are decoded two at a time would hold 5 GiB instead of 0.8.
PICTURE_BLOCK = 64 * MIB


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A site's bounds. Every one is tested at N and at N + 1."""

    # Requests, answered with 413 beyond
    body_bytes: int = 64 * MIB  # counted on the stream, after decompression
    picture_bytes: int = 32 * MIB  # each, decoded from base64 or as a file
    pictures: int = 16  # of one request
    # Pictures, answered with 422 beyond
    source_pixels: int = 50_000_000
    source_side: int = 16_384
    source_aspect: int = 50
    text_chunk_bytes: int = 1 * MIB  # of all text chunks together, unpacked
    exif_bytes: int = 64 * 1024
    icc_bytes: int = 4 * MIB
    # Jobs, answered with 422 beyond
    pass_pixels: int = 4_194_304
    steps: int = 150
    images: int = 16  # batch size times iterations
    sequence: int = 256  # steps of a grid, a loopback or another tool that paints more than once
    prompt_chars: int = 32_000
    prompt_rows: int = 64  # of the network in a step, for one picture
    prompt_chunks: int = 1024  # to be encoded for one picture
    loras: int = 16
    cfg_scale: float = 50.0
    # The queue, answered with 429 beyond
    waiting: int = 64
    waiting_per_client: int = 64  # all of it: clients have a token, or are on this machine
    # Time, in seconds
    queue_deadline: float = 900.0
    run_deadline: float = 600.0
    watchdog: float = 120.0  # without a step
    disconnect_grace: float = 5.0  # a client that waited and went
    drain: float = 30.0  # on SIGTERM
    # Results, answered with 410 afterwards
    result_seconds: float = 3600.0
    result_bytes: int = 2 * 1024 * MIB
    # Server-sent events kept for replay
    events_per_job: int = 1024


LIMIT_NAMES = tuple(each.name for each in fields(Limits))
_MAY_BE_NOTHING = frozenset({"disconnect_grace", "drain", "result_seconds"})
_DEFAULTS = Limits()


def limits_from(texts: Iterable[str]) -> Limits:
    """The defaults with some replaced, each written as NAME=VALUE. A client's share is the queue, unless given."""
    changes: dict[str, Any] = dict(map(_read, texts))
    if "waiting" in changes:
        changes.setdefault("waiting_per_client", changes["waiting"])
    return replace(_DEFAULTS, **changes)


def _read(text: str) -> tuple[str, float]:
    name, _, value = (each.strip() for each in text.partition("="))
    if name not in LIMIT_NAMES:
        raise RequestError("--limit", text, f"give NAME=VALUE, and as NAME one of {', '.join(LIMIT_NAMES)}")
    is_whole = isinstance(getattr(_DEFAULTS, name), int)
    least = 0 if name in _MAY_BE_NOTHING else 1 if is_whole else 0.001
    try:
        number = int(value) if is_whole else float(value)
    except ValueError:
        number = -1
    if not (math.isfinite(number) and least <= number < 2**63):
        raise RequestError("--limit", text, f"give {'a whole number' if is_whole else 'a number'} from {least} up")
    return name, number
