"""The ledger of a batch in an object store: each line an object of its own, since nothing can be added to one.

    OUT/.overpaint-batch/lines/TIME-CHANCE.jsonl   what was said; many small ones become a large one
    OUT/.overpaint-batch/seed-NAME                 the first who needs a seed chooses it
    OUT/.overpaint-batch/format.json               tells whether the store can refuse to create what is there

Nobody is locked out, since a store knows no locks: a name belongs to whoever creates it first.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from types import TracebackType

from overpaint.errors import OverpaintError, PictureError, SaveError
from overpaint.files.ledger import Ledger
from overpaint.files.places import StorePlace
from overpaint.stores import StoreFile, listed_below

LEDGER_FOLDER = ".overpaint-batch"
_LINES = f"{LEDGER_FOLDER}/lines"
_FORMAT = f"{LEDGER_FOLDER}/format.json"
_AT_ONCE = 16  # requests
_CHUNK = 400  # objects that are read, or become one
_SMALL = 1 << 16  # bytes of an object that is worth to be put together with others
_WORTH_A_LOOK = 100  # finished rows; to ask for each of fewer is as quick as a listing


class StoreLedger(Ledger):
    """`is_leader`: it may put together what others wrote; who paints a part only looks after its own."""

    place: StorePlace

    def __init__(self, top: StoreFile, *, is_leader: bool = True) -> None:
        super().__init__(StorePlace(top))
        self._is_leader = is_leader
        self._read: set[str] = set()
        self._own: dict[str, bytes] = {}  # written and not put together yet
        self._may_remove = True

    def __enter__(self) -> StoreLedger:
        self.place.try_out(_FORMAT, json.dumps({"format": 1}).encode())
        self._take_in(merge=self._is_leader)
        self._look_around()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OverpaintError):  # everything is said already
            self._merge(self._own)

    def look(self) -> StoreLedger:
        """At what is known by now; nothing is written."""
        self._take_in(merge=False)
        return self

    def read_others(self) -> None:
        self._take_in(merge=False)

    def take_in_workers(self, *, remember: bool = True) -> None:
        self._take_in(merge=True, remember=remember)

    def seed_of(self, batch: str, asked: str, fresh: int) -> int:
        self.place.create(_seed_name(asked), str(fresh).encode())
        known = self.known_seed(batch, asked)
        if known is None:
            raise SaveError(f"{self.place.top}: the seed of the batch cannot be kept; give --seed")
        return known

    def known_seed(self, batch: str, asked: str) -> int | None:
        if not self.place.is_taken(_seed_name(asked)):
            return None
        try:
            return int(self.place.read(_seed_name(asked)))
        except ValueError as error:
            raise SaveError(f"{self.place.top}: the seed of the batch cannot be read ({error}); give --seed") from error

    def done(self, key: str) -> None:
        """With all that was promised, so that this one object says everything."""
        self._append({"row": key, "files": dict(self._entries[key].files), "done": True})

    def _write(self, lines: bytes) -> None:
        name = f"{_LINES}/{time.time_ns():020d}-{secrets.token_hex(8)}.jsonl"
        self.place.replace(name, lines)
        self._read.add(name)
        self._own[name] = lines
        if len(self._own) >= _CHUNK:
            self._merge(self._own)

    def _take_in(self, *, merge: bool, remember: bool = True) -> None:
        """Until nothing is new: what is put together by another one while it is read is found under its new name."""
        while new := sorted(each for each in self._listed() if each not in self._read):
            names = iter(new)
            while chunk := list(islice(names, _CHUNK)):
                found = self._contents(chunk)
                if remember:
                    for data in found.values():
                        self._take_all(data)
                self._read.update(chunk)
                if merge:
                    self._merge({name: data for name, data in found.items() if len(data) < _SMALL})

    def _listed(self) -> Iterator[str]:
        folder = self.place.top / _LINES
        try:
            for each in listed_below(folder, recursive=False):
                yield f"{_LINES}/{each.name}"
        except PictureError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise

    def _contents(self, names: list[str]) -> dict[str, bytes]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            read = pool.map(self._content, names)
        return {name: data for name, data in zip(names, read, strict=True) if data is not None}

    def _content(self, name: str) -> bytes | None:
        try:
            return self.place.read(name)
        except PictureError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # put together meanwhile
                return None
            raise

    def _merge(self, lines: dict[str, bytes]) -> None:
        """The whole first, then away with the parts: whoever is killed between leaves what was said twice, which
        changes nothing. Its name is as old as its newest line, so that it is read before what was said later."""
        if len(lines) > 1 and self._may_remove:
            name = f"{max(lines)[: len(_LINES) + 21]}-{secrets.token_hex(8)}.jsonl"
            self.place.replace(name, b"".join(lines[each] for each in sorted(lines)))
            self._read.add(name)
            try:
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    list(pool.map(self.place.remove, lines))
            except SaveError:  # it may write and not remove; many small ones are no mistake
                self._may_remove = False
        if lines is self._own:
            self._own = {}

    def _look_around(self) -> None:
        """Which results are there, by one listing instead of a request for each, unless much else is there, too."""
        done = sum(len(each.files) for each in self._entries.values() if each.done)
        if done < _WORTH_A_LOOK:
            return
        top, most = self.place.top, 4 * done + 10_000
        below = (each.url[len(top.url) + 1 :] for each in listed_below(top, recursive=True))
        names = set(islice(below, most))
        self.place.names = names if len(names) < most else None


def _seed_name(asked: str) -> str:
    return f"{LEDGER_FOLDER}/seed-{asked}"
