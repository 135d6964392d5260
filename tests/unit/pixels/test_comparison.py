"""Two pictures compared: counted against numpy over the whole picture, and a picture of the difference."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from overpaint.pixels.comparison import compared, difference_picture

SIZES = [(40, 30), (7, 700)]  # the second goes beyond one band of rows


def pair(size: tuple[int, int], mode: str = "RGB") -> tuple[Image.Image, Image.Image, Image.Image]:
    rng = np.random.default_rng(5)
    wide, high = size
    channels = len(Image.new(mode, (1, 1)).getbands())
    first = rng.integers(0, 250, (high, wide, channels), dtype=np.uint8)
    second = first.copy()
    ys, xs = rng.integers(2, high - 2, 25), rng.integers(1, wide - 1, 25)
    second[ys, xs] += rng.integers(0, 6, (25, channels), dtype=np.uint8)
    mask = Image.fromarray(rng.integers(0, 2, (high, wide), dtype=np.uint8) * 255)
    shaped = (each if channels > 1 else each[..., 0] for each in (first, second))
    before, after = (Image.fromarray(each) for each in shaped)
    return before, after, mask


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_figures(size: tuple[int, int], mode: str) -> None:
    before, after, mask = pair(size, mode)
    difference = np.abs(np.asarray(before).astype(int) - np.asarray(after).astype(int))
    difference = difference.reshape(size[1], size[0], -1)
    differs = difference.any(axis=-1)
    ys, xs = np.nonzero(differs)
    found = compared(before, after, mask)
    assert (found.width, found.height) == size
    assert found.changed == differs.sum() > 0
    assert found.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert found.largest == difference.max()
    assert found.mean == pytest.approx(difference.mean(), abs=1e-4)
    assert found.inside == (differs & (np.asarray(mask) > 0)).sum()
    assert found.outside == found.changed - (found.inside or 0)
    assert found.share == pytest.approx(100 * differs.mean(), abs=1e-4)


def test_the_same_picture() -> None:
    before, _, _ = pair((40, 30))
    found = compared(before, before.copy())
    assert (found.changed, found.largest, found.box, found.inside) == (0, 0, None, None)


def test_alpha_counts_where_one_has_it() -> None:
    before = Image.new("RGB", (4, 4), "red")
    after = before.convert("RGBA")
    assert compared(before, after).changed == 0
    after.putpixel((1, 2), (255, 0, 0, 254))
    assert compared(before, after).box == (1, 2, 2, 3)


def test_sixteen_bits() -> None:
    values = np.full((5, 5), 30_000, np.uint16)
    changed = values.copy()
    changed[3, 4] += 1
    found = compared(Image.fromarray(values), Image.fromarray(changed))
    assert (found.changed, found.largest, found.box) == (1, 1, (4, 3, 5, 4))
    assert compared(Image.fromarray(values), Image.new("L", (5, 5), 117)).largest == 0  # 30000 / 257 is 116.7


@pytest.mark.parametrize("most", [300, 50])
def test_every_change_is_seen_in_the_picture_of_it(most: int) -> None:
    before = Image.new("RGB", (300, 200), "white")
    after = before.copy()
    after.putpixel((211, 87), (255, 254, 255))
    shown = np.asarray(difference_picture(before, after, most)).astype(int)
    assert max(shown.shape[:2]) <= most
    coloured = np.ptp(shown, axis=-1) > 0
    factor = 300 // most
    assert list(zip(*np.nonzero(coloured), strict=True)) == [(87 // factor, 211 // factor)]
    assert shown[coloured].max() >= 100
