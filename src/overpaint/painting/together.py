"""Many jobs on one engine, side by side: begin, tick all, finish.

together.begin("a", request)
while together.names:
    for name, event in together.tick(): ...

A job is a generator. It yields its events, and where it needs the network it yields what it waits for. A tick answers
all that wait, several with one call where they may share it, and lets each job go on to its next question.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

import torch

from overpaint.errors import RequestError
from overpaint.events import Control, Event, Failed
from overpaint.models.memory import is_out_of_memory
from overpaint.outcome import FinishedBatch
from overpaint.painting.drive import RunRows, answer, call, questions
from overpaint.painting.pass_networks import Call, Pending
from overpaint.painting.sharing import cells_of, rows_per_call
from overpaint.planning.plans import Plan
from overpaint.request import PaintRequest
from overpaint.settings import Settings

Name = TypeVar("Name", bound=Hashable)
Story = Generator[Event | Pending]
Begin = Callable[[PaintRequest | Plan, Settings | None, Control, Sequence[FinishedBatch]], Story]


@dataclass(frozen=True, eq=False)
class _Member:
    """One job's part of a shared call."""

    pending: Pending
    call: Call
    asked: list[RunRows]

    @property
    def rows(self) -> int:
        return sum(len(rows) for _, rows in self.asked)


class Together(Generic[Name]):
    """Jobs that go on side by side. They begin, are stopped and end one by one; one that fails ends alone.

    One thread owns it, as it owns the engine. Use it as a context manager, or call `close`.
    """

    def __init__(self, begin: Begin, rows: int | None = None) -> None:
        self._begin, self._rows = begin, rows
        self._stories: dict[Name, Story] = {}
        self._waiting: dict[Name, Pending] = {}
        self._most: int | None = None  # after a shared call that was too large

    def __enter__(self) -> Together[Name]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def names(self) -> tuple[Name, ...]:
        """The jobs that have not ended."""
        return tuple(self._stories)

    def begin(
        self,
        name: Name,
        job: PaintRequest | Plan,
        settings: Settings | None = None,
        control: Control | None = None,
        done: Sequence[FinishedBatch] = (),
    ) -> None:
        """Have a job join. It is looked at in the next tick, so that its errors are its own."""
        if name in self._stories:
            raise RequestError("name", name, "a job of this name is running; choose another")
        self._stories[name] = self._begin(job, settings, control or Control(), done)

    def tick(self) -> Iterator[tuple[Name, Event]]:
        """Every job goes on by one call of the network; what there is to tell of each, as it happens.

        The last event of a job is `Finished`, `Cancelled` or `Failed`. A job goes on when its last event was taken: who
        keeps a finished batch has kept it before the next one begins.
        """
        self._answer([each for each in self._waiting.values() if not each.is_stopped])
        for name in self.names:
            for event in self._go_on(name):
                yield name, event

    def drop(self, name: Name) -> None:
        """Have a job end here and now; nothing more is told of it. The others go on."""
        story = self._stories.pop(name, None)
        self._waiting.pop(name, None)
        if story is not None:
            story.close()

    def close(self) -> None:
        """Drop all jobs."""
        for name in self.names:
            self.drop(name)

    def _go_on(self, name: Name) -> Iterator[Event]:
        """A job's events, up to its next question or its end."""
        self._waiting.pop(name, None)
        try:
            for step in self._stories.get(name, ()):  # none: whoever was told of another job dropped this one
                if isinstance(step, Pending):
                    self._waiting[name] = step
                    return
                yield step
        except Exception as error:
            yield Failed(error)
        self._stories.pop(name, None)

    @torch.no_grad()
    def _answer(self, waiting: Sequence[Pending]) -> None:
        """Make the calls that jobs share. What is left unanswered, a job asks alone when it goes on."""
        groups: dict[Hashable, list[_Member]] = {}
        for pending in waiting:
            for each in pending.calls:
                if each.key is not None:
                    groups.setdefault(each.key, []).append(_Member(pending, each, []))
        for members in groups.values():
            if len(members) > 1 and (most := self._most_rows(members[0])) > 1:
                for part in _packed([each for each in map(_with_rows, members) if each is not None], most):
                    self._share(part)

    def _most_rows(self, member: _Member) -> int:
        run = member.call.runs[0]
        most = self._rows if self._rows is not None else rows_per_call(run.start.device, cells_of(run))
        return most if self._most is None else min(most, self._most)

    def _share(self, members: Sequence[_Member]) -> None:
        if len(members) < 2:
            return
        rows = [row for each in members for _, own in each.asked for row in own]
        try:
            outputs = call(members[0].call.network(), rows)
        except Exception as error:  # each job asks alone now, and what is wrong with one ends that one
            if is_out_of_memory(error):
                self._most = max(1, len(rows) // 2)
            return
        for each in members:
            each.call.answered = True
            part, outputs = outputs[: each.rows], outputs[each.rows :]
            try:
                answer(each.asked, part)
            except Exception as error:
                each.pending.error = error


def _with_rows(member: _Member) -> _Member | None:
    try:
        return _Member(member.pending, member.call, questions(member.call.runs))
    except Exception as error:
        member.pending.error = error
        return None


def _packed(members: Sequence[_Member], most: int) -> list[list[_Member]]:
    """As they come, into calls of at most so many rows; a job's rows stay together."""
    parts: list[list[_Member]] = []
    room = 0
    for each in members:
        if not parts or each.rows > room:
            parts.append([])
            room = most
        parts[-1].append(each)
        room -= each.rows
    return parts
