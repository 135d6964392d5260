"""Pictures that were taken out of a body before its door saw it: checked, decoded once, and written down.

A process of its own does that (`helpers.reading`). In a body of JSON a mark stands for each; a file that was sent as it
is, alone or in a form, is known by its digest. Both mean something to their own request only.
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
from overpaint.upright import NOTES, SOURCE_MODE

WORTH_IT = 2**20  # bytes of a body or a file; smaller ones are read where they are
MANY = 2**22  # pixels of a picture that is decoded apart, however small its file
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
    mode: str = ""  # of the decoded picture, where its mode and its profile say all about it but the pixels
    source_mode: str = ""  # of its file
    notes: tuple[str, ...] = ()  # what its user should know of it
    icc: bytes | None = None
    lowest_alpha: int | None = None  # of 255; None: nothing in it can be transparent

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
        self.check()
        return Image.new("L", self.size, None)

    def stand_in(self) -> Image.Image | None:
        """The same with all that the picture says of itself beside its pixels; None if that is not known."""
        self.check()
        if not self.mode:
            return None
        picture = Image.new(self.mode, self.size, None)
        picture.info[SOURCE_MODE] = self.source_mode
        if self.notes:
            picture.info[NOTES] = self.notes
        if self.icc is not None:
            picture.info["icc_profile"] = self.icc
        return picture

    def check(self) -> None:
        """Raise what was wrong when it was decoded."""
        if self.broken is not None:
            raise PictureError(self.broken)

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

    def png(self, pieces: Sequence[bytes]) -> bytes:
        """A picture of any format that can be read, as a PNG file."""
        ...

    def decoded(self, pieces: Sequence[bytes]) -> Image.Image | None:
        """A picture that is fit to be decoded; None: it is better decoded here."""
        ...

    def picture(self, pieces: Sequence[bytes]) -> PictureApart | None:
        """A file that was sent as it is; None: it is better read here."""
        ...

    def close(self) -> None: ...


def unreadable() -> NoReturn:
    """The process ended over a body."""
    raise PictureError("body: reading it takes more memory or time than it may; send smaller or fewer pictures")
