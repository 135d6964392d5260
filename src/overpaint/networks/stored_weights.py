"""A weight as its file stores it: its bytes stay in memory, and its numbers are made when a layer needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """The tensors of a file that a weight is made of, and how: exactly what loading it would do, but later."""

    parts: tuple[Tensor, ...]
    make: Callable[..., Tensor]

    def numbers(self) -> Tensor:
        """The weight in whatever shape and type the file has it."""
        return self.make(*self.parts)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(part.numel() * part.dtype.itemsize for part in self.parts)

    def moved(self, move: Callable[[Tensor], Tensor]) -> StoredWeight:
        """The same weight with its bytes elsewhere."""
        return StoredWeight(tuple(map(move, self.parts)), self.make)


def as_is(tensor: Tensor) -> Tensor:
    return tensor


def plain(tensor: Tensor) -> StoredWeight:
    """A tensor that is stored as the numbers it stands for."""
    return StoredWeight((tensor,), as_is)


def made_of(sources: Sequence[StoredWeight], make: Callable[..., Tensor]) -> StoredWeight:
    """What `make` makes of several."""
    # NOTE: not the sources themselves, for they would keep their tensors alive when these have moved
    inner = [(each.make, len(each.parts)) for each in sources]

    def from_parts(*parts: Tensor) -> Tensor:
        left = iter(parts)
        return make(*[own(*[next(left) for _ in range(count)]) for own, count in inner])

    return StoredWeight(tuple(part for each in sources for part in each.parts), from_parts)
