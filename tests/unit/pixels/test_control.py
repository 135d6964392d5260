"""Pictures for ControlNets: OpenCV's edges bit for bit, and the way to the size of the pass."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from overpaint.errors import RequestError
from overpaint.pixels.control import Frame, canny, control_picture, fit_to_pass, invert
from overpaint.pixels.resize import resize_image
from overpaint.settings import Quirks

Bytes = npt.NDArray[np.uint8]
SANE = Quirks.none()
RNG = np.random.default_rng(0)


def photo(width: int = 96, height: int = 64) -> Bytes:
    """Soft shapes, fine grain and hard edges, in colours."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7 + y / (11 + c)) + np.cos((x - y) / (5 + c)) for c in range(3)], axis=-1)
    values = 128 + 50 * waves + np.random.default_rng(1).normal(0, 6, waves.shape)
    values[height // 4 : height // 2, width // 3 : width // 2] += 60
    return values.clip(0, 255).astype(np.uint8)


def ramp(width: int = 50, height: int = 40) -> Bytes:
    return (np.add.outer(np.arange(height) * 3, np.arange(width) * 5) % 256).astype(np.uint8)


def theirs(pixels: Bytes, low: float, high: float) -> Any:
    return pytest.importorskip("cv2").Canny(pixels, low, high)


def ours(pixels: Bytes, low: float, high: float) -> Bytes:
    return np.asarray(canny(Image.fromarray(pixels), low, high))


@pytest.mark.parametrize("thresholds", [(100, 200), (200, 100), (0, 0), (30, 30), (10.9, 99.9), (50, 1000), (0, 2000)])
@pytest.mark.parametrize(
    "pixels",
    [
        photo(),
        photo()[:, :, 0].copy(),
        ramp(),
        ramp(1, 30),
        ramp(30, 1),
        ramp(1, 1),
        RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8),
        RNG.integers(0, 256, (33, 20), dtype=np.uint8),
        RNG.integers(0, 2, (40, 40), dtype=np.uint8) * np.uint8(255),
        np.zeros((9, 9), dtype=np.uint8),
    ],
    ids=["photo", "gray", "ramp", "column", "row", "point", "noise", "gray-noise", "black-white", "flat"],
)
def test_edges_of_opencv(pixels: Bytes, thresholds: tuple[float, float]) -> None:
    assert np.array_equal(ours(pixels, *thresholds), theirs(pixels, *thresholds))


@settings(max_examples=120, deadline=None)
@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 12), st.integers(1, 12)) | st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)),
        elements=st.integers(0, 255) | st.sampled_from([0, 1, 128, 254, 255]),
    ),
    st.integers(0, 1200),
    st.integers(0, 1200),
)
def test_edges_of_opencv_wherever(pixels: Bytes, low: int, high: int) -> None:
    assert np.array_equal(ours(pixels, low, high), theirs(pixels, low, high))


def test_edges_are_one_gray_channel() -> None:
    edges = canny(Image.fromarray(photo()), 100, 200)
    assert edges.mode == "L"
    assert edges.size == (96, 64)
    assert set(np.unique(np.asarray(edges))) == {0, 255}


def test_a_weak_edge_is_followed_to_its_end() -> None:
    pixels = np.zeros((20, 60), dtype=np.uint8)
    pixels[10:] = np.linspace(250, 40, 60).astype(np.uint8)  # strong at the left only
    edges = ours(pixels, 100, 800)
    assert edges.max(axis=0)[:58].min() == 255
    pixels[:, 25:30] = 0  # a gap ends it
    cut = ours(pixels, 100, 990)
    assert cut[:, :20].any()
    assert not cut[:, 40:].any()


@pytest.mark.slow
def test_edges_are_found_fast() -> None:
    rings = np.zeros((512, 512), dtype=np.uint8)
    for i in range(0, 250, 6):  # weak edges, the longest ways to go,
        rings[i : 512 - i, i : 512 - i] = 60 if (i // 6) % 2 else 0
    rings[250:262, :256] = 255  # all of them reached from a strong one
    for pixels in (RNG.integers(0, 256, (512, 512, 3), dtype=np.uint8), rings):
        seconds = []
        for _ in range(3):
            started = time.process_time()
            canny(Image.fromarray(pixels), 10, 300)
            seconds.append(time.process_time() - started)
        assert min(seconds) < 0.3


def test_invert() -> None:
    pixels = photo()
    assert np.array_equal(np.asarray(invert(Image.fromarray(pixels))), 255 - pixels)
    assert invert(Image.new("L", (2, 2), 3)).getpixel((0, 0)) == 252
    assert invert(Image.new("RGBA", (2, 2), (1, 2, 3, 4))).getpixel((0, 0)) == (254, 253, 252)


# -- the size of the pass ----------------------------------------------------------------------------------------------


def frame(width: int = 64, height: int = 48, **changes: Any) -> Frame:
    return Frame(**{"width": width, "height": height, "pass_width": width, "pass_height": height, **changes})


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_resized_as_the_source_is(mode: int) -> None:
    picture = Image.fromarray(photo(100, 50))
    wanted = resize_image(mode, picture, 64, 48, quirks=SANE)
    assert fit_to_pass(picture, frame(mode=mode), SANE).tobytes() == wanted.tobytes()


def test_latent_resizing_stretches() -> None:
    picture = Image.fromarray(photo(100, 50))
    assert fit_to_pass(picture, frame(mode=3), SANE).tobytes() == fit_to_pass(picture, frame(mode=0), SANE).tobytes()


def test_sizes_between_multiples_of_8_go_on_with_their_last_lines() -> None:
    fitted = np.asarray(fit_to_pass(Image.fromarray(photo()), frame(60, 45, pass_width=64, pass_height=48), SANE))
    assert fitted.shape == (48, 64, 3)
    assert (fitted[:, 60:] == fitted[:, 59:60]).all()
    assert (fitted[45:] == fitted[44:45]).all()


def test_what_the_latent_leaves_out_of_odd_sizes_is_cut_off() -> None:  # Quirks.floor_odd_sizes
    picture = Image.fromarray(photo())
    whole = np.asarray(fit_to_pass(picture, frame(60, 45), SANE))
    cut = np.asarray(fit_to_pass(picture, frame(60, 45, pass_width=56, pass_height=40), SANE))
    assert np.array_equal(cut, whole[:40, :56])


def test_only_the_masked_part_is_cut_out_where_the_source_is() -> None:
    picture = Image.fromarray(photo(192, 128))
    cut = frame(64, 64, source_size=(96, 64), crop=(32, 16, 64, 48))
    wanted = (
        resize_image(0, picture, 96, 64, quirks=SANE).crop((32, 16, 64, 48)).resize((64, 64), Image.Resampling.LANCZOS)
    )
    got = np.asarray(fit_to_pass(picture, cut, SANE)).astype(int)
    assert np.abs(got - np.asarray(wanted).astype(int)).max() <= 1


def test_preprocessing_comes_after_resizing() -> None:
    picture = Image.fromarray(photo(192, 128))
    small = fit_to_pass(picture, frame(), SANE)
    edges = control_picture(picture, frame(), "canny", canny_low=50, canny_high=150)
    assert edges.mode == "RGB"
    assert edges.tobytes() == canny(small, 50, 150).convert("RGB").tobytes()
    assert control_picture(picture, frame(), "invert").tobytes() == invert(small).tobytes()
    assert control_picture(picture, frame()).tobytes() == small.tobytes()


def test_transparent_pictures_lie_on_the_background() -> None:
    clear = Image.new("RGBA", (64, 48), (10, 20, 30, 0))
    assert control_picture(clear, frame()).getpixel((5, 5)) == (255, 255, 255)
    assert control_picture(clear, frame(), background="#000000").getpixel((5, 5)) == (0, 0, 0)


def test_unknown_preprocessor() -> None:
    with pytest.raises(RequestError, match=r"controls\.preprocessor='depth'"):
        control_picture(Image.new("RGB", (8, 8)), frame(), "depth")
