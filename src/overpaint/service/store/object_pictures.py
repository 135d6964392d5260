"""Sources and results in an object store: what `SourceFiles` and `ResultFiles` are for folders.

    PREFIX/inputs/CHANCE-DIGEST       a source; the table `uploads` says which object it is
    PREFIX/results/JOB/CHANCE-NAME    a result; the table `files` says which object it is

Each object has a name of its own by chance, and counts only once a row names it. So a worker that lost its claim writes
over nothing, and what it wrote is in nobody's way until it is deleted.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping, Set
from pathlib import Path

from overpaint.errors import RequestError, SaveError
from overpaint.files.byproducts import BYPRODUCTS
from overpaint.service.byproducts import byproduct_file
from overpaint.service.jobs import PICTURE_REFERENCE
from overpaint.service.store.objects import Objects, Removals
from overpaint.service.store.result_files import KeptFile, ResultFiles
from overpaint.service.store.source_files import GRACE, digest_in
from overpaint.service.store.tables import Connection, Tables

INPUTS, RESULTS = "inputs", "results"

_TOUCH = "UPDATE uploads SET given_at = overpaint_uptime(), idle_since = NULL WHERE reference = ? RETURNING place"
_ADD = """
INSERT INTO uploads (reference, place, bytes, given_at) VALUES (?, ?, ?, overpaint_uptime())
ON CONFLICT (reference) DO UPDATE SET given_at = excluded.given_at, idle_since = NULL RETURNING place
"""
_WANTED_AGAIN = (
    "UPDATE uploads SET idle_since = NULL WHERE idle_since IS NOT NULL AND reference = ANY(CAST(:wanted AS text[]))"
)
_IDLE = """
UPDATE uploads SET idle_since = CAST(:uptime AS float8)
WHERE idle_since IS NULL AND NOT reference = ANY(CAST(:wanted AS text[]))
"""
_OLD = """
WITH idle AS (
    SELECT reference, CAST(:uptime AS float8) - idle_since AS age,
        sum(bytes) OVER () - (sum(bytes) OVER (ORDER BY given_at, reference) - bytes) AS with_younger
    FROM uploads WHERE idle_since IS NOT NULL
)
DELETE FROM uploads USING idle WHERE uploads.reference = idle.reference AND idle_since IS NOT NULL
    AND age > CAST(:grace AS float8) AND (age > CAST(:keep_seconds AS float8) OR with_younger > :keep_bytes)
RETURNING place
"""


class ObjectSources:
    """`near`: a folder of this machine for what processes of ours write before it is kept."""

    def __init__(self, objects: Objects, tables: Tables, near: Path, removals: Removals) -> None:
        self._objects, self._tables, self._removals = objects, tables, removals
        near.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.incoming = near

    def keep(self, data: bytes) -> str:
        """Its reference; the object is durable, and the row that names it, when this returns."""
        return self._kept(hashlib.sha256(data).hexdigest(), data)

    def take(self, file: Path, digest: str) -> str:
        """The same for a file that a process of ours has written, and that is not needed any more then."""
        try:
            reference = self._kept(digest, file)
            file.unlink(missing_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise SaveError(f"picture {digest[:12]}: it was not kept ({reason}); send it again") from error
        return reference

    def read(self, reference: str) -> bytes:
        digest = digest_in(reference)
        with self._tables.read() as connection:
            row = connection.execute("SELECT place FROM uploads WHERE reference = ?", (reference,)).fetchone()
        data = None if row is None else self._objects.get(row["place"])
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            self._forget(reference, row)
            is_gone = "it is not kept here (any more)" if data is None else "its file was damaged"
            raise RequestError("picture", reference, f"{is_gone}; upload it again")
        return data

    def has(self, reference: str, connection: Connection) -> bool:
        query = "SELECT 1 FROM uploads WHERE reference = ?"
        return connection.execute(query, (reference,)).fetchone() is not None

    def collect(
        self, wanted: Set[str], connection: Connection, uptime: float, *, keep_seconds: float, keep_bytes: int
    ) -> Collection[str]:
        values = {"wanted": sorted(wanted), "uptime": uptime, "grace": GRACE}
        connection.execute(_WANTED_AGAIN, values)
        connection.execute(_IDLE, values)
        found = connection.execute(_OLD, {**values, "keep_seconds": keep_seconds, "keep_bytes": keep_bytes})
        return [each["place"] for each in found.fetchall()]

    def delete(self, places: Collection[str]) -> None:
        """Soon, and nobody waits for it."""
        self._removals.add(places)

    def _kept(self, digest: str, data: bytes | Path) -> str:
        reference = PICTURE_REFERENCE + digest
        with self._tables.write() as connection:
            if connection.execute(_TOUCH, (reference,)).fetchone() is not None:
                return reference
        content = data if isinstance(data, bytes) else data.read_bytes()
        place = f"{INPUTS}/{secrets.token_hex(8)}-{digest}"
        self._objects.put(place, content)
        with self._tables.write() as connection:
            kept = connection.execute(_ADD, (reference, place, len(content))).fetchone()["place"]
        if kept != place:  # somebody else gave the same meanwhile
            self._removals.add([place])
        return reference

    def _forget(self, reference: str, row: Mapping[str, str] | None) -> None:
        """Of one whose object is lost: who uploads it again is not told that it is there."""
        if row is not None:
            with self._tables.write() as connection:
                found = "DELETE FROM uploads WHERE reference = ? AND place = ?"
                connection.execute(found, (reference, row["place"]))


class ObjectResults:
    """`near`: the folder of this machine where workers write what is then kept."""

    def __init__(self, objects: Objects, near: Path, removals: Removals) -> None:
        self._objects, self._removals = objects, removals
        self._near = ResultFiles(near)

    def path(self, job_id: str, name: str) -> Path:
        """Where a worker writes it, on this machine."""
        return self._near.path(job_id, name)

    def kept(self, job_id: str, names: Iterable[str], known: Mapping[str, KeptFile] | None = None) -> list[KeptFile]:
        """Files of a job with what lies beside them, durable when this returns. `known` are those that a row names."""
        files = list[KeptFile]()
        for name in names:
            beside = (byproduct_file(name, each) for each in BYPRODUCTS)
            written = (each for each in beside if self.path(job_id, each).is_file())
            files += [self._kept(job_id, each, (known or {}).get(each)) for each in (name, *written)]
        return files

    def read(self, job_id: str, file: KeptFile) -> bytes | None:
        """None: there is no such object."""
        return self._objects.get(_place(job_id, file.place))

    def lay_out(self, job_id: str, files: Collection[KeptFile]) -> Path:
        """The folder of this machine where a worker goes on with a job, with what is kept of it."""
        folder = self.path(job_id, "0.png").parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for each in files:
            if not self._near.is_whole(job_id, each) and (data := self.read(job_id, each)) is not None:
                self.path(job_id, each.name).write_bytes(data)
        return folder

    def clear_away(self, job_id: str) -> None:
        """What lies on this machine."""
        self._near.delete(job_id)

    def delete(self, job_id: str) -> None:
        self.clear_away(job_id)
        self._removals.add_folder(f"{RESULTS}/{job_id}")

    def remove(self, job_id: str, files: Iterable[KeptFile]) -> None:
        """Objects that no row names (any more)."""
        self._removals.add([_place(job_id, each.place) for each in files])

    def _kept(self, job_id: str, name: str, known: KeptFile | None) -> KeptFile:
        path = self.path(job_id, name)
        if known is not None and (not path.exists() or self._near.is_whole(job_id, known)):
            return known
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise SaveError(f"{path}: the picture is not there ({reason}): paint it again") from error
        place = f"{secrets.token_hex(8)}-{name}"
        self._objects.put(_place(job_id, place), data)
        return KeptFile(name, len(data), hashlib.sha256(data).hexdigest(), place)


def _place(job_id: str, place: str) -> str:
    return f"{RESULTS}/{job_id}/{place}"
