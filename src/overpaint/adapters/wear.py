"""LoRAs in the weights of a model, and out again bit for bit (LORA-5 to LORA-7).

A network's own weights are kept, on the CPU, of the layers that wear something; what is worn is always computed from
them: nothing is ever subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from overpaint.adapters.kinds import Patch, change_of
from overpaint.adapters.lora import LoraFile
from overpaint.adapters.names import FUSED, UNET
from overpaint.errors import CheckpointError
from overpaint.networks.layers import Packable
from overpaint.settings import Quirks

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
    """What the networks of a model wear."""

    def __init__(self, networks: AdaptableNetworks) -> None:
        self._wardrobes = {UNET: adapted(networks.unet), **dict(enumerate(map(adapted, networks.texts)))}

    def wear(self, loras: Sequence[WornLora], quirks: Quirks, *, functional: bool = False) -> tuple[int, ...]:
        """Put on exactly these, in this order, or bare the model; returns of each the number of layers that do not fit.

        Under `ill_fitting_networks_pass` such layers are left out; otherwise they raise, and the model is left bare.
        `functional` is LORA-7: of LoRAs only up and down count, as where the reference multiplies at run time.
        """
        rules = _rules(quirks, functional)
        counts = [0] * len(loras)
        for number, wardrobe in self._wardrobes.items():
            pieces = {i: piece for i, each in enumerate(loras) if (piece := _piece(each, number, rules)) is not None}
            outfit = _Changes(number, tuple(pieces.values()), rules)
            misfits = wardrobe.wear(outfit)
            if misfits and not rules.passing:
                self.bare()
                raise CheckpointError(_told(misfits, outfit))
            for misfit in misfits:
                counts[list(pieces)[misfit.place]] += 1
        return tuple(counts)

    def bare(self) -> None:
        """Nothing but the model's own weights."""
        for wardrobe in self._wardrobes.values():
            wardrobe.wear(_Changes())


def _rules(quirks: Quirks, functional: bool) -> _Rules:
    precision, passing = quirks.networks_in_file_precision, quirks.ill_fitting_networks_pass
    plain = functional and quirks.functional_loras_are_plain
    return _Rules(precision, passing, plain, norm_per_input=quirks.dora_norm_per_input)


def adapted(network: nn.Module) -> AdaptedNetwork:
    """The wardrobe of a network.

    NOTE: it lives on the network, because models may share a text encoder and must know of each other's networks.
    """
    kept = getattr(network, "wardrobe", None)
    if not isinstance(kept, AdaptedNetwork):
        kept = AdaptedNetwork(network)
        network.wardrobe = kept  # type: ignore[assignment]
    return kept


@dataclass(frozen=True)
class _Rules:
    """How networks are added."""

    file_precision: bool = False
    passing: bool = False
    plain: bool = False
    norm_per_input: bool = False


@dataclass(frozen=True)
class _Piece:
    """What one of the model's networks wears of one LoRA."""

    file: LoraFile
    multiplier: float
    rank: int | None


@dataclass(frozen=True)
class _Changes:
    """All that a network wears; equal outfits make equal weights."""

    number: int = UNET
    pieces: tuple[_Piece, ...] = ()
    rules: _Rules = _Rules()


class _Misfit(NamedTuple):
    """A layer to which a piece of the outfit could not be added."""

    place: int
    path: str
    reason: str


class AdaptedNetwork:
    """What one network wears, and its own weights beneath."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._own: dict[str, Tensor | None] = {}
        self._outfit: _Changes | None = _Changes()
        self._misfits: tuple[_Misfit, ...] = ()

    @property
    def is_bare(self) -> bool:
        """Whether the network has nothing but its own weights."""
        return self._outfit is not None and not self._outfit.pieces

    @torch.no_grad()
    def wear(self, outfit: _Changes) -> tuple[_Misfit, ...]:
        """Change into an outfit; to be in it already costs nothing."""
        if outfit != self._outfit:
            self._outfit = None  # if this fails half-way, the next outfit starts anew
            self._misfits = tuple(self._change_into(outfit))
            self._outfit = outfit
        return self._misfits

    def _change_into(self, outfit: _Changes) -> list[_Misfit]:
        misfits: list[_Misfit] = []
        worn: set[str] = set()
        for path, members in _units(self._network, outfit).items():
            state: State = {}
            for place, patches in members.items():
                reason = self._add_or_say_why(state, patches, outfit.pieces[place], outfit.rules)
                if reason:
                    misfits.append(_Misfit(place, path, reason))
            for name, value in state.items():
                _write(self._network, name, value)
            worn.update(state)
        for name in self._own.keys() - worn:
            _write(self._network, name, self._own.pop(name))
        return misfits

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
        """A parameter as it is by now, or as it is bare, in the type to add in."""
        if name in state:
            return state[name]
        if name not in self._own:
            self._own[name] = _kept(self._network, name)
        own = self._own[name]
        device = next(self._network.parameters()).device
        return None if own is None else own.to(device, None if rules.file_precision else torch.float32)


class _Place(NamedTuple):
    """Where a patch goes: a layer's parameters, or for OpenCLIP's fused projections some of their rows."""

    unit: str  # the layer that takes its patches together or not at all
    weight: str
    bias: str
    rows: slice | None = None
    fused: bool = False


_Placed = tuple[_Place, Patch]
_Units = dict[str, dict[int, list[_Placed]]]


def _units(network: nn.Module, outfit: _Changes) -> _Units:
    """Layer -> piece of the outfit -> its patches there."""
    units: _Units = {}
    for i, piece in enumerate(outfit.pieces):
        for (number, path), patch in piece.file.layers.items():
            if number == outfit.number:
                place = _place(network, path)
                units.setdefault(place.unit, {}).setdefault(i, []).append((place, patch))
    if outfit.rules.passing:  # LORA-6: fused attention takes all four or none
        fused = {unit: members for unit, members in units.items() if _is_fused(network.get_submodule(unit))}
        for unit, members in fused.items():
            units[unit] = {i: patches for i, patches in members.items() if len(patches) == len(FUSED) + 1}
    return units


def _place(network: nn.Module, path: str) -> _Place:
    parent, _, leaf = path.rpartition(".")
    owner = network.get_submodule(parent)
    if not _is_fused(owner):
        return _Place(path, f"{path}.weight", f"{path}.bias")
    if leaf not in FUSED:
        return _Place(parent, f"{path}.weight", f"{path}.bias", fused=True)
    width = owner.get_parameter("in_proj_weight").shape[1]
    first = FUSED.index(leaf) * width
    return _Place(parent, f"{parent}.in_proj_weight", f"{parent}.in_proj_bias", slice(first, first + width), fused=True)


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
    """What one network wears of a LoRA, if anything. NOTE: narrow types round the weight even at multiplier 0."""
    multiplier = lora.unet if number == UNET else lora.te
    if not any(layer.network == number for layer in lora.file.layers) or not (multiplier or rules.file_precision):
        return None
    return _Piece(lora.file, multiplier, lora.dyn)


def _told(misfits: Sequence[_Misfit], outfit: _Changes) -> str:
    """What an error says: the first file that does not fit, and where."""
    file = outfit.pieces[misfits[0].place].file.file
    own = [each for each in misfits if outfit.pieces[each.place].file.file == file]
    layers = "; ".join(f"{each.path}: {each.reason}" for each in own[:_NAMED])
    return f"{file.path.name}: {len(own)} layers do not fit this model ({layers}); use a network made for it"
