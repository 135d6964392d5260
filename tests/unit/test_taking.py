"""Pictures as Python programs hold them: what is taken, how it is read, what is refused."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from struct import pack
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image

import overpaint
from overpaint.errors import PictureError, RequestError, RequestTypeError
from overpaint.models.families import SD1_SPEC
from overpaint.parts import ControlUnit
from overpaint.planning.plan import plan
from overpaint.request import Img2ImgRequest
from overpaint.settings import Settings
from overpaint.taking import as_picture

ORIENTATION = 0x0112
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def sideways() -> Image.Image:
    return Image.open(io.BytesIO(sideways_png()))


def sideways_png() -> bytes:
    """6 wide and 4 high in the file; upright it is 4 wide and 6 high."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = io.BytesIO()
    Image.new("RGB", (6, 4)).save(data, "PNG", exif=exif)
    return data.getvalue()


def deep_png(width: int = 3, height: int = 2) -> bytes:
    """An RGB PNG of 16 bits, which Pillow does not write."""
    rows = b"".join(b"\0" + b"\x80\x01\x40\x00\x00\xff" * width for _ in range(height))
    head = pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(body)) + kind + body + pack(">I", crc32(kind + body)) for kind, body in chunks
    )


ARRAYS: list[tuple[Any, str, list[Any]]] = [
    (np.array([[0, 255]], np.uint8), "L", [0, 255]),
    (np.array([[[0], [255]]], np.uint8), "L", [0, 255]),
    (np.array([[False, True]]), "L", [0, 255]),
    (np.array([[0, 128, 129, 65535]], np.uint16), "L", [0, 0, 1, 255]),
    (np.array([[0.0, 0.5, 1.0]]), "L", [0, 128, 255]),
    (np.array([[[1.0, 0.0, 0.0]]], np.float32), "RGB", [(255, 0, 0)]),
    (np.array([[[1, 2, 3, 4]]], np.uint8), "RGBA", [(1, 2, 3, 4)]),
]


@pytest.mark.parametrize(("array", "mode", "pixels"), ARRAYS, ids=lambda each: str(getattr(each, "dtype", "")))
def test_arrays_of_numpy(array: Any, mode: str, pixels: list[Any]) -> None:
    picture = as_picture("mask", array)
    assert picture.mode == mode
    assert [picture.getpixel((x, 0)) for x in range(picture.width)] == pixels


def test_views_and_read_only_arrays_are_pictures() -> None:
    flipped = COLOURS[:, ::-1]
    flipped.flags.writeable = False
    assert np.array_equal(np.asarray(as_picture("mask", flipped)), flipped)


BAD_ARRAYS: list[tuple[Any, str]] = [
    (np.zeros((3, 8, 8), np.uint8), "mask=ndarray of (3, 8, 8), uint8: an array is (height, width) or"),
    (np.zeros((8, 8, 2), np.uint8), "with 1, 3 or 4 channels; np.moveaxis(array, 0, -1) brings channels to the end"),
    (np.zeros((8, 8)) + 255, "float64, from 255 to 255: floats go from 0, black, to 1, white; divide by 255"),
    (np.zeros((8, 8)) - 1, "or shift -1..1 to 0..1"),
    (np.full((8, 8), np.nan), "from nan to nan"),
    (np.zeros((8, 8), np.int64), "its values may be uint8, uint16, bool, or floats from 0 to 1"),
    (np.zeros((2, 8, 8, 3), np.uint8), "give one picture"),
    (np.zeros((0, 8), np.uint8), "give one picture"),
    (np.zeros(8, np.uint8), "give one picture"),
]


@pytest.mark.parametrize(("array", "said"), BAD_ARRAYS)
def test_what_could_mean_two_things_is_refused(array: Any, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        as_picture("mask", array)
    assert said in str(caught.value)
    with pytest.raises(RequestError):
        Img2ImgRequest(images=Image.new("RGB", (8, 8)), mask=array)


def test_tensors_of_torch_have_their_channels_first() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(COLOURS).permute(2, 0, 1)
    request = Img2ImgRequest(images=tensor, mask=(tensor[0] > 100), latent_mask=tensor[:1].float() / 255)
    assert np.array_equal(np.asarray(request.images[0]), COLOURS)
    assert request.mask is not None and request.latent_mask is not None
    assert np.array_equal(np.asarray(request.mask), (COLOURS[..., 0] > 100) * 255)
    assert np.array_equal(np.asarray(request.latent_mask), COLOURS[..., 0])
    half = (tensor.float() / 255).to(torch.bfloat16).requires_grad_()
    assert as_picture("mask", half).mode == "RGB"
    with pytest.raises(RequestError, match=r"tensor\.permute\(2, 0, 1\) brings channels to the front"):
        as_picture("mask", torch.from_numpy(COLOURS))
    with pytest.raises(RequestError, match="floats go from 0, black, to 1, white"):
        as_picture("mask", tensor.float() / 127.5 - 1)


def test_one_picture_may_be_given_bare_and_a_batch_as_one_array() -> None:
    picture = Image.new("RGB", (8, 8))
    assert Img2ImgRequest(images=picture).images == (picture,)
    both = Img2ImgRequest(images=np.zeros((2, 6, 4, 3), np.uint8), batch_size=2)
    assert [each.size for each in both.images] == [(4, 6), (4, 6)]


def test_arrays_are_known_without_importing_torch() -> None:
    code = (
        "import sys, numpy, overpaint\n"
        "overpaint.Img2ImgRequest(images=numpy.zeros((8, 8)))\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_picture_is_upright_in_every_way_in(tmp_path: Path) -> None:  # REQ-5
    path = tmp_path / "phone.png"
    path.write_bytes(sideways_png())
    ways: list[Image.Image | None] = [
        overpaint.open_picture(path),
        overpaint.open_picture(path.read_bytes()),
        overpaint.open_picture(sideways()),
        Img2ImgRequest(images=sideways()).images[0],
        Img2ImgRequest(images=[sideways()]).images[0],
        Img2ImgRequest(images=Image.new("RGB", (4, 6)), mask=sideways()).mask,
        Img2ImgRequest(images=Image.new("RGB", (4, 6)), latent_mask=sideways()).latent_mask,
        ControlUnit(model="canny", image=sideways()).image,
        Img2ImgRequest(images=sideways()).with_changes(prompt="again").images[0],
    ]
    assert [each and each.size for each in ways] == [(4, 6)] * len(ways)
    told = Img2ImgRequest(images=sideways()).to_json()
    assert Img2ImgRequest.from_json(told).images[0].size == (4, 6)


def test_16_bits_are_kept_whichever_way_they_come_in() -> None:
    gray = np.full((24, 32), 32768, np.uint16)
    deep = deep_png(32, 24)
    for given, dtype in (
        (Image.fromarray(gray), np.uint16),
        (gray, np.uint16),
        (overpaint.open_picture(deep), np.uint16),
        (Image.open(io.BytesIO(deep)), np.uint16),
        (Image.new("RGB", (32, 24)), np.uint8),
    ):
        request = Img2ImgRequest(images=given)
        assert overpaint.samples(request.images[0]).dtype == dtype
        assert not plan(request, None, SD1_SPEC).warnings
    assert np.asarray(Img2ImgRequest(images=gray).images[0]).max() == 128  # scaled, not cut


def test_the_reference_takes_8_bits_and_says_so() -> None:
    request = Img2ImgRequest(images=overpaint.open_picture(deep_png(32, 24)))
    (told,) = plan(request, Settings.reference(), SD1_SPEC).warnings
    assert told == "images[0]: its 16 bits per channel became 8, which is what is painted with"
    assert np.asarray(request.images[0])[0, 0].tolist() == [0x80, 0x40, 0x00]  # the upper bytes, as Pillow reads them


def test_other_things_are_no_pictures() -> None:
    for wrong in (7, "cat.png", None, object()):
        with pytest.raises(RequestTypeError, match=r"images\[0\]=.*: give a PIL picture, a numpy"):
            Img2ImgRequest(images=[wrong])  # type: ignore[list-item]
    with pytest.raises(PictureError, match="int is no picture"):
        overpaint.open_picture(7)  # type: ignore[arg-type]


def test_the_limit_lies_above_cameras_and_names_its_option() -> None:
    with pytest.raises(PictureError, match="raise the option max_source_pixels"):
        overpaint.open_picture(Image.new("1", (10_001, 10_000)))
    assert overpaint.open_picture(Image.new("1", (10_000, 10_000))).size == (10_000, 10_000)


def test_pillows_own_limit_says_nothing_below_ours() -> None:
    """pytest makes errors of warnings; Pillow warns from 89 million pixels on."""
    data = io.BytesIO()
    Image.new("1", (9_600, 9_600)).save(data, "PNG")
    assert overpaint.open_picture(data.getvalue()).size == (9_600, 9_600)
