"""Weights that come and go: text encoders that leave when they have encoded, blocks that come when they are needed.

What is away lies in the machine's memory, pinned for a GPU, or is read from its file again. Numbers never change on
the way, so that pictures are the same to the last bit wherever the weights were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from overpaint.networks.layers import Packable
from overpaint.networks.stored_weights import StoredWeight

Prefetched = tuple[dict[int, Tensor], object]  # by the number of the tensor that lies in the machine's memory


class Lane:
    """Copies from the machine's memory to a device, beside what it computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.copied = 0  # bytes, for who measures
        is_cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]
        self._marks: list[torch.cuda.Event] = []

    def keep_pace(self) -> None:
        """Wait for all that was queued before the last call of this.

        NOTE: else copies would run far ahead of the computing, and all lie in memory.
        """
        if self._stream is None:
            return
        for each in self._marks:
            each.synchronize()
        self._marks = [torch.cuda.current_stream(self.device).record_event()]

    def send(self, tensors: Sequence[Tensor]) -> Prefetched:
        """Begin to copy. Before the copies are used, `arrive` waits for them."""
        self.copied += sum(each.numel() * each.dtype.itemsize for each in tensors)
        if self._stream is None:
            # NOTE: a CPU that plays a device has copies, too
            return {id(each): each.to(self.device, non_blocking=True, copy=True) for each in tensors}, None
        with torch.cuda.stream(self._stream):
            sent = {id(each): each.to(self.device, non_blocking=True) for each in tensors}
            return sent, self._stream.record_event()

    def arrive(self, sent: Prefetched) -> dict[int, Tensor]:
        """What was sent, ready to be computed with."""
        found, event = sent
        if self._stream is not None and event is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(event)  # type: ignore[arg-type]
            for each in found.values():
                each.record_stream(computing)  # its memory is free again when what was queued is done
        return found


class MovedLayers:
    """Layers that come and go together. Away, their parameters are tensors in the machine's memory."""

    def __init__(self, block: nn.Module, lane: Lane, *, without: Iterable[nn.Module] = ()) -> None:
        apart = {id(inner) for each in without for inner in each.modules()}
        self.block = block
        self._modules = [each for each in block.modules() if id(each) not in apart]
        self._lane = lane
        self._sent: tuple[list[Tensor], Prefetched] | None = None
        self._away: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._stored: list[tuple[Packable, StoredWeight]] = []
        self.is_here = False
        if lane.device.type == "cuda":
            self._pin()

    def fetch(self) -> None:
        """Begin to bring it. It may be called early, and costs nothing where it was."""
        if not self.is_here and self._sent is None:
            tensors = self._tensors()
            self._sent = tensors, self._lane.send(tensors)

    @torch.no_grad()
    def come(self) -> None:
        if self.is_here:
            return
        self.fetch()
        assert self._sent is not None
        _, sent = self._sent
        self._sent = None
        found = self._lane.arrive(sent)
        for module in self._modules:
            for name, parameter in list(module.named_parameters(recurse=False)):
                self._away.append((module, name, parameter))
                setattr(module, name, nn.Parameter(_as_laid_out(found[id(parameter)]), requires_grad=False))
            if isinstance(module, Packable):
                if module.stored is not None:
                    self._stored.append((module, module.stored))
                    module.stored = module.stored.moved(lambda part: found[id(part)])
                module.packs = True
                module.pack()
        self.is_here = True

    def leave(self) -> None:
        """Nothing is copied back: what is in the machine's memory is the truth."""
        self._sent = None
        for module, name, parameter in self._away:
            if isinstance(module, Packable):
                module.packed, module.packs = (), False
            setattr(module, name, parameter)
        for layer, stored in self._stored:
            layer.stored = stored
        self._away, self._stored, self.is_here = [], [], False

    @contextmanager
    def changing(self) -> Iterator[None]:
        self.leave()
        yield

    def _tensors(self) -> list[Tensor]:
        tensors: list[Tensor] = []
        for module in self._modules:
            tensors += module.parameters(recurse=False)
            if isinstance(module, Packable) and module.stored is not None:
                tensors += module.stored.parts
        return tensors

    @torch.no_grad()
    def _pin(self) -> None:
        """Copies from memory that cannot be swapped go beside the computing, and faster."""
        for module in self._modules:
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.detach().pin_memory(), requires_grad=False))
            if isinstance(module, Packable) and module.stored is not None:
                module.stored = module.stored.moved(lambda part: part.pin_memory())


def _as_laid_out(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


class ReadAgain:
    """A network that is read from its file when it is needed, and forgotten afterwards."""

    def __init__(self, network: nn.Module, read: Callable[[], None]) -> None:
        self._network = network
        self._read = read
        self.is_here = False

    def come(self) -> None:
        if not self.is_here:
            self._read()
            self.is_here = True
            worn = getattr(self._network, "adapted", None)
            if worn is not None:
                worn.put_in_again()

    @contextmanager
    def changing(self) -> Iterator[None]:
        was_here = self.is_here
        self.come()
        yield
        if not was_here:
            self.leave()

    def leave(self) -> None:
        if not self.is_here:
            return
        for module in self._network.modules():
            if isinstance(module, Packable):
                module.forget()
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(parameter.to("meta"), requires_grad=False))
        self.is_here = False


class Mover(Protocol):
    """Brings a network's weights, and takes them away again."""

    def come(self) -> None: ...
    def leave(self) -> None: ...
    def changing(self) -> AbstractContextManager[None]:
        """While it lasts, what is written to the network's weights stays in them."""
        ...


class Streamed:
    """A network whose blocks come while the one before computes, and leave when they have; the rest is there or comes.

    `rest` is what comes and goes with the network as a whole; None: it stays on the device.
    """

    def __init__(
        self, network: nn.Module, blocks: Sequence[nn.Module], lane: Lane, *, rest: MovedLayers | None
    ) -> None:
        self._units = [MovedLayers(each, lane) for each in blocks]
        self._rest = rest
        self._lane = lane
        network.register_forward_hook(self._end, always_call=True)
        for number, unit in enumerate(self._units):
            unit.block.register_forward_pre_hook(_coming(unit))
            unit.block.register_forward_hook(self._behind(number), always_call=True)

    def come(self) -> None:
        if self._rest is not None:
            self._rest.come()
        self._units[0].fetch()

    def leave(self) -> None:
        self._end()
        if self._rest is not None:
            self._rest.leave()

    @contextmanager
    def changing(self) -> Iterator[None]:
        self.leave()
        yield

    def _end(self, *_: object) -> None:
        for each in self._units:  # NOTE: a shortcut may have left out what was fetched
            each.leave()

    def _behind(self, number: int) -> Callable[..., None]:
        """What follows a block. The next copy begins when this one's work is queued, and so goes beside it."""

        def hook(*_: object) -> None:
            self._units[number].leave()
            self._lane.keep_pace()
            if number + 1 < len(self._units):
                self._units[number + 1].fetch()

        return hook


def _coming(unit: MovedLayers) -> Callable[..., None]:
    return lambda *_: unit.come()


@dataclass(frozen=True)
class Residence:
    """Who of a model's networks is on the device when."""

    texts: Sequence[Mover | None] = ()  # of each encoder; None: it stays
    denoiser: Mover | None = None
    denoiser_waits: bool = False  # it is not there while texts are encoded
    lane: Lane | None = None  # on which they come

    def for_text(self, encoder: int) -> None:
        """Before a text encoder is asked."""
        if self.denoiser is not None and self.denoiser_waits:
            self.denoiser.leave()
        mover = self.texts[encoder] if self.texts else None
        if mover is not None:
            mover.come()

    def for_denoiser(self) -> None:
        """Before the denoiser is asked."""
        for each in self.texts:
            if each is not None:
                each.leave()
        if self.denoiser is not None:
            self.denoiser.come()


ALL_STAY = Residence()
