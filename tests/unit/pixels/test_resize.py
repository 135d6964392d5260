from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from overpaint.errors import RequestError
from overpaint.pictures import open_picture
from overpaint.pixels.resize import UPSCALERS, resample, resize_image
from overpaint.settings import Quirks
from tests.conftest import PARITY, WHOLE_SET

REFERENCE, SANE = Quirks.reference(), Quirks.none()
sizes = st.integers(1, 40)


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def test_every_recorded_resize_is_bit_equal(parity: Path) -> None:  # RESIZE-1 to RESIZE-7
    recorded = np.load(parity / "unit" / "resize_image.npz")
    assert len(recorded.files) == (80 if PARITY == WHOLE_SET else 9)
    different = []
    for key in recorded.files:
        name, mode, size = key.split("|")
        width, height = map(int, size.split("x"))
        result = resize_image(int(mode), open_picture(parity / "images" / name), width, height, quirks=REFERENCE)
        if not np.array_equal(np.asarray(result), recorded[key]):
            different.append(key)
    assert not different


def test_rows_are_resampled_before_columns() -> None:
    image = noise(131, 197)
    rows_first = image.resize((128, 197), Image.Resampling.LANCZOS).resize((128, 128), Image.Resampling.LANCZOS)
    assert resample(image, 128, 128, Image.Resampling.LANCZOS).tobytes() == rows_first.tobytes()


def test_transparent_colours_do_not_bleed_when_resampled() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (4, 0, 8, 8))
    small = np.asarray(resample(image, 3, 3, Image.Resampling.LANCZOS))
    assert small[..., 0].max() == 0


@pytest.mark.parametrize(("edge", "second", "band"), [(100, 50, 106), (200, 80, 215), (250, 10, 255)])  # RESIZE-5
def test_reference_bands_extrapolate(edge: int, second: int, band: int) -> None:
    image = Image.new("L", (8, 4), edge)
    image.paste(second, (0, 1, 8, 3))
    result = np.asarray(resize_image(2, image, 8, 12, quirks=REFERENCE))
    assert (result[:4] == band).all()
    assert (result[8:] == band).all()
    assert (result[4] == edge).all()


def test_sane_bands_repeat_the_edge() -> None:
    image = noise(8, 4)
    result = np.asarray(resize_image(2, image, 8, 13, quirks=SANE))
    pixels = np.asarray(image)
    assert (result[:4] == pixels[0]).all()
    assert (result[4:8] == pixels).all()
    assert (result[8:] == pixels[-1]).all()


def test_only_the_reference_leaves_a_black_line() -> None:  # RESIZE-5: H=65, sh=32
    white = Image.new("RGB", (64, 32), "white")
    assert np.asarray(resize_image(2, white, 64, 65, quirks=REFERENCE))[-1].max() == 0
    assert np.asarray(resize_image(2, white, 64, 65, quirks=SANE)).min() == 255


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 3), sizes, sizes, sizes, sizes, st.booleans(), st.sampled_from(["L", "RGB", "RGBA"]))
def test_results_have_the_size_that_was_asked(
    mode: int, width: int, height: int, wanted_width: int, wanted_height: int, quirky: bool, kind: str
) -> None:
    image = noise(width, height, kind)
    result = resize_image(mode, image, wanted_width, wanted_height, quirks=REFERENCE if quirky else SANE)
    assert result.size == (wanted_width, wanted_height)
    assert result.mode == (kind if mode == 0 else "RGB")  # RESIZE-7


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3), sizes, sizes, sizes, sizes)
def test_sane_results_are_covered_completely(mode: int, width: int, height: int, wide: int, high: int) -> None:
    white = Image.new("RGB", (width, height), "white")
    assert np.asarray(resize_image(mode, white, wide, high, quirks=SANE)).min() == 255


def test_mode_3_acts_as_mode_2_and_others_are_refused() -> None:  # RESIZE-6
    image = noise(20, 10)
    assert (
        resize_image(3, image, 16, 16, quirks=SANE).tobytes() == resize_image(2, image, 16, 16, quirks=SANE).tobytes()
    )
    with pytest.raises(RequestError, match="resize_mode=4"):
        resize_image(4, image, 16, 16, quirks=SANE)


def test_named_upscalers(parity: Path) -> None:  # RESIZE-1, EX-4
    image = open_picture(parity / "images" / "cat128.png")
    nearest = resize_image(0, image, 256, 256, upscaler="Nearest", quirks=REFERENCE)
    assert np.array_equal(np.asarray(nearest), np.asarray(image).repeat(2, axis=0).repeat(2, axis=1))
    plain = resize_image(0, image, 256, 256, quirks=REFERENCE).tobytes()
    for name in ("None", "", "Lanczos"):
        assert resize_image(0, image, 256, 256, upscaler=name, quirks=REFERENCE).tobytes() == plain
    assert set(UPSCALERS) == {"", "None", "Lanczos", "Nearest"}


def test_upscalers_only_enlarge_and_leave_masks_alone() -> None:  # RESIZE-1
    def never(image: Image.Image, scale: float) -> Image.Image:
        raise AssertionError(scale)

    assert resize_image(0, noise(20, 10), 20, 8, upscaler=never, quirks=SANE).size == (20, 8)
    assert resize_image(0, noise(20, 10, "L"), 40, 20, upscaler=never, quirks=SANE).size == (40, 20)


def test_an_upscaler_runs_until_the_size_is_reached() -> None:  # EX-4
    scales: list[float] = []

    def double(image: Image.Image, scale: float) -> Image.Image:
        scales.append(scale)
        return image.resize((2 * image.width, 2 * image.height))

    assert resize_image(0, noise(16, 8), 80, 40, upscaler=double, quirks=SANE).size == (80, 40)
    assert scales == pytest.approx([5, 5, 5])


def test_only_the_reference_upscales_to_multiples_of_8() -> None:  # EX-3
    image = noise(10, 10)
    quirky = resize_image(0, image, 30, 30, upscaler="Nearest", quirks=REFERENCE)
    sane = resize_image(0, image, 30, 30, upscaler="Nearest", quirks=SANE)
    assert np.array_equal(np.asarray(sane), np.asarray(image).repeat(3, axis=0).repeat(3, axis=1))
    assert quirky.tobytes() != sane.tobytes()


def test_unknown_upscalers() -> None:  # RESIZE-1
    image = noise(10, 10)
    assert resize_image(0, image, 20, 20, upscaler="Gone", quirks=REFERENCE).size == (20, 20)
    with pytest.raises(RequestError, match=r"upscaler_for_img2img='Gone'.*Lanczos"):
        resize_image(0, image, 20, 20, upscaler="Gone", quirks=SANE)


@given(
    size=st.tuples(sizes, sizes),
    target=st.tuples(sizes, sizes),
    rows=st.tuples(sizes, sizes),
    filter_=st.sampled_from(Image.Resampling),
)
@settings(deadline=None, max_examples=200)
def test_a_mask_between_black_rows_is_resampled_as_any_picture(
    size: tuple[int, int], target: tuple[int, int], rows: tuple[int, int], filter_: Image.Resampling
) -> None:
    mask = Image.new("L", size)
    top = min(rows[0], size[1] - 1)
    mask.paste(noise(size[0], rows[1], "L"), (0, top))
    plain = mask.resize((target[0], size[1]), filter_).resize(target, filter_)
    assert resample(mask, *target, filter_).tobytes() == plain.tobytes()
