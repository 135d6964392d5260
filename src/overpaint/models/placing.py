"""A placement made true: memory is taken where each weight is to live, and what comes and goes is told how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from overpaint.backends.residence import ALL_STAY, Lane, MovedLayers, Mover, ReadAgain, Residence, Streamed
from overpaint.backends.torch_backend import settled
from overpaint.models.filling import Source, fill
from overpaint.models.placement import MemoryNeeds, Placement, Size
from overpaint.networks.layers import Packable, take_room

_NOTHING = Size(0, 0)


@dataclass(frozen=True)
class Parts:
    """The networks of a model and where their numbers are. What is in memory already has no source."""

    denoiser: nn.Module
    texts: Sequence[nn.Module]
    sources: Mapping[nn.Module, Source]
    codec: nn.Module | None  # None: it is in memory already
    steady: Callable[[], AbstractContextManager[None]]  # while it lasts, their files are what they were

    def source(self, network: nn.Module) -> Source | None:
        return self.sources.get(network)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """What computes one after the other: the layers of its lists."""
    lists = [each for each in network.children() if isinstance(each, nn.ModuleList)]
    if lists:
        return [block for each in lists for block in each]
    return [block for child in network.children() for block in blocks_of(child)]


def needs_of(parts: Parts, working: int, unpacking: int) -> MemoryNeeds:
    """What a model will take, measured at its laid out networks and at its files."""
    texts = [_size(each, parts.source(each)) for each in dict.fromkeys(parts.texts) if parts.source(each)]
    source = parts.source(parts.denoiser)
    return MemoryNeeds(
        texts=sum(texts, _NOTHING),
        denoiser=_size(parts.denoiser, source),
        blocks=tuple(_size(each, source) for each in blocks_of(parts.denoiser)),
        codec=_size(parts.codec, None).whole if parts.codec is not None else 0,
        working=working,
        unpacking=unpacking,
    )


def _size(network: nn.Module, source: Source | None) -> Size:
    """Of a network, or of a part of the one that a source fills."""
    stored: dict[nn.Module, int] = {}
    if source is not None:
        stored.update((layer, _bytes_in_file(source, name)) for name, layer in _layers(source.network))
    total = kept = 0
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            size = parameter.numel() * parameter.dtype.itemsize
            total += size
            in_file = stored.get(module, size) if name == "weight" else size
            kept += min(size, in_file)
    return Size(total, kept)


def _layers(network: nn.Module) -> Iterable[tuple[str, Packable]]:
    return ((name, each) for name, each in network.named_modules() if isinstance(each, Packable))


def _bytes_in_file(source: Source, layer: str) -> int:
    return source.weights.sizes.get(source.keys[f"{layer}.weight"], 0) or 2**62


def held_layers(source: Source) -> set[nn.Module]:
    """The layers whose weights take less as their file stores them."""
    return {
        layer
        for name, layer in _layers(source.network)
        if _bytes_in_file(source, name) < layer.weight.numel() * layer.weight.dtype.itemsize
    }


def make_room(
    parts: Parts, placement: Placement, device: torch.device, *, copies: bool
) -> tuple[list[Source], Callable[[], Residence]]:
    """Memory for every network; returns those to fill now, and what makes them come and go once they are filled."""
    for network in filter(None, (parts.denoiser, *parts.texts, parts.codec)):
        network.computes_on = device  # type: ignore[assignment]
    if parts.codec is not None:
        take_room(parts.codec.modules(), device)
    texts = [each for each in dict.fromkeys(parts.texts) if parts.source(each)]
    if not copies:
        return _by_reading(parts, placement, texts, device)
    return _by_copying(parts, placement, texts, device)


def _held(parts: Parts, placement: Placement, network: nn.Module) -> set[nn.Module]:
    source = parts.source(network)
    return held_layers(source) if placement.stored and source is not None else set()


# -- a CPU: what leaves is forgotten, and read again ------------------------------------------------------------------


def _by_reading(
    parts: Parts, placement: Placement, texts: Sequence[nn.Module], device: torch.device
) -> tuple[list[Source], Callable[[], Residence]]:
    leaving = {each for each in texts if placement.texts_leave}
    if placement.denoiser_waits:
        leaving.add(parts.denoiser)
    movers: dict[nn.Module, Mover] = {}
    for network in (parts.denoiser, *texts):
        held = _held(parts, placement, network)
        if network in leaving:
            movers[network] = ReadAgain(network, _reader(parts, network, held, device))
            network.mover = movers[network]  # type: ignore[assignment]
        else:
            take_room(network.modules(), device, held)
    now = [each for network, each in parts.sources.items() if network not in leaving]
    residence = Residence([movers.get(each) for each in parts.texts], movers.get(parts.denoiser), bool(movers))
    return now, lambda: residence if movers else ALL_STAY


def _reader(parts: Parts, network: nn.Module, held: set[nn.Module], device: torch.device) -> Callable[[], None]:
    def read() -> None:
        with parts.steady():
            take_room(network.modules(), device, held)
            fill([parts.sources[network]], None)
        settled(network)

    return read


# -- a device with memory of its own: what leaves lies in the machine's -----------------------------------------------


def _by_copying(
    parts: Parts, placement: Placement, texts: Sequence[nn.Module], device: torch.device
) -> tuple[list[Source], Callable[[], Residence]]:
    host = torch.device("cpu")
    blocks = blocks_of(parts.denoiser)
    streamed = blocks[len(blocks) - placement.streamed :]
    away = _away(parts, placement, texts, streamed)
    for network in (parts.denoiser, *texts):
        held = _held(parts, placement, network)
        apart = [each for each in network.modules() if each in away]
        for each in apart:
            if isinstance(each, Packable):
                each.packs = False
        take_room(apart, host, held)
        take_room([each for each in network.modules() if each not in away], device, held)

    def residence() -> Residence:
        lane = Lane(device)
        movers = {each: _mover(each, placement, lane) for each in texts} if placement.texts_leave else {}
        rest = MovedLayers(parts.denoiser, lane, without=streamed) if placement.denoiser_waits else None
        mover: Mover | None = rest
        if streamed:
            mover = Streamed(parts.denoiser, streamed, lane, rest=rest)
        for network, found in ((parts.denoiser, mover), *movers.items()):
            if found is not None:
                network.mover = found  # type: ignore[assignment]
        in_place = [movers.get(each) for each in parts.texts]
        return Residence(in_place, mover, placement.denoiser_waits, lane)

    return list(parts.sources.values()), residence if placement.moves else lambda: ALL_STAY


def _away(
    parts: Parts, placement: Placement, texts: Sequence[nn.Module], streamed: Sequence[nn.Module]
) -> set[nn.Module]:
    """All layers whose weights lie in the machine's memory."""
    roots = [*streamed, *(texts if placement.texts_leave else ())]
    if placement.denoiser_waits:
        roots.append(parts.denoiser)
    return {module for root in roots for module in root.modules()}


def _mover(text: nn.Module, placement: Placement, lane: Lane) -> Mover:
    blocks = blocks_of(text) if placement.texts_streamed else []
    return (
        Streamed(text, blocks, lane, rest=MovedLayers(text, lane, without=blocks))
        if blocks
        else MovedLayers(text, lane)
    )
