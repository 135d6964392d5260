"""Hands the rows of a batch out to painters, and makes sure that each row is told of once, whatever dies.

Nothing here knows Ray. Whether a row is painted is decided by files and journals of the output folder: a painter that
is given a row that was finished says so, and so rows may be handed out again as often as it takes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from overpaint.cluster.port import (
    GroupsDone,
    PainterGone,
    PainterPool,
    PainterReady,
    PainterUnfit,
    PoolNews,
    RowGroup,
    RowTold,
)
from overpaint.cluster.queue import GroupQueue
from overpaint.errors import OverpaintError, SaveError
from overpaint.events import Control
from overpaint.files.batch import BatchEvent, BatchStopped, RowFailed, RowPainted, RowSkipped
from overpaint.files.rows import BatchRow, Rows, StreamedRows, UnreadableRow
from overpaint.files.shards import families

MOST_DEATHS = 2  # of painters, by one row
MOST_LOSSES = 5  # of machines, while a row was painted
MOST_FALSE_STARTS = 3  # painters in a row that die before they are ready
_CALL_SECONDS = 0.5  # what one call should take: handing out costs a millisecond
_SHORT_CALL = 2.0  # below it the next call waits at the painter already
_MOST_GROUPS = 200  # a call
_LOOK_SECONDS = 0.5
_AHEAD = 10_000  # groups of rows that are listed while others are painted


@dataclass(frozen=True)
class Patience:
    """How long nothing may be heard."""

    to_start: float = 300.0  # until the first painters are ready
    silence: float = 1800.0  # of all painters together


@dataclass
class _PainterState:
    calls: deque[list[RowGroup]] = field(default_factory=deque)  # given, in this order
    checkpoint: str | None = None


class HandingOut:
    """One batch's way through a pool of painters."""

    def __init__(
        self,
        rows: Rows,
        pool: PainterPool,
        *,
        least: int = 1,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unreadable: deque[UnreadableRow] = deque()
        if isinstance(rows, StreamedRows):
            self._queue = GroupQueue(self._groups(rows.groups()), _AHEAD)
        else:
            self._unreadable.extend(each for each in rows if isinstance(each, UnreadableRow))
            self._queue = GroupQueue(self._groups(families([each for each in rows if isinstance(each, BatchRow)])))
        self._pool, self._least, self._patience, self._clock = pool, least, patience or Patience(), clock
        self._ready: dict[str, _PainterState] = {}
        self._seconds_a_group = _CALL_SECONDS
        self._began = self._heard = clock()
        self._false_starts = 0
        self._has_begun = self._is_stopping = False

    def events(self, control: Control) -> Generator[BatchEvent, None, None]:
        """Until every row is told of, or the batch is stopped."""
        while self._queue or self._at_work() or self._unreadable:
            while self._unreadable:
                unreadable = self._unreadable.popleft()
                yield RowFailed(unreadable, OverpaintError(unreadable.problem))
            if control.message is not None and not self._is_stopping:
                self._is_stopping = True
                self._pool.stop()
            if self._is_stopping and not self._at_work():
                break
            self._hand_out()
            for news in self._pool.news(_LOOK_SECONDS):
                self._heard = self._clock()
                yield from self._take(news)
            self._watch()
        if control.message is not None:
            yield BatchStopped()

    def _groups(self, found: Iterable[Sequence[BatchRow | UnreadableRow]]) -> Iterator[RowGroup]:
        for rows in found:
            self._unreadable.extend(each for each in rows if isinstance(each, UnreadableRow))
            if readable := [each for each in rows if isinstance(each, BatchRow)]:
                yield RowGroup(readable)

    def _at_work(self) -> bool:
        return any(each.calls for each in self._ready.values())

    def _hand_out(self) -> None:
        if self._is_stopping or not self._has_begun:
            return
        for name, painter in self._ready.items():
            waiting = 2 if self._seconds_a_group < _SHORT_CALL else 1
            while len(painter.calls) < waiting and self._queue:
                others = [each.checkpoint for each in self._ready.values() if each is not painter]
                groups = self._queue.next(painter.checkpoint, filter(None, others), self._groups_a_call())
                painter.calls.append(groups)
                painter.checkpoint = groups[0].checkpoint
                self._pool.give(name, groups, again=any(each.deaths or each.losses or each.is_alone for each in groups))

    def _groups_a_call(self) -> int:
        """So many that a call takes half a second; fewer towards the end, so that no painter waits for another."""
        fitting = int(_CALL_SECONDS / max(self._seconds_a_group, 1e-6))
        fair_share = -(-len(self._queue) // (2 * max(len(self._ready), 1)))
        return max(1, min(fitting, fair_share, _MOST_GROUPS))

    def _take(self, news: PoolNews) -> Iterator[BatchEvent]:
        if isinstance(news, GroupsDone):
            yield from self._done(news)
        elif isinstance(news, PainterReady):
            self._ready[news.painter] = _PainterState()
            self._false_starts = 0
            self._has_begun = self._has_begun or len(self._ready) >= self._least
        elif isinstance(news, PainterUnfit):
            raise OverpaintError(news.reason)
        elif isinstance(news, PainterGone):
            yield from self._gone(news)

    def _done(self, news: GroupsDone) -> Iterator[BatchEvent]:
        if news.is_full:
            raise SaveError(news.is_full)
        painter = self._ready[news.painter]
        groups = painter.calls.popleft()
        rows = {row.number: row for group in groups for row in group.rows}
        for told in news.rows:
            yield _event(rows.pop(told.number), told)
        if rows and not (news.is_stopped or self._is_stopping):
            raise OverpaintError(f"{news.painter} said nothing of {len(rows)} rows; give the same command again")
        # The newest counts most, since rows that are only skipped come in runs.
        self._seconds_a_group += 0.5 * (news.seconds / len(groups) - self._seconds_a_group)

    def _gone(self, news: PainterGone) -> Iterator[BatchEvent]:
        painter = self._ready.pop(news.painter, None)
        if painter is None:
            self._false_starts += 1
            if self._false_starts >= MOST_FALSE_STARTS:
                raise OverpaintError(f"the painters die before they are ready ({news.reason})")
        elif painter.calls:
            current, *later = painter.calls
            self._queue.back(group for call in later for group in call)
            yield from self._blame(current, news)
        if not self._is_stopping:
            self._pool.replace(news.painter)

    def _blame(self, groups: Sequence[RowGroup], news: PainterGone) -> Iterator[BatchEvent]:
        """Of several, nobody knows which was painted: each is tried alone. One that was alone is known."""
        again: list[RowGroup] = []
        for each in groups:
            if len(groups) == 1:
                each.losses += news.is_machine
                each.deaths += not news.is_machine
            each.is_alone = True
            if each.deaths < MOST_DEATHS and each.losses < MOST_LOSSES:
                again.append(each)
                continue
            told = f"its painter died {each.deaths + each.losses} times ({news.reason}); the same command tries again"
            yield from (RowFailed(row, OverpaintError(told)) for row in each.rows)
        self._queue.back(again)

    def _watch(self) -> None:
        """NOTE: what is painted is safe, and so the end of a batch that hangs is better than to wait for it."""
        now = self._clock()
        if not self._has_begun and now - self._began > self._patience.to_start:
            told = f"{len(self._ready)} of {self._least} painters are ready after {self._patience.to_start:.0f} s"
            raise OverpaintError(f"{told}: the cluster has no room for them; ask for less a painter, or for fewer")
        if now - self._heard > self._patience.silence:
            told = f"nothing was heard of the painters for {self._patience.silence:.0f} s"
            raise OverpaintError(f"{told}; what is painted is kept, and the same command goes on")


def _event(row: BatchRow, told: RowTold) -> BatchEvent:
    if told.state == "painted":
        return RowPainted(row, told.files, told.seeds, told.warnings)
    if told.state == "skipped":
        return RowSkipped(row, told.files)
    return RowFailed(row, OverpaintError(told.problem))
