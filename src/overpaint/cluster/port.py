"""How painters are spoken to, wherever they are: what they are given, and what is heard of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from overpaint.files.batch import Batch, BatchEngine
from overpaint.files.rows import BatchRow


@dataclass(eq=False, slots=True)
class RowGroup:
    """Rows that one painter has to paint in their order; nearly always it is one row."""

    rows: Sequence[BatchRow]
    deaths: int = 0  # painters that died of it
    losses: int = 0  # machines that were lost meanwhile, which says little about the rows
    is_alone: bool = False  # it is handed out without company, so that a death can be blamed on it

    @property
    def checkpoint(self) -> str:
        """The model that it asks for by name; empty: that of the batch."""
        return str(self.rows[0].fields.get("checkpoint") or "")


@dataclass(frozen=True)
class BatchOrder:
    """What every painter is told when it starts."""

    batch: Batch  # with its seed
    opener: Callable[[], AbstractContextManager[BatchEngine]]  # found by its name where overpaint is installed
    folder: Path  # that paths are relative to
    models: tuple[tuple[str, int, str], ...] = ()  # (path, size, SHA-256) of the files that must be the same everywhere
    is_in_stores: bool = False  # what is read and written has URLs, so the folder need not be there


@dataclass(frozen=True)
class RowTold:
    """What became of one row, in plain values."""

    number: int  # the row's
    state: str  # painted, skipped or failed
    files: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class GroupsDone:
    """A painter has gone through what it was given, or as far as it was let."""

    painter: str
    rows: tuple[RowTold, ...]
    seconds: float
    is_stopped: bool = False
    is_full: str = ""  # nothing more can be written there; says why


@dataclass(frozen=True)
class PainterReady:
    painter: str
    place: str  # for people


@dataclass(frozen=True)
class PainterGone:
    """It died, or its machine did; what it had been given is not painted, or not told of."""

    painter: str
    reason: str
    is_machine: bool = False


@dataclass(frozen=True)
class PainterUnfit:
    """It cannot paint this batch, nor could any that is started in its place."""

    painter: str
    reason: str


@dataclass(frozen=True)
class SignOfLife:
    """It is at work: it counted on since it was last looked at."""

    painter: str
    place: str = field(default="", compare=False)


PoolNews: TypeAlias = GroupsDone | PainterReady | PainterGone | PainterUnfit | SignOfLife


class PainterPool(Protocol):
    """Painters that were asked for. Those there is no room for yet may still become ready."""

    def give(self, painter: str, groups: Sequence[RowGroup], *, again: bool) -> None:
        """More to paint, after what it has. `again`: somebody else may have begun with it."""

    def news(self, seconds: float) -> list[PoolNews]:
        """What happened; waits as long as nothing does."""
        ...

    def replace(self, painter: str) -> None:
        """Another one is to come in the place of one that is gone."""

    def stop(self) -> None:
        """All end after the current step, and say what they finished."""
