"""A job's events for those who follow it over a line that must not fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from overpaint.service.jobs import JobEvent
from overpaint.service.ports import Desk

HEARTBEAT = 15.0  # seconds of silence, after which a comment keeps proxies from hanging up


async def followed(
    desk: Desk, job_id: str, after: int = 0, *, beat: float = HEARTBEAT
) -> AsyncGenerator[JobEvent | None, None]:
    """The events after a number as they happen, to the job's end; None after each silence of `beat` seconds."""
    story = aiter(desk.events(job_id, after))

    async def following() -> JobEvent | None:
        return await anext(story, None)

    waiting = asyncio.create_task(following())
    try:
        while True:
            while not (await asyncio.wait({waiting}, timeout=beat))[0]:
                yield None
            event = waiting.result()
            if event is None:
                return
            yield event
            waiting = asyncio.create_task(following())
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        close: Any = getattr(story, "aclose", None)
        if close is not None:
            await close()
