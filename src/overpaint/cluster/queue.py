"""What is left of a batch, and what a painter gets next: rows of one checkpoint one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from overpaint.cluster.port import RowGroup


class GroupQueue:
    """Groups of rows by the checkpoint they ask for. What comes back is handed out first.

    `ahead`: how many are looked at before they are needed; None: all of them.
    """

    def __init__(self, groups: Iterable[RowGroup], ahead: int | None = None) -> None:
        self._waiting: dict[str, deque[RowGroup]] = {}
        self._count = 0
        self._coming: Iterator[RowGroup] = iter(groups)
        self._ahead = ahead

    def __len__(self) -> int:
        """Of those that were looked at; 0 if none is left at all."""
        for each in self._coming if self._ahead is None or self._count < self._ahead else ():
            self._line(each.checkpoint).append(each)
            self._count += 1
            if self._count == self._ahead:
                break
        return self._count

    def back(self, groups: Iterable[RowGroup]) -> None:
        """What a painter did not get to, in front of all others."""
        for each in reversed(list(groups)):
            self._line(each.checkpoint).appendleft(each)
            self._count += 1

    def next(self, loaded: str | None, others: Iterable[str], most: int) -> list[RowGroup]:
        """Up to `most` groups of one checkpoint: of the one that the painter has, else of one that no other has, else
        of the one of which most is left. A group that is to be alone comes alone."""
        if not len(self):
            return []
        lines = {name: line for name, line in self._waiting.items() if line}
        taken = set(others)
        name = loaded if loaded in lines else max(lines, key=lambda each: (each not in taken, len(lines[each])))
        line, chosen = lines[str(name)], list[RowGroup]()
        while line and len(chosen) < most and not (chosen and line[0].is_alone):
            chosen.append(line.popleft())
            if chosen[-1].is_alone:
                break
        self._count -= len(chosen)
        return chosen

    def _line(self, checkpoint: str) -> deque[RowGroup]:
        return self._waiting.setdefault(checkpoint, deque())
