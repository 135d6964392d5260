"""Objects below a prefix of an object store, as the service keeps its pictures there: whole ones, each written once.

A name is never given twice, so nobody who is late can write over what another one has written, and stores that know no
conditions do as well as others. What an object is for, the tables say; see `object_pictures`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from queue import SimpleQueue
from typing import Any, TypeVar

from overpaint.errors import OverpaintError, PictureError, RequestError, SaveError
from overpaint.service.logs import LOGGER, line
from overpaint.service.ports import PicturesRefused
from overpaint.stores import StoreFile, file_named, is_missing, listed_below, opened_store, telling

SECONDS = 60.0  # for one request
PROBED = 5.0  # seconds for which the latest look at the store is believed
_PAUSES = (0.3, 1.0)  # seconds before a request is made again
_AT_ONCE = 500  # objects that one request deletes
_FAREWELL = 5.0  # seconds for what is still to be deleted at the end
_MORE = "the server's log says more"
_LONGEST_QUEUE = 10_000  # deletions; what is left out, a sweep finds

log = logging.getLogger(LOGGER)

_T = TypeVar("_T")


def blobs_named(text: str, argument: str = "--blobs") -> StoreFile:
    """The prefix that a user names."""
    if "://" not in text:
        raise RequestError(argument, text, "give a URL, such as s3://bucket/overpaint; a folder is given as --data")
    place = file_named(text, argument)
    if not isinstance(place, StoreFile):
        raise RequestError(argument, text, "this is a folder; give it as --data, and leave --blobs out")
    if place.url.startswith("memory://"):
        remedy = "it is in the memory of one process, and several work on a store; give s3://, gs:// or az://"
        raise RequestError(argument, text, remedy)
    return place


class Objects:
    """Any thread may ask. What the store refuses is a `SaveError` of one sentence, which names no place: it may be
    told to clients; the log names it."""

    def __init__(self, top: StoreFile) -> None:
        self.top = top
        self._probed = -PROBED
        self._trouble: str | None = None
        self._probing = threading.Lock()

    def put(self, name: str, data: bytes) -> None:
        """It is durable when this returns."""
        self._again(name, lambda fs, path: _asked(fs, "pipe_file", path, data))

    def get(self, name: str) -> bytes | None:
        """None: there is no such object."""
        try:
            return bytes(self._again(name, lambda fs, path: _asked(fs, "cat_file", path)))
        except SaveError as error:
            if _is_missing(error):
                return None
            raise

    def remove(self, names: Collection[str]) -> None:
        """Those that are not there (any more) are no matter."""
        rest = list(names)
        while rest:
            some, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
            try:
                self._once(some[0], lambda fs, path, some=some: _asked(fs, "rm", self._paths(fs, some)))  # type: ignore[misc]
            except SaveError:  # some stores refuse all for one that is not there
                for each in some:
                    self._remove_one(each)

    def names(self, below: str) -> Iterator[str]:
        """Of a folder and all that is in it, with the folder's name; a listing of millions is streamed."""
        folder = self.top / below
        try:
            for each in listed_below(folder, recursive=True):
                yield f"{below}/{each.url[len(folder.url) + 1 :]}"
        except PictureError as error:
            if not is_missing(error.__cause__):
                raise self._told(error) from error

    def trouble(self, mark: str) -> str | None:
        """Why this object cannot be read; None if all is well. Asked often, it asks the store now and then."""
        with self._probing:
            if time.monotonic() - self._probed < PROBED:
                return self._trouble
            try:
                found = self._once(mark, lambda fs, path: _asked(fs, "cat_file", path))
                self._trouble = None if found else "the store of pictures gives nothing back"
            except SaveError as error:
                self._trouble = str(error)
            self._probed = time.monotonic()
            return self._trouble

    def try_out(self, name: str, argument: str = "--blobs") -> None:
        """Whether one may write here, read and delete; what is wrong is said in the store's own words."""
        try:
            self.put(name, name.encode())
            is_whole = self.get(name) == name.encode()
            self._again(name, lambda fs, path: _asked(fs, "rm_file", path))
        except SaveError as error:
            raise RequestError(argument, self.top.url, str(error.__cause__ or error)) from error
        if not is_whole:
            raise RequestError(argument, self.top.url, "it does not give back what was written; give another one")

    # -- inside --------------------------------------------------------------------------------------------------

    def _remove_one(self, name: str) -> None:
        try:
            self._once(name, lambda fs, path: _asked(fs, "rm_file", path))
        except SaveError as error:
            if not _is_missing(error):
                raise

    def _paths(self, fs: Any, names: Collection[str]) -> list[str]:
        return [str(fs._strip_protocol((self.top / each).url)) for each in names]

    def _again(self, name: str, ask: Callable[[Any, str], _T]) -> _T:
        """What a store could not do just now it may do a moment later; then those who wait are told."""
        for pause in _PAUSES:
            try:
                return self._once(name, ask)
            except SaveError as error:  # noqa: PERF203 (it comes of trying again)
                cause = _cause(error)
                if is_missing(cause) or isinstance(cause, PermissionError):
                    raise
                time.sleep(pause)
        return self._once(name, ask)

    def _once(self, name: str, ask: Callable[[Any, str], _T]) -> _T:
        place = self.top / name
        try:
            fs, path = opened_store(place)
            with telling(place, SaveError):
                return ask(fs, path)
        except (SaveError, PictureError) as error:
            raise self._told(error) from error

    def _told(self, error: OverpaintError) -> PicturesRefused:
        """For whoever asked a server: whose bucket it is, and what its store says, is no client's business."""
        cause = error.__cause__
        if is_missing(cause):
            return PicturesRefused("the store of pictures has no such bucket or picture")
        log.warning(line("blobs-refused", place=self.top.url, error=error))
        if isinstance(cause, PermissionError) or "no rights there" in str(error):
            return PicturesRefused(f"the store of pictures gives no rights to what is kept there; {_MORE}")
        kind = type(cause or error).__name__
        return PicturesRefused(f"the store of pictures does not answer as it should ({kind}); {_MORE}")


class Removals:
    """Deletes objects on a thread of its own: nobody waits for that. What is lost at the end, a sweep finds."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self._todo = objects, SimpleQueue[Callable[[], None] | None]()
        self._thread = threading.Thread(target=self._work, daemon=True, name="removals")
        self._thread.start()

    def add(self, names: Collection[str]) -> None:
        if names and self._todo.qsize() < _LONGEST_QUEUE:
            self._todo.put(lambda: self._objects.remove(names))

    def add_folder(self, below: str) -> None:
        if self._todo.qsize() < _LONGEST_QUEUE:
            self._todo.put(lambda: self._objects.remove(list(self._objects.names(below))))

    def then(self, what: Callable[[], None]) -> None:
        """When all that was asked for before is done."""
        self._todo.put(what)

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until all that was asked for so far is done."""
        done = threading.Event()
        self._todo.put(done.set)
        return done.wait(seconds)

    def close(self) -> None:
        self._todo.put(None)
        self._thread.join(_FAREWELL)

    def _work(self) -> None:
        while (what := self._todo.get()) is not None:
            try:
                what()
            except OverpaintError as error:  # noqa: PERF203 (one that fails keeps no other from being deleted)
                log.warning(line("not-removed", place=self._objects.top.url, error=error))
            except Exception:
                log.exception(line("not-removed", place=self._objects.top.url))


def _asked(fs: Any, what: str, *values: Any) -> Any:
    """Within bounds, where the store's package knows any: else a store that is gone would be waited for for minutes."""
    if getattr(fs, "async_impl", False):
        return import_module("fsspec.asyn").sync(fs.loop, getattr(fs, f"_{what}"), *values, timeout=SECONDS)
    return getattr(fs, what)(*values)


def _cause(error: SaveError) -> BaseException | None:
    """What the store's package raised."""
    return error.__cause__.__cause__ if error.__cause__ is not None else None


def _is_missing(error: SaveError) -> bool:
    return is_missing(_cause(error))
