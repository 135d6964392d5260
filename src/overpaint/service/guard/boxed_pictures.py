"""What AVIF and HEIC files say of themselves: boxes, the items in them, and the frames in those.

ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (items, properties, grids of tiles).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from overpaint.service.guard.coded_sizes import Size, UnreadableHeader, av1_sizes, hevc_size, hevc_sizes
from overpaint.service.guard.picture_headers import Broken, Header, MetadataBudget

_MOST_BOXES, _MOST_ITEMS = 5_000, 4_000
_PADDING = 128  # pixels that a coded frame may be larger by than what is shown of it
_OTHERS = 4  # times the picture's pixels that tiles, thumbnails, depth and gain maps may have together
_SMALL = 1 << 22  # pixels that they always may
_CODED = (b"av01", b"hvc1")
_CUT_OFF = "the file is cut off or broken, save it again"
_UNKNOWN = "it is built in a way that is not read here, save it as PNG or JPEG"


@dataclass
class _Item:
    kind: bytes = b""
    places: list[tuple[int, int]] = field(default_factory=list)  # (offset, length)
    inside: bool = False  # counted from the beginning of idat
    size: Size | None = None
    config: memoryview | None = None  # of an HEVC item

    def content(self, data: bytes, idat: memoryview) -> bytes:
        source = idat if self.inside else memoryview(data)
        for start, length in self.places:
            if start + length > len(source):
                raise Broken(_CUT_OFF)
        return b"".join(source[start : start + length] for start, length in self.places)


def read_boxed(data: bytes, room: MetadataBudget) -> Header:
    """An AVIF or HEIC file of one picture; what its boxes, its grid and its frames say has to agree."""
    top = _children(memoryview(data))
    frames, meta = 1, None
    for kind, body in top:
        if kind == b"moov":
            frames = 2
        elif kind == b"meta":
            meta = body if meta is None else meta
    if meta is None:
        if frames > 1:
            return Header(1, 1, frames)
        raise Broken(_CUT_OFF)
    try:
        size = _of_meta(data, dict(_children(meta[4:])), room)
    except (UnreadableHeader, struct.error, IndexError):
        raise Broken(_CUT_OFF) from None
    return Header(*size, frames)


def _of_meta(data: bytes, boxes: dict[bytes, memoryview], room: MetadataBudget) -> Size:
    if not {b"pitm", b"iinf", b"iloc", b"iprp"} <= boxes.keys():
        raise Broken(_CUT_OFF)
    items = _items(boxes[b"iinf"])
    _locate(items, boxes[b"iloc"])
    _describe(items, boxes[b"iprp"], room)
    (main,) = struct.unpack_from(">I" if boxes[b"pitm"][0] else ">H", boxes[b"pitm"], 4)
    primary, idat = items.get(main), boxes.get(b"idat", memoryview(b""))
    if primary is None or primary.size is None or primary.kind not in (*_CODED, b"grid"):
        raise Broken(_UNKNOWN)
    total = 0
    for each in items.values():
        if each.kind == b"Exif":
            room.take("exif", sum(length for _, length in each.places))
        elif each.kind in (b"mime", b"uri "):
            room.take("text", sum(length for _, length in each.places))
        elif each.kind in _CODED or each.kind == b"grid":
            total += _checked_pixels(each, each.content(data, idat))
    if total > _OTHERS * primary.size[0] * primary.size[1] + _SMALL:
        raise Broken("what comes beside its picture is larger than the picture, save it again")
    return primary.size


def _checked_pixels(item: _Item, content: bytes) -> int:
    """What is in an item has the size that its box says."""
    if item.size is None:
        raise Broken(_UNKNOWN)
    wide, high = item.size
    if item.kind == b"grid":
        found = [struct.unpack_from(">II" if content[1] & 1 else ">HH", content, 4)]
    elif item.kind == b"av01":
        found = list(av1_sizes(content))
    else:
        found = list(_hevc(item, content))
    if not found or any(w > wide + _PADDING or h > high + _PADDING for w, h in found):
        raise Broken(f"it says that it is {wide}x{high}, but what is in it is not, save it again")
    return wide * high


def _hevc(item: _Item, content: bytes) -> Iterator[Size]:
    config = item.config
    if config is None or len(config) < 23:
        raise Broken(_UNKNOWN)
    at = 23
    for _ in range(config[22]):
        (count,) = struct.unpack_from(">H", config, at + 1)
        at += 3
        for _ in range(count):
            (size,) = struct.unpack_from(">H", config, at)
            if at + 2 + size > len(config):
                raise Broken(_CUT_OFF)
            yield from hevc_size(bytes(config[at + 2 : at + 2 + size]))
            at += 2 + size
    yield from hevc_sizes(content, (config[21] & 3) + 1)


# -- boxes -------------------------------------------------------------------------------------------------------------


def _children(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    for _ in range(_MOST_BOXES):
        if len(view) - at < 8:
            return
        size, kind = struct.unpack_from(">I4s", view, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", view, at + 8)
            head = 16
        size = size or len(view) - at
        if size < head or size > len(view) - at:
            raise Broken(_CUT_OFF)
        yield kind, view[at + head : at + size]
        at += size
    raise Broken(f"it has more than {_MOST_BOXES} parts, save it again")


def _items(body: memoryview) -> dict[int, _Item]:
    start = 8 if body[0] else 6
    found: dict[int, _Item] = {}
    for kind, each in _children(body[start:]):
        if kind == b"infe" and each[0] >= 2:
            layout = ">H2x4s" if each[0] == 2 else ">I2x4s"
            number, name = struct.unpack_from(layout, each, 4)
            found[number] = _Item(name)
    if len(found) > _MOST_ITEMS:
        raise Broken(f"it has more than {_MOST_ITEMS} parts, save it again")
    return found


def _locate(items: dict[int, _Item], body: memoryview) -> None:
    version, sizes, bases = body[0], body[4], body[5]
    widths = {"offset": sizes >> 4, "length": sizes & 15, "base": bases >> 4, "index": bases & 15 if version else 0}
    at = 6

    def number(width: int) -> int:
        nonlocal at
        if width not in (0, 2, 4, 8) or at + width > len(body):
            raise Broken(_CUT_OFF)
        at += width
        return int.from_bytes(body[at - width : at], "big")

    wide = 4 if version >= 2 else 2
    for _ in range(number(wide)):
        item, method = items.get(number(wide)), 0
        if version:
            method = number(2) & 15
        elsewhere, base = number(2), number(widths["base"])
        places = []
        for _ in range(number(2)):
            number(widths["index"])
            places.append((base + number(widths["offset"]), number(widths["length"])))
        if item is not None:
            if method > 1 or elsewhere or len(places) > _MOST_ITEMS:
                raise Broken(_UNKNOWN)
            item.places, item.inside = places, method == 1


def _describe(items: dict[int, _Item], body: memoryview, room: MetadataBudget) -> None:
    """The properties of each item that matter here."""
    inner = dict(_children(body))
    properties = list(_children(inner.get(b"ipco", memoryview(b""))))
    for kind, each in properties:
        if kind == b"colr":
            room.take("icc", len(each))
    links = inner.get(b"ipma", memoryview(b""))
    at, is_wide, has_long = 8, links[0] >= 1, links[3] & 1
    for _ in range(struct.unpack_from(">I", links, 4)[0]):
        (number,) = struct.unpack_from(">I" if is_wide else ">H", links, at)
        at += 4 if is_wide else 2
        count, at = links[at], at + 1
        for _ in range(count):
            (index,) = struct.unpack_from(">H" if has_long else ">B", links, at)
            at += 2 if has_long else 1
            place = (index & (0x7FFF if has_long else 0x7F)) - 1
            if number in items and 0 <= place < len(properties):
                _take(items[number], *properties[place])


def _take(item: _Item, kind: bytes, body: memoryview) -> None:
    if kind == b"ispe":
        wide, high = struct.unpack_from(">II", body, 4)
        item.size = (wide, high)
    elif kind == b"hvcC":
        item.config = body
