"""LoRAs put into the weights of a model, and taken out again bit for bit (LORA-5 to LORA-7).

Before a layer is changed, its own weights are copied to the CPU. The changed weights are always computed from that
copy; nothing is ever subtracted. To wear a LoRA means to have it in the weights.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol
from weakref import ref

import torch
from torch import Tensor, nn

from overpaint.adapters.kinds import Patch, change_of
from overpaint.adapters.lora import LoraFile
from overpaint.adapters.names import FUSED, UNET
from overpaint.errors import CheckpointError
from overpaint.networks.layers import Packable, device_of
from overpaint.settings import Quirks

_THIRDS = ("q", "k", "v")  # the first parts of a layer that makes queries, keys and values at once, each as wide
_BEFORE, _BEHIND = "qkv", "mlp"  # all three, and what else such a layer makes
_NAMED = 3  # how many layers an error names
_CANNOT = (RuntimeError, ValueError, IndexError)  # what tensors of the wrong shapes or types raise

State = dict[str, Tensor]  # parameter -> value


class WornLora(NamedTuple):
    """A LoRA, with its multipliers for the U-Net and the text encoders; `dyn` cuts its rank."""

    file: LoraFile
    unet: float = 1.0
    te: float = 1.0
    dyn: int | None = None


class AdaptableNetworks(Protocol):
    """The networks that LoRAs are made for."""

    @property
    def unet(self) -> nn.Module: ...
    @property
    def texts(self) -> Sequence[nn.Module]: ...


class AdaptedNetworks:
    """The networks of one model and the LoRAs in their weights."""

    def __init__(self, networks: AdaptableNetworks) -> None:
        self._networks = {UNET: adapted(networks.unet), **dict(enumerate(map(adapted, networks.texts)))}

    def wear(self, loras: Sequence[WornLora], quirks: Quirks, *, functional: bool = False) -> tuple[int, ...]:
        """Have exactly these LoRAs in the weights, in this order. Returns for each how many layers it does not fit.

        With `ill_fitting_networks_pass` such layers are left out. Otherwise that is an error, and no LoRA is left.
        `functional` is LORA-7: only a LoRA's up and down weights count, as when the reference adds it at run time.
        """
        rules = _rules(quirks, functional)
        counts = [0] * len(loras)
        for number, network in self._networks.items():
            pieces = {i: piece for i, each in enumerate(loras) if (piece := _piece(each, number, rules)) is not None}
            changes = _Changes(number, tuple(pieces.values()), rules)
            misfits = network.wear(changes)
            if misfits and not rules.passing:
                self.bare()
                raise CheckpointError(_message(misfits, changes))
            for misfit in misfits:
                counts[list(pieces)[misfit.place]] += 1
        return tuple(counts)

    def bare(self) -> None:
        """Remove all LoRAs: back to the model's own weights."""
        for network in self._networks.values():
            network.wear(_Changes())


def _rules(quirks: Quirks, functional: bool) -> _Rules:
    precision, passing = quirks.networks_in_file_precision, quirks.ill_fitting_networks_pass
    plain = functional and quirks.functional_loras_are_plain
    return _Rules(precision, passing, plain, norm_per_input=quirks.dora_norm_per_input)


def adapted(network: nn.Module) -> AdaptedNetwork:
    """What keeps account of the LoRAs in a network; there is one for each network.

    NOTE: it is an attribute of the network, because two models may share a text encoder.
    """
    kept = getattr(network, "adapted", None)
    if not isinstance(kept, AdaptedNetwork):
        kept = AdaptedNetwork(network)
        network.adapted = kept  # type: ignore[assignment]
    return kept


def in_weights(network: nn.Module) -> Hashable:
    """What LoRAs a network has in its weights: equal for equal weights of one network. It keeps no file alive.

    NOTE: asking makes no account of a network that has none, for that would tie the network to itself.
    """
    kept = getattr(network, "adapted", None)
    return kept.in_weights if isinstance(kept, AdaptedNetwork) else ()


@dataclass(frozen=True)
class _Rules:
    """How LoRAs are added."""

    file_precision: bool = False
    passing: bool = False
    plain: bool = False
    norm_per_input: bool = False


@dataclass(frozen=True)
class _Piece:
    """The part of one LoRA that is for one of the model's networks."""

    file: LoraFile
    multiplier: float
    rank: int | None


@dataclass(frozen=True)
class _Changes:
    """Everything that is added to a network. Equal changes make equal weights."""

    number: int = UNET
    pieces: tuple[_Piece, ...] = ()
    rules: _Rules = _Rules()


class _Misfit(NamedTuple):
    """A layer to which a part of a LoRA could not be added."""

    place: int
    path: str
    reason: str


class AdaptedNetwork:
    """One network, the LoRAs in its weights, and copies of its own weights."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._own: dict[str, Tensor | None] = {}
        self._changes: _Changes | None = _Changes()
        self._misfits: tuple[_Misfit, ...] = ()

    @property
    def is_bare(self) -> bool:
        """Whether the network has nothing but its own weights."""
        return self._changes is not None and not self._changes.pieces

    @property
    def in_weights(self) -> Hashable:
        """Equal for equal weights; of weights that were left half-way, equal to nothing."""
        changes = self._changes
        if changes is None:
            return object()
        # NOTE: references, for the number of a file that is forgotten may be given to another one
        pieces = tuple((ref(each.file), each.multiplier, each.rank) for each in changes.pieces)
        return (changes.number, pieces, changes.rules) if pieces else ()

    @torch.no_grad()
    def wear(self, changes: _Changes) -> tuple[_Misfit, ...]:
        """Have exactly these changes in the weights. If they are there already, nothing happens."""
        if self.is_bare and not changes.pieces:
            return ()
        if changes != self._changes:
            mover = getattr(self._network, "mover", None)  # of weights that come and go
            with mover.changing() if mover is not None else nullcontext():
                self._changes = None  # if this fails half-way, the next call starts from the copies
                self._misfits = tuple(self._apply(changes))
                self._changes = changes
        return self._misfits

    def _apply(self, changes: _Changes) -> list[_Misfit]:
        misfits: list[_Misfit] = []
        worn: set[str] = set()
        for path, members in _units(self._network, changes).items():
            state: State = {}
            for place, patches in members.items():
                reason = self._add_or_say_why(state, patches, changes.pieces[place], changes.rules)
                if reason:
                    misfits.append(_Misfit(place, path, reason))
            for name, value in state.items():
                if (layer := _with_stored(self._network, name)) is not None:
                    layer.change = partial(self.remade, name, members, changes)
                else:
                    _write(self._network, name, value)
            worn.update(state)
        for name in self._own.keys() - worn:
            own = self._own.pop(name)
            if (layer := _with_stored(self._network, name)) is not None:
                layer.change = None
            else:
                _write(self._network, name, own)
        return misfits

    def put_in_again(self) -> None:
        """After the network's own weights were read from its file once more."""
        changes, self._changes = self._changes, None
        self._own.clear()
        self.wear(changes or _Changes())

    def remade(self, name: str, members: Mapping[int, Sequence[_Placed]], changes: _Changes, own: Tensor) -> Tensor:
        """A stored weight with everything that is added to it, as `_apply` would have made it once for all."""
        state: State = {name: own if changes.rules.file_precision else own.float()}
        for place, patches in members.items():
            self._add_or_say_why(state, patches, changes.pieces[place], changes.rules)
        return state[name].to(own.dtype)

    def _add_or_say_why(self, state: State, patches: Sequence[_Placed], piece: _Piece, rules: _Rules) -> str:
        try:
            self._add(state, patches, piece, rules)
        except torch.OutOfMemoryError:
            raise
        except _CANNOT as error:
            return str(error) or type(error).__name__
        return ""

    def _add(self, state: State, patches: Sequence[_Placed], piece: _Piece, rules: _Rules) -> None:
        """Bring a layer's parameters up to date, or raise and leave them as they were."""
        new = dict(state)
        for place, patch in patches:
            whole = self._value(place.weight, new, rules)
            if whole is None:
                raise ValueError("the layer has no weight")
            part = whole if place.rows is None else whole[place.rows]
            change = change_of(
                patch,
                part,
                rank=piece.rank,
                file_precision=rules.file_precision,
                plain=rules.plain and not place.fused,
                only_nine=rules.passing,
                norm_per_input=rules.norm_per_input,
            )
            new[place.weight] = _with_rows(whole, place.rows, _sum(part, change.weight.mul_(piece.multiplier)))
            if change.bias is not None:
                bias = self._value(place.bias, new, rules)
                whole = bias if bias is not None else part.new_zeros(part.shape[0])
                part = whole if place.rows is None else whole[place.rows]
                delta = change.bias.reshape(part.shape) * piece.multiplier
                new[place.bias] = _with_rows(whole, place.rows, (part + delta).to(part.dtype))
        state.update(new)

    def _value(self, name: str, state: State, rules: _Rules) -> Tensor | None:
        """A parameter with the changes so far, or the network's own, in the type that sums are made in."""
        if name in state:
            return state[name]
        if (layer := _with_stored(self._network, name)) is not None:
            self._own[name] = None  # the bytes of its file are copy enough
            weight = layer.own_weight()
            return weight if rules.file_precision else weight.float()
        if name not in self._own:
            self._own[name] = _kept(self._network, name)
        own = self._own[name]
        device = device_of(self._network)
        return None if own is None else own.to(device, None if rules.file_precision else torch.float32)


class _Place(NamedTuple):
    """Where a patch goes: a layer's parameters, or for fused projections some of their rows."""

    unit: str  # the layer that takes its patches together or not at all
    weight: str
    bias: str
    rows: slice | None = None
    fused: bool = False


_Placed = tuple[_Place, Patch]
_Units = dict[str, dict[int, list[_Placed]]]


def _units(network: nn.Module, changes: _Changes) -> _Units:
    """Layer -> index of the LoRA -> its patches there."""
    units: _Units = {}
    for i, piece in enumerate(changes.pieces):
        for (number, path), patch in piece.file.layers.items():
            if number == changes.number:
                place = _place(network, path)
                units.setdefault(place.unit, {}).setdefault(i, []).append((place, patch))
    if changes.rules.passing:  # LORA-6: fused attention takes all four or none
        fused = {unit: members for unit, members in units.items() if _is_fused(network.get_submodule(unit))}
        for unit, members in fused.items():
            units[unit] = {i: patches for i, patches in members.items() if len(patches) == len(FUSED) + 1}
    return units


def _place(network: nn.Module, path: str) -> _Place:
    parent, _, leaf = path.rpartition(".")
    owner = network.get_submodule(parent)
    if isinstance(owner, Packable):
        return _Place(parent, f"{parent}.weight", f"{parent}.bias", _rows_of(leaf, *owner.shape[:2]), fused=True)
    if not _is_fused(owner):
        return _Place(path, f"{path}.weight", f"{path}.bias")
    if leaf not in FUSED:
        return _Place(parent, f"{path}.weight", f"{path}.bias", fused=True)
    width = owner.get_parameter("in_proj_weight").shape[1]
    first = FUSED.index(leaf) * width
    return _Place(parent, f"{parent}.in_proj_weight", f"{parent}.in_proj_bias", slice(first, first + width), fused=True)


def _rows_of(part: str, rows: int, width: int) -> slice:
    """Those of a part of a layer whose queries, keys and values are as wide as its input."""
    if part in _THIRDS:
        first = _THIRDS.index(part) * width
        return slice(first, first + width)
    return slice(0, len(_THIRDS) * width) if part == _BEFORE else slice(len(_THIRDS) * width, rows)


def _is_fused(module: nn.Module) -> bool:
    return isinstance(getattr(module, "in_proj_weight", None), Tensor)


def _sum(weight: Tensor, delta: Tensor) -> Tensor:
    """Over the delta, and in its type, which with `file_precision` may be the narrower one (LORA-6)."""
    return delta.add_(weight.to(delta.dtype)).to(weight.dtype)


def _with_rows(whole: Tensor, rows: slice | None, part: Tensor) -> Tensor:
    return part if rows is None else whole.slice_scatter(part, 0, rows.start, rows.stop)


def _kept(network: nn.Module, name: str) -> Tensor | None:
    """A copy of a parameter in the CPU's memory; None for a bias that is not there."""
    path, _, parameter = name.rpartition(".")
    layer = network.get_submodule(path)
    if parameter == "weight" and isinstance(layer, Packable) and layer.packed:
        return layer.dense_weight()
    value = getattr(layer, parameter)
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else None


def _with_stored(network: nn.Module, name: str) -> Packable | None:
    """The layer of a weight that is held as its file stores it."""
    path, _, parameter = name.rpartition(".")
    layer = network.get_submodule(path)
    return layer if parameter == "weight" and isinstance(layer, Packable) and layer.stored is not None else None


def _write(network: nn.Module, name: str, value: Tensor | None) -> None:
    path, _, parameter = name.rpartition(".")
    layer = network.get_submodule(path)
    there = getattr(layer, parameter)
    if parameter == "weight" and isinstance(layer, Packable) and value is not None:
        layer.set_weight(value)
    elif value is None or there is None:
        like = next(network.parameters())
        setattr(layer, parameter, None if value is None else nn.Parameter(value.to(like), requires_grad=False))
    else:
        there.copy_(value)


def _piece(lora: WornLora, number: int, rules: _Rules) -> _Piece | None:
    """The part of a LoRA for one network, if there is any. NOTE: narrow types round weights even at multiplier 0."""
    multiplier = lora.unet if number == UNET else lora.te
    if not any(layer.network == number for layer in lora.file.layers) or not (multiplier or rules.file_precision):
        return None
    return _Piece(lora.file, multiplier, lora.dyn)


def _message(misfits: Sequence[_Misfit], changes: _Changes) -> str:
    """The text of an error: the first file that does not fit, and where."""
    file = changes.pieces[misfits[0].place].file.file
    own = [each for each in misfits if changes.pieces[each.place].file.file == file]
    layers = "; ".join(f"{each.path}: {each.reason}" for each in own[:_NAMED])
    return f"{file.path.name}: {len(own)} layers do not fit this model ({layers}); use a network made for it"
