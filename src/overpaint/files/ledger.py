"""What is known of a batch: which rows are done, whose a file is, which seed all have; decided here for every place.

Before its files are written a row's names and hashes are promised, afterwards it is said to be done. So whatever moment
a process dies at, what was said and what lies there tell together whether a row's pictures are whole. Where it is
written, and what keeps others away, is `journal` for folders, and `store_ledger` for object stores.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from overpaint.files.places import OutPlace


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What is known of a row: the files it promised, by name with their SHA-256, and whether all were written."""

    files: Mapping[str, str] = field(default_factory=dict)
    done: bool = False
    part: bool = False  # the row was stopped: these are not all its pictures


class Ledger(AbstractContextManager["Ledger"], ABC):
    """Lines that are only ever added. Use it as a context manager."""

    def __init__(self, place: OutPlace) -> None:
        self.place = place
        self._entries: dict[str, JournalEntry] = {}
        self._seeds: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        self._rivals: dict[str, set[str]] = {}  # names that several rows promised

    @abstractmethod
    def _write(self, lines: bytes) -> None:
        """Durably, before anything else happens."""

    @abstractmethod
    def read_others(self) -> None:
        """What others have said by now."""

    @abstractmethod
    def take_in_workers(self, *, remember: bool = True) -> None:
        """What workers wrote who are gone becomes part of what the batch itself keeps."""

    @abstractmethod
    def seed_of(self, batch: str, asked: str, fresh: int) -> int:
        """The seed that a batch without one was given when it first ran (BATCH-1). `asked` names what is asked of all
        its rows: on another machine the same model file may have another date, and so the batch another name."""

    @abstractmethod
    def known_seed(self, batch: str, asked: str) -> int | None:
        """The same, if it was ever given."""

    def remove_torn(self) -> None:
        """What a killed process was writing, where such things stay."""

    def forget_rows(self) -> None:
        """For who needs the lock and the seed only: what is known of a hundred thousand rows fills 80 MB."""
        self._entries.clear()
        self._owners.clear()
        self._rivals.clear()

    def entry(self, key: str) -> JournalEntry | None:
        """What is known of a row."""
        return self._entries.get(key)

    def owner(self, name: str) -> str | None:
        """The row that promised the file of this name; of several, the one whose file it is."""
        last = self._owners.get(name)
        rivals: list[str] = [last, *self._rivals.get(name, ())] if last is not None else []
        claims = [key for key in rivals if key in self._entries and name in self._entries[key].files]
        if len(rivals) == 1 or not claims:
            return last
        return next((key for key in claims if self._wrote(key, name)), claims[0])

    def promise(self, key: str, name: str, files: Mapping[str, str], *, part: bool = False) -> None:
        """Say what is about to be written; `name` is for people who read the journal."""
        self._append({"row": key, "name": name, "files": dict(files), "part": part})

    def done(self, key: str) -> None:
        """Say that all that was promised is written."""
        self._append({"row": key, "done": True})

    def whole(self, key: str) -> bool:
        """Whether a row needs no more work: marked done and not deleted since, or written just before the end came."""
        entry = self.entry(key)
        if entry is None or entry.part or not entry.files:
            return False
        if entry.done:
            return all(self.place.is_file(name) for name in entry.files)
        return all(self._wrote(key, name) for name in entry.files)

    def wrote(self, name: str) -> bool:
        """Whether the file of this name is, byte for byte, the one that was promised."""
        owner = self.owner(name)
        return owner is not None and self._wrote(owner, name)

    def _wrote(self, key: str, name: str) -> bool:
        promised = self._entries[key].files.get(name) if key in self._entries else None
        if promised is None or not self.place.is_file(name):
            return False
        return hashlib.sha256(self.place.read(name)).hexdigest() == promised

    def _append(self, line: Mapping[str, Any]) -> None:
        self._write(json.dumps(line).encode() + b"\n")
        self._take(line)

    def _take_all(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            with suppress(ValueError):  # the last line of a process that was killed
                self._take(json.loads(line))

    def _take(self, line: Any) -> None:
        if not isinstance(line, Mapping):
            return
        key, files = line.get("row"), line.get("files")
        if isinstance(line.get("batch"), str) and isinstance(line.get("seed"), int):
            self._seeds[line["batch"]] = line["seed"]
        elif isinstance(key, str) and isinstance(files, Mapping):
            self._entries[key] = JournalEntry(dict(files), line.get("done") is True, line.get("part") is True)
            for name in files:
                self._note_owner(name, key)
        elif isinstance(key, str) and line.get("done") is True and key in self._entries:
            self._entries[key] = JournalEntry(self._entries[key].files, done=True)

    def _note_owner(self, name: str, key: str) -> None:
        before, self._owners[name] = self._owners.get(name, key), key
        if before != key:
            self._rivals.setdefault(name, set()).add(before)
