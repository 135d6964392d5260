"""The shape of JSON while it streams in: how deep and how long it is, told before a parser builds it.

It is no parser. What is no JSON passes, and what has to be JSON is found out there.
"""

from __future__ import annotations

import re

from overpaint.service.guard.refusals import RequestRefused

DEEPEST = 64
MOST_PARTS = 100_000  # texts, brackets, commas and colons
LONGEST_PART = 4_000  # of what stands outside texts: numbers, words, blanks

_STRUCTURE = re.compile(rb'["{}\[\],:]')
_END_OF_TEXT = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_BLANKS = b" \t\r\n"
# NOTE: AVIF and HEIC begin with the bytes 0, 0, 0, 32; what makes them a space of UTF-32 is the 0 behind them.
_OTHER_CHARACTERS = re.compile(rb"\xff\xfe[\s\S]|\xfe\xff|\0{0,3}[\s\[{\"]\0")
_TOLD = 5  # bytes that say which characters these are
_UTF8_MARK = b"\xef\xbb\xbf"


class JsonShape:
    """Fed with the pieces of a body. If that begins like JSON, it is watched; `RequestRefused` says what is wrong."""

    def __init__(self) -> None:
        self._head: bytes | None = b""  # until it is known what this is
        self._watched = False
        self._in_text = self._escaped = False
        self._depth = self._parts = self._gap = 0

    def feed(self, piece: bytes) -> None:
        """The next piece, best of no more than some 64 KiB."""
        if self._head is not None:
            piece = self._begin(self._head + piece)
        if self._watched:
            self._walk(piece)

    def _begin(self, head: bytes) -> bytes:
        if len(head) < _TOLD:
            self._head = head
            return b""
        if _OTHER_CHARACTERS.match(head):
            raise RequestRefused(400, "the request's body is not in UTF-8, encode it so")
        text = head.removeprefix(_UTF8_MARK).lstrip(_BLANKS)
        if not text:
            self._skip(len(head) - 4)
            self._head = b"    "  # blanks, and there may be JSON behind them
            return b""
        self._head, self._watched = None, text[:1] in (b"{", b"[")
        return text

    def _walk(self, piece: bytes) -> None:
        at = 0
        while at < len(piece):
            at = self._through_text(piece, at) if self._in_text else self._to_structure(piece, at)

    def _through_text(self, piece: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        quote = piece.find(b'"', at)
        usual = len(piece) if quote < 0 else quote
        if piece.find(b"\\", at, usual) < 0:  # such as base64: the pattern would take a hundred times as long
            self._in_text = quote < 0
            return usual + 1 if quote >= 0 else usual
        end = _END_OF_TEXT.match(piece, at)
        assert end is not None
        if end.end() == len(piece):
            return end.end()
        self._escaped = piece[end.end()] == ord("\\")  # the last byte: what it escapes comes with the next piece
        self._in_text = self._escaped
        return end.end() + 1

    def _to_structure(self, piece: bytes, at: int) -> int:
        found = _STRUCTURE.search(piece, at)
        self._skip((found.start() if found else len(piece)) - at)
        if found is None:
            return len(piece)
        self._gap = 0
        sign = found[0]
        self._parts += 1
        self._in_text = sign == b'"'
        self._depth += (sign in b"{[") - (sign in b"}]")
        if self._depth > DEEPEST:
            raise RequestRefused(400, f"the JSON is nested more than {DEEPEST} deep, send it flatter")
        if self._parts > MOST_PARTS:
            raise RequestRefused(400, f"the JSON has more than {MOST_PARTS} parts, send fewer")
        return found.end()

    def _skip(self, size: int) -> None:
        self._gap += size
        if self._gap > LONGEST_PART:
            raise RequestRefused(
                400, f"the JSON holds a number or blanks of more than {LONGEST_PART} characters, send less"
            )
