"""`PostgresObjectStore`: jobs and their events in PostgreSQL, their pictures in an object store. No disk is shared.

What a process needs on its own disk, while it reads bodies or has jobs painted, lies in a folder of its own.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NoReturn

from overpaint.errors import RequestError, SaveError
from overpaint.service.jobs import Job
from overpaint.service.limits import Limits
from overpaint.service.ports import ClaimLost, Damaged
from overpaint.service.store.forms import plain
from overpaint.service.store.object_pictures import INPUTS, RESULTS, ObjectResults, ObjectSources
from overpaint.service.store.objects import Objects, Removals
from overpaint.service.store.postgres_store import PostgresStore
from overpaint.service.store.result_files import KeptFile, is_kept
from overpaint.service.store.room import takes_files
from overpaint.service.store.scratch import Scratch
from overpaint.service.store.source_files import SourceFiles, references_in
from overpaint.service.store.store_on_tables import STAMP
from overpaint.stores import StoreFile

SWEEPING = 3600.0  # seconds between looks for objects that no row names
_CHUNK = 1000  # objects that are asked for at once
_DEFAULT_LIMITS = Limits()


class PostgresObjectStore(PostgresStore):
    """`data` is the folder of this process, which is taken away at its end."""

    _results: ObjectResults
    _sources: ObjectSources
    _kind_of_place = "place"

    def __init__(
        self,
        address: str,
        near: Path,
        blobs: StoreFile,
        limits: Limits = _DEFAULT_LIMITS,
        *,
        is_open: bool = False,
        migrate: bool = False,
    ) -> None:
        self._objects, self._blobs = Objects(blobs), blobs
        self._laid_out: dict[str, list[frozenset[str]]] = {}  # the sources of each attempt that is at work here
        self._lock = threading.Lock()
        self._swept, self._unnamed = time.monotonic(), frozenset[str]()
        try:
            self._scratch = Scratch(near / "scratch")
        except OSError as error:
            remedy = f"nothing can be kept there meanwhile ({error.strerror}); give a folder of this machine"
            raise RequestError("--data", str(near), remedy) from error
        self._removals = Removals(self._objects)
        try:
            self._objects.try_out(f"try-{secrets.token_hex(8)}")
            super().__init__(address, self._scratch.folder, limits, is_open=is_open, migrate=migrate)
        except BaseException:
            self._put_away()
            raise

    def _open_pictures(self) -> None:
        self._near_sources = SourceFiles(self.data / INPUTS)
        self._sources = ObjectSources(self._objects, self._database, self._near_sources.incoming, self._removals)
        self._results = ObjectResults(self._objects, self.data / RESULTS, self._removals)

    def _mark(self) -> str | None:
        found = self._objects.get(STAMP)
        return None if found is None else found.decode(errors="replace").strip()

    def _set_mark(self, own: str) -> None:
        self._objects.put(STAMP, own.encode())

    def _refuse_place(self, remedy: str) -> NoReturn:
        raise RequestError("--blobs", self._blobs.url, remedy)

    # -- results -------------------------------------------------------------------------------------------------

    def has_result(self, job_id: str, name: str) -> bool:
        return any(each.name == name for each in self._files_of(job_id))

    def results_size(self) -> int:
        with self._database.read() as connection:
            return int(connection.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0])

    def result_bytes(self, job_id: str, name: str) -> bytes:
        self.result_file(job_id, name)  # refuses what is no name
        file = next((each for each in self._files_of(job_id) if each.name == name), None)
        if file is None:
            raise FileNotFoundError(f"job {job_id}: it has no picture {name}")
        data = self._results.read(job_id, file)
        if data is None:
            raise Damaged(f"job {job_id}: its picture {name} is not there any more; paint it again")
        if not is_kept(file, data):
            self._shelf.say(f"{RESULTS}/{job_id}/{file.place}: it is not what was kept")
            raise Damaged(f"job {job_id}: its picture {name} was damaged in its store; paint it again")
        return data

    @contextmanager
    def _kept(self, job_id: str, names: Collection[str]) -> Iterator[Sequence[KeptFile]]:
        """What no row names afterwards is deleted: what it takes the place of, or itself, if its claim was lost."""
        known = {each.name: each for each in self._files_of(job_id)}
        files = self._results.kept(job_id, names, known)
        is_told = False  # whether the transaction went on to its end, or was broken off by us
        try:
            yield files
            is_told = True
        except (ClaimLost, RequestError, KeyError):
            is_told = True
            raise
        finally:
            if is_told:
                with suppress(SaveError):  # then a sweep finds it
                    named = {each.place for each in self._files_of(job_id)}
                    rest = {each.place: each for each in (*known.values(), *files) if each.place not in named}
                    self._results.remove(job_id, rest.values())

    def _files_of(self, job_id: str) -> list[KeptFile]:
        query = "SELECT name, bytes, sha256, place FROM files JOIN jobs ON jobs.number = files.job WHERE id = ?"
        with self._database.read() as connection:
            return [KeptFile(**dict(each)) for each in connection.execute(query, (job_id,)).fetchall()]

    # -- on this machine -----------------------------------------------------------------------------------------

    def lay_out(self, job: Job) -> Path:
        needed = frozenset(references_in(plain(job.request)))
        with self._lock:
            self._laid_out.setdefault(job.id, []).append(needed)
        for each in needed:
            if not self._near_sources.is_there(each):
                with suppress(RequestError):  # the worker will say that it is not there
                    self._near_sources.keep(self._sources.read(each))
        return self._results.lay_out(job.id, self._files_of(job.id))

    def clear_away(self, job_id: str) -> None:
        with self._lock:
            attempts = self._laid_out.get(job_id, [])
            done = attempts.pop() if attempts else frozenset[str]()
            if attempts:  # a later one goes on with the job, while an earlier one lost it
                return
            self._laid_out.pop(job_id, None)
            for each in done.difference(*(needed for others in self._laid_out.values() for needed in others)):
                self._near_sources.remove(each)
        self._results.clear_away(job_id)

    def takes_pictures(self) -> bool:
        if not takes_files(self.data):
            return False
        try:
            self._objects.try_out(f"try-{secrets.token_hex(8)}")
        except (SaveError, RequestError):
            return False
        return True

    def trouble(self) -> str | None:
        return super().trouble() or self._objects.trouble(STAMP)

    # -- the rest ------------------------------------------------------------------------------------------------

    def expire(self, *, keep_seconds: float, keep_bytes: int) -> Sequence[str]:
        gone = super().expire(keep_seconds=keep_seconds, keep_bytes=keep_bytes)
        if time.monotonic() - self._swept >= SWEEPING:
            self._swept = time.monotonic()
            self._removals.then(self.sweep)
        return gone

    def sweep(self) -> None:
        """Delete what a killed process has left: objects that no row names now, nor did at the look before."""
        unnamed = set[str]()
        for folder, named in ((INPUTS, self._named_inputs), (RESULTS, self._named_results)):
            names = self._objects.names(folder)
            while some := list(islice(names, _CHUNK)):
                unnamed.update(set(some) - named(some))
        self._objects.remove(sorted(unnamed & self._unnamed))
        self._unnamed = frozenset(unnamed - self._unnamed)

    def settle(self) -> None:
        """Wait for what is deleted meanwhile."""
        self._removals.settle()

    def close(self) -> None:
        super().close()
        self._put_away()

    def _put_away(self) -> None:
        self._removals.close()
        self._scratch.close()

    def _named_inputs(self, names: Sequence[str]) -> set[str]:
        with self._database.read() as connection:
            found = connection.execute("SELECT place FROM uploads WHERE place = ANY(?)", (list(names),))
            return {each["place"] for each in found.fetchall()}

    def _named_results(self, names: Sequence[str]) -> set[str]:
        jobs = sorted({each.split("/")[1] for each in names})
        query = "SELECT id, place FROM files JOIN jobs ON jobs.number = files.job WHERE id = ANY(?)"
        with self._database.read() as connection:
            return {f"{RESULTS}/{each['id']}/{each['place']}" for each in connection.execute(query, (jobs,)).fetchall()}
