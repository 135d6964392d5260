"""Streams of normal numbers: PyTorch's, and numpy's imitation of what CUDA would draw (PHX)."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overpaint.errors import RequestError
from overpaint.settings import RandomSource

Words = NDArray[np.uint64]

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_UNIT = float(np.float32(2.3283064e-10))  # 2^-32, as CUDA rounds it
_TURN = float(np.float32(2.3283064e-10 * 6.2831855))


class Stream(Protocol):
    """Normal float32 numbers, one draw after another."""

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """The next draw."""
        ...


class TorchStream:
    """PyTorch's generator of a device; the global one is never touched."""

    def __init__(self, seed: int, device: torch.device | str, target: torch.device | str) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device, self._target = device, target

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """The next draw."""
        return torch.randn(shape, generator=self._generator, device=self._device).to(self._target)


class PhiloxStream:
    """What `torch.randn` draws on CUDA, to about 1e-6 (PHX-1): counter-based, so any machine can do it."""

    def __init__(self, seed: int, target: torch.device | str) -> None:
        self._seed, self._offset, self._target = seed, 0, target

    def draw(self, shape: tuple[int, ...]) -> Tensor:
        """The next draw."""
        numbers = philox_normal(self._seed, self._offset, math.prod(shape)).reshape(shape)
        self._offset += 1
        return torch.from_numpy(numbers).to(self._target)


def stream(seed: int, source: RandomSource, device: torch.device | str) -> Stream:
    """The stream of a seed, delivering to `device`. "GPU" draws on the device itself, which must be able to."""
    if not -(2**63) <= seed < 2**64:
        raise RequestError("seed", seed, "give a number of at most 64 bits")
    if source == "NV":
        return PhiloxStream(seed, device)
    draws_there = source == "GPU" and torch.device(device).type != "mps"
    return TorchStream(seed, device if draws_there else "cpu", device)


def draw(seed: int, shape: tuple[int, ...], source: RandomSource, device: torch.device | str) -> Tensor:
    """The first draw of a seed's stream."""
    return stream(seed, source, device).draw(shape)


def philox_normal(seed: int, offset: int, count: int) -> NDArray[np.float32]:
    """`count` normal numbers of draw number `offset` (PHX-3; Salmon et al. 2011, Random123)."""
    a, b = _philox(seed, offset, count)
    u = a.astype(np.float64) * _UNIT + _UNIT / 2
    v = b.astype(np.float64) * _TURN + _TURN / 2
    normals: NDArray[np.float32] = (np.sqrt(-2 * np.log(u)) * np.sin(v)).astype(np.float32)
    return normals


def _philox(seed: int, offset: int, count: int) -> tuple[Words, Words]:
    """The first two output words of Philox4x32-10 for counters (offset, 0, i, 0); 32-bit words kept in 64 bits."""
    zeros = np.zeros(count, np.uint64)
    c0, c1, c2, c3 = zeros + np.uint64(offset), zeros, np.arange(count, dtype=np.uint64), zeros
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(_ROUNDS):
        p, q = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (q >> _SHIFT) ^ c1 ^ np.uint64(k0),
            q & _LOW,
            (p >> _SHIFT) ^ c3 ^ np.uint64(k1),
            p & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1
