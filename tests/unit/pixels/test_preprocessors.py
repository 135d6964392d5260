"""What is made of control pictures without a network, against OpenCV and against the formulas."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from overpaint.errors import RequestError
from overpaint.parts import AMOUNTS, ControlUnit, Preprocessor
from overpaint.pixels.control import Frame, control_picture
from overpaint.pixels.preprocessors import preprocessed
from overpaint.text.control_notes import control_notes, controls_told
from overpaint.text.shorthand import control_from_text

RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)


def made(name: Any, amount: float | None = None, pixels: Any = COLOURS) -> Any:
    picture = preprocessed(Image.fromarray(pixels), name, amount)
    assert picture.mode == "RGB" and picture.size == pixels.shape[1::-1]
    return np.asarray(picture)


def test_threshold() -> None:
    cv2 = pytest.importorskip("cv2")
    gray = np.asarray(Image.fromarray(COLOURS).convert("L"))
    for level in (0, 100, 127, 255):
        assert np.array_equal(made("threshold", level)[..., 1], cv2.threshold(gray, level, 255, cv2.THRESH_BINARY)[1])
    assert np.array_equal(made("threshold"), made("threshold", 127))


@pytest.mark.parametrize("sigma", [0.5, 3.0, 9.0])
def test_blur(sigma: float) -> None:
    cv2, far = pytest.importorskip("cv2"), round(4 * sigma)
    pixels = RNG.integers(0, 256, (96, 120, 3), dtype=np.uint8)
    difference = made("blur_gaussian", sigma, pixels).astype(int) - cv2.GaussianBlur(pixels, (0, 0), sigma)
    assert np.abs(difference[far:-far, far:-far]).max() <= 6  # of the 255 that they went in with


@pytest.mark.parametrize("times", [2, 4, 8])
def test_what_a_tile_keeps_is_the_mean_of_its_parts(times: int) -> None:
    cv2 = pytest.importorskip("cv2")
    height, width = COLOURS.shape[:2]
    small = cv2.resize(COLOURS, (width // times, height // times), interpolation=cv2.INTER_AREA)
    wanted = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    assert np.abs(made("tile_resample", times).astype(int) - wanted).max() <= 2
    assert np.array_equal(made("tile_resample", 1), COLOURS)


def test_lightness_is_that_of_lab_and_intensity_that_of_hsv() -> None:
    cv2 = pytest.importorskip("cv2")
    assert np.array_equal(made("recolor_luminance")[..., 0], cv2.cvtColor(COLOURS, cv2.COLOR_RGB2LAB)[..., 0])
    assert np.array_equal(made("recolor_intensity")[..., 2], cv2.cvtColor(COLOURS, cv2.COLOR_RGB2HSV)[..., 2])
    darker = np.round(255 * (made("recolor_intensity") / 255.0) ** 1.5)
    assert np.array_equal(made("recolor_intensity", 1.5), darker)


def test_strokes_are_where_it_is_darker_than_around() -> None:
    """Of a dark line on white the line; of its light side nothing, and of a flat picture nothing."""
    pixels = np.full((48, 48, 3), 230, dtype=np.uint8)
    pixels[:, 22:25] = 90
    strokes = made("scribble_xdog", pixels=pixels)[..., 0]
    assert set(np.unique(strokes)) == {0, 255}
    assert (strokes[:, 22:25] == 255).all() and not strokes[:, :19].any() and not strokes[:, 28:].any()
    assert not made("scribble_xdog", pixels=np.full((16, 16, 3), 200, dtype=np.uint8)).any()


def test_strokes_follow_the_formula() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    gray = np.asarray(Image.fromarray(COLOURS).convert("L"), dtype=np.float64)
    blur = partial(ndimage.gaussian_filter, mode="mirror")
    sharpened = 21 * blur(gray, 1.4) - 20 * blur(gray, 1.4 * 1.6)
    wanted = np.where(sharpened < 80, 255, 0)
    assert (made("scribble_xdog")[..., 0] != wanted).mean() < 0.001


@pytest.mark.parametrize("name", AMOUNTS)
def test_amounts_reach_the_picture_and_keep_to_their_range(name: Any) -> None:
    image, (usual, low, high) = Image.fromarray(COLOURS), AMOUNTS[name]
    frame = Frame(width=56, height=40, pass_width=56, pass_height=40)
    for amount in (low, high):
        unit = ControlUnit(model=None, image=image, preprocessor=name, amount=amount)
        found = control_picture(unit.image, frame, unit.preprocessor, amount=unit.amount)
        assert np.array_equal(np.asarray(found), made(name, amount))
        assert not np.array_equal(np.asarray(found), made(name, usual)) or amount == usual
    for amount in (low - 1, high + 1):
        with pytest.raises(RequestError, match=r"controls\.amount"):
            ControlUnit(model=None, image=image, preprocessor=name, amount=amount)


def test_what_needs_a_network_and_what_takes_no_number_is_refused() -> None:
    image, depth = Image.fromarray(COLOURS), "depth_midas"
    with pytest.raises(RequestError, match=r"choose one of none, canny, .*give the finished picture with none"):
        ControlUnit(model=None, image=image, preprocessor=depth)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="leave it out: only threshold, "):
        ControlUnit(model="x", image=image, preprocessor="canny", amount=3)


@pytest.mark.parametrize("name", get_args(Preprocessor))
def test_infotexts_and_commands_keep_them(name: Any) -> None:
    amount = AMOUNTS[name][2] if name in AMOUNTS else None
    unit = ControlUnit(model="lines", image=Image.fromarray(COLOURS), preprocessor=name, amount=amount)
    (told,) = controls_told(control_notes((unit,), "stretch"))
    assert (told["preprocessor"], told.get("amount")) == (name, amount)
    if amount is not None:
        assert control_from_text(f"lines=x.png,pre={name},amount={amount}")["amount"] == amount


def test_a_number_that_another_module_had_is_left_out() -> None:
    note = "Module: tile_resample, Model: tile, Threshold A: 0.5"
    (told,) = controls_told({"ControlNet 0": note})
    assert told["preprocessor"] == "tile_resample" and "amount" not in told
