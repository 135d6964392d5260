"""A small network from its file: all checked first, then tensor after tensor put into its layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from overpaint.backends.torch_backend import settled
from overpaint.errors import CheckpointError
from overpaint.models.files import Weights
from overpaint.networks.layers import Packable, blank

_Network = TypeVar("_Network", bound=nn.Module)


def load_network(
    build: Callable[[], _Network],
    weights: Weights,
    keys: Mapping[str, str],
    what: str,
    *,
    device: str | torch.device,
    dtype: torch.dtype,
) -> _Network:
    """A filled network, ready for inference. `keys` are parameter -> key in the file, `what` it is, for errors."""
    with torch.device("meta"):  # a file may promise more than memory holds; nothing is taken before it is checked
        _check(dict(build().named_parameters()), weights, keys, what)
    network = blank(build, device, dtype)
    fill_network(network, weights, keys, what)
    return settled(network)


def fill_network(network: nn.Module, weights: Weights, keys: Mapping[str, str], what: str) -> None:
    """Fill a blank network, as it is on its device."""
    parameters = dict(network.named_parameters())
    _check(parameters, weights, keys, what)
    names = {keys[name]: name for name in parameters}
    for key, tensor in weights.read(names):
        _place(network, names[key], tensor)


def _check(parameters: Mapping[str, nn.Parameter], weights: Weights, keys: Mapping[str, str], what: str) -> None:
    missing = [name for name in parameters if name not in keys]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(
            f"{weights.path.name}: {len(missing)} tensors that {what} has are missing ({shown}); use a complete file"
        )
    for name, parameter in parameters.items():
        shape = weights.shapes[keys[name]]
        if _without_ones(shape) != _without_ones(tuple(parameter.shape)):
            raise CheckpointError(
                f"{weights.path.name}: tensor {keys[name]} is {list(shape)}, but {what} of these widths "
                f"needs {list(parameter.shape)}; use another file"
            )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """1x1 convolutions are stored as matrices by some tools."""
    return tuple(size for size in shape if size != 1)


@torch.no_grad()
def _place(network: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, parameter = name.rpartition(".")
    layer = network.get_submodule(path)
    if isinstance(layer, Packable) and parameter == "weight":
        layer.fill(tensor)
    else:
        target: Tensor = getattr(layer, parameter)
        target.copy_(tensor.view(target.shape))
