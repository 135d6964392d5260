"""A Brownian path for each picture, the same whatever points of it are asked for (BRN)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from overpaint.painting.philox import draw
from overpaint.settings import RandomSource

_DIGITS = 6  # ends of intervals are rounded to 1e-6
_POOL_SIZE = 24
_KEPT_NODES = 96  # two paths down the tree; without them every query would draw both again


@dataclass(frozen=True)
class _Node:
    """A dyadic interval [start, end]: the `key`-th from the left at its depth."""

    key: int
    depth: int
    start: float
    end: float


class BrownianNoise:
    """Normalised increments of a Brownian motion W over sigmas, drawn as a dyadic tree (BRN-4).

    The value at the middle of an interval, given its ends, is drawn with a seed of its own, so an increment depends on
    the seed and its own ends alone. The tree is that of torchsde's `BrownianTree` (Li et al. 2020, arXiv:2001.01328).
    """

    def __init__(
        self,
        seed: int,
        t0: float,
        t1: float,
        shape: tuple[int, ...],
        source: RandomSource = "CPU",
        device: torch.device | str = "cpu",
    ) -> None:
        self._entropy = seed % 2**64  # a negative seed names the same stream as its 64 bits
        self._shape, self._source, self._device = shape, source, device
        self._root = _Node(0, 0, round(t0, _DIGITS), round(t1, _DIGITS))
        self._root_increment = self._normal((), 3) * math.sqrt(t1 - t0)
        self._kept: OrderedDict[tuple[int, int], tuple[Tensor, Tensor]] = OrderedDict()

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        """Unit noise for the step between two sigmas: (W(max) - W(min)) / sqrt(distance), negative downward (BRN-2)."""
        low, high = (self._clamped(each) for each in sorted((sigma, sigma_next)))
        distance = np.sqrt(np.abs(np.float32(sigma_next) - np.float32(sigma)))
        if low >= high or distance == 0:
            return torch.zeros(self._shape, device=self._device)
        increment = self._between(self._root, self._root_increment, low, high)
        return increment / (float(distance) if sigma < sigma_next else -float(distance))

    def _clamped(self, t: float) -> float:
        return min(max(round(t, _DIGITS), self._root.start), self._root.end)

    def _between(self, node: _Node, increment: Tensor, low: float, high: float) -> Tensor:
        """W(high) - W(low) within a node: the sum over the largest nodes that cover it, from left to right."""
        if low == node.start and high == node.end:
            return increment
        left, right = _halves(node)
        left_increment, right_increment = self._split(node, left, increment)
        middle = left.end
        if high <= middle:
            return self._between(left, left_increment, low, high)
        if low >= middle:
            return self._between(right, right_increment, low, high)
        first = self._between(left, left_increment, low, middle)
        return first + self._between(right, right_increment, middle, high)

    def _split(self, node: _Node, left: _Node, increment: Tensor) -> tuple[Tensor, Tensor]:
        """The increments of both halves: a Brownian bridge's value at the middle (BRN-4)."""
        place = (node.key, node.depth)
        if place not in self._kept:
            before, after, whole = left.end - node.start, node.end - left.end, node.end - node.start
            normal = self._normal(place, 4)
            half = before * increment * (1 / whole) + math.sqrt(before * after / whole) * normal
            self._kept[place] = half, increment - half
            if len(self._kept) > _KEPT_NODES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return self._kept[place]

    def _normal(self, place: tuple[int, ...], words: int) -> Tensor:
        sequence = np.random.SeedSequence(entropy=self._entropy, spawn_key=place, pool_size=_POOL_SIZE)
        seed = int(sequence.generate_state(words)[0])
        return draw(seed, self._shape, self._source, self._device)


def _halves(node: _Node) -> tuple[_Node, _Node]:
    middle = round((node.start + node.end) / 2, _DIGITS)
    depth = node.depth + 1
    return _Node(2 * node.key, depth, node.start, middle), _Node(2 * node.key + 1, depth, middle, node.end)


def stacked(paths: Sequence[BrownianNoise]) -> Callable[[float, float], Tensor]:
    """The paths of a batch's pictures as one source of noise, (batch, ...)."""

    def noise(sigma: float, sigma_next: float) -> Tensor:
        return torch.stack([path(sigma, sigma_next) for path in paths])

    return noise
