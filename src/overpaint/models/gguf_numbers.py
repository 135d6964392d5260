"""The commonest ways in which GGUF files pack numbers, undone with torch: on any device, and for each call anew.

The layouts are those of the ggml project's `block_q8_0` and its kin. Results are those of the package `gguf`, bit for
bit, which tests compare; that package knows the rarer ways, too, but computes on the processor alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_ROWS_OF_EIGHT = 32  # bits of the fifth kind lie in words of so many


def _half(blocks: Tensor, place: int) -> Tensor:
    """The float16 at a place of each block, as float32: (n, 1)."""
    return blocks[:, place : place + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor, run: int) -> Tensor:
    """The low halves of a run of bytes, then their high halves: (n, bytes) -> (n, 2 * bytes)."""
    runs = packed.reshape(len(packed), -1, 1, run)
    return torch.cat([runs & 15, runs >> 4], dim=2).reshape(len(packed), -1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """One bit for each number of a block, worth 16: (n, 4) -> (n, 32)."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return (((packed[:, :, None] >> places) & 1) << 4).reshape(len(packed), _ROWS_OF_EIGHT)


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float() * _half(blocks, 0)


def _q4_0(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:], 16).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:], 16).float() + _half(blocks, 2)


def _q5_0(blocks: Tensor) -> Tensor:
    numbers = _nibbles(blocks[:, 6:], 16) | _fifth_bits(blocks[:, 2:6])
    return _half(blocks, 0) * (numbers.float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    numbers = _nibbles(blocks[:, 8:], 16) | _fifth_bits(blocks[:, 4:8])
    return _half(blocks, 0) * numbers.float() + _half(blocks, 2)


def _scales_and_offsets(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Of the eight runs of a block of 256: six bits each, the upper two of the later ones beside the earlier ones."""
    first, second, rest = (blocks[:, place : place + 4] for place in (4, 8, 12))
    scales = torch.cat([first & 63, (rest & 15) | ((first >> 2) & 48)], dim=1)
    offsets = torch.cat([second & 63, (rest >> 4) | ((second >> 2) & 48)], dim=1)
    return _half(blocks, 0) * scales.float(), _half(blocks, 2) * offsets.float()


def _in_runs(numbers: Tensor, blocks: Tensor) -> Tensor:
    scales, offsets = _scales_and_offsets(blocks)
    numbers = numbers.reshape(len(blocks), 8, 32).float()
    return scales[:, :, None] * numbers - offsets[:, :, None]


def _q4_k(blocks: Tensor) -> Tensor:
    return _in_runs(_nibbles(blocks[:, 16:], 32), blocks)


def _q5_k(blocks: Tensor) -> Tensor:
    places = torch.arange(8, dtype=torch.uint8, device=blocks.device)[:, None]
    fifth = ((blocks[:, None, 16:48] >> places) & 1) << 4
    return _in_runs(_nibbles(blocks[:, 48:], 32) | fifth.reshape(len(blocks), 256), blocks)


def _q6_k(blocks: Tensor) -> Tensor:
    places = torch.tensor([0, 2, 4, 6], dtype=torch.uint8, device=blocks.device)[:, None]
    upper = ((blocks[:, 128:192].reshape(-1, 2, 1, 32) >> places) & 3) << 4
    numbers = _nibbles(blocks[:, :128], 64) | upper.reshape(len(blocks), 256)
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * _half(blocks, 208)
    return scales[:, :, None] * (numbers.float() - 32).reshape(len(blocks), 16, 16)


# By the format's number of the way: bytes of a block, and what makes its numbers.
_UNPACKED: Mapping[int, tuple[int, Callable[[Tensor], Tensor]]] = {
    2: (18, _q4_0),
    3: (20, _q4_1),
    6: (22, _q5_0),
    7: (24, _q5_1),
    8: (34, _q8_0),
    12: (144, _q4_k),
    13: (176, _q5_k),
    14: (210, _q6_k),
}


def unpacks(kind: int) -> bool:
    """Whether numbers packed in this way are made here."""
    return kind in _UNPACKED


def unpacked(values: Tensor, kind: int) -> Tensor:
    """All numbers of a tensor, in a row, as float32; `values` are its bytes."""
    size, make = _UNPACKED[kind]
    return make(values.reshape(-1, size)).reshape(-1)
