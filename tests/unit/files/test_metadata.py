"""metadata: what goes into a picture comes out of it again, in every format, and hostile files are errors."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from overpaint.errors import PictureError, SettingError
from overpaint.files.exif_comment import exif_comment
from overpaint.files.formats import KINDS
from overpaint.files.metadata import (
    encode_picture,
    format_for,
    read_infotext,
    read_recipe,
    recipe_path,
    recipe_text,
)
from overpaint.heic import heic_header, is_heic

INFOTEXT = 'un château 猫 🐱, "x"\nNegative prompt: é\nSteps: 8, Sampler: Euler, Seed: 5'
PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (12, 20, 3), dtype=np.uint8))


def reopened(data: bytes) -> Image.Image:
    return heic_header(data, "picture") if is_heic(data[:12]) else Image.open(io.BytesIO(data))


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunk(png: bytes, name: bytes, data: bytes, *, behind_pixels: bool = False) -> bytes:
    at = png.index(b"IEND") - 4 if behind_pixels else png.index(b"IDAT") - 4
    return png[:at] + png_chunk(name, data) + png[at:]


def source_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0an older text"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:02 03:04:05"
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


TEXTUAL = sorted(set(KINDS) - {"bmp"})  # which holds nothing but pixels


@pytest.mark.parametrize("extension", TEXTUAL)
def test_the_infotext_comes_back(extension: str) -> None:  # STORE-1, STORE-2, STORE-5
    data = encode_picture(PICTURE, extension, infotext=INFOTEXT)
    assert reopened(data).format == KINDS[extension]
    assert reopened(data).size == PICTURE.size
    for source in (data, reopened(data)):
        assert read_infotext(source)[0] == INFOTEXT


def test_recorded_pictures_show_their_infotext(parity: Path) -> None:  # STORE-1
    for path in sorted((parity / "goldens").glob("*/case.json"))[:40]:
        texts = json.loads(path.read_text(encoding="utf-8")).get("infotexts", ())  # none where the reference fails
        for index, text in enumerate(texts):
            assert read_infotext(path.parent / f"image{index}.png") == (text, {})


def test_png_holds_the_text_as_the_reference_does() -> None:  # STORE-1
    assert b"tEXtparameters\0caf\xe9" in encode_picture(PICTURE, "png", infotext="café")
    assert b"iTXtparameters\0" in encode_picture(PICTURE, "png", infotext="猫")


def test_user_comment_is_big_endian_utf_16() -> None:  # STORE-2
    exif = reopened(encode_picture(PICTURE, "jpg", infotext="a猫")).getexif()
    assert exif.get_ifd(0x8769)[0x9286] == b"UNICODE\0" + "a猫".encode("utf-16-be")


def test_nothing_is_written_unasked() -> None:
    noted = PICTURE.copy()
    noted.info = {"parameters": "old", "dpi": (3, 3), "comment": b"old", "icc_profile": b"old", "exif": b"old"}
    for extension in KINDS:
        infotext, items = read_infotext(encode_picture(noted, extension))
        assert not infotext
        assert "old" not in str(items)


def test_items_of_the_source() -> None:  # STORE-1, STORE-5
    items = {"Title": "x", "猫": "y", "": "z", "extras": "猫"}
    data = encode_picture(PICTURE, "png", infotext="cat", items=items)
    assert read_infotext(data) == ("cat", {"Title": "x", "?": "y", "item": "z", "extras": "猫"})


def test_half_characters_do_not_stop_a_save() -> None:
    for extension in TEXTUAL:
        text = read_infotext(encode_picture(PICTURE, extension, infotext="a\ud800b \ud83d\udc31"))[0]
        assert text in ("a\ufffdb 🐱", "a?b ??")


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "avif", "tiff"])
def test_exif_of_the_source_is_carried(extension: str) -> None:
    data = encode_picture(PICTURE, extension, infotext="new", exif=source_exif())
    exif = reopened(data).getexif()
    assert exif[0x010F] == "Camera"
    assert exif.get_ifd(0x8825)[1] == "N"
    assert exif.get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"
    assert 0x0112 not in exif  # the pixels are upright already
    assert read_infotext(data)[0] == "new"  # an old comment would win over the PNG's text


def test_broken_or_huge_exif_is_dropped_not_the_picture() -> None:
    huge = Image.Exif()
    huge[0x010E] = "x" * 60_000
    for exif in (b"nonsense", b"II*\0\xff\xff\xff\xff", source_exif()[:40], huge.tobytes()):
        assert read_infotext(encode_picture(PICTURE, "jpg", infotext="c" * 20_000, exif=exif))[0] == "c" * 20_000


def test_colour_profile_is_carried_where_it_fits() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for extension in ("png", "jpg", "webp", "avif"):
        assert reopened(encode_picture(PICTURE, extension, icc=icc)).info["icc_profile"] == icc
    assert "icc_profile" not in reopened(encode_picture(PICTURE.convert("L"), "png", icc=icc)).info


def test_alpha() -> None:  # STORE-3
    picture = PICTURE.convert("RGBA")
    picture.putalpha(99)
    assert reopened(encode_picture(picture, "jpg")).mode == "RGB"
    for extension in ("png", "webp", "avif"):
        assert reopened(encode_picture(picture, extension)).getpixel((0, 0))[3] == 99  # type: ignore[index]


def test_sixteen_bit() -> None:  # STORE-3
    picture = Image.fromarray(np.array([[0, 257 * 128, 65535]], dtype=np.uint16))
    assert np.array_equal(np.asarray(reopened(encode_picture(picture, "png"))), np.asarray(picture))
    jpeg = reopened(encode_picture(picture, "jpg", quality=100))
    assert jpeg.mode == "L"
    assert np.abs(np.asarray(jpeg, dtype=int) - [[0, 128, 255]]).max() <= 2
    assert reopened(encode_picture(picture, "webp")).mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"])
def test_every_mode_can_be_stored(mode: str) -> None:
    for extension in KINDS:
        assert reopened(encode_picture(Image.new(mode, (3, 2)), extension)).size == (3, 2)


def test_quality_and_lossless() -> None:  # STORE-3
    for extension in ("jpg", "webp", "avif"):
        sizes = [len(encode_picture(PICTURE, extension, quality=quality)) for quality in (5, 95)]
        assert sizes[0] < sizes[1]
    lossless = reopened(encode_picture(PICTURE, "webp", lossless=True))
    assert np.array_equal(np.asarray(lossless), np.asarray(PICTURE))


@pytest.mark.parametrize(
    ("extension", "size", "expected"),
    [
        *(("jpg", (65_500, 1), "jpg"), ("jpeg", (1, 65_536), "png"), ("webp", (16_383, 1), "webp")),
        *(("webp", (16_384, 1), "png"), ("PNG", (70_000, 1), "png"), (".avif", (1, 70_000), "png")),
    ],
)
def test_formats_too_small_for_the_picture(extension: str, size: tuple[int, int], expected: str) -> None:  # STORE-4
    picture = Image.new("L", size)
    assert format_for(picture, extension) == expected
    assert reopened(encode_picture(picture, extension)).format == KINDS[expected]


def test_an_infotext_too_long_for_jpeg() -> None:
    fitting, long = "x" * 32_000, "x" * 33_000
    assert read_infotext(encode_picture(PICTURE, "jpg", infotext=fitting))[0] == fitting
    assert format_for(PICTURE, "jpg", long) == "png"
    assert read_infotext(encode_picture(PICTURE, "jpg", infotext=long))[0] == long


def test_unknown_format() -> None:
    with pytest.raises(SettingError, match="choose one of png"):
        encode_picture(PICTURE, "tga")


def test_ignored_items() -> None:  # STORE-5
    picture = PICTURE.copy()
    picture.info = {
        "jfif_version": 1,
        "dpi": (1, 1),
        "icc_profile": b"x",
        "Author": "ann",
        "gamma": 0.45,
        "raw": b"\xff",
    }
    assert read_infotext(picture) == (None, {"Author": "ann", "gamma": 0.45})


def test_exif_wins_over_the_text_chunk() -> None:  # STORE-5
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "new".encode("utf-16-be")
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "old")
    data = io.BytesIO()
    PICTURE.save(data, "PNG", pnginfo=info, exif=exif.tobytes())
    assert read_infotext(data.getvalue())[0] == "new"


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (b"UNICODE\0" + "aé猫".encode("utf-16-le"), "aé猫"),
        (b"UNICODE\0" + "猫猫".encode("utf-16"), "猫猫"),
        (b"UNICODE\0" + "猫猫".encode("utf-16-be"), "猫猫"),
        (b"ASCII\0\0\0a cat\0", "a cat"),
        (b"\0" * 8 + "é".encode(), "é"),
        (b"no prefix at all", "no prefix at all"),
        (b"UNICODE\0", None),
    ],
)
def test_user_comments_of_other_programs(comment: bytes, text: str | None) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    assert exif_comment(exif.tobytes()) == text


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_hostile_exif_is_no_comment(data: bytes, head: bytes) -> None:
    exif_comment(head + data)
    exif_comment(source_exif()[: len(data) * 3] + data)


def test_text_behind_the_pixels() -> None:
    png = with_chunk(encode_picture(PICTURE, "png"), b"tEXt", b"parameters\0late", behind_pixels=True)
    assert read_infotext(png)[0] == "late"


def test_damaged_pixels_do_not_take_the_infotext_along() -> None:
    png = encode_picture(PICTURE, "png", infotext="cat")
    assert read_infotext(png[: png.index(b"IDAT") + 40])[0] == "cat"


def test_novelai() -> None:  # STORE-5
    info = PngImagePlugin.PngInfo()
    values = {"steps": 28, "sampler": "k_euler_ancestral", "seed": 7, "scale": 11.0, "uc": "blurry, low"}
    for key, value in {"Software": "NovelAI", "Description": "a cat", "Comment": json.dumps(values)}.items():
        info.add_text(key, value)
    data = io.BytesIO()
    PICTURE.save(data, "PNG", pnginfo=info)
    assert read_infotext(data.getvalue())[0] == (
        "a cat\nNegative prompt: blurry, low\n"
        "Steps: 28, Sampler: Euler a, CFG scale: 11.0, Seed: 7, Size: 20x12, Clip skip: 2, ENSD: 31337"
    )


@pytest.mark.parametrize("comment", ["", "no JSON", "[]", "[" * 100_000, '{"steps": []}'])
def test_novelai_with_a_broken_comment(comment: str) -> None:
    picture = PICTURE.copy()
    picture.info = {"Software": "NovelAI", "Comment": comment, "parameters": "cat"}
    assert read_infotext(picture)[0] is not None


def test_recipe_inside_and_beside(tmp_path: Path) -> None:
    recipe = {"request": {"prompt": "猫", "seed": 5}, "version": 1}
    data = encode_picture(PICTURE, "png", infotext="cat", recipe=recipe)
    assert read_recipe(data) == recipe
    assert read_infotext(data) == ("cat", {})
    path = tmp_path / "a.b.jpg"
    path.write_bytes(encode_picture(PICTURE, "jpg", recipe=recipe))
    assert read_recipe(path) is None
    assert recipe_path(path).name == "a.b.jpg.overpaint.json"
    recipe_path(path).write_text(recipe_text(recipe), encoding="utf-8")
    assert read_recipe(str(path)) == recipe


def test_a_large_recipe_leaves_the_picture_readable() -> None:
    recipe = {"mask": "x" * (3 << 20)}
    assert read_recipe(encode_picture(PICTURE, "png", recipe=recipe)) == recipe


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_broken_recipes_are_errors(text: str) -> None:
    picture = PICTURE.copy()
    picture.info = {"overpaint": text}
    with pytest.raises(PictureError, match="recipe"):
        read_recipe(picture)


@pytest.mark.parametrize("behind_pixels", [False, True])
@pytest.mark.parametrize("name", [b"zTXt", b"iTXt"])
def test_text_bombs_are_errors(name: bytes, behind_pixels: bool) -> None:
    bomb = zlib.compress(b"x" * (50 << 20), 9)
    head = b"parameters\0\0" if name == b"zTXt" else b"parameters\0\1\0\0\0"
    data = with_chunk(encode_picture(PICTURE, "png"), name, head + bomb, behind_pixels=behind_pixels)
    started = time.process_time()
    with pytest.raises(PictureError):
        read_infotext(data)
    assert time.process_time() - started < 1


def test_an_endless_infotext_is_an_error_and_an_endless_item_is_left_out() -> None:
    png = encode_picture(PICTURE, "png")
    with pytest.raises(PictureError, match="longer than"):
        read_infotext(with_chunk(png, b"tEXt", b"parameters\0" + b"x" * (2 << 20)))
    assert read_infotext(with_chunk(png, b"tEXt", b"Title\0" + b"x" * (2 << 20))) == (None, {})


def test_pixel_bombs_are_not_decoded() -> None:
    header = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 1, 0, 0, 0, 0))
    bomb = header + png_chunk(b"IDAT", zlib.compress(bytes(9000 * 1126), 9)) + png_chunk(b"IEND", b"")
    assert read_infotext(bomb) == (None, {})
    with pytest.raises(PictureError):
        read_infotext(header.replace(struct.pack(">I", 9000), struct.pack(">I", 60_000)) + png_chunk(b"IEND", b""))


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    for source in (b"", b"GIF89a", tmp_path, tmp_path / "absent.png", encode_picture(PICTURE, "png")[:60]):
        with pytest.raises(PictureError):
            read_infotext(source)


@settings(max_examples=75, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 400), st.binary(min_size=1, max_size=6))
def test_damaged_files_are_read_or_refused(extension: str, at: int, junk: bytes) -> None:
    data = _SAMPLES[extension]
    for damaged in (data[:at] + junk + data[at + len(junk) :], data[:at] + junk + data[at:], data[:at]):
        with suppress(PictureError):
            read_infotext(damaged)
            read_recipe(damaged)


_SAMPLES = {each: encode_picture(PICTURE, each, infotext="cat", recipe={"a": 1}) for each in KINDS}
