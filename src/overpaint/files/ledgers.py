"""The ledger of a batch, by where it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overpaint.files.journal import Journal, read_journals
from overpaint.files.ledger import Ledger
from overpaint.files.store_ledger import StoreLedger
from overpaint.stores import AnyFile, StoreFile

if TYPE_CHECKING:
    from overpaint.files.shards import Shard


def ledger_of(out: AnyFile, shard: Shard | None = None, *, worker: str = "") -> Ledger:
    """To write to: a context manager. `worker` names one of several who paint one batch."""
    if isinstance(out, StoreFile):
        return StoreLedger(out, is_leader=shard is None and not worker)
    return Journal(out, shard, worker=worker)


def look_at_ledger(out: AnyFile) -> Ledger:
    """What is known by now, to look at; nothing is locked or written."""
    return StoreLedger(out).look() if isinstance(out, StoreFile) else read_journals(out)
