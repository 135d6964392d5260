"""Networks from files: every tensor is there and of its size, then all are read and put into their layers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from overpaint.backends.torch_backend import settled
from overpaint.errors import CheckpointError
from overpaint.models.detect import missing_message
from overpaint.models.files import Progress, Weights
from overpaint.networks.layers import Packable, blank
from overpaint.networks.stored_weights import StoredWeight

_Network = TypeVar("_Network", bound=nn.Module)

_PLACERS = 2  # threads that convert and pack
_READ_AHEAD = 6  # tensors in memory that wait for them


@dataclass(frozen=True)
class Source:
    """Where one network's parameters are: parameter name -> key in the file."""

    network: nn.Module
    weights: Weights
    keys: Mapping[str, str]
    prefix: str = ""  # of the keys, where there are any

    def used(self) -> Iterator[str]:
        """The keys of the file that fill a parameter."""
        return (self.keys[name] for name, _ in self.network.named_parameters() if name in self.keys)

    def missing(self) -> list[str]:
        """The parameters that the file has no tensor for, as their keys would be."""
        return [self.prefix + name for name, _ in self.network.named_parameters() if name not in self.keys]


def source_of(prefix: str, network: nn.Module, weights: Weights, keys: Mapping[str, str]) -> Source:
    """The part of a file below a prefix; `keys` are our names of all its tensors -> the file's."""
    inner = {new.removeprefix(prefix): old for new, old in keys.items() if new.startswith(prefix)}
    return Source(network, weights, inner, prefix)


def check(sources: Iterable[Source], title: str) -> None:
    """Every parameter has a tensor of its size, or nothing is loaded."""
    for source in sources:
        if missing := source.missing():
            raise CheckpointError(f"{source.weights.path.name}: {missing_message(missing, title)}")
        _check_shapes(source, f"a {title} network")


def _check_shapes(source: Source, what: str) -> None:
    for name, parameter in source.network.named_parameters():
        key = source.keys[name]
        shape = source.weights.shapes[key]
        if _without_ones(shape) != _without_ones(tuple(parameter.shape)):
            raise CheckpointError(
                f"{source.weights.path.name}: tensor {key} is {list(shape)}, "
                f"but {what} of these widths needs {list(parameter.shape)}; use another file"
            )


def load_network(
    build: Callable[[], _Network],
    weights: Weights,
    keys: Mapping[str, str],
    what: str,
    *,
    device: str | torch.device,
    dtype: torch.dtype,
) -> _Network:
    """A single network from its file, ready for inference. `keys` are parameter -> key, `what` it is, for errors."""
    with torch.device("meta"):  # a file may promise more than memory holds; nothing is taken before it is checked
        laid_out = Source(build(), weights, keys)
    missing = laid_out.missing()
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(
            f"{weights.path.name}: {len(missing)} tensors that {what} has are missing ({shown}); use a complete file"
        )
    _check_shapes(laid_out, what)
    network = blank(build, device, dtype)
    fill([Source(network, weights, keys)], None)
    return settled(network)


def fill(sources: Sequence[Source], progress: Progress | None) -> None:
    """Read tensor after tensor while others are converted and packed: most time goes into touching new memory."""
    total = sum(len(list(source.network.parameters())) for source in sources)
    waiting: deque[Future[None]] = deque()
    scratch = _Scratch()
    inference = torch.is_inference_mode_enabled()  # the caller's; threads have their own
    done = 0
    with ThreadPoolExecutor(_PLACERS) as pool:
        for source in sources:
            for name, found in _tensors_of(source):
                waiting.append(pool.submit(_place, source.network, name, found, scratch, inference))
                if len(waiting) > _READ_AHEAD:
                    waiting.popleft().result()
                done += 1
                if progress is not None:
                    progress(done, total)
        for each in waiting:
            each.result()


def _tensors_of(source: Source) -> Iterator[tuple[str, Tensor | StoredWeight]]:
    """What each parameter is given: numbers, or for layers that hold them the bytes of the file."""
    held = {name for name, parameter in source.network.named_parameters() if parameter.is_meta}
    names = {source.keys[name]: name for name, _ in source.network.named_parameters()}
    for key, tensor in source.weights.read(key for key, name in names.items() if name not in held):
        yield names[key], tensor
    for key, stored in source.weights.stored(key for key, name in names.items() if name in held):
        yield names[key], stored


@torch.no_grad()
def holds(network: nn.Module, source: Source) -> bool:
    """Whether a filled network has exactly the numbers it would be given from this source.

    Small tensors are read first: where two models differ at all, these differ, and reading stops there.
    """
    names = {source.keys[name]: name for name, _ in source.network.named_parameters()}
    sizes = {key: source.weights.shapes[key] for key in names}
    for key, tensor in source.weights.read(sorted(names, key=lambda key: torch.Size(sizes[key]).numel())):
        there = _parameter(network, names[key])
        if not torch.equal(there, tensor.view(there.shape).to(there)):
            return False
    return True


class _Scratch(threading.local):
    """A buffer per thread for conversions: the first touch of new memory costs more than they do."""

    def __init__(self) -> None:
        self.buffers: dict[torch.dtype, Tensor] = {}

    def converted(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if tensor.dtype is torch.float16 and dtype is torch.bfloat16:
            tensor = self.converted(tensor, torch.float32)  # the same bits, in a third of the time of the direct way
        count = tensor.numel()
        if dtype not in self.buffers or len(self.buffers[dtype]) < count:
            self.buffers[dtype] = torch.empty(count, dtype=dtype)
        return self.buffers[dtype][:count].view(tensor.shape).copy_(tensor)


def _place(network: nn.Module, name: str, tensor: Tensor | StoredWeight, scratch: _Scratch, inference: bool) -> None:
    """One tensor into its layer."""
    path, _, parameter = name.rpartition(".")
    layer = network.get_submodule(path)
    with torch.inference_mode(inference), torch.no_grad():
        if isinstance(tensor, StoredWeight):
            assert isinstance(layer, Packable)
            layer.hold(tensor)
        elif isinstance(layer, Packable) and parameter == "weight":
            wanted = layer.weight
            converts = wanted.device.type == "cpu" and wanted.dtype is not tensor.dtype
            layer.fill(scratch.converted(tensor, wanted.dtype) if converts else tensor)
        else:
            target: Tensor = getattr(layer, parameter)
            target.copy_(tensor.view(target.shape))


def _parameter(network: nn.Module, name: str) -> Tensor:
    path, _, parameter = name.rpartition(".")
    layer = network.get_submodule(path)
    if isinstance(layer, Packable) and parameter == "weight":
        return layer.dense_weight()
    found: Tensor = getattr(layer, parameter)
    return found


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """1x1 convolutions are stored as matrices by some tools."""
    return tuple(size for size in shape if size != 1)
