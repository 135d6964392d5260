"""Ends of jobs that the disk did not take: they are written down as soon as it does."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from overpaint.service.jobs import JobState, Live
from overpaint.service.logs import LOGGER, line
from overpaint.service.queue.attempts import UNWRITTEN, Verdict
from overpaint.service.queue.ledger import REFUSALS

TRIES = 6  # to write down how a job ended as it did

log = logging.getLogger(LOGGER)


@dataclass
class _Debt:
    verdict: Verdict
    live: Live
    tries: int = 0


class Debts:
    """What is owed, by job. `end` writes an end down and tells of it; `has_room` says whether the disk takes any."""

    def __init__(
        self, end: Callable[[str, Verdict, Live], Awaitable[None]], has_room: Callable[[], Awaitable[bool]]
    ) -> None:
        self._end, self._has_room = end, has_room
        self._owed: dict[str, _Debt] = {}

    def __len__(self) -> int:
        return len(self._owed)

    def owe(self, job_id: str, verdict: Verdict, live: Live, *, is_refused: bool = True) -> None:
        """`is_refused`: it is the disk's fault, and not that of this end."""
        self._owed[job_id] = _Debt(verdict, live, 0 if is_refused else TRIES)

    def drop(self, job_id: str) -> None:
        self._owed.pop(job_id, None)

    async def pay(self) -> None:
        """Write down what is owed, if that is possible by now."""
        for job_id, debt in list(self._owed.items()):
            debt.tries += 1
            is_over = await self._is_over(job_id, debt.verdict, debt.live)
            # NOTE: what is refused so often may be refused for its own sake, such as a picture that was deleted.
            if not is_over and debt.tries > TRIES and await self._has_room():
                is_over = await self._is_over(job_id, Verdict(JobState.FAILED, error=UNWRITTEN), debt.live)
            if is_over:
                self.drop(job_id)

    async def _is_over(self, job_id: str, verdict: Verdict, live: Live) -> bool:
        """Whether it was written down, or never will be."""
        try:
            await self._end(job_id, verdict, live)
        except REFUSALS:
            return False
        except Exception:
            log.exception(line("not-ended", job=job_id))
            return verdict.error is UNWRITTEN
        return True
