"""What is asked of a worker, wherever it is: here it is a process of this machine (`worker_process`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol

from overpaint.errors import OverpaintError
from overpaint.events import Stop
from overpaint.service.jobs import JobError, Json
from overpaint.service.wire import Message


class WorkerGone(OverpaintError):  # noqa: N818 (what has happened to the worker)
    """The worker ended while something was expected of it.

    `culprit`: the job that it was killed for; None where nobody knows. `jobs`: how many it had.
    """

    def __init__(self, message: str, *, hung: bool = False, culprit: str | None = None, jobs: int = 1) -> None:
        super().__init__(message)
        self.hung, self.culprit, self.jobs = hung, culprit, jobs


class WorkerRefused(OverpaintError):  # noqa: N818 (an answer)
    """The worker could not do what it was asked."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class WorkerPort(Protocol):
    """One worker, which is started again when it dies. All of it belongs to the event loop that opened it."""

    name: str
    device: str  # as it was asked for, and as the worker says when it is ready
    unfit: JobError | None  # why it can paint nothing
    model: Json | None  # the checkpoint that it used last
    holds: Sequence[str] | None  # files of models in its memory, as it said last; None: it has not said
    slots: int  # jobs that it takes at once
    deaths: int
    switches: int  # how often it came to another checkpoint than before
    encodings: Json | None  # what its engine encoded, what it knew already, and the bytes kept, after its last job

    @property
    def pid(self) -> int | None: ...
    @property
    def state(self) -> str:
        """STARTING, READY, BUSY or UNHEALTHY."""
        ...

    @property
    def is_prepared(self) -> bool:
        """Whether it takes jobs now."""
        ...

    def open(self, changed: Callable[[], None] = lambda: None) -> None:
        """Start it. `changed` is called when it gets ready or is gone."""
        ...

    async def close(self) -> None:
        """End it; what it was doing is not waited for."""
        ...

    async def prepared(self) -> None:
        """Wait until it takes jobs."""
        ...

    def work(self, message: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        """Hand a job over and hear of it, up to its "ended"; `WorkerGone` is raised if the worker ends before that."""
        ...

    def stop(self, job: str, how: Stop) -> None:
        """Ask a job that it has to end."""
        ...

    def kill(self, culprit: str | None = None) -> None:
        """End it at once, for the sake of a job; another one is started."""
        ...

    async def ask(self, what: str, values: Mapping[str, Any] | None = None) -> Any:
        """A question. `WorkerRefused` is a no, `WorkerGone` that nobody is there to ask."""
        ...
