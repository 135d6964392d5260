"""What one request, one client and one server may use: frozen values, with the defaults of docs/reference/limits.md."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


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
    prompt_chars: int = 32_000
    loras: int = 16
    cfg_scale: float = 50.0
    # The queue, answered with 429 beyond
    waiting: int = 64
    waiting_per_client: int = 8
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
