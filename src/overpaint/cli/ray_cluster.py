"""`overpaint batch --ray`: the same rows, painted by many engines on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from overpaint.cli import session
from overpaint.cli.options import GivenOptions
from overpaint.cli.output import Meter
from overpaint.errors import RequestError

if TYPE_CHECKING:
    from overpaint.cluster.room import RoomAsked
    from overpaint.files.batch import Batch, BatchEvent
    from overpaint.files.rows import Rows
    from overpaint.settings import Settings

_SECRETS = ("token", "url")  # of the service; no painter needs them


@dataclass(frozen=True)
class AskedCluster:
    """Where a batch is to be painted, and by how many."""

    address: str
    room: RoomAsked

    def paint(
        self,
        rows: Rows,
        work: Batch,
        asked: GivenOptions,
        hear: Callable[[BatchEvent, Meter], None],
        meter: Meter,
        *,
        is_in_stores: bool = False,
    ) -> None:
        """All rows; each event is told. `is_in_stores`: nothing is read or written by a path."""
        from overpaint.cluster.ray_batch import RayBatch
        from overpaint.cluster.ray_head import connected

        asked = replace(asked, standing={name: each for name, each in asked.standing.items() if name not in _SECRETS})
        opener = partial(open_painter, asked, work.settings)
        models = _model_files(asked, work.settings)
        batch = RayBatch(batch=work, opener=opener, room=self.room, models=models, is_in_stores=is_in_stores)
        with connected(self.address) as ray, session.stoppable() as control, meter:  # Ray sets signal handlers, too
            for event in batch.run(ray, rows, control):
                hear(event, meter)


def cluster_asked_for(
    address: str | None, shard: str | None, pool: str | None, gpus: float | None, cpus: float | None
) -> AskedCluster | None:
    """What is wrong with the options is told before anything is looked at."""
    if address is None:
        for name, value in (("--pool", pool), ("--gpus-per-worker", gpus), ("--cpus-per-worker", cpus)):
            if value is not None:
                raise RequestError(name, value, "it is of --ray; give that, too, or leave this out")
        return None
    from overpaint.cluster.ray_head import LOCAL, check_ray_is_here, split_address
    from overpaint.cluster.room import RoomAsked

    if shard is not None:
        raise RequestError("--shard", shard, "with --ray the rows are handed out; leave one of the two out")
    if address != LOCAL:
        split_address(address)
    room = RoomAsked.parse(pool, gpus, cpus)
    check_ray_is_here()
    return AskedCluster(address, room)


@contextmanager
def open_painter(asked: GivenOptions, settings: Settings) -> Iterator[session.LatePainter]:
    """On the machine that paints: the engine of the command, opened for the first job that holds."""
    with ExitStack() as stack:

        def engine() -> session.CommandEngine:
            return stack.enter_context(session.open_engine(asked, settings, lambda done, total: None))

        yield session.LatePainter(asked, settings, engine)


def _model_files(asked: GivenOptions, settings: Settings) -> tuple[Path, ...]:
    from overpaint.models.find import find_checkpoint

    model = asked.text("model")
    return (find_checkpoint(model, settings),) if model else ()
