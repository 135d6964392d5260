"""Pictures from strangers: formats, limits at N and N + 1, bombs, damage."""

from __future__ import annotations

import base64
import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from overpaint.errors import PictureError
from overpaint.service.config import ServeConfig
from overpaint.service.guard import inputs
from overpaint.service.guard.inputs import admit_picture, decoded_text, picture_from_text
from overpaint.service.limits import MIB, Limits
from overpaint.service.ports import TooLarge

LIMITS = Limits()
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(kind: str = "PNG", size: tuple[int, int] = (16, 12), mode: str = "RGB", **options: Any) -> bytes:
    data = io.BytesIO()
    Image.new(mode, size, 90).save(data, kind, **options)
    return data.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, size: tuple[int, int] = (16, 12), depth: int = 8, pixels: bytes | None = None) -> bytes:
    pixels = bytes(size[0] * size[1]) if pixels is None else pixels
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels))
    return SIGNATURE + head + b"".join(chunks) + body + chunk(b"IEND", b"")


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def jpeg(*segments: bytes, size: tuple[int, int] = (16, 12), scans: int = 1) -> bytes:
    frame = segment(0xC0, struct.pack(">BHHB", 8, size[1], size[0], 1) + b"\1\x11\0")
    scan = segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x12\x34"
    return b"\xff\xd8" + b"".join(segments) + frame + scan * scans + b"\xff\xd9"


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def canvas(wide: int, high: int, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", struct.pack("<I", flags) + (wide - 1).to_bytes(3, "little") + (high - 1).to_bytes(3, "little")


def lossless(wide: int, high: int) -> tuple[bytes, bytes]:
    return b"VP8L", b"\x2f" + ((wide - 1) | (high - 1) << 14).to_bytes(4, "little") + b"\0" * 8


def refused(data: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(PictureError) as caught:
        admit_picture(data, limits, "mask")
    text = str(caught.value)
    assert text.startswith("mask: ")
    assert "\n" not in text and len(text) < 200
    return text


@pytest.mark.parametrize(
    "data",
    [
        encoded(),
        encoded(mode="L"),
        encoded(mode="RGBA"),
        encoded(mode="P"),
        encoded(mode="1"),
        encoded(mode="I;16"),
        encoded("JPEG"),
        encoded("JPEG", progressive=True, size=(300, 200)),
        encoded("JPEG", mode="CMYK"),
        encoded("WEBP"),
        encoded("WEBP", lossless=True),
        encoded("WEBP", mode="RGBA", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0"),
        encoded("JPEG", icc_profile=b"p" * 100_000, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0", comment=b"hello"),
        encoded(icc_profile=b"p" * 5000, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0"),
        encoded() + b"what some programs append",
        encoded("JPEG") + encoded("JPEG"),
    ],
    ids=lambda data: f"{bytes(data[:4])!r}{len(data)}",
)
def test_usual_pictures_pass(data: bytes) -> None:
    admit_picture(data, LIMITS, "image")


def test_texts_of_usual_pictures_pass() -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20" * 100, zip=True)
    info.add_itxt("XML:com.adobe.xmp", "<x/>" * 50, "en", "x", zip=True)
    info.add_itxt("plain", "words", "en", "x")
    info.add_text("more", "words")
    admit_picture(encoded(pnginfo=info), LIMITS)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "ICO", "PPM", "TGA", "PDF", "EPS", "JPEG2000"])
def test_other_formats_are_refused(kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    assert "no PNG, JPEG, WebP, TIFF, AVIF or HEIC picture" in refused(encoded(kind, size=(16, 16)))


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"8BPS\0\1", b"GIF89a"]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    refused(data)


def narrow(**values: Any) -> Limits:
    return Limits(**{"source_side": 200, "source_aspect": 10, "source_pixels": 6_000, **values})


MAKERS: list[Callable[[int, int], bytes]] = [
    lambda wide, high: png(size=(wide, high)),
    lambda wide, high: jpeg(size=(wide, high)),
    lambda wide, high: webp(lossless(wide, high)),
    lambda wide, high: webp(canvas(wide, high), lossless(wide, high)),
    lambda wide, high: webp((b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", wide, high) + b"\0" * 4)),
]


@pytest.mark.parametrize("make", MAKERS, ids=["png", "jpeg", "lossless", "canvas", "lossy"])
@pytest.mark.parametrize(
    ("size", "word"),
    [
        ((200, 30), None),  # N of every limit
        ((201, 29), "no side over 200"),
        ((100, 60), None),
        ((100, 61), "at most 6000"),
        ((100, 10), None),
        ((10, 100), None),
        ((101, 10), "10:1"),
        ((10, 101), "10:1"),
    ],
)
def test_sizes_at_the_limit_and_beyond(
    make: Callable[[int, int], bytes], size: tuple[int, int], word: str | None
) -> None:
    if word is None:
        admit_picture(make(*size), narrow(), "mask")
    else:
        assert word in refused(make(*size), narrow())


def test_default_limits_at_the_limit_and_beyond() -> None:
    for size in ((10_000, 5_000), (16_384, 328), (328, 16_384)):
        admit_picture(png(size=size), LIMITS)
    for size in ((10_000, 5_001), (16_385, 2_000), (51, 1)):
        refused(png(size=size))


def test_bytes_at_the_limit_and_beyond() -> None:
    data = encoded()
    admit_picture(data, Limits(picture_bytes=len(data)))
    with pytest.raises(TooLarge, match="more than"):
        admit_picture(data, Limits(picture_bytes=len(data) - 1))


def text_chunks(size: int) -> list[bytes]:
    """The same amount of text, in each of the ways to store it."""
    return [
        png(chunk(b"tEXt", b"k\0".ljust(size, b"x"))),
        png(chunk(b"iTXt", b"k\0\0\0en\0k\0".ljust(size, b"x"))),
        png(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * size))),
        png(chunk(b"iTXt", b"k\0\1\0en\0k\0" + zlib.compress(b"x" * size))),
        jpeg(*[segment(0xFE, b"x" * (size // 20))] * 20),
        jpeg(*[segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0".ljust(size // 20, b"x"))] * 20),
        webp(canvas(8, 8), lossless(8, 8), (b"XMP ", b"x" * size)),
    ]


def test_texts_at_the_limit_and_beyond() -> None:
    limits = Limits(text_chunk_bytes=100_000)
    for data in text_chunks(100_000):
        admit_picture(data, limits)
    for data in text_chunks(100_020):
        assert "its text is larger" in refused(data, limits)


def test_all_texts_count_together() -> None:
    halves = [chunk(b"tEXt", b"k\0".ljust(60_000, b"x")), chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 60_000))]
    limits = Limits(text_chunk_bytes=100_000)
    for half in halves:
        admit_picture(png(half), limits)
    assert "its text is larger" in refused(png(*halves), limits)


def test_exif_at_the_limit_and_beyond() -> None:
    limits, start = Limits(exif_bytes=1000), b"Exif\0\0"
    for extra, fits in ((0, True), (1, False)):
        body = b"x" * (1000 + extra)
        pictures = [
            png(chunk(b"eXIf", body)),
            jpeg(segment(0xE1, start + body[6:])),
            webp(canvas(8, 8), lossless(8, 8), (b"EXIF", body)),
            png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"a" * (2000 + 2 * extra)))),
        ]
        for data in pictures:
            if fits:
                admit_picture(data, limits)
            else:
                assert "its EXIF is larger" in refused(data, limits)


def test_profiles_at_the_limit_and_beyond() -> None:
    limits = Limits(icc_bytes=5000)
    for size in (5000, 5001):
        pictures = [
            png(chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x" * size))),
            jpeg(
                segment(0xE2, b"ICC_PROFILE\0\1\1".ljust(2500, b"x")),
                segment(0xE2, b"ICC_PROFILE\0\2\2".ljust(size - 2500)),
            ),
            webp(canvas(8, 8), lossless(8, 8), (b"ICCP", b"x" * size)),
        ]
        for data in pictures:
            if size == 5000:
                admit_picture(data, limits)
            else:
                assert "its colour profile is larger" in refused(data, limits)


def frames(kind: str, count: int) -> bytes:
    pictures = [Image.new("RGB", (8, 8), (each * 97 % 256, each % 256, 255 * (each % 2))) for each in range(count)]
    data = io.BytesIO()
    pictures[0].save(data, kind, save_all=True, append_images=pictures[1:])
    return data.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_one_frame_and_two(kind: str) -> None:
    admit_picture(frames(kind, 1), LIMITS)
    assert "has 2 frames" in refused(frames(kind, 2))


BOMBS: dict[str, Callable[[], bytes]] = {
    "2.5 GP of one bit": lambda: png(size=(50_000, 50_000), depth=1, pixels=b"\0" * 1_000_000),
    "49 MP in 70 bytes": lambda: png(size=(7000, 7000), pixels=b"\0"),
    "49 MP in a JPEG of 200 bytes": lambda: jpeg(size=(7000, 7000)),
    "zTXt of 1 GiB": lambda: png(chunk(b"zTXt", b"k\0\0" + packed_zeros(1024 * MIB))),
    "iTXt of 1 GiB": lambda: png(chunk(b"iTXt", b"k\0\1\0\0\0" + packed_zeros(1024 * MIB))),
    "iCCP of 1 GiB": lambda: png(chunk(b"iCCP", b"p\0\0" + packed_zeros(1024 * MIB))),
    "a thousand zTXt of 1 MiB": lambda: png(*[chunk(b"zTXt", b"k\0\0" + packed_zeros(MIB))] * 1000),
    "stored iCCP": lambda: png(chunk(b"iCCP", b"p\0\0" + zlib.compress(b"x" * 30 * MIB, 0))),
    "empty stored blocks": lambda: png(chunk(b"iCCP", b"p\0\0\x78\x01" + b"\0\0\0\xff\xff" * 6_000_000)),
    "a million empty chunks": lambda: png(*[chunk(b"teXt", b"")] * 1_000_000),
    "animated WebP of 1000 frames": lambda: frames("WEBP", 1000),
    "animated PNG of 2**32 - 1 frames": lambda: png(chunk(b"acTL", b"\xff" * 4 + b"\0" * 4)),
    "TIFF of 10**9 strips": lambda: b"II*\0\x08\0\0\0\1\0\x11\1\4\0\0\xca\x9a\x3b\0\0\0\0\0\0\0\0",
    "JPEG of 65,535 x 65,535": lambda: jpeg(size=(65_535, 65_535)),
    "JPEG of 5,000 scans": lambda: jpeg(scans=5_000),
    "JPEG of 8 million segments": lambda: jpeg(segment(0xE0, b"") * 8_000_000),
    "JPEG that is all fill": lambda: b"\xff\xd8\xff" + b"\xff" * 30 * MIB,
    "JPEG of 30 MiB without end": lambda: jpeg()[:-2] + b"\xff\0" * 15 * MIB,
    "WebP of 16,384 x 16,384": lambda: webp(lossless(16_384, 16_384)),
    "WebP of 2**24 x 2**24": lambda: webp(canvas(2**24, 2**24), lossless(8, 8)),
    "WebP of 4 million chunks": lambda: b"RIFF" + struct.pack("<I", 32_000_004) + b"WEBP" + b"abcd\0\0\0\0" * 4_000_000,
    "a chunk beyond the end": lambda: SIGNATURE + struct.pack(">I", 2**31 - 1) + b"IHDR" + b"\0" * 100,
}


def packed_zeros(size: int) -> bytes:
    """A zlib stream of that many zeros, its blocks the same over and over; nobody gets to its checksum."""
    packing = zlib.compressobj(9)
    start = packing.compress(b"\0" * MIB) + packing.flush(zlib.Z_FULL_FLUSH)
    block = packing.compress(b"\0" * MIB) + packing.flush(zlib.Z_FULL_FLUSH)
    return start + block * (size // MIB - 1)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_quickly_and_cheaply(name: str) -> None:
    data = BOMBS[name]()
    started = time.process_time()
    with pytest.raises(PictureError):
        admit_picture(data, LIMITS)
    seconds = time.process_time() - started
    tracemalloc.start()
    try:
        with pytest.raises(PictureError):
            admit_picture(data, LIMITS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 0.2, f"{seconds:.3f} s"
    assert peak < 64 * MIB, f"{peak / MIB:.1f} MiB"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {"compress_level": 9}), ("JPEG", {}), ("JPEG", {"optimize": True, "progressive": True, "quality": 10})],
)
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_flat_pictures_are_no_bombs(kind: str, options: dict[str, Any], mode: str) -> None:
    admit_picture(encoded(kind, size=(3000, 3000), mode=mode, **options), LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_cut_off_files_are_refused(kind: str) -> None:
    data = encoded(kind, size=(64, 64))
    for length in range(3, len(data), max(1, len(data) // 200)):
        refused(data[:length])


def test_damaged_png_is_refused() -> None:
    data = encoded(size=(64, 64))
    for place in range(8, len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        refused(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        png()[8:],
        SIGNATURE + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        png(chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))),
        png(depth=3),
        png(size=(0, 9)),
        png(chunk(b"CgBI", b"")),
        png(chunk(b"zTXt", b"no name")),
        png(chunk(b"iTXt", b"k\0\1\0no end")),
        png(chunk(b"zTXt", b"k\0\0no zlib")),
        jpeg(segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 1) + b"\1\x11\0")),
        jpeg(segment(0xC3, struct.pack(">BHHB", 8, 9, 9, 1) + b"\1\x11\0")),
        jpeg(size=(9, 0)),
        webp(canvas(9, 9), lossless(8, 8)),
        webp(canvas(9, 9)),
        webp((b"VP8 ", b"no picture")),
        webp((b"VP8L", b"no picture")),
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    refused(data)


@settings(max_examples=300, deadline=None)
@given(
    start=st.sampled_from([SIGNATURE, b"\xff\xd8\xff", b"RIFF\xff\0\0\0WEBP", b"RIFF\x40\0\0\0WEBPVP8X"]),
    rest=st.binary(),
)
def test_any_bytes_pass_or_are_refused(start: bytes, rest: bytes) -> None:
    try:
        admit_picture(start + rest, LIMITS)
    except PictureError as error:
        assert str(error)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(["JPEG", "WEBP"]), where=st.floats(0, 1), bits=st.integers(1, 255))
def test_any_damage_passes_or_is_refused(kind: str, where: float, bits: int) -> None:
    data = bytearray(encoded(kind))
    data[int(where * (len(data) - 1))] ^= bits
    try:
        admit_picture(bytes(data), LIMITS)
    except PictureError as error:
        assert str(error)


class TestText:
    @given(
        st.binary(min_size=1, max_size=600), st.integers(0, 4), st.lists(st.integers(0, 800), max_size=12), st.data()
    )
    def test_base64_in_pieces_is_base64(self, data: bytes, cut: int, spaces: list[int], drawn: st.DataObject) -> None:
        """Spaces anywhere, the padding there or not, and whatever ends at the end of a piece."""
        text = base64.b64encode(data).decode()
        text = text.rstrip("=") if cut else text
        for at in spaces:
            text = text[:at] + drawn.draw(st.sampled_from(" \n\t\r")) + text[at:]
        with mock.patch.object(inputs, "_PIECE", drawn.draw(st.integers(1, 70))):
            assert decoded_text(text, Limits()) == data
            for wrong in (
                text.rstrip("=").rstrip() + "=AAAA",
                text + "AAAA=A",
                text[:3] + "*" + text[3:],
                text + "\xe4",
            ):
                with pytest.raises(PictureError, match="no base64"):
                    decoded_text(wrong, Limits())

    def test_a_large_text_is_decoded_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One call for all of it would keep every other thread from its turn, and so /healthz from its answer."""
        largest = 0

        def decoded(data: bytes, **options: Any) -> bytes:
            nonlocal largest
            largest = max(largest, len(data))
            return b64decode(data, **options)

        b64decode = base64.b64decode
        monkeypatch.setattr(base64, "b64decode", decoded)
        data = bytes(5 * 2**20)
        assert decoded_text(base64.b64encode(data).decode(), Limits()) == data
        assert largest <= 2**18 + 8

    def test_base64_and_data_urls(self) -> None:
        data = encoded()
        text = base64.b64encode(data).decode()
        for each in (
            text,
            f"data:image/png;base64,{text}",
            f"DATA:IMAGE/PNG;BASE64,{text}",
            f" \n{text[:40]}\r\n{text[40:]}\n",
            text.rstrip("="),
        ):
            assert decoded_text(each, LIMITS) == data

    @pytest.mark.parametrize(
        "text", ["", "data:,x", "data:image/svg+xml,<svg/>", "näh", "a", "<svg/>", "====", "\ud800"]
    )
    def test_what_is_no_base64(self, text: str) -> None:
        with pytest.raises(PictureError, match=r"^image: "):
            decoded_text(text, LIMITS, "image")

    def test_sizes_at_the_limit_and_beyond(self) -> None:
        limits = Limits(picture_bytes=1000)
        assert len(decoded_text(base64.b64encode(b"x" * 1000).decode(), limits)) == 1000
        for size in (1001, 1_000_000):
            with pytest.raises(TooLarge):
                decoded_text(base64.b64encode(b"x" * size).decode(), limits)

    def test_text_becomes_an_admitted_picture(self, tmp_path: Path) -> None:
        config = ServeConfig(data=tmp_path)
        data = encoded("WEBP")
        assert picture_from_text(base64.b64encode(data).decode(), config) == data
        with pytest.raises(PictureError, match="no PNG, JPEG, WebP, TIFF, AVIF or HEIC picture"):
            picture_from_text(base64.b64encode(b"GIF89a").decode(), config)
