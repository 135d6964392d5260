"""Where a batch writes: a folder, or a prefix of an object store. Both can say, in one step, who was first.

A folder links a whole file under its name; a store is asked to create an object if there is none. What a batch decides
by that, it decides in `ledger` and `batch`, once for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Protocol

from overpaint.errors import SaveError
from overpaint.files.saving import save_first_free
from overpaint.stores import AnyFile, StoreFile, opened_store, telling

STEPS_FOLDER = ".overpaint-steps"  # below the output, as long as a row with a tool is not done
_TRIES, _PAUSE = 5, 0.2  # of a store that is busy with another request for the same name


class OutPlace(Protocol):
    """What is asked of where a batch writes. Names are relative, with slashes."""

    def is_taken(self, name: str) -> bool:
        """Whether anything has this name."""
        ...

    def is_file(self, name: str) -> bool: ...

    def is_held(self, name: str) -> bool:
        """Whether the name is there and its content is still to come."""
        ...

    def read(self, name: str) -> bytes: ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a whole file if the name is free; says whether it was."""
        ...

    def replace(self, name: str, data: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def beside(self, name: str) -> AnyFile:
        """The folder that a file of this name lies in."""
        ...

    def steps(self) -> Path:
        """Where the steps of tools are kept meanwhile."""
        ...


@dataclass(frozen=True)
class FolderPlace:
    """A folder, or a share."""

    folder: Path

    def is_taken(self, name: str) -> bool:
        return (self.folder / name).exists()

    def is_file(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def is_held(self, name: str) -> bool:
        path = self.folder / name
        return path.exists() and path.stat().st_size == 0

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def create(self, name: str, data: bytes) -> bool:
        self._make_folder(name)
        try:
            save_first_free([self.folder / name], data)
        except SaveError as error:
            if isinstance(error.__cause__, FileExistsError):
                return False
            raise
        return True

    def replace(self, name: str, data: bytes) -> None:
        self._make_folder(name)
        save_first_free([self.folder / name], data, replace=True)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def beside(self, name: str) -> Path:
        return (self.folder / name).parent

    def steps(self) -> Path:
        return self.folder / STEPS_FOLDER

    def _make_folder(self, name: str) -> None:
        folder = self.beside(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{folder}: the folder cannot be made ({error.strerror})") from error


@dataclass
class StorePlace:
    """A prefix of an object store. `names` are those that were there when it was looked at; None: it was not."""

    top: StoreFile
    is_strict: bool = True  # the store refuses to create what is there
    names: set[str] | None = field(default=None, repr=False)

    def is_taken(self, name: str) -> bool:
        return (self.top / name).is_file()

    def is_file(self, name: str) -> bool:
        return name in self.names if self.names is not None else self.is_taken(name)

    def is_held(self, name: str) -> bool:
        return False  # an object is there whole, or not at all

    def read(self, name: str) -> bytes:
        return (self.top / name).read_bytes()

    def create(self, name: str, data: bytes) -> bool:
        place = self.top / name
        if not self.is_strict and place.is_file():
            return False
        fs, path = opened_store(place)
        with telling(place, SaveError):
            try:
                _put(partial(fs.pipe_file, path, data, **({"mode": "create"} if self.is_strict else {})))
            except FileExistsError:
                return False
        self._note(name)
        return True

    def replace(self, name: str, data: bytes) -> None:
        place = self.top / name
        fs, path = opened_store(place)
        with telling(place, SaveError):
            _put(partial(fs.pipe_file, path, data))
        self._note(name)

    def remove(self, name: str) -> None:
        fs, path = opened_store(self.top / name)
        with telling(self.top / name, SaveError), suppress(FileNotFoundError):
            fs.rm_file(path)

    def beside(self, name: str) -> StoreFile:
        return (self.top / name).parent

    def steps(self) -> Path:
        """Of this machine: what a tool has made so far is lost with it."""
        return Path(gettempdir()) / STEPS_FOLDER

    def try_out(self, name: str, data: bytes) -> None:
        """Whether one may write here, and whether the store refuses to create what is there: some do not know how."""
        try:
            self.create(name, data)
            self.is_strict = not self.create(name, data)
        except SaveError as error:
            if not isinstance(error.__cause__, NotImplementedError | TypeError | ValueError):
                raise
            self.is_strict = False
            self.create(name, data)

    def _note(self, name: str) -> None:
        if self.names is not None:
            self.names.add(name)


def _put(write: Callable[[], object], tries: int = _TRIES) -> None:
    try:
        write()
    except OSError as error:
        if tries == 1 or "Conflict" not in f"{error} {error.__cause__}":
            raise
        time.sleep(_PAUSE)
        _put(write, tries - 1)


def place_at(out: AnyFile) -> OutPlace:
    return StorePlace(out) if isinstance(out, StoreFile) else FolderPlace(out)
