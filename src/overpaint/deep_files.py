"""PNG and TIFF with 16 bits a channel, which Pillow writes for gray only.

What stands beside the pixels is left to Pillow: it writes a picture of one pixel with it, and the rest is exchanged.
Strips of rows are packed side by side, on as many processors as there are; the file is the same on any number of them.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from overpaint.deep_pixels import DeepPixels, Samples, with_channels

_PNG_START = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = (-1, 0, 4, 2, 6)  # of PNG, by the number of channels
_LARGE = 8_000_000  # pixels
_SUB = 1  # the filter: each sample less the one to its left. Of the simple ones it leaves least of a photo


def deep_pieces(deep: DeepPixels, kind: str, options: Mapping[str, Any]) -> Iterator[bytes]:
    """The samples as a file, piece by piece; `options` are what Pillow would be told."""
    return _png(deep, options) if kind == "PNG" else _tiff(deep, options)


# -- PNG (W3C Portable Network Graphics, Third Edition) ----------------------------------------------------------------


def _png(deep: DeepPixels, options: Mapping[str, Any]) -> Iterator[bytes]:
    stub = io.BytesIO()
    Image.new(deep.mode, (1, 1)).save(stub, "PNG", **options)
    header = struct.pack(">IIBBBBB", *deep.size, 16, _COLOUR_TYPES[deep.channels], 0, 0, 0)
    yield _PNG_START
    for kind, body in _chunks(stub.getvalue()):
        if kind == b"IDAT":
            yield from (_chunk(kind, packed) for packed in _packed(deep))
        else:
            yield _chunk(kind, header if kind == b"IHDR" else body)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG_START)
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + size]
        at += size + 12


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _packed(deep: DeepPixels) -> Iterator[bytes]:
    """A zlib stream in pieces, each of which ends on a byte."""
    width, height = deep.size
    is_large = width * height > _LARGE
    level, strategy = (1, zlib.Z_RLE) if is_large else (6, zlib.Z_DEFAULT_STRATEGY)
    checksum, left, first = 1, height, b"\x78\x01"

    def pack(rows: bytes, is_last: bool) -> bytes:
        packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
        return packer.compress(rows) + packer.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)

    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[bytes]] = deque()
        for strip in deep.strips():
            left -= len(strip)
            rows = _filtered(strip)
            checksum = zlib.adler32(rows, checksum)
            waiting.append(pool.submit(pack, rows, left == 0))
            if len(waiting) > workers:
                yield first + waiting.popleft().result()
                first = b""
        while waiting:
            end = struct.pack(">I", checksum) if len(waiting) == 1 else b""
            yield first + waiting.popleft().result() + end
            first = b""


def _filtered(strip: Samples) -> bytes:
    """Rows as PNG packs them: the filter's number, and the bytes after it."""
    channels = strip.shape[2]
    raw = np.ascontiguousarray(strip.astype(">u2")).view(np.uint8).reshape(len(strip), -1)
    rows = np.empty((len(strip), raw.shape[1] + 1), np.uint8)
    rows[:, 0], rows[:, 1:] = _SUB, raw
    rows[:, 1 + 2 * channels :] -= raw[:, : -2 * channels]
    return rows.tobytes()


# -- TIFF 6.0 ----------------------------------------------------------------------------------------------------------


def _tiff(deep: DeepPixels, options: Mapping[str, Any]) -> Iterator[bytes]:
    """Not packed. Gray with transparency is written as colours, which more readers take."""
    channels = 4 if deep.channels == 2 else deep.channels
    width, height = deep.size
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    stub = io.BytesIO()
    mode = {1: "L", 3: "RGB", 4: "CMYK" if deep.is_cmyk else "RGBA"}[channels]
    Image.new(mode, (1, 1)).save(stub, "TIFF", **options)
    _take_tags(tags, stub.getvalue())
    strips = [len(each) for each in deep.strips()]
    sizes = [rows * width * channels * 2 for rows in strips]
    places = np.cumsum([0, *sizes[:-1]]).tolist()
    tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH] = width, height
    tags[TiffImagePlugin.BITSPERSAMPLE] = (16,) * channels
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    tags[TiffImagePlugin.ROWSPERSTRIP] = strips[0]
    for tag, values in ((TiffImagePlugin.STRIPBYTECOUNTS, sizes), (TiffImagePlugin.STRIPOFFSETS, places)):
        tags.tagtype[tag] = 4
        tags[tag] = tuple(values)
    start = io.BytesIO()
    tags.save(start)
    yield start.getvalue()
    for strip in deep.strips():
        yield with_channels(strip, channels).astype("<u2").tobytes()


def _take_tags(tags: TiffImagePlugin.ImageFileDirectory_v2, stub: bytes) -> None:
    with Image.open(io.BytesIO(stub), formats=["TIFF"]) as opened:
        known: Any = opened
        for tag, value in known.tag_v2.items():
            tags.tagtype[tag] = known.tag_v2.tagtype[tag]
            tags[tag] = dict(known.getexif().get_ifd(tag)) if tag in _GROUPS else value


_GROUPS = (0x8769, 0x8825)  # EXIF and GPS
