"""Ends of jobs that the disk did not take: they are written down as soon as it does."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from overpaint.service.jobs import JobState, Live
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import ClaimLost
from overpaint.service.queue.attempts import UNWRITTEN, Outcome
from overpaint.service.queue.store_thread import REFUSALS

TRIES = 6  # to write down how a job ended as it did

log = logging.getLogger(LOGGER)


@dataclass
class _Unsaved:
    outcome: Outcome
    live: Live
    fence: int | None
    tries: int = 0


class UnsavedEndings:
    """By job. `end` writes an ending down and tells of it; `has_room` says whether the disk takes any."""

    def __init__(
        self, end: Callable[[str, Outcome, Live, int | None], Awaitable[None]], has_room: Callable[[], Awaitable[bool]]
    ) -> None:
        self._end, self._has_room = end, has_room
        self._unsaved: dict[str, _Unsaved] = {}

    def __len__(self) -> int:
        return len(self._unsaved)

    def add(
        self, job_id: str, outcome: Outcome, live: Live, fence: int | None = None, *, is_refused: bool = True
    ) -> None:
        """`is_refused`: it is the disk's fault, and not that of this end."""
        self._unsaved[job_id] = _Unsaved(outcome, live, fence, 0 if is_refused else TRIES)

    def drop(self, job_id: str) -> None:
        self._unsaved.pop(job_id, None)

    async def save(self) -> None:
        """Write them down, if that is possible by now."""
        for job_id, each in list(self._unsaved.items()):
            each.tries += 1
            is_over = await self._is_over(job_id, each.outcome, each)
            # NOTE: what is refused so often may be refused for its own sake, such as a picture that was deleted.
            if not is_over and each.tries > TRIES and await self._has_room():
                is_over = await self._is_over(job_id, Outcome(JobState.FAILED, error=UNWRITTEN), each)
            if is_over:
                self.drop(job_id)

    async def _is_over(self, job_id: str, outcome: Outcome, each: _Unsaved) -> bool:
        """Whether it was written down, or never will be."""
        try:
            await self._end(job_id, outcome, each.live, each.fence)
        except REFUSALS:
            return False
        except ClaimLost:  # it has another end to come to
            return True
        except Exception:
            log.exception(line("not-ended", job=job_id))
            return outcome.error is UNWRITTEN
        return True
