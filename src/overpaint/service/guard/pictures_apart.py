"""Pictures that were taken out of a body before its door saw it: checked, decoded once, and written down.

A process of its own does that (`helpers.reading`). In the body a mark stands for each. A mark means something to its
own request only, and nobody can guess one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from PIL import Image

from overpaint.errors import PictureError
from overpaint.service.ports import TooLarge

WORTH_IT = 2**20  # bytes of a body; smaller ones are read where they are
LONGEST_MARK = 64


@dataclass(frozen=True, kw_only=True)
class PictureApart:
    """What is known of one of them."""

    too_large: str | None = None  # more bytes than a picture may have, to be said behind the name of its field
    path: Path | None = None  # of its file, which has no name in the store yet
    digest: str = ""
    pixels: int | None = None  # None: it is not fit to be decoded, and was not
    size: tuple[int, int] = (1, 1)  # of the decoded picture
    broken: str | None = None  # what was wrong when it was decoded

    def read(self, name: str) -> bytes:
        """Its file. Reads the disk: call it in a thread."""
        if self.too_large is not None:
            raise TooLarge(f"{name}: {self.too_large}")
        assert self.path is not None
        return self.path.read_bytes()

    def measure(self) -> Image.Image:
        """A picture of its size, for who does not look at the pixels; what cannot be decoded is an error.

        NOTE: memory that nobody has written to costs nothing.
        """
        if self.broken is not None:
            raise PictureError(self.broken)
        return Image.new("L", self.size, None)

    def discard(self) -> None:
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


Apart = Mapping[str, PictureApart]  # by mark


class BodyReader(Protocol):
    """Reads large bodies where that costs nobody anything. Blocks: call it in a thread."""

    def json(self, pieces: Sequence[bytes]) -> tuple[Any, Apart] | None:
        """The values of a body, and its pictures; None: it is better read here."""
        ...

    def png(self, data: bytes) -> bytes:
        """A picture of any format that can be read, as a PNG file."""
        ...

    def close(self) -> None: ...


def unreadable() -> NoReturn:
    """The process ended over a body."""
    raise PictureError("body: reading it takes more memory or time than it may; send smaller or fewer pictures")
