"""Read torch's pickled files without executing anything.

What a file's pickle says is found out by `pickles.py`, which can build descriptions of tensors and containers, and
nothing else. The tensors are then read by us, with their bounds checked.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from overpaint.errors import CheckpointError
from overpaint.models.pickled_values import TensorRef, UnreadablePickle
from overpaint.models.pickles import MOST_BYTES, Pickles, parts_of, unpickled
from overpaint.named_files import check_regular

_MAX_DIRECTORY_BYTES = 8 * 2**20  # of a zip archive; each of its entries takes some 100 bytes
_LARGEST_NOTE = 64
_MOST_VIEWS = 8  # times the file's size that all its tensors may be together; some share their numbers
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class PickledFile:
    """The tree of a pickled file, its tensors still on disk."""

    path: Path
    tree: Any
    places: dict[str, tuple[int, int]]  # of each storage: where its bytes start, and how many there are

    def read(self, tensors: list[TensorRef]) -> Iterator[Tensor]:
        """The tensors, in order, each in memory of its own."""
        with self.path.open("rb") as file:
            for each in tensors:
                yield self._read_one(file, each)

    def _read_one(self, file: io.BufferedReader, ref: TensorRef) -> Tensor:
        kind = ref.storage.kind
        start, size = self.places.get(ref.storage.key, (0, -1))
        if size != ref.storage.bytes:
            raise CheckpointError(
                f"{self.path.name}: a block of numbers is missing or cut off; download the file again"
            )
        dtype: torch.dtype = getattr(torch, kind.name)
        if 0 in ref.shape:
            return torch.empty(ref.shape, dtype=dtype)
        place = start + ref.offset * kind.itemsize
        flat = read_values(file, place, ref.last - ref.offset + 1, dtype, self.path.name)
        return flat.as_strided(ref.shape, ref.stride).contiguous()


def read_values(file: io.BufferedReader, start: int, count: int, dtype: torch.dtype, name: str) -> Tensor:
    """Numbers of a file in fresh memory: aligned, and never mapped (mapped tensors are unaligned and change bits)."""
    if start + count * dtype.itemsize > os.fstat(file.fileno()).st_size:  # before memory is taken for them
        raise CheckpointError(f"{name}: the file ends too early; download it again")
    values = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
    file.seek(start)
    if file.readinto(values.numpy().data) != len(values):
        raise CheckpointError(f"{name}: the file ends too early; download it again")
    return values.view(dtype)


def open_pickle(path: Path) -> PickledFile:
    """Describe a .ckpt, .pt, .bin or .pth file, in torch's zip format or the one before it."""
    check_regular(path, CheckpointError)
    try:
        opened = _open_zip(path) if zipfile.is_zipfile(path) else _open_legacy(path)
        _check_sizes(opened)
    except OSError as error:
        raise CheckpointError(
            f"{path.name}: the file cannot be read ({error.strerror}); check the path and its rights"
        ) from error
    except Exception as error:  # what a broken or hostile archive raises is as varied as archives are
        raise CheckpointError(
            f"{path.name}: this is no file of tensors that torch wrote ({error}); use a .safetensors file"
        ) from error
    return opened


def load_pickle(path: Path) -> Any:
    """The tree of a small file with its tensors read; dicts, lists and tuples are kept, other objects are `Inert`."""
    opened = open_pickle(path)
    return _with_tensors(opened.tree, opened, {})


def _with_tensors(tree: Any, opened: PickledFile, done: dict[int, Any]) -> Any:
    """NOTE: nothing is read twice, for a part may be in many places."""
    if id(tree) in done:
        return done[id(tree)]
    result = tree
    if isinstance(tree, TensorRef):
        result = next(opened.read([tree]))
    elif isinstance(tree, dict):
        result = {key: _with_tensors(value, opened, done) for key, value in tree.items()}
    elif type(tree) in (list, tuple):
        result = type(tree)(_with_tensors(value, opened, done) for value in tree)
    done[id(tree)] = result
    return result


def _check_sizes(opened: PickledFile) -> None:
    """That each block of numbers lies in the file, and that the tensors are not many times what the file holds."""
    size = opened.path.stat().st_size
    if any(start + length > size for start, length in opened.places.values()):
        raise UnreadablePickle("a block of numbers lies behind its end")
    if sum(each.bytes for each in _tensors_of(opened.tree)) > _MOST_VIEWS * size:
        raise UnreadablePickle("its tensors are many times larger than the file")


def _open_zip(path: Path) -> PickledFile:
    places: dict[str, tuple[int, int]] = {}
    with _Frugal(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        file.most = MOST_BYTES  # its list of entries was read
        names = [each for each in archive.namelist() if each.rsplit("/", 1)[-1] == "data.pkl"]
        if len(names) != 1:
            raise UnreadablePickle("it has no data.pkl")
        root = names[0].removesuffix("data.pkl")
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise UnreadablePickle("it is compressed, which torch never does")
            if entry.filename == f"{root}byteorder" and _is_big_endian(archive, entry):
                raise UnreadablePickle("it was written on a big-endian machine")
            if entry.filename.startswith(f"{root}data/"):
                places[entry.filename.removeprefix(f"{root}data/")] = (_start_of(file, entry), entry.file_size)
        described = archive.getinfo(names[0])
        if described.file_size > MOST_BYTES:
            raise UnreadablePickle("its description is larger than 100 MiB")
        return PickledFile(path, unpickled(archive.read(described)), places)


class _Frugal(io.BufferedReader):
    """A file that is read in small parts: zipfile would take a list of many million entries into memory."""

    most = _MAX_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise UnreadablePickle("its list of entries is too long")
        return super().read(size)


def _is_big_endian(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    return entry.file_size <= _LARGEST_NOTE and archive.read(entry)[:3] == b"big"


def _start_of(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes start: behind its local header, whose name and extra field have their own lengths."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise UnreadablePickle("an entry of the archive is damaged")
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _open_legacy(path: Path) -> PickledFile:
    """Five pickles in a row (magic number, protocol, system, tree, storage keys), then the storages' bytes."""
    with path.open("rb") as file:
        pickles = Pickles(file.read(MOST_BYTES))
        if pickles.next() != _LEGACY_MAGIC:
            raise UnreadablePickle("it does not start as torch's files do")
        pickles.next()
        system = pickles.next()
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise UnreadablePickle("it was written on a big-endian machine")
        tree, keys = pickles.next(), pickles.next()
        file.seek(pickles.position)
        return PickledFile(path, tree, _legacy_places(file, tree, keys))


def _legacy_places(file: IO[bytes], tree: Any, keys: Any) -> dict[str, tuple[int, int]]:
    """Each storage is its count of numbers, and then these."""
    storages = {each.storage.key: each.storage for each in _tensors_of(tree)}
    places: dict[str, tuple[int, int]] = {}
    for key in keys if isinstance(keys, list) else ():
        count = int.from_bytes(file.read(8), "little")
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or key in places or count != storage.size:
            raise UnreadablePickle("a block of numbers that belongs to no tensor, or is not as large as it says")
        places[key] = (file.tell(), storage.bytes)
        file.seek(storage.bytes, io.SEEK_CUR)
    return places


def _tensors_of(tree: Any) -> Iterator[TensorRef]:
    """Every tensor once."""
    seen, waiting = {id(tree)}, [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, TensorRef):
            yield part
        for each in parts_of(part):
            if isinstance(each, (dict, list, tuple)) and id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)
