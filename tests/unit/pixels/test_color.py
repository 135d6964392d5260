from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from overpaint.pictures import open_picture
from overpaint.pixels.color import (
    color_target,
    correct_color,
    lab_to_rgb,
    match_histograms,
    rgb_to_lab,
    with_luminosity,
)

RNG_SEED = 7


def colours(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Random colours, every gray, and the corners of the cube."""
    chosen = np.random.default_rng(RNG_SEED).integers(0, 256, (count, 3), dtype=np.uint8)
    grays = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    corners = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], dtype=np.uint8)
    return np.concatenate([chosen, grays, corners])[None]


def test_lab_is_opencvs_both_ways() -> None:  # CC-1, CC-2; all 2**24 colours were compared once, both ways
    cv2 = pytest.importorskip("cv2")
    pixels = colours(300_000)
    assert np.array_equal(rgb_to_lab(pixels), cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB))
    assert np.array_equal(lab_to_rgb(pixels), cv2.cvtColor(pixels, cv2.COLOR_LAB2RGB))


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [((0, 0, 0), (0, 128, 128)), ((255, 255, 255), (255, 128, 128)), ((255, 0, 0), (136, 208, 195))],
)
def test_known_colours(rgb: tuple[int, int, int], lab: tuple[int, int, int]) -> None:
    assert tuple(rgb_to_lab(np.array([[rgb]], dtype=np.uint8))[0, 0]) == lab
    assert np.abs(lab_to_rgb(np.array([[lab]], dtype=np.uint8))[0, 0].astype(int) - rgb).max() <= 2


def test_histograms_match_scikit_image() -> None:  # CC-2
    exposure = pytest.importorskip("skimage.exposure")
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (37, 41, 3), dtype=np.uint8)
    target = np.clip(rng.normal(120, 30, (20, 50, 3)), 0, 255).astype(np.uint8)
    expected = exposure.match_histograms(pixels, target, channel_axis=-1).astype(np.uint8)
    assert np.array_equal(match_histograms(pixels, target), expected)


def test_recorded_correction_is_bit_equal(parity: Path) -> None:  # CC-1 to CC-3
    recorded = np.load(parity / "unit" / "pictures.npz")["color_correction|astronaut128<-cat128"]
    target = color_target(open_picture(parity / "images" / "cat128.png"))
    corrected = correct_color(open_picture(parity / "images" / "astronaut128.png"), target)
    assert np.array_equal(np.asarray(corrected), recorded)


def test_luminosity_is_the_lights() -> None:  # CC-2
    rng = np.random.default_rng(5)
    hues, light = (rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(2))
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(with_luminosity(hues, light) @ luma - light @ luma).max() < 1.01  # cut to bytes, never rounded up


def test_flat_pictures_survive() -> None:
    flat = Image.new("RGB", (6, 5), (255, 255, 255))
    black = Image.new("RGB", (4, 4))
    assert correct_color(flat, color_target(black)).size == (6, 5)
    assert correct_color(black, color_target(flat)).getpixel((0, 0)) == (0, 0, 0)
