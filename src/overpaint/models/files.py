"""Model files: what is in them (read first, cheaply and with limits), and their tensors (read when asked for).

The safetensors format is a length, a JSON header and one block of bytes; the header is checked before anything else is
read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

import torch
from numpy.typing import NDArray
from torch import Tensor

from overpaint.errors import CheckpointError, brief
from overpaint.models.header import broken, safetensors_bytes, safetensors_header
from overpaint.models.pickled_values import TensorRef
from overpaint.models.unpickle import open_pickle, read_values
from overpaint.named_files import check_regular
from overpaint.networks.stored_weights import StoredWeight, plain

Progress = Callable[[int, int], None]

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class _Place:
    """Where a tensor of a safetensors file lies."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Weights:
    """An opened model file: shapes and metadata in memory, tensors on disk."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    _read: Callable[[list[str]], Iterator[Tensor]] = field(repr=False)
    sizes: Mapping[str, int] = field(default_factory=dict, repr=False)  # bytes of each tensor in the file
    _stored: Callable[[list[str]], Iterator[StoredWeight]] | None = field(default=None, repr=False)

    def read(self, keys: Iterable[str], progress: Progress | None = None) -> Iterator[tuple[str, Tensor]]:
        """The named tensors one after another, each in memory of its own; progress hears (done, of)."""
        wanted = list(keys)
        for i, (key, tensor) in enumerate(zip(wanted, self._read(wanted), strict=True)):
            yield key, tensor
            if progress is not None:
                progress(i + 1, len(wanted))

    def stored(self, keys: Iterable[str]) -> Iterator[tuple[str, StoredWeight]]:
        """The same as the file stores them: what `read` makes of their bytes is left for later."""
        wanted = list(keys)
        found = self._stored(wanted) if self._stored is not None else map(plain, self._read(wanted))
        yield from zip(wanted, found, strict=True)


def read_checkpoint(path: Path) -> Weights:
    """Open a model file by its content, not its name; a file that cannot be used raises CheckpointError."""
    check_regular(path, CheckpointError)
    if not path.is_file():
        raise CheckpointError(f"{path.name}: there is no such file; check the path")
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file starts with the header's length and "{"; a pickle or a zip archive never does.
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and start[:2] != b"PK"):
        return _open_safetensors(path)
    return _open_pickled(path)


def read_all(path: Path) -> dict[str, Tensor]:
    """Every tensor of a small file."""
    weights = read_checkpoint(path)
    return dict(weights.read(weights.shapes))


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write a file whose bytes depend on nothing but the arguments."""
    path.write_bytes(safetensors_bytes(tensors, metadata))


def _open_safetensors(path: Path) -> Weights:
    header, start = safetensors_header(path)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise broken(path, "its metadata is not a table of texts")
    places = {name: _place(path, name, entry) for name, entry in header.items()}
    _check_layout(path, places, path.stat().st_size - start)

    def read(keys: list[str]) -> Iterator[Tensor]:
        with path.open("rb") as file:
            for key in keys:
                place = places[key]
                values = read_values(file, start + place.start, math.prod(place.shape), place.dtype, path.name)
                yield values.view(place.shape)

    sizes = {name: place.end - place.start for name, place in places.items()}
    return Weights(path, {name: place.shape for name, place in places.items()}, metadata, read, sizes)


def _place(path: Path, name: str, entry: Any) -> _Place:
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = _DTYPES.get(str(fields.get("dtype"))), fields.get("shape"), fields.get("data_offsets")
    if dtype is None:
        raise broken(path, f"tensor {name[:80]!r} has the unknown type {brief(fields.get('dtype'))}")
    if not _is_shape(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise broken(path, f"tensor {name[:80]!r} has an impossible shape or place")
    return _Place(dtype, tuple(shape), offsets[0], offsets[1])


def _whole_numbers(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(each) is int and 0 <= each < 2**62 for each in values)


def _is_shape(values: Any) -> TypeGuard[list[int]]:
    """NOTE: torch refuses sizes whose product overflows, even where one of them is 0."""
    return _whole_numbers(values) and len(values) <= 64 and math.prod(max(1, each) for each in values) < 2**62


def _check_layout(path: Path, places: Mapping[str, _Place], size: int) -> None:
    """Inside the file, as large as the shape says, and no two on the same bytes."""
    end_before = 0
    for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].end)):
        if place.end > size:
            raise broken(path, f"tensor {name[:80]!r} lies behind the end of the file")
        if place.end - place.start != math.prod(place.shape) * place.dtype.itemsize:
            raise broken(path, f"tensor {name[:80]!r} is not as large as its shape says")
        if place.start < end_before:
            raise broken(path, f"tensor {name[:80]!r} lies on top of another")
        end_before = place.end


def _open_pickled(path: Path) -> Weights:
    opened = open_pickle(path)
    tree = opened.tree
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]  # FILE-12
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path.name}: it holds no table of tensors; use a checkpoint file")
    tensors = {key: value for key, value in tree.items() if isinstance(key, str) and isinstance(value, TensorRef)}
    if not tensors:
        raise CheckpointError(f"{path.name}: it holds no tensors by name; use a checkpoint file")
    shapes = {key: value.shape for key, value in tensors.items()}
    sizes = {key: value.bytes for key, value in tensors.items()}
    return Weights(path, shapes, _EMPTY, lambda keys: opened.read([tensors[key] for key in keys]), sizes)
