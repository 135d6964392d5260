"""SRC, PHX: streams of normal numbers, PyTorch's and Philox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overpaint.errors import RequestError
from overpaint.painting.philox import philox_normal, stream
from overpaint.settings import RandomSource

SOURCES: list[RandomSource] = ["CPU", "NV"]


def values(text: str) -> Any:
    return pytest.approx([float(each) for each in text.split()], abs=2e-6)


def test_philox() -> None:  # PHX-5
    twelve = "-0.92466259 -0.42534396 -2.6438458 0.14518388 -0.12086651 -0.5797257 -0.6228513 -0.32838714 "
    assert philox_normal(0, 0, 12).tolist() == values(twelve + "-1.074542 -0.3631441 -1.6710504 2.265505")
    assert philox_normal(0, 1, 4).tolist() == values("0.18082589 -0.5522627 0.9238134 -0.73497033")
    assert philox_normal(1234567890123, 0, 4).tolist() == values("0.47459313 0.8396766 -0.764283 -1.0388207")


@pytest.mark.parametrize("source", SOURCES)
def test_seeds_of_any_sign_within_64_bits(source: RandomSource) -> None:
    assert stream(-5, source, "cpu").draw((16,)).isfinite().all()
    with pytest.raises(RequestError, match=r"seed=.*64 bits"):
        stream(2**64, source, "cpu")


def test_recorded_philox(parity: Path) -> None:  # PHX-1 to PHX-4
    with np.load(parity / "unit" / "rng.npz") as recorded:
        np.testing.assert_allclose(philox_normal(0, 0, 12).reshape(3, 4), recorded["philox|seed0|(3,4)"], atol=1e-6)


@pytest.mark.parametrize("source", SOURCES)
def test_draws_are_normal_and_follow_one_another(source: RandomSource) -> None:
    numbers = stream(2**40 + 3, source, "cpu")
    first, second = numbers.draw((50_000,)), numbers.draw((50_000,))
    for each in (first, second):
        assert float(each.mean()) == pytest.approx(0, abs=0.02)
        assert float(each.std()) == pytest.approx(1, abs=0.02)
    assert abs(float((first * second).mean())) < 0.02


def test_without_an_accelerator_gpu_is_cpu() -> None:  # SRC-1
    assert torch.equal(stream(7, "GPU", "cpu").draw((4, 8, 8)), stream(7, "CPU", "cpu").draw((4, 8, 8)))
