"""The user comment of an EXIF block, where JPEG, WebP and AVIF keep an infotext (STORE-2)."""

from __future__ import annotations

import struct

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
_LONGEST = (2 << 20) + 16  # bytes


def exif_comment(exif: object) -> str | None:
    """The user comment, if there is one.

    Read by hand: two look-ups in bounded bytes, where a general reader warns, fails or follows every pointer of a
    hostile block.
    """
    if not isinstance(exif, bytes):
        return None
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return None
        first = struct.unpack_from(f"{order}I", block, 4)[0]
        pointer = _entry(block, order, first, EXIF_IFD)
        entry = pointer and _entry(block, order, pointer[1], USER_COMMENT)
    except struct.error:
        return None
    if not entry:
        return None
    count, offset = entry
    return _decoded_comment(block[offset : offset + min(count, _LONGEST)])


def _entry(block: bytes, order: str, directory: int, wanted: int) -> tuple[int, int] | None:
    """Count and value (an offset, if it is longer than four bytes) of a tag in a directory of twelve-byte entries."""
    entries = struct.unpack_from(f"{order}H", block, directory)[0]
    for index in range(entries):
        tag, _, count, value = struct.unpack_from(f"{order}HHII", block, directory + 2 + 12 * index)
        if tag == wanted:
            return count, value
    return None


def _decoded_comment(data: bytes) -> str | None:
    code, text = data[:8], data[8:]
    if code == b"UNICODE\0":
        # STORE-2 writes big-endian; some programs follow the byte order of the block or of their machine instead.
        is_little = text[:2] == b"\xff\xfe" or text[1::2].count(0) > text[::2].count(0)
        decoded = text.decode("utf-16-le" if is_little else "utf-16-be", "replace").lstrip("\ufeff")
    elif code == b"JIS\0\0\0\0\0":
        decoded = text.decode("iso2022_jp", "replace")
    else:
        decoded = (text if code in (b"ASCII\0\0\0", b"\0" * 8) else data).decode("utf-8", "replace")
    return decoded.strip("\0 ") or None
