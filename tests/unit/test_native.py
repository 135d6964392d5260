"""Native pictures: outside the mask the file's own samples, at their depth and in their colours."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

import overpaint
from overpaint.deep import DeepPicture, deep_array
from overpaint.deep_pixels import DeepPixels
from overpaint.errors import OverpaintWarning, PictureError, RequestError
from overpaint.files.metadata import encode_picture, read_infotext
from overpaint.finish import finish, unchanged
from overpaint.pictures import open_picture, source_extras
from overpaint.pixels.profiles import Profile
from overpaint.planning.plan import plan
from overpaint.request import Img2ImgRequest, Picture
from overpaint.settings import Settings
from tests import profiles
from tests.unit.toy_job import box_mask, flat_pixels, noisy_picture, planned

SIZE = (48, 40)
BOX = (10, 8, 26, 24)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = (10, 200, 30)

Values = npt.NDArray[Any]


def deep_values(channels: int, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint16]:
    values = np.random.default_rng(channels).integers(0, 65536, (size[1], size[0], channels))
    return (values if channels > 1 else values[..., 0]).astype(np.uint16)


def deep_file(channels: int, kind: str = "png", **beside: Any) -> bytes:
    return encode_picture(deep_array(deep_values(channels)), kind, **beside)


def inpainted(source: Picture, blur: float = 0, **fields: Any) -> Picture:
    """A source with a box in it that a toy painted."""
    mask = box_mask(*source.size, BOX)
    wanted: dict[str, Any] = {"blend": "plain", "only_masked": True, "mask_blur_x": blur, "mask_blur_y": blur}
    decided = planned(images=(source,), mask=mask, **{**wanted, **fields})
    return finish(decided, 0, flat_pixels(decided, COLOUR)).image


def outside(size: tuple[int, int] = SIZE, margin: int = 0) -> npt.NDArray[np.bool_]:
    kept = np.ones(size[::-1], bool)
    x1, y1, x2, y2 = BOX
    kept[y1 - margin : y2 + margin, x1 - margin : x2 + margin] = False
    return kept


def reread(picture: Picture, kind: str, **settings: Any) -> Picture:
    extras = source_extras(picture)
    return open_picture(encode_picture(picture, kind, **extras.beside, **settings))


def as_colours(values: Values) -> Values:
    """Gray in three channels."""
    if values.ndim == 2:
        return np.repeat(values[..., None], 3, axis=2)
    return (
        np.concatenate([np.repeat(values[..., :1], 3, axis=2), values[..., 1:]], axis=2)
        if values.shape[2] == 2
        else values
    )


# -- 16 bits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("only_masked", [False, True])
def test_outside_the_mask_the_samples_stay(channels: int, kind: str, only_masked: bool) -> None:
    given = deep_values(channels)
    source = open_picture(deep_file(channels, "png"))
    assert np.array_equal(overpaint.samples(source), given)
    result = inpainted(source, only_masked=only_masked)
    found, wanted = overpaint.samples(reread(result, kind)), as_colours(given)
    assert found.dtype == np.uint16
    assert np.array_equal(found[outside()], wanted[outside()])
    assert (found[~outside()][..., :3] == np.array(COLOUR, np.uint16) * 257).all()
    assert np.array_equal(found[..., 3:], wanted[..., 3:])  # what is transparent stays so


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_without_a_mask_all_of_it_is_what_was_painted(channels: int) -> None:
    source = open_picture(deep_file(channels))
    decided = planned(images=(source,))
    result = overpaint.samples(finish(decided, 0, flat_pixels(decided, COLOUR)).image)
    assert result.dtype == np.uint16
    assert np.array_equal(np.unique(result[..., :3].reshape(-1, 3), axis=0), [[each * 257 for each in COLOUR]])
    if channels in (2, 4):
        assert np.array_equal(result[..., 3], deep_values(channels)[..., -1])


def test_a_soft_mask_is_blended_in_16_bits() -> None:
    given = deep_values(3)
    source = open_picture(given)
    mask = Image.linear_gradient("L").resize(SIZE)
    hard: dict[str, Any] = {"blend": "plain", "round_mask": False, "mask_blur_x": 0, "mask_blur_y": 0}
    decided = planned(images=(source,), mask=mask, only_masked=True, **hard)
    found = overpaint.samples(finish(decided, 0, flat_pixels(decided, COLOUR)).image)
    weight = np.asarray(mask).astype(np.float64)[..., None] / 255
    exact = given * (1 - weight) + np.array(COLOUR) * 257.0 * weight
    assert np.abs(found - exact).max() <= 0.51
    assert len(np.unique(found % 257)) > 200  # no 8 bits widened


def test_opencv_reads_what_is_written(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for channels in (1, 3, 4):
        values = deep_values(channels)
        for kind in ("png", "tif"):
            path = tmp_path / f"x.{kind}"
            path.write_bytes(encode_picture(open_picture(values), kind))
            found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if channels > 1:
                found = found[..., [2, 1, 0, 3][:channels]]
            assert np.array_equal(found, values)


def test_pngs_of_many_strips_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from overpaint import deep_pixels

    monkeypatch.setattr(deep_pixels, "STRIP", 1000)
    values = deep_values(3, (200, 70))
    for kind in ("png", "tif"):
        assert np.array_equal(overpaint.samples(open_picture(encode_picture(open_picture(values), kind))), values)


def test_interlaced_and_other_layouts_are_read(tmp_path: Path) -> None:
    tifffile, png = pytest.importorskip("tifffile"), pytest.importorskip("png")
    values = deep_values(3)
    with (tmp_path / "x.png").open("wb") as file:
        png.Writer(*SIZE, bitdepth=16, greyscale=False, interlace=True).write(
            file, values.reshape(SIZE[1], -1).tolist()
        )
    assert np.array_equal(overpaint.samples(open_picture(tmp_path / "x.png")), values)
    for order in "<>":
        tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", byteorder=order)
        assert np.array_equal(overpaint.samples(open_picture(tmp_path / "x.tif")), values)
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(values, -1, 0), photometric="rgb", planarconfig="separate")
    with pytest.raises(PictureError, match="lie in planes apart: save it with them side by side"):
        open_picture(tmp_path / "x.tif")


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_deep_file_that_is_cut_off(kind: str) -> None:
    data = deep_file(3, kind)
    for keep in (len(data) // 2, len(data) - 40):
        with pytest.raises(PictureError, match=r"^the picture cannot be decoded .*: save it again as PNG or JPEG$"):
            open_picture(data[:keep])


def test_depths_of_picture_and_mask_do_not_have_to_agree() -> None:
    shallow, deep = box_mask(*SIZE, BOX), np.asarray(box_mask(*SIZE, BOX)).astype(np.uint16) * 257
    for source in (deep_values(3), noisy_picture(*SIZE)):
        found = []
        for mask in (shallow, deep):
            request = Img2ImgRequest(images=source, mask=mask, only_masked=True, mask_blur_x=0, mask_blur_y=0)
            decided = plan(request, Settings())
            found.append(overpaint.samples(finish(decided, 0, flat_pixels(decided)).image))
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0][outside()], np.asarray(source)[outside()])


def test_the_reference_paints_on_8_bits_as_it_always_did() -> None:
    source = open_picture(deep_values(3))
    decided = planned(Settings.reference(), images=(source,))
    result = finish(decided, 0, flat_pixels(decided)).image
    assert not isinstance(result, DeepPicture)
    assert np.array_equal(np.asarray(decided.canvases[0].encoded.crop((0, 0, *SIZE))), deep_values(3) >> 8)


def test_pillows_own_save_and_a_requests_json_and_pickles_keep_16_bits(tmp_path: Path) -> None:
    source = open_picture(deep_values(3))
    source.info["icc_profile"] = profiles.display_p3()
    for name in ("x.png", "x.tif"):
        source.save(tmp_path / name)
        found = open_picture(tmp_path / name)
        assert np.array_equal(overpaint.samples(found), deep_values(3))
        assert found.info["icc_profile"] == profiles.display_p3()
    told = Img2ImgRequest.from_json(Img2ImgRequest(images=source).to_json())
    assert np.array_equal(overpaint.samples(told.images[0]), deep_values(3))
    assert np.array_equal(overpaint.samples(pickle.loads(pickle.dumps(source))), deep_values(3))
    source.save(tmp_path / "x.jpg")
    assert open_picture(tmp_path / "x.jpg").mode == "RGB"


def test_a_deep_picture_that_is_changed_in_place_is_what_it_shows() -> None:
    source = open_picture(deep_values(3))
    before = np.asarray(source).copy()
    other = source.copy()
    source.paste((1, 2, 3), (0, 0, 4, 4))
    assert overpaint.samples(source).dtype == np.uint8
    assert np.asarray(source)[0, 0].tolist() == [1, 2, 3]
    assert np.array_equal(np.asarray(other), before)
    assert overpaint.samples(other).dtype == np.uint16
    assert overpaint.samples(other.crop((3, 2, 9, 8))).shape == (6, 6, 3)
    assert overpaint.samples(other.resize((9, 8))).dtype == np.uint8


# -- colours -----------------------------------------------------------------------------------------------------------


def tagged(mode: str, profile: bytes) -> Picture:
    return open_picture(reread_bytes(noisy_picture(*SIZE).convert(mode), profile))


def reread_bytes(picture: Picture, profile: bytes) -> bytes:
    data = io.BytesIO()
    picture.save(data, "TIFF" if picture.mode == "CMYK" else "PNG", icc_profile=profile)
    return data.getvalue()


@pytest.mark.parametrize("name", ["display_p3", "prophoto", "parametric"])
@pytest.mark.parametrize("deep", [False, True])
def test_painting_happens_in_srgb_and_comes_back_through_the_profile(name: str, deep: bool) -> None:
    profile = getattr(profiles, name)()
    source = open_picture(deep_file(3, icc=profile)) if deep else tagged("RGB", profile)
    result = reread(inpainted(source), "png")
    before, after = overpaint.samples(source), overpaint.samples(result)
    assert np.array_equal(before[outside()], after[outside()])
    assert result.info["icc_profile"] == profile
    seen = ImageCms.profileToProfile(result.convert("RGB"), io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    assert seen is not None
    assert np.abs(np.asarray(seen)[~outside()].astype(int) - COLOUR).max() <= 5
    assert (after[~outside()] != np.array(COLOUR) * (257 if deep else 1)).any()  # other numbers, the same colour


@pytest.mark.parametrize("name", ["display_p3", "prophoto", "parametric"])
def test_16_bits_through_a_profile_are_as_littlecms_has_them(name: str) -> None:
    profile = Profile.read(getattr(profiles, name)(), "RGB")
    picture = noisy_picture(64, 64)
    eight = np.asarray(profile.brought_back(picture)).astype(float)
    assert np.abs(profile.brought_back_deep(picture) / 257 - eight).max() < 0.6  # half a level is rounding
    ramp = Image.merge("RGB", [Image.linear_gradient("L")] * 3)
    levels = profile.brought_back_deep(ramp)[:, 0, 1]
    assert (np.diff(levels.astype(int)) > 0).all()  # no two of 256 fall together, as they do in 8 bits


def test_an_srgb_profile_changes_nothing() -> None:
    source = tagged("RGB", SRGB)
    plain = open_picture(np.asarray(source))
    result = inpainted(source)
    assert np.array_equal(np.asarray(result), np.asarray(inpainted(plain)))
    assert result.info["icc_profile"] == SRGB


def test_gray_becomes_colours_that_look_the_same_and_a_gray_profile_too() -> None:
    for profile in (None, profiles.gray()):
        source = noisy_picture(*SIZE).convert("L")
        data = io.BytesIO()
        source.save(data, "PNG", icc_profile=profile)
        result = reread(inpainted(open_picture(data.getvalue())), "png")
        assert result.mode == "RGB"
        values = np.asarray(result)
        assert np.array_equal(values[outside()], as_colours(np.asarray(source))[outside()])
        if profile is None:
            continue
        own = result.info["icc_profile"]
        shown = ImageCms.profileToProfile(result, io.BytesIO(own), ImageCms.createProfile("sRGB"))
        wanted = ImageCms.profileToProfile(
            source, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert shown is not None and wanted is not None
        apart = np.asarray(shown).astype(int) - np.asarray(wanted)
        assert np.abs(apart[outside()]).max() <= 1
        assert np.abs(np.asarray(shown)[~outside()].astype(int) - COLOUR).max() <= 2


@pytest.mark.parametrize("profile", [None, profiles.cmyk()], ids=["without", "with"])
def test_cmyk_stays_cmyk(profile: bytes | None) -> None:
    source = noisy_picture(*SIZE).convert("CMYK")
    data = io.BytesIO()
    source.save(data, "TIFF", **({"icc_profile": profile} if profile else {}))
    result = reread(inpainted(open_picture(data.getvalue())), "tif")
    assert result.mode == "CMYK"
    assert result.info.get("icc_profile") == profile
    assert np.array_equal(np.asarray(result)[outside()], np.asarray(source)[outside()])
    assert len(np.unique(np.asarray(result)[~outside()], axis=0)) == 1
    jpeg = Image.open(io.BytesIO(encode_picture(result, "jpg", icc=profile, quality=95)))
    assert jpeg.mode == "CMYK"
    assert np.abs(np.asarray(jpeg).astype(int) - np.asarray(result)).mean() < 16
    png = Image.open(io.BytesIO(encode_picture(result, "png", icc=profile)))
    assert (png.mode, png.info.get("icc_profile")) == ("RGB", None)


def deep_cmyk() -> Picture:
    return DeepPicture.of_pixels(DeepPixels(deep_values(4), is_cmyk=True))


@pytest.mark.parametrize("profile", [None, profiles.cmyk()], ids=["without", "with"])
def test_cmyk_of_16_bits_stays_that(profile: bytes | None, tmp_path: Path) -> None:
    """What tifffile reads of it, nobody here wrote."""
    tifffile = pytest.importorskip("tifffile")
    source = open_picture(encode_picture(deep_cmyk(), "tif", icc=profile))
    assert (source.mode, source.info.get("icc_profile")) == ("CMYK", profile)
    result = inpainted(source)
    path = tmp_path / "x.tif"
    path.write_bytes(encode_picture(result, "tif", icc=profile))
    with tifffile.TiffFile(path) as file:
        (page,) = file.pages
        assert page.photometric == tifffile.PHOTOMETRIC.SEPARATED
        samples = page.asarray()
    assert samples.dtype == np.uint16
    assert np.array_equal(samples[outside()], deep_values(4)[outside()])
    painted = np.unique(samples[~outside()], axis=0)
    colours = Image.new("RGB", (1, 1), COLOUR)
    shown = Profile.read(profile, "CMYK").brought_back(colours) if profile else colours.convert("CMYK")
    assert painted.tolist() == [[level * 257 for level in np.asarray(shown)[0, 0].tolist()]]
    for kind, mode in (("png", "RGB"), ("jpg", "CMYK"), ("webp", "RGB")):
        assert Image.open(io.BytesIO(encode_picture(result, kind, icc=profile))).mode == mode
    assert pickle.loads(pickle.dumps(result)).mode == "CMYK"
    assert result.crop((0, 0, 5, 5)).mode == "CMYK"


def test_palettes_become_colours() -> None:
    source = noisy_picture(*SIZE).quantize(16)
    source.info["transparency"] = 3
    data = io.BytesIO()
    source.save(data, "PNG", transparency=3)
    opened = open_picture(data.getvalue())
    result = reread(inpainted(opened), "png")
    assert np.array_equal(np.asarray(result)[outside()], np.asarray(opened.convert("RGBA"))[outside()])


BROKEN = "its colour profile cannot be read, so its colours are taken as sRGB; it is kept as it is in the result"


@pytest.mark.parametrize("profile", [b"rubbish" * 40, SRGB[:300]], ids=["rubbish", "cut off"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_broken_profile_is_told_of_and_kept(profile: bytes, deep: bool) -> None:
    source = open_picture(deep_values(3)) if deep else noisy_picture(*SIZE)
    source.info["icc_profile"] = profile
    assert BROKEN in plan(Img2ImgRequest(images=source), Settings()).warnings[0].replace(
        "left out of", "kept as it is in"
    )
    result = inpainted(source)
    assert np.array_equal(overpaint.samples(result)[outside()], overpaint.samples(source)[outside()])
    assert result.info["icc_profile"] == profile


@pytest.mark.parametrize(("mode", "name"), [("RGB", "gray"), ("RGB", "cmyk"), ("CMYK", "display_p3")])
def test_a_profile_for_other_pictures_is_left_out_and_told_of(mode: str, name: str) -> None:
    source = noisy_picture(*SIZE).convert(mode)
    source.info["icc_profile"] = getattr(profiles, name)()
    (told,) = plan(Img2ImgRequest(images=source), Settings()).warnings
    assert told.startswith("images[0]: its colour profile is one for ")
    assert told.endswith(
        f"pictures, and this is {mode}, so its colours are taken as sRGB; it is left out of the result"
    )
    assert "icc_profile" not in inpainted(source).info


def test_floats_and_one_bit() -> None:
    data = io.BytesIO()
    Image.new("F", SIZE, 0.5).save(data, "TIFF")
    with pytest.raises(PictureError, match="mode F: save it with 8 or 16 bits per channel"):
        open_picture(data.getvalue())
    source = noisy_picture(*SIZE).convert("1")
    result = inpainted(source)
    assert np.array_equal(np.asarray(result)[outside()], np.asarray(source.convert("RGB"))[outside()])


# -- what stands beside the pixels -------------------------------------------------------------------------------------

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>somebody</x:xmpmeta>"


def noted_exif(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = orientation, "somebody"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["png", "tif", "webp", "avif", "jpg", "heic"])
@pytest.mark.parametrize("deep", [False, True])
def test_exif_xmp_resolution_profile_and_infotext_survive_in_every_format(kind: str, deep: bool) -> None:
    source = open_picture(deep_values(3)) if deep else noisy_picture(*SIZE)
    source.info.update(xmp=XMP, dpi=(300, 300), icc_profile=profiles.display_p3(), exif=noted_exif())
    extras = source_extras(inpainted(source))
    data = encode_picture(inpainted(source), kind, infotext="a cat\nSteps: 4", **extras.beside)
    found = open_picture(data)
    assert found.getexif()[0x013B] == "somebody"
    assert found.getexif().get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
    assert found.info["xmp"] == XMP
    assert found.info["icc_profile"] == profiles.display_p3()
    assert read_infotext(data)[0] == "a cat\nSteps: 4"
    if kind in ("png", "tif", "jpg"):
        assert [round(each) for each in found.info["dpi"]] == [300, 300]


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_not_doubled(kind: str, deep: bool, orientation: int) -> None:
    given = open_picture(deep_values(3)) if deep else noisy_picture(*SIZE)
    # NOTE: what is written drops the tag, so it is put back into the file by Pillow, or into the picture's own words.
    upright_values = turned(overpaint.samples(given), orientation)
    data = with_orientation(encode_picture(given, kind), orientation)
    source = open_picture(data)
    assert np.array_equal(overpaint.samples(source), upright_values)
    again = reread(unchanged(planned(images=(source,), strength=0), 0).image, kind)
    assert np.array_equal(overpaint.samples(again), upright_values)
    assert again.getexif().get(0x0112, 1) == 1


def turned(values: Values, orientation: int) -> Values:
    """How a viewer shows pixels of this orientation (TIFF 6.0)."""
    flipped = values.swapaxes(0, 1) if orientation >= 5 else values
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return flipped[rows, columns]


def with_orientation(data: bytes, orientation: int) -> bytes:
    """The tag put into a finished file: a chunk of a PNG, an entry at the end of a TIFF's directory."""
    import struct
    import zlib

    if data.startswith(b"\x89PNG"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        return data[:33] + chunk + data[33:]
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count)]
    entries = sorted([*entries, struct.pack("<HHII", 0x0112, 3, 1, orientation)], key=lambda each: each[:2][::-1])
    ifd = struct.pack("<H", count + 1) + b"".join(entries) + struct.pack("<I", 0)
    padded = data + bytes(len(data) % 2)
    return padded[:4] + struct.pack("<I", len(padded)) + padded[8:] + ifd


# -- what a format loses -----------------------------------------------------------------------------------------------


def test_what_a_format_loses_is_told() -> None:
    from overpaint.files.formats import losses

    deep = open_picture(deep_values(4))
    plain = noisy_picture(*SIZE)
    wide = noisy_picture(*SIZE)
    wide.info["icc_profile"] = profiles.display_p3()
    assert list(losses(deep, "x.png", is_masked=True)) == []
    assert list(losses(deep, "x.tif", is_masked=True)) == []
    assert list(losses(deep, "x.jpg")) == [
        "x.jpg: JPEG holds no transparency, so a background is put behind it; use PNG",
        "x.jpg: JPEG holds 8 bits per channel, so the picture's 16 are rounded; use PNG or TIFF",
    ]
    assert list(losses(plain.convert("CMYK"), "x.png")) == [
        "x.png: PNG holds no CMYK, so the colours become sRGB; use TIFF"
    ]
    assert list(losses(wide, "x.bmp")) == [
        "x.bmp: BMP holds no colour profile, so the colours become sRGB; use PNG or TIFF"
    ]
    masked = "packs every pixel anew, so those outside the mask change a little; use PNG or TIFF"
    assert list(losses(plain, "x.jpg", is_masked=True)) == [f"x.jpg: JPEG {masked}"]
    assert list(losses(plain, "x.webp", is_masked=True)) == [f"x.webp: WEBP {masked}"]
    assert list(losses(plain, "x.webp", is_masked=True, lossless=True)) == []


def test_without_a_place_for_the_profile_the_colours_are_those_that_were_seen() -> None:
    wide = noisy_picture(*SIZE)
    profile = profiles.display_p3()
    shown = Image.open(io.BytesIO(encode_picture(wide, "bmp", icc=profile)))
    wanted = ImageCms.profileToProfile(wide, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    assert wanted is not None
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(wanted)).max() <= 1


def test_16_bits_are_rounded_to_the_nearest_8() -> None:
    values = deep_values(3)
    found = np.asarray(Image.open(io.BytesIO(encode_picture(open_picture(values), "bmp"))))
    assert np.abs(found - values / 257).max() <= 0.5


# -- many times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_fifty_edits_leave_everything_outside_as_it_was(deep: bool, alpha: bool) -> None:
    size = (40, 32)
    channels = 4 if alpha else 3
    values = deep_values(channels, size) if deep else deep_values(channels, size).astype(np.uint8)
    picture = open_picture(encode_picture(open_picture(values), "png", icc=profiles.prophoto()))
    touched = np.zeros(size[::-1], bool)
    rng = np.random.default_rng(0)
    for _ in range(50):
        x, y = int(rng.integers(0, 20)), int(rng.integers(0, 16))
        mask = box_mask(*size, (x, y, x + 6, y + 6))
        decided = planned(images=(picture,), mask=mask, mask_blur_x=1, mask_blur_y=1, only_masked=True, padding=2)
        assert decided.mask is not None
        touched |= np.asarray(decided.mask.overlay.convert("L")) > 0
        picture = reread(finish(decided, 0, flat_pixels(decided, tuple(rng.integers(0, 256, 3)))).image, "png")
    found = overpaint.samples(picture)
    assert not touched.all() and touched.any()
    assert found.dtype == values.dtype
    assert np.array_equal(found[~touched], values[~touched])
    assert picture.info["icc_profile"] == profiles.prophoto()


# -- HEIC --------------------------------------------------------------------------------------------------------------


def test_heic_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(PictureError) as told:
        open_picture(path)
    assert str(told.value) == (
        f"{path}: to read HEIC the extra overpaint[heic] is needed; install it with: pip install 'overpaint[heic]'"
    )


@pytest.mark.parametrize("deep", [False, True])
def test_heic_is_read(deep: bool) -> None:
    heif = pytest.importorskip("pillow_heif")
    data = io.BytesIO()
    if deep:
        values = deep_values(3, (64, 64)) // 64 * 64
        heif.encode("RGB;16", (64, 64), values.tobytes(), data, quality=-1, chroma=444, matrix_coefficients=0)
    else:
        heif.from_pillow(noisy_picture(64, 64)).save(
            data, quality=90, exif=noted_exif(), icc_profile=profiles.display_p3()
        )
    opened = open_picture(data.getvalue())
    assert opened.size == (64, 64)
    assert overpaint.samples(opened).dtype == (np.uint16 if deep else np.uint8)
    if not deep:
        assert opened.info["icc_profile"] == profiles.display_p3()
        assert opened.getexif()[0x013B] == "somebody"


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_heic_is_written(deep: bool, channels: int) -> None:
    """A smooth picture comes back as it was, nearly; one of 16 bits as one of 10."""
    heif = pytest.importorskip("pillow_heif")
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)
    values = np.stack([np.broadcast_to(ramp, (40, 64))] * channels, axis=2)
    values = values[..., 0] if channels == 1 else values
    source = deep_array(values) if deep else Image.fromarray((values >> 8).astype(np.uint8))
    data = encode_picture(source, "heic", quality=95)
    read = heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    assert read.mode == {1: "RGB", 3: "RGB", 4: "RGBA"}[channels] + (";16" if deep else "")
    found = np.asarray(read).astype(int) * (1 if deep else 257)
    wanted = values[..., None] if channels == 1 else values
    assert np.abs(found - wanted)[..., :3].max() <= (257 if deep else 3 * 257)
    if channels == 4 and not deep:
        assert np.abs(found - wanted)[..., 3].max() <= 3 * 257


def test_heic_is_refused_before_painting_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from overpaint.files import keeping

    monkeypatch.setattr(keeping, "can_write_heic", lambda: False)
    with pytest.raises(RequestError) as told:
        keeping.check_format("cat.heic", "--output")
    assert str(told.value).endswith(
        "to write HEIC the extra overpaint[heic] is needed; install it with: pip install 'overpaint[heic]'"
    )


def test_a_heic_that_is_larger_than_a_frame_is_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    from overpaint import heic

    pytest.importorskip("pillow_heif")
    monkeypatch.setattr(heic, "_LONGEST_FRAME", 64)
    monkeypatch.setattr(heic, "_TILE", 64)
    data = encode_picture(noisy_picture(150, 83), "heic")
    assert data.count(b"hvc1") > 4
    assert open_picture(data).size == (150, 83)


def test_frames_are_told_once_to_a_program(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    noisy_picture(8, 8).save(path, save_all=True, append_images=[noisy_picture(8, 8, seed=2)])
    with pytest.warns(OverpaintWarning, match="of which the first is taken") as told:
        overpaint.open_picture(path)
    assert len(told) == 1
