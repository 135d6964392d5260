"""Pictures from strangers: judged by their bytes alone, before any decoder sees them.

Every chunk is walked within bounds, compressed texts and profiles are unpacked no further than their limit, and what a
header promises is held against the limits. A picture that passes may still be broken inside; then decoding says so.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from overpaint.errors import PictureError
from overpaint.heic import HEIC_BRANDS
from overpaint.pictures import open_picture
from overpaint.service.config import ServeConfig
from overpaint.service.guard.boxed_pictures import read_boxed
from overpaint.service.guard.budgets import fetched, file_apart, picture_apart, reading, room_for
from overpaint.service.guard.fetching import fetch
from overpaint.service.guard.picture_headers import Broken, Header, MetadataBudget, read_jpeg, read_png, read_webp
from overpaint.service.guard.pictures_apart import PictureApart
from overpaint.service.guard.tiff_header import read_tiff
from overpaint.service.limits import Limits
from overpaint.service.ports import TooLarge

_KINDS: tuple[tuple[re.Pattern[bytes], Callable[[bytes, MetadataBudget], Header]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), read_png),
    (re.compile(rb"\xff\xd8\xff"), read_jpeg),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), read_webp),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), read_tiff),  # with a plus it is a BigTIFF
    (re.compile(rb"....ftyp(avif|avis|" + b"|".join(HEIC_BRANDS) + rb")", re.DOTALL), read_boxed),
)
KINDS_READ = "PNG, JPEG, WebP, TIFF, AVIF or HEIC"
_URL = re.compile(r"\s*https?:", re.IGNORECASE)
_DATA_URL = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)
_SPACES = b" \t\n\r\v\f"
_PIECE = 1 << 18  # characters


def admit_picture(data: bytes, limits: Limits, name: str = "picture") -> int:
    """The pixels of one picture within the limits; of what is none of `KINDS_READ`, `PictureError` says so."""
    if len(data) > limits.picture_bytes:
        raise TooLarge(f"{name}: the picture has more than {limits.picture_bytes} bytes, give a smaller file")
    read = next((reader for magic, reader in _KINDS if magic.match(data)), None)
    if read is None:
        raise PictureError(f"{name}: this is no {KINDS_READ} picture, save it as one of these")
    try:
        with reading():
            header = read(data, MetadataBudget(limits.text_chunk_bytes, limits.exif_bytes, limits.icc_bytes))
    except Broken as error:
        raise PictureError(f"{name}: {error}") from None
    _check(header, limits, name)
    return header.width * header.height


@dataclass(frozen=True)
class SentPicture:
    """A file that was sent as it is: a picture that can be decoded."""

    size: tuple[int, int]  # of the decoded picture
    data: bytes | None = None
    apart: PictureApart | None = None  # which has the file, if it was looked at there

    @property
    def file(self) -> bytes:
        """Its bytes. Reads the disk: call it in a thread."""
        if self.data is not None:
            return self.data
        assert self.apart is not None
        return self.apart.read("body")


def sent_picture(pieces: list[bytes], limits: Limits) -> SentPicture:
    """The picture that a body is, whose pieces are forgotten. It is decoded once: call it in a thread."""
    if (apart := file_apart(pieces)) is not None:
        pieces.clear()
        apart.check()
        return SentPicture(apart.size, apart=apart)
    data = b"".join(pieces)
    pieces.clear()
    pixels = admit_picture(data, limits, "body")
    with room_for(pixels), open_picture(data, max_pixels=limits.source_pixels) as picture:
        return SentPicture(picture.size, data)


def _check(header: Header, limits: Limits, name: str) -> None:
    wide, high = header.width, header.height
    size = f"{name}: the picture is {wide}x{high}"
    if not wide or not high:
        raise PictureError(f"{size}, give one of at least 1x1")
    if max(wide, high) > limits.source_side:
        raise PictureError(f"{size}, give one with no side over {limits.source_side} pixels")
    if wide * high > limits.source_pixels:
        raise PictureError(f"{size} = {wide * high} pixels, give one of at most {limits.source_pixels}")
    if max(wide, high) > limits.source_aspect * min(wide, high):
        raise PictureError(f"{size}, give one whose sides are at most {limits.source_aspect}:1")
    if header.frames > 1:
        raise PictureError(f"{name}: the picture has {header.frames} frames, give one frame of it")


def decoded_text(text: str, limits: Limits, name: str = "picture") -> bytes:
    """The bytes that base64 or a data URL stands for; not yet admitted."""
    if (found := picture_apart(text)) is not None:
        return found.read(name)
    if _URL.match(text):
        raise PictureError(f"{name}: a URL stands here, give the picture itself as base64 or as a data URL")
    prefix = _DATA_URL.match(text)
    if prefix is not None and not prefix[0].rstrip(", ").lower().endswith(";base64"):
        raise PictureError(f"{name}: the data URL is not base64, give data:image/png;base64,...")
    start = prefix.end() if prefix else 0
    # Spaces are dropped below; a text that is mostly those is not worth the trouble either.
    if (len(text) - start) * 3 // 4 > limits.picture_bytes + limits.picture_bytes // 16 + 3:
        raise TooLarge(f"{name}: the picture has more than {limits.picture_bytes} bytes, give a smaller file")
    try:
        with reading():
            data = _unpacked(text, start)
    except (binascii.Error, ValueError):
        raise PictureError(f"{name}: this is no base64, encode the picture's file again") from None
    if not data:
        raise PictureError(f"{name}: there is no picture here, give one as base64")
    if len(data) > limits.picture_bytes:
        raise TooLarge(f"{name}: the picture has more than {limits.picture_bytes} bytes, give a smaller file")
    return data


def _unpacked(text: str, start: int) -> bytes:
    """The bytes that base64 stands for from a place on; spaces count for nothing, and its padding may be missing.

    In pieces: what takes a whole text in one call of C lets no other thread have its turn meanwhile.
    """
    data, rest = bytearray(), b""
    for at in range(start, len(text), _PIECE):
        packed = rest + text[at : at + _PIECE].encode("ascii")
        if any(each in packed for each in _SPACES):  # few texts have any, and taking them out takes its time
            packed = packed.translate(None, _SPACES)
        whole = max(0, len(packed) - len(packed) % 4 - 4)  # what comes last may be padded
        if b"=" in packed[:whole]:
            raise ValueError("something comes after the padding")
        data += base64.b64decode(packed[:whole], validate=True)
        rest = packed[whole:]
    data += base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True)
    return bytes(data)


def is_url(text: str) -> bool:
    """Whether a picture is named instead of given."""
    return _URL.match(text) is not None


def picture_from_text(text: str, config: ServeConfig, name: str = "picture") -> bytes:
    """An admitted picture from base64, a data URL or, if the server allows it, a URL. Blocks: call it in a thread."""
    if is_url(text):
        if not config.url_inputs:
            remedy = "give the picture itself as base64, or start the server with --url-inputs"
            raise PictureError(f"{name}: this server fetches no URLs, {remedy}")
        data = fetched(lambda: fetch(text.strip(), config.limits, name), config.limits, name)
    else:
        data = decoded_text(text, config.limits, name)
    admit_picture(data, config.limits, name)
    return data
