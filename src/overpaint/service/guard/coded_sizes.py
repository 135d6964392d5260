"""How large the frames inside a coded still picture are, as its own headers say. A box around it may say otherwise.

AV1: AV1 Bitstream & Decoding Process Specification, 5.3 to 5.5. HEVC: ITU-T H.265, 7.3.1 to 7.3.2.
"""

from __future__ import annotations

from collections.abc import Iterator

Size = tuple[int, int]

_AV1_SEQUENCE, _HEVC_SPS = 1, 33
_MOST_UNITS = 10_000


class UnreadableHeader(ValueError):  # noqa: N818 (why a picture is refused)
    """What should be a header is none."""


class _Bits:
    """Bits from the highest of the first byte on."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise UnreadableHeader("it is cut off")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def take_golomb(self) -> int:
        """Exp-Golomb, ue(v); AV1's uvlc() is the same."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise UnreadableHeader("a number in it has no end")
        return (1 << zeros) - 1 + self.take(zeros)


# -- AV1 ---------------------------------------------------------------------------------------------------------------


def av1_sizes(data: bytes) -> Iterator[Size]:
    """The largest frame that each sequence header allows."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at >= len(data):
            return
        head = data[at]
        at += 1 + (head >> 2 & 1)
        if head & 0x80 or not head & 2:  # without a size a unit would reach to the end
            raise UnreadableHeader("its units are not marked")
        size, at = _leb128(data, at)
        if at + size > len(data):
            raise UnreadableHeader("it is cut off")
        if head >> 3 & 15 == _AV1_SEQUENCE:
            yield _av1_sequence(_Bits(data[at : at + min(size, 512)]))
        at += size
    raise UnreadableHeader("it has too many units")


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << (7 * i)
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    raise UnreadableHeader("a size in it has no end")


def _av1_sequence(bits: _Bits) -> Size:
    bits.take(3 + 1)  # profile, still picture
    if bits.take(1):  # reduced
        bits.take(5)
    else:
        _skip_av1_operating_points(bits)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(wide) + 1, bits.take(high) + 1


def _skip_av1_operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            bits.take_golomb()
        if bits.take(1):  # a decoder's model
            delay = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    shows_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if shows_delay and bits.take(1):
            bits.take(4)


# -- HEVC --------------------------------------------------------------------------------------------------------------


def hevc_sizes(data: bytes, length: int) -> Iterator[Size]:
    """Of each sequence parameter set among units with their lengths before them, of so many bytes each."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at >= len(data):
            return
        size, at = int.from_bytes(data[at : at + length], "big"), at + length
        if at + size > len(data):
            raise UnreadableHeader("it is cut off")
        yield from hevc_size(data[at : at + min(size, 4096)])
        at += size
    raise UnreadableHeader("it has too many units")


def hevc_size(unit: bytes) -> Iterator[Size]:
    """Of one unit, if it is such a set of the first layer."""
    if len(unit) < 2 or unit[0] >> 1 & 63 != _HEVC_SPS or (unit[0] & 1) << 5 | unit[1] >> 3:
        return
    bits = _Bits(unit[2:256].replace(b"\0\0\3", b"\0\0"))  # the third byte only keeps start codes away
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)  # nesting, general profile and level
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    bits.take(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.take_golomb()
    if bits.take_golomb() == 3:
        bits.take(1)
    yield bits.take_golomb(), bits.take_golomb()
