"""What a store asks of the place where pictures lie: a folder (`SourceFiles`, `ResultFiles`), or an object store
(`ObjectSources`, `ObjectResults`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set
from pathlib import Path
from typing import Protocol

from overpaint.service.store.result_files import KeptFile
from overpaint.service.store.tables import Connection


class SourceBlobs(Protocol):
    """Pictures that were handed in, each under the hash of its bytes."""

    incoming: Path  # files of processes of ours, until they get a name or are deleted

    def keep(self, data: bytes) -> str:
        """Its reference; it is durable when this returns."""
        ...

    def take(self, file: Path, digest: str) -> str:
        """The same for such a file, which is synced and has this SHA-256."""
        ...

    def read(self, reference: str) -> bytes: ...
    def has(self, reference: str, connection: Connection) -> bool: ...
    def collect(
        self, wanted: Set[str], connection: Connection, uptime: float, *, keep_seconds: float, keep_bytes: int
    ) -> Collection[str]:
        """Let go of what no job needs: what was not given again for so long, and the oldest of what is too much. What
        of it is still to be deleted once the transaction counts."""
        ...

    def delete(self, places: Collection[str]) -> None: ...


class ResultBlobs(Protocol):
    """What jobs have made, by job and name."""

    def path(self, job_id: str, name: str) -> Path:
        """Where a worker writes it, and readers open it."""
        ...

    def kept(self, job_id: str, names: Iterable[str]) -> list[KeptFile]:
        """Of a job, durable when this returns; one that is missing is an error."""
        ...

    def delete(self, job_id: str) -> None: ...
