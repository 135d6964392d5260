"""The journal of a batch in a folder: a file of lines, each on disk before the next thing happens, and its lock.

The lock dies with the process.

A batch in parts (`shards`) has a journal for each part. Whoever opens one reads all of them. So has each worker of a
batch that is handed out (`cluster`); who opens the batch's own afterwards takes them in.
"""

from __future__ import annotations

import math
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from overpaint.errors import RequestError, SaveError
from overpaint.files.ledger import Ledger
from overpaint.files.places import FolderPlace
from overpaint.files.saving import save_first_free

if TYPE_CHECKING:
    from overpaint.files.shards import Shard

JOURNAL_NAME = "overpaint-batch.jsonl"
_JOURNALS = re.compile(r"overpaint-batch(?:-\d+-of-(\d+)|-worker-([0-9a-z-]+))?\.jsonl")
_SEED_NAME = "overpaint-batch-{}.seed"
_TORN = re.compile(r"\.[0-9a-f]{16}\.tmp")  # as `saving` names what is not whole yet
_SURELY_TORN = 3600.0  # seconds after which nobody is still writing such a file
_FAR = 1 << 30  # where Windows locks a byte, so that others can read what stands at the beginning


class Journal(Ledger):
    """An append-only file in the output folder, and a lock on it."""

    def __init__(self, folder: Path, shard: Shard | None = None, *, worker: str = "") -> None:
        super().__init__(FolderPlace(folder))
        self._folder, self._shard, self._worker = folder, shard, worker
        self._path = folder / _journal_name(shard, worker)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Journal:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise SaveError(f"{self._folder}: the batch cannot write there ({error.strerror})") from error
        try:
            _lock(self._file, self._folder)
            self._check_others()
            self.read_others()
            self._read(self._file)
            if self._path.name == JOURNAL_NAME:
                self.take_in_workers()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def read_others(self) -> None:
        for path in journals_in(self._folder):
            if path != self._path:
                self._take_all(path.read_bytes())

    def take_in_workers(self, *, remember: bool = True) -> None:
        """In the order in which it happened.

        NOTE: if the end comes between the copy and the removal, the lines are copied again, which changes nothing.
        """
        for path in journals_in(self._folder):
            if not _is_of_worker(path) or _is_locked(path):
                continue
            data = path.read_bytes()
            self._write(data if data.endswith(b"\n") or not data else data + b"\n")
            if remember:
                self._take_all(data)
            with suppress(OSError):
                path.unlink()

    def remove_torn(self) -> None:
        """The lock says that no other batch writes here now; but other shards may."""
        youngest = math.inf if self._shard is None else self._now() - _SURELY_TORN
        for path in self._folder.rglob(".*.tmp"):
            if _TORN.fullmatch(path.name):
                with suppress(OSError):
                    if path.stat().st_mtime < youngest:
                        path.unlink(missing_ok=True)

    def _now(self) -> float:
        """The time by the clock that dates files here, which may be another machine's."""
        os.utime(self._path)
        return self._path.stat().st_mtime

    def seed_of(self, batch: str, asked: str, fresh: int) -> int:
        if batch not in self._seeds:
            self._append({"batch": batch, "seed": self._agreed(asked, fresh)})
        return self._seeds[batch]

    def known_seed(self, batch: str, asked: str) -> int | None:
        if batch in self._seeds:
            return self._seeds[batch]
        with suppress(OSError, ValueError):
            return int((self._folder / _SEED_NAME.format(asked)).read_bytes())
        return None

    def _agreed(self, asked: str, fresh: int) -> int:
        """The seed that all parts of a batch take: the one that was written first."""
        path = self._folder / _SEED_NAME.format(asked)
        if self._shard is not None and not path.exists():
            with suppress(SaveError):  # another part was faster; if not, the next line fails
                save_first_free([path], str(fresh).encode())
        try:
            return int(path.read_bytes())
        except FileNotFoundError:
            if self._shard is None:
                return fresh
            raise SaveError(f"{path}: the seed of the batch cannot be kept; give --seed") from None
        except (OSError, ValueError) as error:
            raise SaveError(f"{path}: the seed of the batch cannot be read ({error}); give --seed") from error

    def _check_others(self) -> None:
        """A batch in parts may be painted by all its parts at once, and by nobody else.

        NOTE: the own lock comes first. Of two that do not go together and start at once, one sees the other.
        """
        for path in journals_in(self._folder):
            if path != self._path and not self._goes_with(path) and _is_locked(path):
                remedy = "another batch, or one in other shards, is writing there; wait for it or give another folder"
                raise RequestError("OUT", str(self._folder), remedy)

    def _goes_with(self, other: Path) -> bool:
        if self._worker:  # its batch's own is locked by who hands out
            return other.name == JOURNAL_NAME or _is_of_worker(other)
        found = _JOURNALS.fullmatch(other.name)
        return self._shard is not None and found is not None and found[1] == str(self._shard.of)

    def _write(self, lines: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise SaveError(f"{self._path}: the journal cannot be written ({error.strerror})") from error

    def _read(self, file: BinaryIO) -> None:
        file.seek(0)
        data = file.read()
        self._take_all(data)
        if data and not data.endswith(b"\n"):
            file.write(b"\n")


def read_journals(folder: Path) -> Journal:
    """What all journals of a folder say by now, to look at; nothing is locked or written."""
    journal = Journal(folder)
    for path in journals_in(folder):
        journal._take_all(path.read_bytes())
    return journal


def results_in(folder: Path) -> set[Path]:
    """The files in a folder that are, byte for byte, what batches have written there."""
    journal = read_journals(folder)
    return {(folder / name).resolve() for name in journal._owners if journal.wrote(name)}


def workers_writing(folder: Path) -> bool:
    """Whether workers of a batch are still at it, such as those of one that was killed a moment ago."""
    return any(_is_of_worker(path) and _is_locked(path) for path in journals_in(folder))


def _journal_name(shard: Shard | None, worker: str) -> str:
    if worker:
        return f"overpaint-batch-worker-{worker}.jsonl"
    return JOURNAL_NAME if shard is None else f"overpaint-batch-{shard.number}-of-{shard.of}.jsonl"


def _is_of_worker(path: Path) -> bool:
    found = _JOURNALS.fullmatch(path.name)
    return found is not None and found[2] is not None


def journals_in(folder: Path) -> list[Path]:
    """The journals of a folder: of whole batches, and of parts."""
    try:
        found = [each for each in folder.iterdir() if _JOURNALS.fullmatch(each.name)]
    except OSError:
        return []
    return sorted(each for each in found if each.is_file())


def _lock(file: BinaryIO, folder: Path) -> None:
    try:
        _try_lock(file)
    except OSError:
        file.close()
        remedy = "another batch is writing there; wait for it or give another folder"
        raise RequestError("OUT", str(folder), remedy) from None


def _is_locked(path: Path) -> bool:
    """Whether somebody writes a journal. Looking is in nobody's way who looks, too."""
    with path.open("r+b") as file:
        try:
            _try_lock(file, shared=True)
        except OSError:
            return True
    return False


def _try_lock(file: BinaryIO, *, shared: bool = False) -> None:
    """Until the file is closed."""
    if sys.platform == "win32":
        import msvcrt

        place = file.tell()
        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(place)
    else:
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
