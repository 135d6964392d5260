"""Where a model's weights are while it paints: decided from sizes alone, cheapest way first. Torch-free.

A device that has room for everything keeps everything. Where it has not, what costs least time goes first: text
encoders leave when they have encoded; weights stay as their file stores them; and last, blocks of the denoiser are
copied to the device when they are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

WeightsForm = Literal["auto", "whole", "stored"]
WEIGHTS_FORMS = ("auto", "whole", "stored")

_ROOM = 0.95  # of what is free: allocators leave gaps
_AT_ONCE = 2  # blocks on the device while others are streamed: the one that computes and the next


@dataclass(frozen=True)
class Size:
    """Bytes of weights: as they are computed with, and as their file stores them."""

    whole: int
    stored: int

    def of(self, stored: bool) -> int:
        """What they take in memory; numbers that a file has in more bits than are computed with are not kept so."""
        return min(self.whole, self.stored) if stored else self.whole

    def __add__(self, other: Size) -> Size:
        return Size(self.whole + other.whole, self.stored + other.stored)


@dataclass(frozen=True)
class MemoryNeeds:
    """What a model takes of a device."""

    texts: Size
    denoiser: Size  # all of it
    blocks: tuple[Size, ...]  # the parts of the denoiser that compute one after the other
    codec: int
    working: int = 0  # beside the weights, while it paints
    unpacking: int = 0  # beside these, where weights stay as their file stores them

    def denoiser_without(self, streamed: int, stored: bool) -> int:
        """Of the denoiser, while its last blocks come and go."""
        away = [each.of(stored) for each in self.blocks[len(self.blocks) - streamed :]]
        return self.denoiser.of(stored) - sum(away) + _AT_ONCE * max(away, default=0)


@dataclass(frozen=True)
class Placement:
    """What is done with a model's weights, and why."""

    needed: int  # bytes of the device, at most
    stored: bool = False  # weights stay as the file stores them, and are unpacked layer by layer
    texts_leave: bool = False  # when they have encoded
    texts_streamed: bool = False  # even alone they do not fit, and come layer by layer
    denoiser_waits: bool = False  # it is not there while they encode
    streamed: int = 0  # so many of the denoiser's last blocks come when they are needed
    blocks: int = 0
    fits: bool = True
    reasons: tuple[str, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether anything comes and goes."""
        return self.texts_leave or self.denoiser_waits or self.streamed > 0


WHOLE = Placement(0)


def place(needs: MemoryNeeds, room: int | None, weights: WeightsForm = "auto", *, streams: bool = True) -> Placement:
    """What to do on a device with so many bytes free; None: it does not say, so all stays, and it will complain.

    `streams` is False on a device that computes in the machine's own memory: nothing is gained by copying.
    """
    forms = {"auto": (False, True), "whole": (False,), "stored": (True,)}[weights]
    usable = None if room is None else int(room * _ROOM)
    found = next(
        (each for each in _ways(needs, forms, usable, streams) if usable is None or each.needed <= usable), None
    )
    if found is None:
        found = _smallest(needs, forms[-1], streams)
    return _told(needs, found, room, asked=weights)


def _ways(needs: MemoryNeeds, forms: tuple[bool, ...], usable: int | None, streams: bool) -> Iterator[Placement]:
    """What could be done, what costs least time first."""
    gains = needs.denoiser.of(True) + needs.texts.of(True) < needs.denoiser.whole + needs.texts.whole
    for stored in forms:
        if stored and not gains and len(forms) > 1:
            continue
        for leave in (False, True):
            yield _way(needs, usable, stored=stored, leave=leave)
    for streamed in range(1, len(needs.blocks) + 1) if streams else ():
        yield _way(needs, usable, stored=forms[-1] and gains, leave=True, streamed=streamed)


def _smallest(needs: MemoryNeeds, stored: bool, streams: bool) -> Placement:
    found = _way(needs, 0, stored=stored, leave=True, streamed=len(needs.blocks) if streams else 0)
    return Placement(**{**vars(found), "fits": False})


def _way(needs: MemoryNeeds, usable: int | None, *, stored: bool, leave: bool, streamed: int = 0) -> Placement:
    """One of the ways, and what it takes: the most of what encoding and painting take."""
    texts, denoiser = needs.texts.of(stored), needs.denoiser_without(streamed, stored)
    working = needs.working + (needs.unpacking if stored else 0)
    painting = denoiser + needs.codec + working + (0 if leave else texts)
    waits = leave and usable is not None and texts + denoiser + needs.codec > usable
    alone = texts + needs.codec
    in_layers = leave and usable is not None and alone > usable
    encoding = needs.codec if in_layers else alone + (0 if waits else denoiser)
    return Placement(
        needed=max(painting, encoding) if leave else painting,
        stored=stored,
        texts_leave=leave,
        texts_streamed=in_layers,
        denoiser_waits=waits,
        streamed=streamed,
        blocks=len(needs.blocks),
    )


def _told(needs: MemoryNeeds, found: Placement, room: int | None, asked: WeightsForm) -> Placement:
    """The same with its reasons, a sentence each."""
    return Placement(**{**vars(found), "reasons": tuple(_reasons(needs, found, room, asked))})


def _reasons(needs: MemoryNeeds, found: Placement, room: int | None, asked: WeightsForm) -> Iterator[str]:
    free = "an unknown amount" if room is None else in_gb(room)
    everything = needs.denoiser.whole + needs.texts.whole + needs.codec + needs.working
    if found.fits and not (found.moves or found.stored):
        yield f"everything stays on the device: it takes {in_gb(found.needed)} of the {free} that are free"
        return
    if not found.stored or asked == "auto":
        yield f"everything at once would take {in_gb(everything)}, and {free} are free"
    if found.stored:
        kept, whole = (
            (each.of(True) for each in (needs.denoiser, needs.texts)),
            needs.denoiser.whole + needs.texts.whole,
        )
        why = "as was asked" if asked == "stored" else f"{in_gb(sum(kept))} instead of {in_gb(whole)}"
        yield f"weights stay as their files store them and are unpacked layer by layer: {why}"
    if found.texts_leave:
        by_layer = ", which take turns layer by layer even then" if found.texts_streamed else ""
        yield f"the text encoders leave after encoding{by_layer}: {in_gb(needs.texts.of(found.stored))}"
    if found.denoiser_waits:
        yield "the denoiser waits until they have left"
    if found.streamed:
        yield f"{found.streamed} of {found.blocks} blocks are streamed to the device in every call"
    if not found.fits:
        yield (
            f"even so it takes {in_gb(found.needed)}, which is more than there is: "
            "paint smaller pictures, or use a file in fewer bits"
        )


def in_gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
