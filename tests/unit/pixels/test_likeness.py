"""PSNR and SSIM, against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from overpaint.pixels.likeness import psnr, ssim
from tests.unit.toy_job import noisy_picture


def changed(picture: Image.Image, by: float) -> Image.Image:
    values = np.asarray(picture).astype(float)
    grain = np.random.default_rng(5).normal(0, by, values.shape)
    return Image.fromarray(np.clip(values + grain, 0, 255).astype(np.uint8))


def test_a_picture_is_like_itself() -> None:
    picture = noisy_picture(40, 30)
    assert psnr(picture, picture) == math.inf
    assert ssim(picture, picture) == pytest.approx(1)
    assert ssim(picture, changed(picture, 5)) > ssim(picture, changed(picture, 50))


@pytest.mark.parametrize("by", [1, 10, 80])
def test_as_scikit_image_has_it(by: float) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    one = noisy_picture(48, 31).resize((96, 62), Image.Resampling.BICUBIC)
    other = changed(one, by)
    assert psnr(one, other) == pytest.approx(metrics.peak_signal_noise_ratio(np.asarray(one), np.asarray(other)))
    gray = [np.asarray(each.convert("L")) for each in (one, other)]
    said = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255, "full": True}
    _, everywhere = metrics.structural_similarity(*gray, **said)
    assert ssim(one, other) == pytest.approx(float(everywhere[5:-5, 5:-5].mean()), abs=1e-9)


def test_a_picture_without_room_for_the_window() -> None:
    with pytest.raises(ValueError, match="8x8 is too small"):
        ssim(noisy_picture(8, 8), noisy_picture(8, 8))
