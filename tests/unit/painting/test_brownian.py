"""BRN: Brownian paths over sigmas."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from overpaint.painting.brownian import BrownianNoise, stacked
from overpaint.painting.philox import stream
from overpaint.settings import RandomSource

SMALL = (4, 8, 8)
SHAPE = (4, 16, 24)
SOURCES: list[RandomSource] = ["CPU", "NV"]


def row(noise: torch.Tensor) -> list[float]:
    return [float(each) for each in noise[0, 0, :6]]


BROWNIAN = [  # BRN-6
    ("CPU", 1, (14.614642, 9.10293), "0.824690 -1.210443 -2.003008 0.941485 1.448215 -0.246659"),
    ("CPU", 2, (9.10293, 5.4784), "-0.290696 -0.700710 -0.082026 -0.903439 -0.398464 -1.521542"),
    ("NV", 1, (14.614642, 9.10293), "-1.399637 0.639686 -0.384183 0.298348 -0.523377 0.032082"),
    ("NV", 2, (9.10293, 5.4784), "-0.717013 0.621103 1.429697 -0.480819 0.365081 0.167525"),
]


@pytest.mark.parametrize(("source", "seed", "query", "expected"), BROWNIAN)
def test_brownian_check_values(source: RandomSource, seed: int, query: tuple[float, float], expected: str) -> None:
    path = BrownianNoise(seed, 0.0291675, 14.614642, SMALL, source)
    assert row(path(*query)) == pytest.approx([float(each) for each in expected.split()], abs=2e-6)


@pytest.mark.parametrize("source", SOURCES)
def test_recorded_brownian_paths(parity: Path, source: RandomSource) -> None:  # BRN-1 to BRN-4
    noise = stacked([BrownianNoise(seed, 0.03, 14.6, SHAPE, source) for seed in (5, 6)])
    with np.load(parity / "unit" / "rng.npz") as recorded:
        for sigma, sigma_next in ((5, 2), (2, 1.3), (1.3, 0.03)):
            got = noise(sigma, sigma_next).numpy()
            np.testing.assert_allclose(got, recorded[f"{source}|brownian|{sigma},{sigma_next}"], atol=2e-6)


def test_brownian_path_against_torchsde(monkeypatch: pytest.MonkeyPatch) -> None:  # BRN-3
    torchsde = pytest.importorskip("torchsde")
    shape = (4, 4, 4)
    ours = BrownianNoise(42, 0.05, 10.0, shape)

    def drawn(size: tuple[int, ...], dtype: torch.dtype, device: torch.device, seed: int) -> torch.Tensor:
        return stream(int(seed), "CPU", "cpu").draw(tuple(size))

    monkeypatch.setattr(torchsde._brownian.brownian_interval, "_randn", drawn)
    theirs = torchsde.BrownianTree(0.05, torch.zeros(shape), 10.0, entropy=42)
    for high, low in ((10.0, 7.123456), (7.123456, 2.5), (2.5, 2.4), (2.4, 0.05)):
        expected = -theirs(low, high) / math.sqrt(high - low)
        assert torch.allclose(ours(high, low), expected, atol=2e-5), (high, low)


def test_increments_add_up_and_do_not_depend_on_what_was_asked_before() -> None:  # BRN-2
    whole = BrownianNoise(9, 0.03, 14.6, SMALL)(8.0, 2.0) * math.sqrt(6)
    path = BrownianNoise(9, 0.03, 14.6, SMALL)
    for high in np.linspace(14.0, 9.0, 40):
        path(float(high), float(high) - 0.1)
    parts = path(8.0, 3.3) * math.sqrt(4.7) + path(3.3, 2.0) * math.sqrt(1.3)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(path(2.0, 8.0), -path(8.0, 2.0))


def test_brownian_noise_is_unit_noise() -> None:
    path = BrownianNoise(-4, 0.03, 14.6, (4, 64, 64))
    for high, low in ((14.6, 9.0), (9.0, 8.9), (0.2, 0.03)):
        drawn = path(high, low)
        assert float(drawn.std()) == pytest.approx(1, abs=0.03)
    assert not path(3.0, 3.0).any()
    assert len(path._kept) <= 96
