"""One event vocabulary for Python, the progress bar and server-sent events; and the box that stop messages go in."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from overpaint.outcome import FinishedBatch, Processed
    from overpaint.request import Picture


@dataclass(frozen=True)
class Started:
    images: int
    steps: int  # of the whole job: iterations of the sampler over all batches
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    step: int
    steps: int
    sigma: float
    batch: int = 0


@dataclass(frozen=True)
class Preview:
    step: int
    image: Picture


@dataclass(frozen=True)
class Painted:
    """A batch is finished; it comes again in the result, and may be kept to go on from after a crash."""

    batch: FinishedBatch


@dataclass(frozen=True)
class StepFinished:
    """A step of a sequence is finished; it comes again in the result, and may be kept to go on from after a crash."""

    number: int
    result: Processed


@dataclass(frozen=True)
class Finished:
    result: Processed


@dataclass(frozen=True)
class Failed:
    """One of several jobs that go on side by side; a job alone raises its error."""

    error: Exception


@dataclass(frozen=True)
class Cancelled:
    result: Processed | None  # the pictures that were finished before


Event: TypeAlias = Started | Progress | Preview | Painted | StepFinished | Finished | Failed | Cancelled


class Stop(Enum):
    """How a running job is asked to end."""

    CANCEL = "cancel"  # at once, nothing of the current batch is kept
    FINISH_EARLY = "finish early"  # decode what there is now, and end (INT-2, interrupt)
    SKIP = "skip"  # the same for the current batch only (INT-3)
    AFTER_BATCH = "after batch"  # complete the current batch, start no other


@dataclass
class Control:
    """A box for stop messages. Any thread may put one in; the loop looks between ticks."""

    _message: Stop | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, message: Stop) -> None:
        with self._lock:
            self._message = message

    @property
    def message(self) -> Stop | None:
        with self._lock:
            return self._message

    def take_skip(self) -> None:
        """A skip counts for one batch."""
        with self._lock:
            if self._message is Stop.SKIP:
                self._message = None
