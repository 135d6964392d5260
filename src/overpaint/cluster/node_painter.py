"""Who paints rows on some machine: one engine, one journal. Ray starts it as an actor; nothing here knows of that.

One thread paints. Another may look how far it is, and tell it to stop.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from overpaint.cluster.port import BatchOrder, GroupsDone, RowTold
from overpaint.errors import CheckpointError, OverpaintError, SaveError
from overpaint.events import Control, Stop
from overpaint.files.batch import (
    BatchEngine,
    BatchEvent,
    BatchStopped,
    RowFailed,
    RowPainted,
    RowSkipped,
    paint_rows,
)
from overpaint.files.ledger import Ledger
from overpaint.files.ledgers import ledger_of
from overpaint.files.rows import BatchRow
from overpaint.version import __version__

_BLOCK = 1 << 20


class NodePainter:
    """Paints what it is given, row after row. The engine is opened when the first row needs it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._control = Control()
        self._stack = ExitStack()
        self._signs = 0
        self._engine: BatchEngine | None = None
        self._order: BatchOrder | None = None
        self._journal: Ledger | None = None

    def start(self, order: BatchOrder, version: str) -> str:
        """Make ready; what is wrong here and would be wrong with any painter in its place is returned as a sentence."""
        if version != __version__:
            return f"{self._name} has overpaint {__version__}, and this is {version}; install the same everywhere"
        try:
            os.chdir(order.folder)
        except OSError:
            if not order.is_in_stores:
                return f"{order.folder}: {self._name} has no such folder; all machines share it under the same path"
        try:
            for path, size, digest in order.models:
                check_same_model(Path(path), size, digest)
            self._journal = self._stack.enter_context(ledger_of(order.batch.out, worker=secrets.token_hex(6)))
        except OverpaintError as error:
            return f"{self._name}: {error}"
        self._order = order
        return ""

    def paint(self, groups: Sequence[Sequence[BatchRow]], again: bool) -> GroupsDone:
        """Errors of rows are told, not raised. `again`: what others wrote meanwhile counts."""
        assert self._order is not None and self._journal is not None
        started = time.monotonic()
        told: list[RowTold] = []
        is_stopped, full = False, ""
        try:
            if again:
                self._journal.read_others()
            for rows in groups:
                for event in paint_rows(rows, self._order.batch, self._journal, self._painter, self._control):
                    self._signs += 1
                    is_stopped = is_stopped or isinstance(event, BatchStopped)
                    told.extend(_told(event))
                if is_stopped:
                    break
        except SaveError as error:
            full = str(error)
        return GroupsDone(self._name, tuple(told), time.monotonic() - started, is_stopped, full)

    def signs(self) -> int:
        """A number that grows while it is at work."""
        return self._signs

    def stop(self) -> None:
        """End after the current step; what is finished is kept."""
        self._control.ask(Stop.CANCEL)

    def close(self) -> None:
        """Let go of engine and journal; a process that dies does so by itself."""
        self._stack.close()

    def _painter(self) -> BatchEngine:
        if self._engine is None:
            assert self._order is not None
            self._engine = self._stack.enter_context(self._order.opener())
        return self._engine


def _told(event: BatchEvent) -> list[RowTold]:
    if isinstance(event, RowPainted):
        return [RowTold(event.row.number, "painted", event.files, event.seeds, event.warnings)]
    if isinstance(event, RowSkipped):
        return [RowTold(event.row.number, "skipped", event.files)]
    if isinstance(event, RowFailed):
        return [RowTold(event.row.number, "failed", problem=str(event.error))]
    return []


def check_same_model(path: Path, size: int, digest: str) -> None:
    """Refuse a model file that is another one here."""
    if not path.is_file():
        raise CheckpointError(f"{path}: the model is not there; all machines have it under the same path")
    if path.stat().st_size != size or head_and_tail(path) != digest:
        raise CheckpointError(f"{path}: this is another model than where the batch was started; copy it anew")


def head_and_tail(path: Path) -> str:
    """SHA-256 of the first and the last MiB: tells models of one size apart without reading gigabytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_BLOCK))
        file.seek(max(0, path.stat().st_size - _BLOCK))
        digest.update(file.read(_BLOCK))
    return digest.hexdigest()
