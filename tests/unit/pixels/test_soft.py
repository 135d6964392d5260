from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from overpaint.pictures import open_picture
from overpaint.pixels.composite import make_overlay
from overpaint.pixels.resize import resize_image
from overpaint.pixels.soft import FALLOFF, adaptive_mask, histogram_filter, soft_overlay_mask
from overpaint.request import SoftInpainting
from overpaint.settings import Quirks

REFERENCE = Quirks.reference()
Floats = npt.NDArray[np.float32]


def filtered_by_definition(image: Floats, low: float, high: float) -> Floats:
    """SOFT-6, pixel by pixel."""
    height, width = image.shape
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            near = [
                (float(image[y + i, x + j]), float(FALLOFF[i + 2, j + 2]))
                for i in range(-2, 3)
                for j in range(-2, 3)
                if 0 <= y + i < height and 0 <= x + j < width
            ]
            result[y, x] = middle_of(sorted(near, key=lambda each: each[0]), low, high)
    return result


def middle_of(near: list[tuple[float, float]], low: float, high: float) -> float:
    total = 0.0
    for _, weight in near:
        total += weight
    start, stop = total * low, total * high
    if stop - start < 1:
        middle = (start + stop) / 2
        start, stop = middle - 0.5, middle + 0.5
        if stop > total:
            start, stop = total - 1, total
        if start < 0:
            start, stop = 0.0, 1.0
    position = amount = weights = 0.0
    for value, weight in near:
        overlap = max(0.0, min(position + weight, stop) - max(position, start))
        amount, weights, position = amount + value * overlap, weights + overlap, position + weight
    return amount / weights if weights else 0.0


def test_kernel() -> None:  # SOFT-5
    end = np.exp(-9 / 2.25)
    assert FALLOFF[2, 2] == pytest.approx(1)
    assert FALLOFF[2, 4] == pytest.approx((np.exp(-4 / 2.25) - end) / (1 - end))
    assert FALLOFF.min() > 0
    assert np.array_equal(FALLOFF, FALLOFF.T)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (3, 7), (11, 9)])
@pytest.mark.parametrize(("low", "high"), [(0.9, 1.0), (0.25, 0.75), (0.0, 0.01), (0.0, 1.0)])
def test_filter_is_its_definition(size: tuple[int, int], low: float, high: float) -> None:  # SOFT-6
    rng = np.random.default_rng(size[0])
    for image in (rng.normal(size=size), rng.integers(0, 3, size), np.zeros(size)):
        values = image.astype(np.float32)
        assert np.array_equal(histogram_filter(values, FALLOFF, low, high), filtered_by_definition(values, low, high))


def test_adaptive_mask_is_its_definition() -> None:  # SOFT-4
    rng = np.random.default_rng(1)
    sampled, source = rng.normal(size=(2, 4, 9, 8)).astype(np.float32)
    nmask = rng.random((9, 8)).astype(np.float32)
    parameters = SoftInpainting(
        preservation_strength=0.7, mask_influence=0.3, difference_threshold=0.6, difference_contrast=2.5
    )
    change = np.sqrt(((sampled - source).astype(np.float64) ** 2).sum(axis=0)).astype(np.float32)
    change = filtered_by_definition(filtered_by_definition(change, 0.9, 1.0), 0.25, 0.75)
    kept = 0.5 * 0.7 + (1 - nmask.astype(np.float64) ** 0.35) * 0.3
    kept /= 1.00001 - kept
    level = 1 / (1 + (change / (0.6 * kept)) ** 2.5)
    expected = (255 * (1 - level**3 * (level * (6 * level - 15) + 10))).astype(np.uint8)
    assert np.array_equal(adaptive_mask(sampled, source, nmask, parameters), expected)


@pytest.mark.parametrize(
    "parameters", [SoftInpainting(difference_threshold=0), SoftInpainting(mask_influence=1), SoftInpainting()]
)
def test_no_change_shows_nothing_and_much_change_everything(parameters: SoftInpainting) -> None:
    source = np.zeros((4, 6, 6), dtype=np.float32)
    nmask = np.ones((6, 6), dtype=np.float32)
    assert adaptive_mask(source, source, nmask, parameters).max() == 0
    assert adaptive_mask(source + 100, source, nmask, parameters).min() >= 254


def test_recorded_soft_job_keeps_its_source(parity: Path) -> None:  # SOFT-4, SOFT-7
    folder = parity / "goldens" / "soft_inpaint_euler_a_only"
    recorded = json.loads((folder / "case.json").read_text())
    data = np.load(folder / "data.npz")
    _, bias, strength, boost, influence, threshold, contrast = recorded["case"]["scripts"]["Soft Inpainting"]
    parameters = SoftInpainting(
        schedule_bias=bias,
        preservation_strength=strength,
        transition_contrast_boost=boost,
        mask_influence=influence,
        difference_threshold=threshold,
        difference_contrast=contrast,
    )
    found = adaptive_mask(data["final_latent_0"][0], data["init_latent"][0], data["nmask"][0], parameters)
    source = open_picture(parity / recorded["case"]["params"]["init_images"][0])
    small = resize_image(2, Image.fromarray(found), 128, 128, quirks=REFERENCE)
    mask = soft_overlay_mask(small, tuple(recorded["paste_to"]), source.size, REFERENCE)
    overlay = np.asarray(make_overlay(source, mask, 0, REFERENCE))
    kept = overlay[..., 3] == 255
    final = np.asarray(open_picture(folder / "image0.png"))
    assert 20_000 < kept.sum() < kept.size
    assert np.array_equal(final[kept], overlay[..., :3][kept])
    assert not np.array_equal(final[~kept], overlay[..., :3][~kept])


def test_overlay_mask_without_crop_is_only_blurred() -> None:  # SOFT-4
    found = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8))
    blurred = soft_overlay_mask(found.convert("RGB"), None, (16, 16), REFERENCE)
    assert blurred.tobytes() == found.filter(ImageFilter.GaussianBlur(4)).tobytes()
