"""Who reads large bodies: helpers, so that neither a hostile picture nor a large one keeps other clients waiting."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from PIL import Image

from overpaint.errors import PictureError
from overpaint.service.children import command_of
from overpaint.service.guard.decoded_pixels import read_pixels
from overpaint.service.guard.pictures_apart import Apart, PictureApart, unreadable
from overpaint.service.limits import Limits
from overpaint.service.wire import Message
from overpaint.service.workers.helper import HelperProcess

COMMAND = command_of("overpaint.service.helpers.reading")
SECONDS = 60.0  # for one body
READERS = 2


class BodyReaders:
    """Some of them; who finds all busy waits."""

    def __init__(self, folder: Path, limits: Limits, *, command: Sequence[str] = COMMAND) -> None:
        self._folder, self._limits = folder, limits
        self.helpers = [HelperProcess("reader", command, SECONDS) for _ in range(READERS)]
        self._free: SimpleQueue[HelperProcess] = SimpleQueue()
        for each in self.helpers:
            self._free.put(each)

    def json(self, pieces: Sequence[bytes]) -> tuple[Any, Apart] | None:
        """The values of a body, and its pictures; None: it is better read here. Blocks: call it in a thread."""
        answer = self._answer("json", pieces)
        if not answer["is_read"]:
            return None
        return answer["values"], {mark: _picture(each) for mark, each in answer["pictures"].items()}

    def picture(self, pieces: Sequence[bytes]) -> PictureApart | None:
        """A file that was sent as it is; None: it is better read here. Blocks: call it in a thread."""
        told = self._answer("picture", pieces)["picture"]
        return None if told is None else _picture(told)

    def decoded(self, pieces: Sequence[bytes]) -> Image.Image | None:
        """A picture that is fit to be decoded; None: it is better decoded here. Blocks: call it in a thread."""
        return decoded_of(self._answer("decoded", pieces), self._limits)

    def png(self, pieces: Sequence[bytes]) -> bytes:
        """A picture of any format that can be read, as a PNG file. Blocks: call it in a thread."""
        answer = self._answer("png", pieces)
        if "error" in answer:
            raise PictureError(answer["error"])
        path = Path(answer["path"])
        try:
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    def _answer(self, what: str, pieces: Sequence[bytes]) -> Message:
        question = {
            "type": what,
            "size": sum(map(len, pieces)),
            "limits": asdict(self._limits),
            "folder": str(self._folder),
            "mark": secrets.token_hex(16),
        }
        helper = self._free.get()
        try:
            answer = helper.ask(question, pieces)
        finally:
            self._free.put(helper)
        if answer is None:
            unreadable()
        return answer

    def close(self) -> None:
        for each in self.helpers:
            each.close()


def decoded_of(answer: Message, limits: Limits) -> Image.Image | None:
    """The picture whose samples were written, and are forgotten."""
    if "error" in answer:
        raise PictureError(answer["error"])
    if answer["path"] is None:
        return None
    path = Path(answer["path"])
    try:
        return read_pixels(path, limits.source_pixels)
    except (OSError, ValueError, LookupError, TypeError):
        unreadable()
    finally:
        path.unlink(missing_ok=True)


def _picture(told: Message) -> PictureApart:
    path, icc = told.get("path"), told.get("icc")
    plain = {
        "path": None if path is None else Path(path),
        "size": tuple(told.get("size", (1, 1))),
        "notes": tuple(told.get("notes", ())),
        "icc": None if icc is None else base64.b64decode(icc),
    }
    return PictureApart(**{**told, **plain})
