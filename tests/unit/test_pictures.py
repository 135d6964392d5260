from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

import overpaint
from overpaint.errors import OverpaintWarning, PictureError
from overpaint.models.families import SD1_SPEC
from overpaint.pictures import flatten, open_picture, source_extras
from overpaint.planning.plan import plan
from overpaint.request import Img2ImgRequest
from overpaint.settings import Quirks

ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format=kind, **options)
    return data.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises pixels and holds none."""
    chunks = [(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b""))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(body)) + kind + body + pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_recorded_flattening(parity: Path) -> None:  # IMG-1.2
    recorded = np.load(parity / "unit" / "pictures.npz")
    keys = [key for key in recorded.files if key.startswith("flatten|")]
    assert len(keys) == 3
    for key in keys:
        picture = open_picture(parity / "images" / key.split("|")[1])
        assert np.array_equal(np.asarray(flatten(picture, "#204060")), recorded[key]), key


def test_flattening_gray_with_alpha() -> None:
    picture = Image.new("LA", (1, 1), (50, 0))
    assert flatten(picture, "#ff0000").getpixel((0, 0)) == (255, 0, 0)
    assert flatten(picture, "#ff0000", Quirks.reference()).getpixel((0, 0)) == (50, 50, 50)


def test_ways_to_give_a_picture(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    path = tmp_path / "a.png"
    image.save(path)
    for opened in (open_picture(path), open_picture(str(path)), open_picture(path.read_bytes()), open_picture(image)):
        assert opened.tobytes() == image.tobytes()
        assert opened is not image


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(PictureError, match="cannot be opened"):
        open_picture(data)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"gone\.png"):
        open_picture(tmp_path / "gone.png")


def test_truncated_pictures_are_refused() -> None:
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(PictureError, match="cannot be decoded"):
        open_picture(data[: len(data) // 2])


@pytest.mark.parametrize("size", [(101, 100), (30_000, 30_000), (12_000, 12_000)])
def test_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    with pytest.raises(PictureError, match=r"too large|max_source_pixels=10000"):
        open_picture(png_header(*size), max_pixels=10_000)


def test_the_limit_itself_is_allowed() -> None:
    assert open_picture(encoded(Image.new("L", (100, 100))), max_pixels=10_000).size == (100, 100)
    with pytest.raises(PictureError, match="101x100 = 10100 pixels"):
        open_picture(Image.new("L", (101, 100)), max_pixels=10_000)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken_and_it_says_so(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.warns(OverpaintWarning, match="^the picture: it has 2 frames, of which the first is taken$"):
        opened = overpaint.open_picture(data)
    red, green, blue = opened.convert("RGB").getpixel((4, 4))  # type: ignore[misc]
    assert red > 250 and max(green, blue) < 5
    (told,) = plan(Img2ImgRequest(images=open_picture(data)), None, SD1_SPEC).warnings
    assert told == "images[0]: it has 2 frames, of which the first is taken"


def test_floating_point_pictures_are_refused() -> None:
    with pytest.raises(PictureError, match="mode F"):
        open_picture(encoded(Image.new("F", (2, 2)), "TIFF"))


@pytest.mark.parametrize(("orientation", "size"), [(1, (6, 4)), (3, (6, 4)), (6, (4, 6)), (8, (4, 6))])  # REQ-5
def test_orientation_is_applied_once(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    opened = open_picture(encoded(Image.new("RGB", (6, 4)), "JPEG", exif=exif))
    assert opened.size == size
    assert opened.getexif().get(ORIENTATION, 1) == 1


def test_broken_exif_spoils_nothing() -> None:  # REQ-5
    assert open_picture(encoded(Image.new("RGB", (6, 4)), "JPEG", exif=b"Exif\0\0rubbish")).size == (6, 4)


def test_palette_with_byte_transparency_becomes_rgba() -> None:  # REQ-5
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    opened = open_picture(encoded(image, transparency=b"\x00\x80"))
    assert opened.mode == "RGBA"
    assert opened.getpixel((1, 0)) == (0, 255, 0, 128)


def test_16_bit_gray_is_scaled() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    opened = open_picture(encoded(Image.fromarray(values)))
    assert opened.mode == "L"
    assert overpaint.samples(opened).tolist() == values.tolist()
    assert np.asarray(opened).tolist() == [[0, 0, 1, 1, 128, 255]]
    assert source_extras(opened).mode == "I;16"


def test_extras_are_kept_for_the_result() -> None:
    exif = Image.Exif()
    exif[0x013B] = "somebody"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGBA", (2, 1), (9, 9, 9, 77))
    extras = source_extras(open_picture(encoded(image, exif=exif, icc_profile=profile)))
    assert extras.icc == profile
    assert extras.exif is not None
    assert b"somebody" in extras.exif
    assert extras.mode == "RGBA"


def test_plain_pictures_have_no_extras() -> None:
    extras = source_extras(open_picture(encoded(Image.new("RGB", (2, 1)))))
    assert (extras.exif, extras.icc, extras.xmp, extras.dpi) == (None, None, None, None)


@pytest.mark.parametrize("channels", [(), (3,), (4,)], ids=["gray", "RGB", "RGBA"])
def test_16_bits_are_kept_beside_8(tmp_path: Path, channels: tuple[int, ...]) -> None:
    cv2 = pytest.importorskip("cv2")
    values = np.random.default_rng(0).integers(0, 65536, (8, 12, *channels), dtype=np.uint16)
    written = values if not channels else values[..., [2, 1, 0, 3][: channels[0]]]  # OpenCV writes BGR
    for suffix in ("tif", "png"):
        path = tmp_path / f"deep.{suffix}"
        cv2.imwrite(str(path), written)
        with Image.open(path) as lazy:
            given: list[Any] = [path, path.read_bytes(), lazy]
            opened = [overpaint.open_picture(each) for each in given]
        for each in opened:
            assert np.array_equal(overpaint.samples(each), values)
            assert np.abs(np.asarray(each).astype(int) * 257 - values).max() <= 257


def test_16_bits_that_cannot_be_kept_are_told_of() -> None:
    with pytest.warns(OverpaintWarning, match="^the picture: its 16 bits per channel became 8"):
        opened = overpaint.open_picture(deep_tiff(2, premultiplied=True))
    assert overpaint.samples(opened).dtype == np.uint8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overpaint.open_picture(encoded(Image.new("RGB", (4, 4)), "TIFF"))


def test_cmyk_of_16_bits_keeps_them() -> None:
    opened = overpaint.open_picture(deep_tiff(5))
    assert opened.mode == "CMYK"
    assert overpaint.samples(opened).tolist() == [[[1000, 2000, 3000, 4000]]]


def deep_tiff(colours: int, *, premultiplied: bool = False) -> bytes:
    """A TIFF of one pixel of four channels, which Pillow does not write."""
    tags = {256: (1,), 257: (1,), 258: (16,) * 4, 259: (1,), 262: (colours,), 277: (4,), 278: (1,), 279: (8,)}
    tags |= {338: (1,)} if premultiplied else {}
    entries, beyond = b"", pack("<8H", 16, 16, 16, 16, 1000, 2000, 3000, 4000)
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    for tag, values in sorted({**tags, 273: (start + 8,)}.items()):
        kind = 4 if tag in (273, 279) else 3
        value = start if tag == 258 else values[0]
        entries += pack("<HHII", tag, kind, len(values), value)
    return b"II*\0" + pack("<I", 8) + pack("<H", len(tags) + 1) + entries + pack("<I", 0) + beyond
