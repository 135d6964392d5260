"""What a pickled file of tensors is made of, and what the names stand for that such files use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_MOST_DIMENSIONS = 64


class UnreadablePickle(ValueError):  # noqa: N818 (half a sentence of an error)
    """Why a pickle is refused: half a sentence."""


class NumberKind(NamedTuple):
    """The type of a storage's numbers, by torch's name for it."""

    name: str
    itemsize: int


class StorageRef(NamedTuple):
    """A block of numbers in the file."""

    key: str
    kind: NumberKind
    size: int

    @property
    def bytes(self) -> int:
        return self.size * self.kind.itemsize


class TensorRef(NamedTuple):
    """A view of a storage, as the pickle describes it. It never has more numbers than the storage."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.storage.kind.itemsize

    @property
    def last(self) -> int:
        """The place of its last number in the storage; of a tensor that has one."""
        return self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


class Inert:
    """Stands for an object, a class or a function of the file that is not needed, and for whatever these give."""

    __slots__ = ()


class Played(NamedTuple):
    """A function that torch's files call, played by one of ours."""

    play: Callable[..., Any]


_KINDS: Mapping[str, NumberKind] = {
    "DoubleStorage": NumberKind("float64", 8),
    "FloatStorage": NumberKind("float32", 4),
    "HalfStorage": NumberKind("float16", 2),
    "BFloat16Storage": NumberKind("bfloat16", 2),
    "LongStorage": NumberKind("int64", 8),
    "IntStorage": NumberKind("int32", 4),
    "ShortStorage": NumberKind("int16", 2),
    "CharStorage": NumberKind("int8", 1),
    "ByteStorage": NumberKind("uint8", 1),
    "BoolStorage": NumberKind("bool", 1),
}


def _tensor(storage: object, offset: object, shape: object, stride: object, *rest: object) -> TensorRef:
    if not isinstance(storage, StorageRef) or type(offset) is not int:
        raise UnreadablePickle("a tensor without a storage")
    sizes, steps = _integers(shape), _integers(stride)
    if offset < 0 or len(sizes) != len(steps) or math.prod(max(1, size) for size in sizes) >= 2**62:
        raise UnreadablePickle("a tensor with an impossible shape")
    tensor = TensorRef(storage, offset, sizes, steps)
    if 0 not in sizes and (tensor.last >= storage.size or math.prod(sizes) > storage.size):
        raise UnreadablePickle("a tensor that is larger than its storage")
    return tensor


def _integers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > _MOST_DIMENSIONS:
        raise UnreadablePickle("a shape that is not made of whole numbers")
    if not all(type(each) is int and 0 <= each < 2**62 for each in values):
        raise UnreadablePickle("a shape that is not made of possible sizes")
    return values


def _size(values: object = (), *rest: object) -> tuple[Any, ...]:
    is_short = isinstance(values, (tuple, list)) and len(values) <= _MOST_DIMENSIONS
    return tuple(values) if is_short and isinstance(values, (tuple, list)) else ()


_PLAYED: Mapping[str, Played] = {
    "collections OrderedDict": Played(lambda *args: {}),
    "torch._utils _rebuild_tensor": Played(_tensor),
    "torch._utils _rebuild_tensor_v2": Played(_tensor),
    "torch._utils _rebuild_parameter": Played(lambda data, *rest: data),
    "torch._utils _rebuild_parameter_with_state": Played(lambda data, *rest: data),
    "torch Size": Played(_size),
    # Its tensors come with its state.
    "torch.nn.modules.container ParameterDict": Played(lambda *args: Parameters()),
}


class Parameters(dict[Any, Any]):
    """Plays a ParameterDict."""

    __slots__ = ()


def named(name: str) -> Any:
    module, _, plain = name.partition(" ")
    if module in ("torch", "torch.storage") and plain in _KINDS:
        return _KINDS[plain]
    return _PLAYED.get(name) or Inert()


def stored(pid: object) -> StorageRef:
    """What a persistent id stands for."""
    what, kind, key, _, count = pid[:5] if isinstance(pid, tuple) and len(pid) >= 5 else (None,) * 5
    if what != "storage" or not isinstance(kind, NumberKind) or type(count) is not int or not isinstance(key, str):
        raise UnreadablePickle("an unknown kind of storage")
    if not 0 <= count < 2**62:
        raise UnreadablePickle("a storage of impossible size")
    if isinstance(pid, tuple) and len(pid) > 5 and pid[5] is not None:
        raise UnreadablePickle("a storage that is a view of another, as only very old versions of torch wrote")
    return StorageRef(key, kind, count)
