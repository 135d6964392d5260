"""Read torch's pickled files without executing anything.

A pickle is a program: it may name any function and call it. Here no name is ever looked up. The few that torch's own
files need are answered from a table of inert stand-ins, and every other name becomes an object that accepts whatever is
done to it and does nothing. Tensors are described by the pickle and then read by us, with their bounds checked.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from overpaint.errors import CheckpointError

_MAX_PICKLE_BYTES = 100 * 2**20
_MAX_MEMO = 2**22
_MAX_DEPTH = 32
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MEMO_OPCODES = frozenset({"PUT", "LONG_BINPUT"})

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


# NOTE: named tuples, not dataclasses: a pickle can give any object a new state, but a tuple has none.
class StorageRef(NamedTuple):
    """A block of numbers in the file."""

    key: str
    dtype: torch.dtype
    size: int


class TensorRef(NamedTuple):
    """A view of a storage, as the pickle describes it."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Table(dict[Any, Any]):
    """Plays an OrderedDict, without attributes that a file could set."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Parameters(_Table):
    """Plays a ParameterDict, whose tensors are in its state."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        tensors = state.get("_parameters") if isinstance(state, dict) else None
        if isinstance(tensors, dict):
            self.update(tensors)


class Inert:
    """Stands for an object of the file that is not needed. It takes any argument and any state and does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> Inert:
        return Inert()

    # NOTE: also called on the class itself, with the state alone, when a hostile file "builds" a class
    def __setstate__(*args: object) -> None:
        pass

    def __setitem__(self, *args: object) -> None:
        pass

    def append(*args: object) -> None:
        pass

    def extend(*args: object) -> None:
        pass

    def add(*args: object) -> None:
        pass


class _Named(Inert):
    """A function that torch's files call, played by one of ours; calling is all that can be done to it."""

    __slots__ = ("_play",)

    def __init__(self, play: Callable[..., object]) -> None:
        self._play = play

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return self._play(*args)


def _rebuild_tensor(storage: object, offset: object, shape: object, stride: object, *rest: object) -> TensorRef:
    if not isinstance(storage, StorageRef) or not isinstance(offset, int):
        raise pickle.UnpicklingError("a tensor without a storage")
    sizes, steps = _integers(shape), _integers(stride)
    if offset < 0 or len(sizes) != len(steps):
        raise pickle.UnpicklingError("a tensor with an impossible shape")
    last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if 0 not in sizes and last >= storage.size:
        raise pickle.UnpicklingError("a tensor that is larger than its storage")
    return TensorRef(storage, offset, sizes, steps)


def _integers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(type(each) is int and each >= 0 for each in values):
        raise pickle.UnpicklingError("a shape that is not made of whole numbers")
    return values


_ACTORS: dict[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): lambda *args: _Table(),
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *rest: data,
    ("torch", "Size"): lambda values=(), *rest: tuple(values) if isinstance(values, (tuple, list)) else (),
}


class _InertUnpickler(pickle.Unpickler):
    """An unpickler that never imports: names come from a table or become inert."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch.nn.modules.container", "ParameterDict"):
            return type("Parameters", (_Parameters,), {"__slots__": ()})
        actor = _ACTORS.get((module, name))
        # A fresh class each time: whatever a file does to it cannot reach the next file.
        return _Named(actor) if actor is not None else type("Inert", (Inert,), {})

    def persistent_load(self, pid: Any) -> StorageRef:
        kind, dtype, key, _, count = pid[:5] if isinstance(pid, tuple) and len(pid) >= 5 else (None,) * 5
        if (
            kind != "storage"
            or not isinstance(dtype, torch.dtype)
            or type(count) is not int
            or not isinstance(key, str)
        ):
            raise pickle.UnpicklingError("an unknown kind of storage")
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError(
                "a storage that is a view of another, as only very old versions of torch wrote"
            )
        return StorageRef(key, dtype, count)


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
        storage = ref.storage
        start, size = self.places.get(storage.key, (0, -1))
        if size != storage.size * storage.dtype.itemsize:
            raise CheckpointError(
                f"{self.path.name}: a block of numbers is missing or cut off; download the file again"
            )
        if 0 in ref.shape:
            return torch.empty(ref.shape, dtype=storage.dtype)
        first, last = (
            ref.offset,
            ref.offset + sum((n - 1) * step for n, step in zip(ref.shape, ref.stride, strict=True)),
        )
        flat = read_values(
            file, start + first * storage.dtype.itemsize, last - first + 1, storage.dtype, self.path.name
        )
        return flat.as_strided(ref.shape, ref.stride).contiguous()


def read_values(file: io.BufferedReader, start: int, count: int, dtype: torch.dtype, name: str) -> Tensor:
    """Numbers of a file in fresh memory: aligned, and never mapped (mapped tensors are unaligned and change bits)."""
    values = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
    file.seek(start)
    if file.readinto(values.numpy().data) != len(values):
        raise CheckpointError(f"{name}: the file ends too early; download it again")
    return values.view(dtype)


def open_pickle(path: Path) -> PickledFile:
    """Describe a .ckpt, .pt, .bin or .pth file, in torch's zip format or the one before it."""
    try:
        if zipfile.is_zipfile(path):
            return _open_zip(path)
        return _open_legacy(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"{path.name}: the file cannot be read ({error.strerror}); check the path and its rights"
        ) from error
    except Exception as error:  # what a broken or hostile pickle raises is as varied as pickles are
        raise CheckpointError(
            f"{path.name}: this is no file of tensors that torch wrote ({error}); use a .safetensors file"
        ) from error


def load_pickle(path: Path) -> Any:
    """The tree of a small file with its tensors read; dicts, lists and tuples are kept, other objects are `Inert`."""
    opened = open_pickle(path)
    return _with_tensors(opened.tree, opened)


def _with_tensors(tree: Any, opened: PickledFile, depth: int = 0, done: dict[int, Any] | None = None) -> Any:
    done = {} if done is None else done
    if id(tree) in done:
        return done[id(tree)]
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"{opened.path.name}: its contents are nested too deeply; use a .safetensors file")
    result = tree
    if isinstance(tree, TensorRef):
        result = next(opened.read([tree]))
    elif isinstance(tree, dict):
        result = {key: _with_tensors(value, opened, depth + 1, done) for key, value in tree.items()}
    elif type(tree) in (list, tuple):
        result = type(tree)(_with_tensors(value, opened, depth + 1, done) for value in tree)
    done[id(tree)] = result
    return result


def _unpickle(file: IO[bytes]) -> Any:
    """One pickle from the file, which is left just behind it."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        # NOTE: the memo grows to the largest number named, so a short file could ask for all memory
        if opcode.name in _MEMO_OPCODES and isinstance(argument, int) and argument > _MAX_MEMO:
            raise pickle.UnpicklingError("a memo of impossible size")
    end = file.tell()
    file.seek(start)
    tree = _InertUnpickler(io.BytesIO(file.read(end - start))).load()
    file.seek(end)
    return tree


def _open_zip(path: Path) -> PickledFile:
    places: dict[str, tuple[int, int]] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        names = [each for each in archive.namelist() if each.rsplit("/", 1)[-1] == "data.pkl"]
        if len(names) != 1:
            raise pickle.UnpicklingError("it has no data.pkl")
        root = names[0].removesuffix("data.pkl")
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError("it is compressed, which torch never does")
            if entry.filename == f"{root}byteorder" and archive.read(entry)[:3] == b"big":
                raise pickle.UnpicklingError("it was written on a big-endian machine")
            if entry.filename.startswith(f"{root}data/"):
                places[entry.filename.removeprefix(f"{root}data/")] = (_start_of(file, entry), entry.file_size)
        described = archive.getinfo(names[0])
        if described.file_size > _MAX_PICKLE_BYTES:
            raise pickle.UnpicklingError("its description is larger than 100 MiB")
        return PickledFile(path, _unpickle(io.BytesIO(archive.read(described))), places)


def _start_of(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes start: behind its local header, whose name and extra field have their own lengths."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise pickle.UnpicklingError("an entry of the archive is damaged")
    return entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _open_legacy(path: Path) -> PickledFile:
    """Five pickles in a row (magic number, protocol, system, tree, storage keys), then the storages' bytes."""
    with path.open("rb") as file:
        if _unpickle(file) != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("it does not start as torch's files do")
        _unpickle(file)
        system = _unpickle(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise pickle.UnpicklingError("it was written on a big-endian machine")
        tree, keys = _unpickle(file), _unpickle(file)
        sizes = {each.storage.key: each.storage.dtype.itemsize for each in _tensors_of(tree, set())}
        places = {}
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            if key not in sizes or count * sizes[key] > path.stat().st_size:
                raise pickle.UnpicklingError("a block of numbers that belongs to no tensor")
            places[key] = (file.tell(), count * sizes[key])
            file.seek(count * sizes[key], io.SEEK_CUR)
    return PickledFile(path, tree, places)


def _tensors_of(tree: Any, seen: set[int], depth: int = 0) -> Iterator[TensorRef]:
    if id(tree) in seen or depth > _MAX_DEPTH:
        return
    seen.add(id(tree))
    if isinstance(tree, TensorRef):
        yield tree
    elif isinstance(tree, (dict, list, tuple)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors_of(value, seen, depth + 1)
