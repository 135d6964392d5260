"""Tensors that are made from others when they are read: renamed, joined, turned over, scaled.

A file in another layout is thereby a `Weights` like any other: names and shapes at once, numbers one after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from overpaint.errors import CheckpointError
from overpaint.models.files import Weights
from overpaint.networks.stored_weights import StoredWeight, made_of

Shape = tuple[int, ...]
_Read = TypeVar("_Read")
_OVER_FRAMES = 5  # axes of a kernel


class Part(NamedTuple):
    """A tensor of an opened file."""

    weights: Weights
    key: str

    @property
    def shape(self) -> Shape:
        return self.weights.shapes[self.key]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.weights.sizes.get(self.key, 0)


@dataclass(frozen=True)
class Derived:
    """What a tensor is made of, and how; nothing is read before it is asked for."""

    shape: Shape
    sources: tuple[Part, ...]
    make: Callable[..., Tensor]


def same(part: Part) -> Derived:
    return Derived(part.shape, (part,), lambda tensor: tensor)


def reshaped(part: Part, shape: Shape) -> Derived:
    return Derived(shape, (part,), lambda tensor: tensor.reshape(shape))


def last_frame(part: Part) -> Derived:
    """What a kernel over frames does to the last of them."""
    if len(part.shape) != _OVER_FRAMES:
        return same(part)
    return Derived((*part.shape[:2], *part.shape[3:]), (part,), lambda tensor: tensor[:, :, -1].contiguous())


def frames_added(part: Part) -> Derived:
    """What a kernel over frames that are all the same does, as a matrix."""
    if len(part.shape) != _OVER_FRAMES:
        return same(part)
    outputs, inputs, _, high, wide = part.shape
    return Derived(
        (outputs, inputs * high * wide), (part,), lambda tensor: tensor.float().sum(dim=2).flatten(1).to(tensor.dtype)
    )


def turned(part: Part) -> Derived:
    """A matrix with rows and columns exchanged."""
    return Derived(part.shape[::-1], (part,), lambda tensor: tensor.t().contiguous())


def swapped(part: Part) -> Derived:
    """Its second half before its first."""
    return Derived(part.shape, (part,), lambda tensor: torch.cat(tensor.chunk(2)[::-1]))


def joined(*parts: Part) -> Derived:
    """One below the other."""
    first = parts[0].shape
    if not first or any(part.shape[1:] != first[1:] or not part.shape for part in parts):
        keys = ", ".join(part.key for part in parts)
        raise CheckpointError(f"{parts[0].weights.path.name}: tensors {keys} do not fit together; use another file")
    return Derived((sum(part.shape[0] for part in parts), *first[1:]), parts, lambda *tensors: torch.cat(tensors))


def scaled(part: Part, scale: Part) -> Derived:
    """Times one number, or one number for each row; in float32, for what is stored has too few digits."""
    count = math.prod(scale.shape)
    rows = (count, *(1,) * (len(part.shape) - 1))
    if count != 1 and part.shape[:1] != (count,):
        raise CheckpointError(
            f"{scale.weights.path.name}: tensor {scale.key} holds {count} numbers, but {part.key} is "
            f"{list(part.shape)}; use another file"
        )
    return Derived(part.shape, (part, scale), lambda tensor, by: tensor.float() * by.float().reshape(rows))


def derived_weights(path: Path, tensors: Mapping[str, Derived], metadata: Mapping[str, str]) -> Weights:
    """Derived tensors as an opened file."""

    def read(keys: list[str]) -> Iterator[Tensor]:
        wanted = [tensors[key] for key in keys]
        for each, given in zip(wanted, _in_one_pass(wanted, Weights.read), strict=True):
            yield each.make(*given)

    def stored(keys: list[str]) -> Iterator[StoredWeight]:
        wanted = [tensors[key] for key in keys]
        for each, given in zip(wanted, _in_one_pass(wanted, Weights.stored), strict=True):
            yield made_of(given, each.make)

    sizes = {key: sum(part.size for part in each.sources) for key, each in tensors.items()}
    return Weights(path, {key: each.shape for key, each in tensors.items()}, metadata, read, sizes, stored)


def _in_one_pass(
    wanted: Sequence[Derived], read: Callable[[Weights, list[str]], Iterator[tuple[str, _Read]]]
) -> Iterator[list[_Read]]:
    """What each is made of. Files are read once, from front to back: what is asked of one first is needed first."""
    files: dict[int, tuple[Weights, list[str]]] = {}
    for part in (part for each in wanted for part in each.sources):
        files.setdefault(id(part.weights), (part.weights, []))[1].append(part.key)
    streams = {number: read(weights, demanded) for number, (weights, demanded) in files.items()}
    for each in wanted:
        yield [next(streams[id(part.weights)])[1] for part in each.sources]


# Beside a weight in 8 bits: what to multiply it with. The scale of a layer's input serves arithmetic in 8 bits only.
_SCALES = (".scale_weight", ".weight_scale")
_WITHOUT_USE = (".scale_input", ".input_scale", "scaled_fp8")


def unscaled(weights: Weights) -> Weights:
    """The same file with weights that are stored beside their scale multiplied by it."""
    ends = (*_SCALES, *_WITHOUT_USE)
    if not any(key.endswith(ends) for key in weights.shapes):
        return weights
    scales = {f"{key[: -len(end)]}.weight": key for end in _SCALES for key in weights.shapes if key.endswith(end)}
    tensors = {
        key: scaled(Part(weights, key), Part(weights, scales[key])) if key in scales else same(Part(weights, key))
        for key in weights.shapes
        if not key.endswith(ends)
    }
    return derived_weights(weights.path, tensors, weights.metadata)
