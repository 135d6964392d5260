"""NZ, PHX, BRN: random streams, their variations, and Brownian paths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overpaint.brownian import BrownianNoise, stacked
from overpaint.errors import RequestError
from overpaint.noise import BatchNoise, ImageNoise, slerp
from overpaint.philox import philox_normal, stream
from overpaint.settings import Quirks, RandomSource

AS_REFERENCE = Quirks(slerp_over_rows=True)
SMALL = (4, 8, 8)
SOURCES: list[RandomSource] = ["CPU", "NV"]


def row(noise: torch.Tensor, y: int = 0) -> list[float]:
    return [float(each) for each in noise[0, y, :6]]


def values(text: str) -> Any:
    return pytest.approx([float(each) for each in text.split()], abs=2e-6)


CPU_1_SECOND = "-1.256014 0.895555 0.167477 0.751421 2.414230 1.020584"


def test_check_values_of_the_cpu() -> None:  # NZ-1, NZ-6
    noise = ImageNoise(1, SMALL)
    assert row(noise.first()) == values("-1.525596 -0.750232 -0.653981 -1.609485 -0.100167 -0.609189")
    assert row(noise.next()) == values(CPU_1_SECOND)
    assert row(noise.next()) == values("0.518993 1.339490 -0.238762 -0.067961 -0.150355 0.523300")
    second = ImageNoise(2, SMALL).first()
    assert row(second) == values("-1.040801 0.916604 -1.304190 -1.109678 -1.218778 1.167592")


def test_check_values_of_a_variation() -> None:  # NZ-2, NZ-3
    noise = ImageNoise(1, SMALL, subseed=5, subseed_strength=0.3, quirks=AS_REFERENCE)
    assert row(noise.first()) == values("-0.487913 -0.449492 -1.243223 -1.782607 0.966073 -0.847835")
    assert row(noise.next()) == values(CPU_1_SECOND)
    other = ImageNoise(1, SMALL, source="NV", subseed=5, subseed_strength=0.3, quirks=AS_REFERENCE)
    assert row(other.first()) == values("-0.118623 2.649919 0.221487 0.002146 0.458736 -0.768226")


def test_check_values_of_another_size() -> None:  # NZ-4
    first = ImageNoise(1, SMALL, seed_resize=(96, 32)).first()
    assert row(first) == values("-1.525596 -0.750232 -0.653981 -1.609485 -0.100167 -0.609189")
    assert row(first, 2) == values("-0.653981 -1.609485 -0.100167 -0.609189 -0.979772 -1.609096")


def test_check_values_of_nv_and_ensd() -> None:  # NZ-5
    noise = ImageNoise(1, SMALL, source="NV")
    assert row(noise.first()) == values("-0.296278 2.676448 -0.140846 -0.844095 0.290538 -0.283831")
    assert row(noise.next()) == values("-0.633984 -0.643131 -0.642014 -1.447101 0.444677 -0.607263")
    for source, expected in (
        ("CPU", "1.266804 2.215536 0.606135 -0.336708 -0.820180 -1.065223"),
        ("NV", "-0.179534 0.623959 -0.255170 -0.080048 1.215362 -0.526539"),
    ):
        noise = ImageNoise(1, SMALL, source="NV" if source == "NV" else "CPU", ensd=31337)
        noise.first()
        assert row(noise.next()) == values(expected)


VARIATIONS: dict[str, list[dict[str, Any]]] = {  # by recording: the arguments of its two pictures
    "sub": [{"subseed": 9, "subseed_strength": 0.3}, {"subseed": 10, "subseed_strength": 0.3}],
    "sub1": [{"subseed": 9, "subseed_strength": 1.0}, {"subseed": 10, "subseed_strength": 1.0}],
    "rs": [{"seed_resize": (128, 64)}] * 2,
    "rb": [{"seed_resize": (264, 200)}] * 2,
    # NZ-2: a picture beyond the list of subseeds has subseed 0
    "rsub": [{"seed_resize": (64, 200), "subseed_strength": 0.6, "subseed": each} for each in (9, 0)],
    "ensd": [{"ensd": 31337}] * 2,
}
SHAPE = (4, 16, 24)


@pytest.mark.parametrize("source", SOURCES)
def test_recorded_streams(parity: Path, source: RandomSource) -> None:  # NZ-1 to NZ-7
    with np.load(parity / "unit" / "rng.npz") as recorded:
        for seed in (0, 1, 1234, 4294967295, 1099511627781):
            noise = BatchNoise([ImageNoise(seed + k, SHAPE, source=source) for k in range(2)])
            for draw, got in enumerate((noise.first(), noise.next(), noise.next()), start=1):
                np.testing.assert_allclose(got.numpy(), recorded[f"{source}|{seed}|{draw}"], atol=1e-6)
        for name, arguments in VARIATIONS.items():
            pictures = zip((5, 6), arguments, strict=True)
            noise = BatchNoise([ImageNoise(s, SHAPE, source=source, quirks=AS_REFERENCE, **more) for s, more in pictures])
            for draw, got in enumerate((noise.first(), noise.next()), start=1):
                key = f"{source}|{name}|{draw}"
                np.testing.assert_allclose(got.numpy(), recorded[key], atol=2e-6, err_msg=key)


def test_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    noise = ImageNoise(3, SMALL, subseed=4, subseed_strength=0.5, seed_resize=(96, 96), ensd=7)
    noise.first()
    noise.next()
    BrownianNoise(3, 0.03, 14.6, SMALL)(5.0, 2.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_does_not_depend_on_the_batch() -> None:  # NZ-7
    alone = ImageNoise(8, SMALL)
    together = BatchNoise([ImageNoise(seed, SMALL) for seed in (7, 8)])
    assert torch.equal(together.first()[1], alone.first())
    assert torch.equal(together.next()[1], alone.next())


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_a_sane_mixture_is_noise_like_its_parts(strength: float) -> None:
    a, b = (ImageNoise(seed, SMALL).first() for seed in (1, 2))
    mixed = slerp(strength, a, b)
    assert float(mixed.std()) == pytest.approx(1, abs=0.12)
    assert torch.allclose(slerp(0.0, a, b), a, atol=1e-6)
    assert torch.allclose(slerp(1.0, a, b), b, atol=1e-6)


def test_parallel_noises() -> None:  # NZ-3
    a = ImageNoise(1, SMALL).first()
    b = a * 1.5
    assert torch.allclose(slerp(0.2, a, b), a * 1.1, atol=1e-6)
    assert torch.allclose(slerp(0.2, a, b, over_rows=True), a * 1.4, atol=1e-6)


def test_a_sane_mixture_survives_one_row() -> None:  # NZ-3
    one_row = (4, 1, 8)
    assert ImageNoise(1, one_row, subseed=2, subseed_strength=0.5).first().isfinite().all()


def test_philox() -> None:  # PHX-5
    twelve = "-0.92466259 -0.42534396 -2.6438458 0.14518388 -0.12086651 -0.5797257 -0.6228513 -0.32838714 "
    assert philox_normal(0, 0, 12).tolist() == values(twelve + "-1.074542 -0.3631441 -1.6710504 2.265505")
    assert philox_normal(0, 1, 4).tolist() == values("0.18082589 -0.5522627 0.9238134 -0.73497033")
    assert philox_normal(1234567890123, 0, 4).tolist() == values("0.47459313 0.8396766 -0.764283 -1.0388207")


@pytest.mark.parametrize("source", SOURCES)
def test_seeds_of_any_sign_within_64_bits(source: RandomSource) -> None:
    assert stream(-5, source, "cpu").draw((16,)).isfinite().all()
    with pytest.raises(RequestError, match="seed=.*64 bits"):
        stream(2**64, source, "cpu")


BROWNIAN = [  # BRN-6
    ("CPU", 1, (14.614642, 9.10293), "0.824690 -1.210443 -2.003008 0.941485 1.448215 -0.246659"),
    ("CPU", 2, (9.10293, 5.4784), "-0.290696 -0.700710 -0.082026 -0.903439 -0.398464 -1.521542"),
    ("NV", 1, (14.614642, 9.10293), "-1.399637 0.639686 -0.384183 0.298348 -0.523377 0.032082"),
    ("NV", 2, (9.10293, 5.4784), "-0.717013 0.621103 1.429697 -0.480819 0.365081 0.167525"),
]


@pytest.mark.parametrize(("source", "seed", "query", "expected"), BROWNIAN)
def test_brownian_check_values(source: RandomSource, seed: int, query: tuple[float, float], expected: str) -> None:
    # BRN-6 is written with rounded sigmas; a path is rough, so a place 1e-6 away shows in the third digit
    path = BrownianNoise(seed, 0.0291675, 14.614642, SMALL, source)
    assert row(path(*query)) == pytest.approx([float(each) for each in expected.split()], abs=5e-3)


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
        return stream(seed, "CPU", "cpu").draw(tuple(size))

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
