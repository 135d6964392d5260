"""A batch on Ray, from its rows to its events: `run_batch` with many painters instead of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overpaint.cluster.handing_out import HandingOut, Patience
from overpaint.cluster.node_painter import head_and_tail
from overpaint.cluster.port import BatchOrder
from overpaint.cluster.ray_pool import RayPool
from overpaint.cluster.room import RoomAsked, room_for
from overpaint.events import Control
from overpaint.files.batch import Batch, BatchEngine, BatchEvent, begun, check_shared
from overpaint.files.journal import workers_writing
from overpaint.files.ledgers import ledger_of
from overpaint.files.rows import Rows
from overpaint.stores import AnyFile

_LET_GO_SECONDS = 30.0  # for painters of a batch that was killed to notice it
_PAUSE = 0.2


@dataclass(frozen=True, kw_only=True)
class RayBatch:
    """What a batch needs beyond its rows to be painted on a cluster."""

    batch: Batch
    opener: Callable[[], AbstractContextManager[BatchEngine]]
    room: RoomAsked = field(default_factory=RoomAsked)
    patience: Patience = field(default_factory=Patience)
    is_in_stores: bool = False  # nothing is read or written by a path
    models: Sequence[Path] = ()  # files that must be the same on all machines

    def run(self, ray: Any, rows: Rows, control: Control | None = None) -> Iterator[BatchEvent]:
        """On the cluster that `ray` is connected to. Seeds are fixed here, names follow from the rows, and a row counts
        as painted when the output folder says so."""
        control, batch = control or Control(), self.batch
        check_shared(batch.fields, rows)
        room = room_for(self.room, [each["Resources"] for each in ray.nodes() if each["Alive"]])
        wait_for_workers(batch.out)
        with ledger_of(batch.out) as journal:
            batch = begun(batch, journal)
            journal.forget_rows()
            pool = RayPool(ray, self._order(batch), room)
            try:
                handing = HandingOut(rows, pool, least=room.least, patience=self.patience)
                with closing(handing.events(control)) as events:
                    yield from events
            finally:
                pool.close()
                wait_for_workers(batch.out)
                journal.take_in_workers(remember=False)

    def _order(self, batch: Batch) -> BatchOrder:
        models = tuple((str(path), path.stat().st_size, head_and_tail(path)) for path in self.models if path.is_file())
        return BatchOrder(batch, self.opener, Path.cwd(), models, self.is_in_stores)


def wait_for_workers(out: AnyFile, seconds: float = _LET_GO_SECONDS) -> None:
    """Until nobody writes a worker's journal any more, or long enough; opening the batch's own tells the rest."""
    deadline = time.monotonic() + seconds
    while isinstance(out, Path) and workers_writing(out) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
