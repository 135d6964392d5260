"""NZ: the noise of a picture and its variations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overpaint.painting.brownian import BrownianNoise
from overpaint.painting.noise import BatchNoise, ImageNoise, slerp
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
            noise = BatchNoise(
                [ImageNoise(s, SHAPE, source=source, quirks=AS_REFERENCE, **more) for s, more in pictures]
            )
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
