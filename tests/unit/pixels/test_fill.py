from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from overpaint.pictures import open_picture
from overpaint.pixels.fill import fill_masked


def test_recorded_fills_are_bit_equal(parity: Path) -> None:  # FILL-1 to FILL-4
    recorded = np.load(parity / "unit" / "pictures.npz")
    keys = [key for key in recorded.files if key.startswith("fill|")]
    assert len(keys) == 4
    for key in keys:
        _, image, mask = key.split("|")
        filled = fill_masked(open_picture(parity / "images" / image), open_picture(parity / "images" / mask))
        assert np.array_equal(np.asarray(filled), recorded[key]), key


def test_what_is_outside_the_mask_stays() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (24, 31, 3), dtype=np.uint8))
    mask = Image.new("L", image.size)
    mask.paste(255, (10, 8, 20, 16))
    outside = np.asarray(mask) == 0
    assert np.array_equal(np.asarray(fill_masked(image, mask))[outside], np.asarray(image)[outside])


def test_the_hole_takes_the_colour_around_it() -> None:
    image = Image.new("RGB", (40, 40), (200, 40, 90))
    image.paste((0, 255, 0), (15, 15, 25, 25))
    mask = Image.new("L", image.size)
    mask.paste(255, (15, 15, 25, 25))
    difference = np.asarray(fill_masked(image, mask)).astype(int) - (200, 40, 90)
    assert np.abs(difference).max() <= 2
