"""What a TIFF says of itself: its directories, and whether what it promises can be in it (TIFF 6.0 and BigTIFF)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from overpaint.service.guard.picture_headers import Broken, Header, MetadataBudget

_CUT_OFF = "the file is cut off or broken, save it again"
_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 1, 1, 8, 8, 8)  # of a value, by its type
_WHOLE = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}  # short, long, place of a table; those of BigTIFF
_LARGEST = 2**61  # so that a sum of two stays within 64 bits
_MOST_PAGES, _MOST_ENTRIES = 100, 500
_WIDTH, _HEIGHT, _BITS, _PACKING, _CHANNELS = 256, 257, 258, 259, 277
_STRIPS, _TILES, _TILE_SIDES = (273, 279), (324, 325), (322, 323)
_LARGEST_TILE = 1 << 22  # pixels, of a picture that has fewer
# By compression: bytes of pixels that one byte can stand for. None, LZW, deflate (by two numbers), PackBits, JPEG.
_PACKINGS = {1: 1, 5: 1500, 8: 1100, 32946: 1100, 32773: 64, 7: 2000}
_DIRECTORIES = {34665: "exif", 34853: "exif", 40965: "exif"}  # EXIF, GPS, interoperability
_EXTRAS = {34675: "icc", **dict.fromkeys((270, 305, 306, 315, 316, 700, 33432, 33723, 34377, 37724), "text")}


class _Entry(NamedTuple):
    kind: int
    values: int  # how many
    content: memoryview


_Directory = dict[int, _Entry]


class _Layout(NamedTuple):
    """How numbers lie in a file: their order, and how wide those are that say where something is."""

    order: str
    place: str = "I"  # of a place, and of how many values there are
    entries: str = "H"  # of how many entries a table has
    first: int = 4  # where it says where the first table is

    @property
    def wide(self) -> int:
        return struct.calcsize(self.order + self.place)


def read_tiff(data: bytes, room: MetadataBudget) -> Header:
    """All directories, and the strips or tiles of the first, which is the picture; further pages are not looked at."""
    layout = _layout_of(data)
    pages = list(_pages(data, layout))
    if not pages:
        raise Broken(_CUT_OFF)
    for each in pages:
        _count_extras(data, layout, each, room)
    header = Header(_one(pages[0], _WIDTH, layout.order), _one(pages[0], _HEIGHT, layout.order))
    _check_pixels(data, layout.order, pages[0], header)
    return header


def _layout_of(data: bytes) -> _Layout:
    order = "<" if data[:2] == b"II" else ">"
    if _unpacked(order + "H", data, 2) != (43,):
        return _Layout(order)
    if order == ">":  # which the decoder does not know
        raise Broken("it is a BigTIFF with its highest bytes first, save it as a plain TIFF")
    if _unpacked(order + "HH", data, 4) != (8, 0):  # what BigTIFF says of itself, always
        raise Broken(_CUT_OFF)
    return _Layout(order, place="Q", entries="Q", first=8)


def _pages(data: bytes, layout: _Layout) -> Iterator[_Directory]:
    seen: set[int] = set()
    (at,) = _unpacked(layout.order + layout.place, data, layout.first)
    while at:
        if at in seen or len(seen) >= _MOST_PAGES:
            raise Broken(f"its pages go in a circle, or are more than {_MOST_PAGES}, save one of them")
        seen.add(at)
        found, end = _directory(data, layout, at)
        yield found
        (at,) = _unpacked(layout.order + layout.place, data, end)


def _directory(data: bytes, layout: _Layout, at: int) -> tuple[_Directory, int]:
    (count,) = _unpacked(layout.order + layout.entries, data, at)
    if count > _MOST_ENTRIES:
        raise Broken(f"it has a table of more than {_MOST_ENTRIES} entries, save it again")
    found: _Directory = {}
    at += struct.calcsize(layout.order + layout.entries)
    entry = layout.order + "HH" + layout.place
    for _ in range(count):
        tag, kind, values = _unpacked(entry, data, at)
        content = at + struct.calcsize(entry)
        size = (_BYTES[kind] if kind < len(_BYTES) else 1) * values
        start = content if size <= layout.wide else _unpacked(layout.order + layout.place, data, content)[0]
        if start + size > len(data):
            raise Broken(_CUT_OFF)
        found[tag] = _Entry(kind, values, memoryview(data)[start : start + size])
        at = content + layout.wide
    return found, at


def _unpacked(layout: str, data: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(layout, data, at)
    except (struct.error, OverflowError):  # a place beyond what an index can be
        raise Broken(_CUT_OFF) from None


def _values(page: _Directory, tag: int, order: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    entry = page.get(tag)
    if entry is None or entry.kind not in _WHOLE:
        raise Broken(_CUT_OFF)
    values = np.frombuffer(entry.content, order + _WHOLE[entry.kind]).astype(np.uint64)
    return np.minimum(values, np.uint64(_LARGEST)).astype(np.int64)


def _one(page: _Directory, tag: int, order: str, default: int | None = None) -> int:
    if tag not in page and default is not None:
        return default
    values = _values(page, tag, order)
    if len(values) != 1:
        raise Broken(_CUT_OFF)
    return int(values[0])


def _count_extras(
    data: bytes, layout: _Layout, page: _Directory, room: MetadataBudget, *, nested: bool = False
) -> None:
    for tag, entry in page.items():
        if tag in _DIRECTORIES and not nested:
            inner, _ = _directory(data, layout, _one(page, tag, layout.order))
            room.take("exif", sum(12 + len(each.content) for each in inner.values()))
            _count_extras(data, layout, inner, room, nested=True)
        elif tag in _EXTRAS:
            room.take(_EXTRAS[tag], len(entry.content))


def _check_pixels(data: bytes, order: str, page: _Directory, header: Header) -> None:
    packing, channels = _one(page, _PACKING, order, 1), _one(page, _CHANNELS, order, 1)
    bits = [int(each) for each in _values(page, _BITS, order)] if _BITS in page else [1]
    if packing not in _PACKINGS:
        raise Broken("it is packed in a way that is not read here, save it unpacked, or with LZW or deflate")
    if (
        not 1 <= channels <= 4
        or len(bits) not in (1, channels)
        or len(set(bits)) > 1
        or bits[0] not in (1, 2, 4, 8, 16)
    ):
        raise Broken("its pixels are of a kind that is not read here, save it with 8 or 16 bits per channel")
    places = _TILES if _TILES[0] in page else _STRIPS
    starts, sizes = (_values(page, tag, order) for tag in places)
    if len(starts) != len(sizes) or not len(starts) or int((starts + sizes).max()) > len(data):
        raise Broken(_CUT_OFF)
    pixels = header.width * header.height
    if places is _TILES:
        wide, high = (_one(page, tag, order) for tag in _TILE_SIDES)
        if not 0 < wide * high <= max(_LARGEST_TILE, pixels):
            raise Broken("its tiles are larger than the picture, save it again")
    if pixels * channels * bits[0] // 8 > _PACKINGS[packing] * int(sizes.sum()) + header.height * channels:
        size = f"{header.width}x{header.height}"
        raise Broken(f"it says that it is {size}, but is too small a file for that, save it again")
