"""SEED: the seeds of a job."""

from __future__ import annotations

import random

import pytest

from overpaint.seeds import LARGEST_RANDOM_SEED, fix_seed, spread_seeds


@pytest.mark.parametrize("value", [7, 0, -2, 2**40, "12", (5, 6)])
def test_a_given_seed_is_kept(value: int | str | tuple[int, ...]) -> None:  # SEED-1, SEED-2
    assert fix_seed(value) == (12 if value == "12" else value)


@pytest.mark.parametrize("value", [None, "", -1, "-1", "some words"])
def test_no_seed_is_a_random_one(value: int | str | None) -> None:  # SEED-1
    drawn = {fix_seed(value, random.Random(n)) for n in range(20)}
    assert len(drawn) == 20
    assert all(isinstance(each, int) and 0 <= each <= LARGEST_RANDOM_SEED for each in drawn)
    assert fix_seed(value, random.Random(3)) == fix_seed(value, random.Random(3))


def test_each_picture_has_its_seed() -> None:  # SEED-2
    assert spread_seeds(10, 3) == (10, 11, 12)
    assert spread_seeds(10, 3, constant=True) == (10, 10, 10)
    assert spread_seeds((4, 2), 3) == (4, 2)
