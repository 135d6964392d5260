"""From an upscaler's file to its network on a device: names mapped, sizes from the shapes, everything checked first."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from overpaint.errors import CheckpointError
from overpaint.models.files import Weights, read_checkpoint
from overpaint.models.filling import load_network
from overpaint.models.pickled_values import TensorRef
from overpaint.models.unpickle import open_pickle
from overpaint.networks.rrdbnet import RRDBNet, rrdb_keys, rrdb_spec
from overpaint.networks.srvgg import SRVGGNet, srvgg_spec

_TABLES = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict")  # best first
_PREFIXES = ("params_ema.", "params.", "module.")
_UNKNOWN = (
    "its architecture is not known; RRDBNet (ESRGAN, Real-ESRGAN) and SRVGG (Real-ESRGAN's small ones) are built in, "
    "others need the package spandrel, which needs torchvision of the same version as torch"
)


@dataclass(frozen=True)
class LoadedUpscaler:
    """A network (colours in 0..1 to colours, `scale` times as many along each side) and the name of its file."""

    network: nn.Module
    scale: int
    name: str


@dataclass(frozen=True)
class _Found:
    """A recognised file: how to build its network, and where each parameter is."""

    kind: str
    build: Callable[[], nn.Module]
    scale: int
    keys: Mapping[str, str]  # parameter name -> key in the file


def load_upscaler(path: Path, device: str | torch.device = "cpu") -> LoadedUpscaler:
    """Load the file of an upscaler; nothing in it is executed, and it is used whole or not at all.

    In float32 on a CPU, in half precision elsewhere.
    """
    path, device = Path(path), torch.device(device)
    weights = _opened(path)
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    keys = _without_prefix(weights.shapes)
    found = _recognised(keys, weights.shapes)
    if found is None or not _uses_all(found):
        return _by_spandrel(weights, keys, device, dtype)
    network = load_network(found.build, weights, found.keys, found.kind, device=device, dtype=dtype)
    return LoadedUpscaler(network, found.scale, path.stem)


def _opened(path: Path) -> Weights:
    """Upscalers are often kept as one of several tables of a pickled file."""
    if not path.is_file() or path.suffix == ".safetensors":
        return read_checkpoint(path)
    with path.open("rb") as file:
        if file.read(9)[8:] == b"{":
            return read_checkpoint(path)
    opened = open_pickle(path)
    tables = opened.tree if isinstance(opened.tree, dict) else {}
    inner = next((tables[name] for name in _TABLES if isinstance(tables.get(name), dict)), tables)
    tensors = {key: value for key, value in inner.items() if isinstance(key, str) and isinstance(value, TensorRef)}
    if not tensors:
        raise CheckpointError(f"{path.name}: it holds no tensors by name; use the file of an upscaler")
    shapes = {key: value.shape for key, value in tensors.items()}
    return Weights(path, shapes, {}, lambda keys: opened.read([tensors[key] for key in keys]))


def _without_prefix(shapes: Mapping[str, object]) -> dict[str, str]:
    """Name -> key in the file."""
    prefix = next((each for each in _PREFIXES if all(key.startswith(each) for key in shapes)), "")
    return {key.removeprefix(prefix): key for key in shapes}


def _recognised(keys: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> _Found | None:
    small = srvgg_spec({name: shapes[key] for name, key in keys.items()})
    if small is not None:
        return _Found("SRVGG", partial(SRVGGNet, small), small.scale, keys)
    names = {new: keys[old] for new, old in rrdb_keys(keys).items()}
    large = rrdb_spec({name: shapes[key] for name, key in names.items()})
    return _Found("RRDBNet", partial(RRDBNet, large), large.scale, names) if large is not None else None


def _uses_all(found: _Found) -> bool:
    """Whether such a network has a place for every tensor; some relatives have a few more, and make other pictures."""
    with torch.device("meta"):
        return found.keys.keys() <= {name for name, _ in found.build().named_parameters()}


class _Foreign(nn.Module):
    """A network of another library, called as that library wants it."""

    def __init__(self, described: Any) -> None:
        super().__init__()
        self.model: nn.Module = described.model
        self._call: Callable[[Tensor], Tensor] = described

    def forward(self, x: Tensor) -> Tensor:
        return self._call(x)


def _by_spandrel(weights: Weights, keys: Mapping[str, str], device: torch.device, dtype: torch.dtype) -> LoadedUpscaler:
    """NOTE: spandrel requires torchvision, which replaces torch; it is used where it is, and never asked for."""
    name = weights.path.name
    try:
        spandrel: Any = importlib.import_module("spandrel")
    except ImportError:
        raise CheckpointError(f"{name}: {_UNKNOWN}") from None
    stored = dict(weights.read(keys.values()))
    try:
        described = spandrel.ModelLoader(device=device).load_from_state_dict({new: stored[keys[new]] for new in keys})
    except Exception as error:  # whatever its many readers make of a strange file
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise CheckpointError(f"{name}: its architecture is known neither here nor to spandrel ({reason})") from error
    if not isinstance(described, spandrel.ImageModelDescriptor) or {
        described.input_channels,
        described.output_channels,
    } != {3}:
        raise CheckpointError(f"{name}: it is no network from one colour picture to another; use an upscaler's file")
    if dtype is torch.float16 and described.supports_half:
        described.half()
    return LoadedUpscaler(_Foreign(described.eval()), int(described.scale), weights.path.stem)
