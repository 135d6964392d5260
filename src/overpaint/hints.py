"""The name that was probably meant, and lists of names that stay readable in a message."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_MOST_SHOWN = 8
_ALIKE = 0.6  # at least this part of the longer name has to be right
_SHORTEST_PART = 3  # of a name that is found inside another


def closest(name: str, known: Iterable[str] | Mapping[str, str]) -> str | None:
    """The known name that comes closest to a mistyped one, if any comes close; of a mapping, what it stands for.

    Case, blanks and signs do not count, and two letters in each other's place are one mistake.
    """
    table = dict(known) if isinstance(known, Mapping) else {each: each for each in known}
    wanted = _plain(name)
    if not wanted:
        return None
    scored = [(_likeness(wanted, _plain(each)), -len(each), each) for each in table]
    best = max(scored, default=None, key=lambda each: each[:2])
    if best is not None and best[0] >= _ALIKE:
        return table[best[2]]
    inside = [each for each in table if _is_part(wanted, _plain(each))]
    return table[min(inside, key=len)] if inside else None


def did_you_mean(name: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """A question that names the nearest, or nothing."""
    near = closest(name, known)
    return "" if near is None else f"did you mean {near!r}?"


def listed(names: Iterable[str], most: int = _MOST_SHOWN) -> str:
    """The first of the names, and how many there are besides."""
    every = list(names)
    rest = len(every) - most
    return ", ".join(every) if rest <= 0 else f"{', '.join(every[:most])} ... and {rest} more"


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold().replace("+", "p"))


def _is_part(wanted: str, known: str) -> bool:
    shorter, longer = sorted((wanted, known), key=len)
    return len(shorter) >= _SHORTEST_PART and shorter in longer


def _likeness(one: str, other: str) -> float:
    return 1 - _mistakes(one, other) / max(len(one), len(other), 1)


def _mistakes(one: str, other: str) -> int:
    """Letters left out, put in, changed, or swapped with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
