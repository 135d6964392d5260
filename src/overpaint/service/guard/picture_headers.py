"""What PNG, JPEG and WebP files say of themselves, read by walking their chunks and nothing else.

PNG: W3C Portable Network Graphics (Third Edition). JPEG: ITU-T T.81. WebP: RFC 9649.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_MOST_CHUNKS = 50_000  # of a PNG or WebP: 32 MiB in the smallest pieces that encoders write
_MOST_SEGMENTS = 2_000  # of a JPEG
_MOST_SCANS = 100  # of a JPEG: every one makes the decoder pass over the whole picture again
_CUT_OFF = "the file is cut off or broken, save it again"
_MOST_PACKED = 1100  # bytes of pixels that one byte of deflate can stand for: 1032, and some for rounding (RFC 1951)
_MOST_IN_JPEG = 1100  # pixels for one byte: Huffman codes of 1 bit for each block of 64 pixels make 512


class Broken(Exception):  # noqa: N818 (why a picture is refused)
    """One sentence without the picture's name."""


@dataclass(frozen=True)
class Header:
    """A picture's promises."""

    width: int
    height: int
    frames: int = 1


@dataclass
class MetadataBudget:
    """Bytes that are left for what comes beside the pixels, unpacked."""

    text: int
    exif: int
    icc: int

    def take(self, what: str, size: int) -> None:
        """Count bytes of "text", "exif" or "icc"."""
        left = getattr(self, what) - size
        if left < 0:
            raise Broken(f"its {_WORDS[what]} is larger than this server accepts, save it without")
        setattr(self, what, left)

    def take_packed(self, what: str, packed: memoryview) -> int:
        """The same for a zlib stream, which is unpacked no further than there is room; its size unpacked."""
        left = before = int(getattr(self, what))
        if len(packed) > left + left // 64 + 1024:  # packing never adds that much
            self.take(what, len(packed))
        unpack, waiting = zlib.decompressobj(), bytes(packed)
        try:
            while waiting and not unpack.eof:
                self.take(what, len(unpack.decompress(waiting, _PIECE)))
                waiting = unpack.unconsumed_tail
            self.take(what, len(unpack.flush()))
        except zlib.error:
            raise Broken(f"its {_WORDS[what]} is broken, save it without") from None
        return before - int(getattr(self, what))


_PIECE = 64 * 1024
_WORDS = {"text": "text", "exif": "EXIF", "icc": "colour profile"}


# -- PNG -----------------------------------------------------------------------------------------------------------

_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # colour type: bits
_PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_LONGEST_NAMES = 1024  # of a text: its keyword, its language, its keyword in that language
_RAW_EXIF = re.compile(rb"Raw profile type (?:exif|APP1)\0")


def read_png(data: bytes, room: MetadataBudget) -> Header:
    """All chunks up to the last, their checksums too."""
    header, frames, packed, unpacked = None, 1, 0, 0
    for kind, body in _png_chunks(data):
        if header is None:
            header, unpacked = _png_header(kind, body), _png_bytes(body)
        elif kind == b"IHDR":
            raise Broken("it has two headers, save it again")
        elif kind == b"acTL":
            frames = max(frames, int.from_bytes(body[:4], "big"))
        elif kind == b"IDAT":
            packed += len(body)
        elif kind in _PNG_EXTRAS:
            _count_png_extra(kind, body, room)
        elif not kind[0] & 0x20 and kind not in _PNG_CRITICAL:
            raise Broken(f"it has a part that nobody knows ({kind.decode('ascii', 'replace')}), save it again")
    if header is None or not packed:
        raise Broken(_CUT_OFF)
    if unpacked > _MOST_PACKED * packed:
        raise Broken(_too_small(header))
    return Header(header.width, header.height, frames)


_PNG_EXTRAS = {b"tEXt": "text", b"zTXt": "text", b"iTXt": "text", b"eXIf": "exif", b"iCCP": "icc"}


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(data), 8
    for _ in range(_MOST_CHUNKS):
        if len(data) - at < 12:
            raise Broken(_CUT_OFF)
        size, kind = struct.unpack_from(">I4s", data, at)
        if size > len(data) - at - 12:
            raise Broken(_CUT_OFF)
        body = view[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + size)
        if zlib.crc32(view[at + 4 : at + 8 + size]) != checksum:
            raise Broken("a checksum in it is wrong, the file is damaged: save or send it again")
        yield kind, body
        if kind == b"IEND":
            return
        at += size + 12
    raise Broken(f"it has more than {_MOST_CHUNKS} chunks, save it again")


def _png_header(kind: bytes, body: memoryview) -> Header:
    if kind != b"IHDR" or len(body) != 13:
        raise Broken(_CUT_OFF)
    width, height, depth, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if depth not in _PNG_DEPTHS.get(colour, ()) or packing or filtering or interlace > 1:
        raise Broken("its header is no PNG header, save it again")
    return Header(width, height)


def _png_bytes(header: memoryview) -> int:
    """What the pixels take unpacked, at least."""
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    channels = {2: 3, 4: 2, 6: 4}.get(colour, 1)
    return int(height * (width * depth * channels // 8))


def _too_small(header: Header) -> str:
    return f"it says that it is {header.width}x{header.height}, but is too small a file for that, save it again"


def _count_png_extra(kind: bytes, body: memoryview, room: MetadataBudget) -> None:
    what, start = _PNG_EXTRAS[kind], bytes(body[:_LONGEST_NAMES])
    packed_at = _packed_at(kind, start)
    if packed_at is None:
        size = len(body)
        room.take(what, size)
    else:
        size = room.take_packed(what, body[packed_at:])
    if _RAW_EXIF.match(start):
        room.take("exif", size // 2)  # in hexadecimal: two characters for a byte


def _packed_at(kind: bytes, body: bytes) -> int | None:
    """Where packed data begin in a chunk; None if it holds none."""
    key = body.find(b"\0")
    if kind in (b"zTXt", b"iCCP"):
        if key < 0:
            raise Broken("one of its texts has no name, save it again")
        return key + 2  # the name, its end, the method
    if kind == b"iTXt" and key >= 0 and body[key + 1 : key + 2] == b"\1":
        language = body.find(b"\0", key + 3)
        translated = body.find(b"\0", language + 1)
        if language < 0 or translated < 0:
            raise Broken("one of its texts has no name, save it again")
        return translated + 1
    return None


# -- JPEG ----------------------------------------------------------------------------------------------------------

_ALONE = frozenset((0x01, 0xD8, *range(0xD0, 0xD8)))  # markers without a length
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))  # what decoders know: Huffman and arithmetic, not lossless
_HUFFMAN = frozenset((0xC0, 0xC1, 0xC2))
_OTHER_FRAMES = frozenset((0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF))
_START_OF_SCAN, _END = 0xDA, 0xD9
_LOOKED_AT_ONCE = 2**18
_FILL = re.compile(rb"\xff+")  # before a marker, any number of them
_IS_MARKER = ~np.isin(np.arange(256), (0x00, 0xFF, *range(0xD0, 0xD8)))  # after FF, and none of the pixels' own


def read_jpeg(data: bytes, room: MetadataBudget) -> Header:
    """All segments and scans of the first picture; phones append others, which are not looked at."""
    header, scans, is_huffman = None, 0, True
    for marker, start, end in _jpeg_segments(data):
        if marker in _FRAMES:
            if header is not None:
                raise Broken("it has two headers, save it again")
            header, is_huffman = _jpeg_header(data[start:end]), marker in _HUFFMAN
        elif marker in _OTHER_FRAMES:
            raise Broken("it is a kind of JPEG that is not read here, save it as a usual one")
        elif marker == _START_OF_SCAN:
            scans += 1
            if scans > _MOST_SCANS:
                raise Broken(f"it has more than {_MOST_SCANS} scans, save it as a baseline JPEG")
        elif 0xE1 <= marker <= 0xEF or marker == 0xFE:
            room.take(_jpeg_extra(marker, data[start : start + 14]), end - start)
    if header is None or not scans:
        raise Broken(_CUT_OFF)
    if is_huffman and header.width * header.height > _MOST_IN_JPEG * len(data):
        raise Broken(_too_small(header))
    return header


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, where its content begins and ends) up to the end of the picture."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        fill = _FILL.match(data, at)
        if fill is None or fill.end() == len(data):
            raise Broken(_CUT_OFF)
        at = fill.end() - 1
        marker = data[at + 1]
        if marker == _END:
            return
        at += 2
        if marker in _ALONE:
            continue
        size = int.from_bytes(data[at : at + 2], "big")
        if size < 2 or at + size > len(data):
            raise Broken(_CUT_OFF)
        yield marker, at + 2, at + size
        at += size
        if marker == _START_OF_SCAN:
            at = _next_marker(data, at)
    raise Broken(f"it has more than {_MOST_SEGMENTS} parts, save it again")


def _next_marker(data: bytes, at: int) -> int:
    """Past the pixels of a scan. A pattern would be as short, but slow on pixels that are full of FF 00."""
    for start in range(at, len(data) - 1, _LOOKED_AT_ONCE):
        piece = np.frombuffer(data, np.uint8, min(_LOOKED_AT_ONCE + 1, len(data) - start), start)
        begun = np.flatnonzero(piece[:-1] == 0xFF)  # one in some 256 bytes: few are looked behind
        found = begun[_IS_MARKER[piece[begun + 1]]]
        if found.size:
            return start + int(found[0])
    raise Broken(_CUT_OFF)


def _jpeg_header(body: bytes) -> Header:
    if len(body) < 6:
        raise Broken(_CUT_OFF)
    depth, height, width, channels = struct.unpack_from(">BHHB", body)
    if depth != 8 or channels not in (1, 3, 4) or len(body) != 6 + 3 * channels:
        raise Broken("it is a kind of JPEG that is not read here, save it with 8 bits per channel")
    return Header(width, height)


def _jpeg_extra(marker: int, start: bytes) -> str:
    if marker == 0xE1 and start.startswith(b"Exif\0"):
        return "exif"
    return "icc" if marker == 0xE2 and start.startswith(b"ICC_PROFILE\0") else "text"


# -- WebP ----------------------------------------------------------------------------------------------------------

_WEBP_EXTRAS = {b"EXIF": "exif", b"ICCP": "icc", b"XMP ": "text"}


def read_webp(data: bytes, room: MetadataBudget) -> Header:
    """All chunks. Of a picture with a canvas, the canvas; what is inside must fill it."""
    canvas, inside, frames = None, None, 0
    for kind, body in _webp_chunks(data):
        if kind == b"VP8X":
            canvas = canvas or _webp_canvas(body)
        elif kind in (b"VP8 ", b"VP8L"):
            inside = inside or (_vp8(body) if kind == b"VP8 " else _vp8l(body))
        elif kind == b"ANMF":
            frames += 1
        elif kind in _WEBP_EXTRAS:
            room.take(_WEBP_EXTRAS[kind], len(body))
    if inside is None and not (canvas and frames):
        raise Broken(_CUT_OFF)
    if canvas is not None and inside is not None and canvas != inside:
        raise Broken("its canvas and its picture differ in size, save it again")
    found = canvas or inside
    assert found is not None
    return Header(found.width, found.height, max(1, frames))


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    end = int.from_bytes(data[4:8], "little") + 8
    if end > len(data):
        raise Broken(_CUT_OFF)
    view, at = memoryview(data), 12
    for _ in range(_MOST_CHUNKS):
        if end - at < 8:
            return
        kind, size = struct.unpack_from("<4sI", data, at)
        if size > end - at - 8:
            raise Broken(_CUT_OFF)
        yield kind, view[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise Broken(f"it has more than {_MOST_CHUNKS} chunks, save it again")


def _webp_canvas(body: memoryview) -> Header:
    if len(body) != 10:
        raise Broken(_CUT_OFF)
    wide, high = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    return Header(wide, high)


def _vp8(body: memoryview) -> Header:
    if len(body) < 10 or bytes(body[3:6]) != b"\x9d\x01\x2a":
        raise Broken(_CUT_OFF)
    wide, high = struct.unpack_from("<HH", body, 6)
    return Header(wide & 0x3FFF, high & 0x3FFF)


def _vp8l(body: memoryview) -> Header:
    if len(body) < 5 or body[0] != 0x2F:
        raise Broken(_CUT_OFF)
    bits = int.from_bytes(body[1:5], "little")
    return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
