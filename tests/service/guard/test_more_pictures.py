"""TIFF, AVIF and HEIC from strangers: sizes as their writers meant them, and nothing believed that is not so."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from overpaint.deep import deep_array
from overpaint.errors import PictureError
from overpaint.files.metadata import encode_picture
from overpaint.pictures import open_picture
from overpaint.service.guard.inputs import admit_picture
from overpaint.service.limits import Limits
from overpaint.upright import NOTES

pillow_heif = pytest.importorskip("pillow_heif")
tifffile = pytest.importorskip("tifffile")

LIMITS = Limits()
NOTE = Image.Exif()
NOTE[0x010E] = "a note"
EXIF = NOTE.tobytes()
SIZES = ((1, 1), (17, 9), (150, 83))


def noise(width: int, height: int, channels: int = 3, kind: Any = np.uint8) -> Any:
    values = np.random.default_rng(width).integers(0, np.iinfo(kind).max, (height, width, channels))
    return values.astype(kind)


def saved(width: int, height: int, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(noise(width, height)).convert(mode).save(data, kind, **options)
    return data.getvalue()


def tiff(width: int, height: int, kind: Any = np.uint8, **options: Any) -> bytes:
    data = io.BytesIO()
    tifffile.imwrite(data, noise(width, height, kind=kind), photometric="rgb", **options)
    return data.getvalue()


def grid_heic() -> bytes:
    """In tiles, as phones write them."""
    data = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(noise(150, 83))).save(data, tile_size=64)
    return data.getvalue()


USUAL: dict[str, dict[str, Any]] = {
    **{
        f"tiff {name}": {"kind": "TIFF", "compression": name}
        for name in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    },
    **{f"avif {mode}": {"kind": "AVIF", "mode": mode} for mode in ("RGB", "RGBA", "L")},
    "avif with texts": {"kind": "AVIF", "exif": EXIF, "xmp": b"<x/>", "icc_profile": b"p" * 500},
    "tiff with texts": {"kind": "TIFF", "exif": NOTE, "icc_profile": b"p" * 500},
    "gray tiff": {"kind": "TIFF", "mode": "1"},
    "large tiff": {"kind": "TIFF", "big_tiff": True, "exif": NOTE, "compression": "tiff_lzw"},
}


@pytest.mark.parametrize("how", USUAL)
def test_usual_pictures_pass(how: str) -> None:
    for width, height in SIZES:
        assert admit_picture(saved(width, height, **USUAL[how]), LIMITS) == width * height


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"byteorder": ">"}, {"kind": np.uint16}, {"rowsperstrip": 1}])
def test_tiffs_of_another_writer_pass(options: dict[str, Any], big: bool) -> None:
    if big and "byteorder" in options:
        with pytest.raises(PictureError, match="a BigTIFF with its highest bytes first, save it as a plain TIFF"):
            admit_picture(tiff(9, 9, bigtiff=big, **options), LIMITS)
        return
    for width, height in SIZES:
        data = tiff(width, height, bigtiff=big, **options)
        assert admit_picture(data, LIMITS) == width * height
        assert open_picture(data).size == (width, height)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_heic_passes_with_the_size_of_its_frame(channels: int, kind: Any) -> None:
    """A small picture lies in a frame of 64 pixels a side: that is what a decoder makes room for."""
    values = noise(150, 83, channels, kind)
    picture = deep_array(values) if kind is np.uint16 else Image.fromarray(values)
    data = encode_picture(picture, "heic", exif=EXIF, xmp=b"<x/>", icc=None)
    assert 150 * 83 <= admit_picture(data, LIMITS) <= 192 * 128
    assert open_picture(data).size == (150, 83)
    assert admit_picture(grid_heic(), LIMITS) == 150 * 83


def with_size(data: bytes, width: int, height: int) -> bytes:
    """The same file, whose boxes say that all of its pictures have another size."""
    changed, at = bytearray(data), data.find(b"ispe")
    while at >= 0:
        struct.pack_into(">II", changed, at + 8, width, height)
        at = data.find(b"ispe", at + 1)
    return bytes(changed)


@pytest.mark.parametrize("make", [lambda: saved(700, 333, "AVIF"), grid_heic], ids=["avif", "heic"])
def test_boxes_that_say_less_than_the_frames_are_refused(make: Any) -> None:
    with pytest.raises(PictureError, match="it says that it is 8x8, but what is in it is not"):
        admit_picture(with_size(make(), 8, 8), LIMITS)


def test_limits_hold_for_them_too() -> None:
    narrow = Limits(source_side=100, source_pixels=5_000, source_aspect=10)
    for data in (saved(150, 83, "AVIF"), tiff(150, 83), grid_heic()):
        with pytest.raises(PictureError, match="150x83, give one with no side over 100"):
            admit_picture(data, narrow)
    tight = Limits(icc_bytes=100, exif_bytes=100, text_chunk_bytes=100)
    for data in (saved(9, 9, "AVIF", icc_profile=b"p" * 500), saved(9, 9, "TIFF", icc_profile=b"p" * 500)):
        with pytest.raises(PictureError, match="colour profile is larger"):
            admit_picture(data, tight)
    with pytest.raises(PictureError, match="its text is larger"):
        admit_picture(encode_picture(Image.new("RGB", (9, 9)), "heic", xmp=b"x" * 200), tight)
    with pytest.raises(PictureError, match="its EXIF is larger"):
        admit_picture(encode_picture(Image.new("RGB", (9, 9)), "heic", infotext="a cat" * 100), tight)


def test_several_frames_are_refused() -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    data = io.BytesIO()
    frames[0].save(data, "AVIF", save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="2 frames, give one frame"):
        admit_picture(data.getvalue(), LIMITS)


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "jpeg"}])
def test_of_a_tiff_of_several_pages_the_first_is_the_picture(options: dict[str, Any]) -> None:
    """Scanners write such, and editors add a small picture as a second page."""
    pages = [Image.new("RGB", size, colour) for size, colour in (((16, 12), "red"), ((400, 300), "blue"))]
    data = io.BytesIO()
    pages[0].save(data, "TIFF", save_all=True, append_images=pages[1:], **options)
    assert admit_picture(data.getvalue(), LIMITS) == 16 * 12
    opened = open_picture(data.getvalue())
    assert opened.size == (16, 12)
    red, _, blue = np.asarray(opened)[6, 8]
    assert red > 240 and blue < 16
    assert opened.info[NOTES] == ("it has 2 frames, of which the first is taken",)


def ifd(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    table = b"".join(struct.pack("<HHII", *each) for each in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + struct.pack("<I", following)


STRIP = ((273, 4, 1, 0), (279, 4, 1, 8))
HUGE = ((256, 4, 1, 9000), (257, 4, 1, 9000), (258, 3, 1, 8))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ifd(*HUGE, *STRIP), "too small a file"),
        (ifd(*HUGE, (259, 3, 1, 7), *STRIP), "too small a file"),
        (ifd(*HUGE, (259, 3, 1, 34712), *STRIP), "packed in a way"),
        (ifd(*HUGE, (277, 3, 1, 9), *STRIP), "of a kind that is not read"),
        (ifd(*HUGE, *STRIP, following=8), "go in a circle"),
        (ifd(*HUGE, (273, 4, 1, 4_000_000_000), (279, 4, 1, 1)), "cut off or broken"),
        (ifd(*HUGE, (273, 4, 1_000_000_000, 8), (279, 4, 1, 1)), "cut off or broken"),
        (ifd((256, 4, 1, 9), (257, 4, 1, 9), (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 9)),
         "tiles are larger"),
        (b"II*\0" + struct.pack("<I", 2**32 - 1), "cut off or broken"),
        (b"II*\0\x08\0\0\0\xff\xff", "a table of more than"),
        (b"II*\0\0\0\0\0", "cut off or broken"),
        (b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 1), "cut off or broken"),
        (b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**64 - 1), "a table of more than"),
        (b"II+\0\x10\0\0\0" + struct.pack("<QQ", 16, 0), "cut off or broken"),
        (b"II+\0", "cut off or broken"),
    ],
)  # fmt: skip
def test_tiffs_that_promise_too_much_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(PictureError, match=said):
        admit_picture(data, LIMITS)


MAKERS: dict[str, Callable[[], bytes]] = {
    "avif": lambda: saved(17, 9, "AVIF"),
    "heic": grid_heic,
    "tiff": lambda: tiff(17, 9),
    "large tiff": lambda: tiff(17, 9, bigtiff=True),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_whatever_is_wrong_is_said_in_one_sentence(make: Any) -> None:
    data, chance = make(), random.Random(3)
    for number in range(300):
        changed = bytearray(data[: chance.randrange(len(data))] if number % 3 == 0 else data)
        for _ in range(3 if number % 3 else 0):
            changed[chance.randrange(min(len(changed), 700))] = chance.randrange(256)
        try:
            assert admit_picture(bytes(changed), LIMITS) >= 1
        except PictureError as error:
            assert str(error).startswith("picture: ") and "\n" not in str(error)
