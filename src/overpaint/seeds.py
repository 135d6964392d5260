"""Seeds of a job (SEED): which number each picture's noise is drawn from."""

from __future__ import annotations

import random
from collections.abc import Sequence

LARGEST_RANDOM_SEED = 4294967293


def fix_seed(value: int | str | Sequence[int] | None, rng: random.Random | None = None) -> int | tuple[int, ...]:
    """A seed to keep: -1, nothing or unreadable text means a new one; a list is used as it is (SEED-1, SEED-2)."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    try:
        seed = -1 if value is None else int(value)
    except ValueError:
        seed = -1
    return (rng or random.SystemRandom()).randint(0, LARGEST_RANDOM_SEED) if seed == -1 else seed


def spread_seeds(seed: int | Sequence[int], count: int, *, constant: bool = False) -> tuple[int, ...]:
    """One seed a picture (SEED-2): counting up, or all alike where a variation seed does the counting."""
    if isinstance(seed, int):
        return tuple(seed if constant else seed + k for k in range(count))
    return tuple(seed)
