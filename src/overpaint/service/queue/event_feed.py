"""Who follows which job. Nobody is buffered for: followers are told that there is news, and read on where they are."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from overpaint.service.jobs import JobEvent, JobState

ENDS = tuple(each.value for each in JobState if each.is_end)
RECENT = 64  # events that are at hand without asking the store
PICTURES = 12  # of the latest previews among them


class JobFeed:
    """The latest events of one job that somebody follows."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()  # set once, at the next event; another one takes its place
        self.ended = asyncio.Event()
        self.followers = 0
        self._recent: deque[JobEvent] = deque(maxlen=RECENT)

    def add(self, event: JobEvent) -> None:
        if self._recent and event.number <= self._recent[-1].number:
            return
        if self._recent and event.number != self._recent[-1].number + 1:
            self._recent.clear()  # something was told elsewhere; the store knows it all
        self._recent.append(event)
        if event.picture is not None:
            self._forget_old_pictures()
        if event.name in ENDS:
            self.ended.set()
        self.changed.set()
        self.changed = asyncio.Event()

    def nudge(self, *, is_over: bool) -> None:
        if is_over:
            self.ended.set()
        self.changed.set()
        self.changed = asyncio.Event()

    def after(self, number: int) -> Sequence[JobEvent] | None:
        """What came after an event; None where only the store can tell."""
        if not self._recent or self._recent[0].number > number + 1:
            return None
        return [each for each in self._recent if each.number > number]

    def as_told(self, events: Sequence[JobEvent]) -> Sequence[JobEvent]:
        """Events that the store gave, with the pictures that those at hand have."""
        at_hand = {each.number: each for each in self._recent}
        return [at_hand.get(each.number, each) for each in events]

    def _forget_old_pictures(self) -> None:
        shown = [place for place, each in enumerate(self._recent) if each.picture is not None]
        for place in shown[:-PICTURES]:
            self._recent[place] = replace(self._recent[place], picture=None)


class EventFeed:
    """The jobs that are being followed."""

    def __init__(self) -> None:
        self._feeds: dict[str, JobFeed] = {}

    @contextmanager
    def followed(self, job: str) -> Iterator[JobFeed]:
        feed = self._feeds.setdefault(job, JobFeed())
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                self._feeds.pop(job, None)

    def publish(self, event: JobEvent) -> None:
        feed = self._feeds.get(event.job)
        if feed is not None:
            feed.add(event)

    def nudge(self, job: str | None = None, *, is_over: bool = False) -> None:
        """Something may have happened to a job, or to any: who follows it looks into the store."""
        followed = list(self._feeds.values()) if job is None else [self._feeds[job]] if job in self._feeds else []
        for feed in followed:
            feed.nudge(is_over=is_over)

    def let_go(self) -> None:
        """Wake everybody, since there is nothing more to wait for."""
        for feed in self._feeds.values():
            feed.ended.set()
            feed.changed.set()

    def __len__(self) -> int:
        return len(self._feeds)
