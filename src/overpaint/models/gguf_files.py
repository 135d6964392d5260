"""GGUF files: weights in a few bits each, as small U-Nets are shared.

The format is that of the ggml project: a header of typed facts, a list of tensors, and their bytes. The header is read
here, with limits, for the reader of the package `gguf` maps the file and can be kept busy for ever by a hostile one.
That package knows the many ways in which numbers are packed, and is asked for these alone.
"""

from __future__ import annotations

import importlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from overpaint.errors import CheckpointError, brief
from overpaint.models.files import Weights
from overpaint.models.gguf_numbers import unpacked, unpacks
from overpaint.models.header import broken
from overpaint.models.unpickle import read_values
from overpaint.networks.stored_weights import StoredWeight

MAGIC = b"GGUF"
ARCHITECTURE = "general.architecture"

_MAX_HEADER_BYTES = 32 * 2**20
_MOST_ENTRIES = 2**16  # facts, or tensors
_LONGEST_VOCABULARY = 2**20
_MAX_NAME_BYTES = 2**16
_LONGEST_LIST = 8  # of a fact that is kept; a vocabulary is stepped over
# Convolutions are often stored as matrices whose rows suit the blocks; this is where writers keep the real shape.
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."

_SCALARS: Mapping[int, str] = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_TEXT, _LIST = 8, 9
_PLAIN: Mapping[int, torch.dtype] = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}


@dataclass(frozen=True)
class _Packed:
    """A tensor of the file: how its numbers are packed, and where they lie."""

    kind: int
    shape: tuple[int, ...]
    stored: tuple[int, ...]
    offset: int
    block: int  # this many numbers
    block_bytes: int  # take this many bytes

    @property
    def size(self) -> int:
        return math.prod(self.stored) // self.block * self.block_bytes


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def open_gguf(path: Path) -> Weights:
    """A GGUF file's tensors under their names, unpacked when they are read; its facts as metadata."""
    try:
        with path.open("rb") as file:
            facts, entries, start = _read_header(_Cursor(file, path.stat().st_size))
    except (ValueError, struct.error) as error:
        raise broken(path, f"its header is not valid ({error})") from error
    packing = _Packing(path, {kind for kind, _, _ in entries.values()})
    tensors = {
        name: _packed(path, name, entry, packing, facts.get(_ORIGINAL_SHAPE + name)) for name, entry in entries.items()
    }
    for name, each in tensors.items():
        if start + each.offset + each.size > path.stat().st_size:
            raise broken(path, f"tensor {name[:80]!r} lies behind the end of the file")

    def stored(keys: list[str]) -> Iterator[StoredWeight]:
        with path.open("rb") as file:
            for key in keys:
                each = tensors[key]
                is_plain = each.kind in _PLAIN
                count, dtype = (math.prod(each.stored), _PLAIN[each.kind]) if is_plain else (each.size, torch.uint8)
                values = read_values(file, start + each.offset, count, dtype, path.name)
                yield StoredWeight((values,), partial(packing.numbers, tensor=each))

    def read(keys: list[str]) -> Iterator[Tensor]:
        return (each.numbers() for each in stored(keys))

    metadata = {name: value for name, value in facts.items() if isinstance(value, str)}
    sizes = {name: each.size for name, each in tensors.items()}
    return Weights(path, {name: each.shape for name, each in tensors.items()}, metadata, read, sizes, stored)


class _Cursor:
    """Reads forward, never behind the header's limit."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = min(size, _MAX_HEADER_BYTES)

    def take(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise ValueError("it is cut off or longer than 32 MiB")
        return self._file.read(count)

    def skip(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError("it is cut off or longer than 32 MiB")
        self._file.seek(count, 1)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        length: int = self.number("<Q")
        return self.take(length).decode("utf-8", "replace")

    def name(self) -> str:
        length: int = self.number("<Q")
        if length > _MAX_NAME_BYTES:
            raise ValueError("a name of impossible length")
        return self.take(length).decode()

    def position(self) -> int:
        return self._file.tell()


_Entry = tuple[int, tuple[int, ...], int]  # how it is packed, its shape, its place


def _read_header(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, _Entry], int]:
    """The facts, the tensors, and where their bytes start."""
    if cursor.take(4) != MAGIC:
        raise ValueError("it does not start with GGUF")
    version: int = cursor.number("<I")
    if version not in (2, 3):
        raise ValueError(f"version {version}, where 2 or 3 in little-endian order can be read")
    tensor_count, fact_count = cursor.number("<Q"), cursor.number("<Q")
    if tensor_count > _MOST_ENTRIES or fact_count > _MOST_ENTRIES:
        raise ValueError("it lists more than any model has")
    facts: dict[str, Any] = {}
    # Every turn takes bytes of the header, so that no count can keep these loops busy for longer than it is.
    for _ in range(fact_count):
        name = cursor.name()
        facts[name] = _fact(cursor, cursor.number("<I"))
    entries: dict[str, _Entry] = {}
    for _ in range(tensor_count):
        name, dimensions = cursor.name(), cursor.number("<I")
        if name in entries or dimensions > 8:
            raise ValueError(f"tensor {name[:80]!r} occurs twice or has too many dimensions")
        sizes = tuple(cursor.number("<Q") for _ in range(dimensions))
        if math.prod(max(1, size) for size in sizes) >= 2**62:
            raise ValueError(f"tensor {name[:80]!r} has an impossible shape")
        kind, offset = cursor.number("<I"), cursor.number("<Q")
        entries[name] = (kind, sizes[::-1], offset)
    alignment = facts.get("general.alignment", "32")
    step = int(alignment) if isinstance(alignment, str) and alignment.isdecimal() else 0
    if not 0 < step <= 2**20:
        raise ValueError(f"general.alignment={brief(alignment)}")
    return facts, entries, -(-cursor.position() // step) * step


def _fact(cursor: _Cursor, kind: int) -> Any:
    """A text, a number as text, a short list of numbers, or None for other kinds of values."""
    if kind == _TEXT:
        return cursor.text()
    if kind in _SCALARS:
        return json.dumps(cursor.number(_SCALARS[kind]))
    if kind != _LIST:
        raise ValueError(f"a fact of the unknown type {kind}")
    inner, count = cursor.number("<I"), cursor.number("<Q")
    if inner == _TEXT:
        if count > _LONGEST_VOCABULARY:
            raise ValueError("a list of impossible length")
        for _ in range(count):
            cursor.skip(cursor.number("<Q"))
        return None
    if inner not in _SCALARS:
        raise ValueError("a list of lists")
    if count > _LONGEST_LIST:
        cursor.skip(count * struct.calcsize(_SCALARS[inner]))
        return None
    return tuple(cursor.number(_SCALARS[inner]) for _ in range(count))


class _Packing:
    """How numbers are packed, for the kinds that a file uses."""

    def __init__(self, path: Path, kinds: set[int]) -> None:
        self._name = path.name
        self._library = _gguf(path) if kinds - _PLAIN.keys() else None
        self.blocks = {kind: self._block(kind) for kind in kinds}

    def _block(self, kind: int) -> tuple[int, int]:
        """How many numbers a block holds, and its bytes."""
        if kind in _PLAIN or self._library is None:
            return 1, _PLAIN[kind].itemsize
        try:
            known = self._library.GGMLQuantizationType(kind)
            numbers, size = self._library.GGML_QUANT_SIZES[known]
            self._library.quants.dequantize(np.zeros((1, size), dtype=np.uint8), known)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise CheckpointError(
                f"{self._name}: its weights are packed in a way that cannot be read ({error}); "
                "use a file in Q8_0, Q5_1 or Q4_K"
            ) from error
        return int(numbers), int(size)

    def numbers(self, values: Tensor, tensor: _Packed) -> Tensor:
        """A tensor's numbers in its own shape; `values` are its bytes, on any device."""
        if tensor.kind in _PLAIN:
            return values.view(tensor.shape)
        found = unpacked(values, tensor.kind) if unpacks(tensor.kind) else self._unpacked(values, tensor)
        return found.view(tensor.shape)

    def _unpacked(self, values: Tensor, tensor: _Packed) -> Tensor:
        """In one of the rarer ways, which the package knows."""
        assert self._library is not None
        device, values = values.device, values.cpu()
        rows = values.numpy().reshape(-1, tensor.stored[-1] // tensor.block * tensor.block_bytes)
        try:
            with np.errstate(all="ignore"):
                numbers = self._library.quants.dequantize(rows, self._library.GGMLQuantizationType(tensor.kind))
        except Exception as error:  # the package's own kinds of complaint are all treated alike
            raise CheckpointError(
                f"{self._name}: its weights cannot be unpacked ({error}); use another file"
            ) from error
        return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float32)).to(device)


def _gguf(path: Path) -> Any:
    try:
        library: Any = importlib.import_module("gguf")
        importlib.import_module("gguf.quants")
    except ImportError as error:
        raise CheckpointError(
            f"{path.name}: its weights are packed, and what unpacks them is missing: install overpaint[gguf]"
        ) from error
    return library


def _packed(path: Path, name: str, entry: _Entry, packing: _Packing, original: object) -> _Packed:
    kind, stored, offset = entry
    shape = stored
    if isinstance(original, tuple):
        is_shape = all(type(size) is int and 0 < size < 2**62 for size in original)
        if not is_shape or math.prod(original) != math.prod(stored):
            raise broken(path, f"tensor {name[:80]!r} does not have as many numbers as its original shape")
        shape = original
    block, size = packing.blocks[kind]
    if not stored or 0 in stored:
        if block > 1:
            raise broken(path, f"tensor {name[:80]!r} is packed but empty")
    elif stored[-1] % block:
        raise broken(path, f"tensor {name[:80]!r} has rows that do not fill its blocks")
    return _Packed(kind, shape, stored, offset, block, size)
