"""Hypernetworks: small networks that change what the attention layers read (HYP-1).

A file holds, for each width of context it knows, one network for the keys and one for the values:

    context' = context + MLP(context) * multiplier

Its tables name the layers by their place in a row ("linear.0", "linear.2"; very old files say "linear1", "linear2").
A matrix is a linear layer, a vector alone a layer norm; a place without numbers is an activation or a dropout, and
dropouts rest when pictures are made. Read are the fields `activation_func` and `activate_output`; the others
(`layer_structure`, `is_layer_norm`, `use_dropout`, `last_layer_dropout`, ...) say again what the tables show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overpaint.errors import CheckpointError, brief
from overpaint.models.unpickle import load_pickle
from overpaint.networks.layers import device_of
from overpaint.networks.unet import CrossAttention

Activation = Callable[[Tensor], Tensor]

_ACTIVATIONS: Mapping[str, Activation] = {
    "relu": F.relu,
    "leakyrelu": F.leaky_relu,
    "elu": F.elu,
    "swish": F.hardswish,  # NOTE: by this name the files mean the piecewise one
    "hardswish": F.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "celu": F.celu,
    "gelu": F.gelu,
    "hardshrink": F.hardshrink,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "relu6": F.relu6,
    "selu": F.selu,
    "silu": F.silu,
    "softplus": F.softplus,
    "softshrink": F.softshrink,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
}
_NO_ACTIVATION = (None, "", "linear")
_LAYER = re.compile(r"linear\.?(\d+)\.(weight|bias)")


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer, whose weight is a matrix, or a layer norm, whose weight is a vector."""

    weight: Tensor
    bias: Tensor | None

    @property
    def is_linear(self) -> bool:
        return self.weight.dim() == 2

    def __call__(self, x: Tensor) -> Tensor:
        if self.is_linear:
            return F.linear(x, self.weight, self.bias)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)

    def to(self, device: torch.device, dtype: torch.dtype) -> Layer:
        return Layer(self.weight.to(device, dtype), None if self.bias is None else self.bias.to(device, dtype))


Mlp = tuple[Layer | Activation, ...]


@dataclass(frozen=True, eq=False)
class Hypernet:
    """The networks of a file: context width -> (for the keys, for the values)."""

    name: str
    networks: Mapping[int, tuple[Mlp, Mlp]]


@dataclass(frozen=True, eq=False)
class _Worn:
    """The two networks of one attention layer, with their weight in the sum."""

    keys: Mlp
    values: Mlp
    multiplier: float

    def __call__(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return keys + _run(self.keys, keys) * self.multiplier, values + _run(self.values, values) * self.multiplier


def read_hypernet(path: Path) -> Hypernet:
    """A hypernetwork file; one that is none, or is damaged, raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path.name}: there is no such file; check the option hypernetwork_dir")
    tree = load_pickle(path)
    fields = tree if isinstance(tree, dict) else {}
    pairs = {key: value for key, value in fields.items() if type(key) is int and isinstance(value, (list, tuple))}
    if not pairs or not all(len(pair) == 2 and all(isinstance(each, dict) for each in pair) for pair in pairs.values()):
        raise CheckpointError(f"{path.name}: it holds no networks by width of context; use a hypernetwork file")
    networks = {}
    for width, (keys, values) in pairs.items():
        networks[width] = _mlp(path.name, keys, fields, width), _mlp(path.name, values, fields, width)
    return Hypernet(path.stem, networks)


def wear_hypernets(unet: nn.Module, worn: Sequence[tuple[Hypernet, float]]) -> None:
    """Have these, with their multipliers and in this order, change the contexts of a U-Net; none takes all off."""
    first = next(unet.parameters())
    moved = [(_moved(hypernet, device_of(unet), first.dtype), multiplier) for hypernet, multiplier in worn]
    for module in unet.modules():
        if isinstance(module, CrossAttention):
            width = module.context_width
            fitting = ((each.networks[width], multiplier) for each, multiplier in moved if width in each.networks)
            module.context_changes = tuple(_Worn(*pair, multiplier) for pair, multiplier in fitting)


def check_widths(hypernet: Hypernet, unet: nn.Module) -> None:
    """CheckpointError if a hypernetwork fits no attention layer of the U-Net."""
    widths = {module.context_width for module in unet.modules() if isinstance(module, CrossAttention)}
    if not widths & hypernet.networks.keys():
        theirs, ours = (", ".join(map(str, sorted(each))) for each in (hypernet.networks, widths))
        raise CheckpointError(
            f"{hypernet.name}: this hypernetwork is for contexts {theirs} wide and the model's are {ours}; "
            "use one that was made for its family"
        )


def _moved(hypernet: Hypernet, device: torch.device, dtype: torch.dtype) -> Hypernet:
    def moved(mlp: Mlp) -> Mlp:
        return tuple(each.to(device, dtype) if isinstance(each, Layer) else each for each in mlp)

    networks = {width: (moved(keys), moved(values)) for width, (keys, values) in hypernet.networks.items()}
    return replace(hypernet, networks=networks)


def _run(mlp: Mlp, x: Tensor) -> Tensor:
    for layer in mlp:
        x = layer(x)
    return x


def _mlp(name: str, table: Mapping[Any, Any], fields: Mapping[Any, Any], width: int) -> Mlp:
    """The layers in order, with the activations where the file leaves room for them."""
    placed = _placed(name, table)
    linears = [place for place, layer in placed.items() if layer.is_linear]
    if not linears or not _follow(placed.values(), width):
        raise CheckpointError(f"{name}: its layers do not fit one another; download the file again")
    activation = _activation(name, fields)
    if activation is None:
        return tuple(placed.values())
    # NOTE: files from before this field existed have an activation behind the last layer too
    active = linears if fields.get("activate_output", True) else linears[:-1]
    activations = [(_spot_behind(each, placed), activation) for each in active]
    steps: list[tuple[float, Layer | Activation]] = [*placed.items(), *activations]
    return tuple(step for _, step in sorted(steps, key=itemgetter(0)))


def _spot_behind(linear: int, placed: Mapping[int, Layer]) -> float:
    """Where a linear layer's activation is: at the first place left free before the next one, else just behind."""
    spot = linear + 1
    while spot in placed and not placed[spot].is_linear:
        spot += 1
    return linear + 0.5 if spot in placed else spot


def _placed(name: str, table: Mapping[Any, Any]) -> dict[int, Layer]:
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in table.items():
        match = _LAYER.fullmatch(key) if isinstance(key, str) else None
        if match is None or not isinstance(value, Tensor) or not value.is_floating_point():
            raise CheckpointError(f"{name}: its entry {brief(key)} is of an unknown kind; use another file")
        found.setdefault(int(match[1]), {})[match[2]] = value.float()
    if not all(map(_is_whole, found.values())):
        raise CheckpointError(f"{name}: one of its layers is incomplete; download the file again")
    return {place: Layer(each["weight"], each.get("bias")) for place, each in sorted(found.items())}


def _is_whole(parts: Mapping[str, Tensor]) -> bool:
    weight, bias = parts.get("weight"), parts.get("bias")
    return weight is not None and weight.dim() in (1, 2) and (bias is None or bias.shape == weight.shape[:1])


def _follow(layers: Iterable[Layer], width: int) -> bool:
    """Whether each layer takes what the one before gives, from the context's width and back to it."""
    current = width
    for layer in layers:
        if layer.weight.shape[-1] != current:
            return False
        current = layer.weight.shape[0]
    return current == width


def _activation(name: str, fields: Mapping[Any, Any]) -> Activation | None:
    asked = fields.get("activation_func")
    if asked in _NO_ACTIVATION:
        return None
    if not isinstance(asked, str) or asked.lower() not in _ACTIVATIONS:
        known = ", ".join(sorted(_ACTIVATIONS))
        raise CheckpointError(f"{name}: activation_func={brief(asked)} is not known; known are {known}")
    return _ACTIVATIONS[asked.lower()]
