"""Which adapters a prompt's tags ask for (XN-4 to XN-7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from overpaint.errors import RequestError
from overpaint.settings import Quirks
from overpaint.text.prompt import NetworkTag

_N = TypeVar("_N", int, float)
_Use = TypeVar("_Use")


@dataclass(frozen=True)
class LoraUse:
    """A LoRA that is wanted, with its weights for the U-Net and the text encoders; `dyn` cuts its rank (XN-5)."""

    name: str
    unet: float = 1.0
    te: float = 1.0
    dyn: int | None = None


@dataclass(frozen=True)
class HypernetUse:
    """A hypernetwork that is wanted (XN-6)."""

    name: str
    multiplier: float = 1.0


def uses_of(tags: Sequence[NetworkTag], quirks: Quirks) -> tuple[LoraUse | HypernetUse, ...]:
    """What the tags of a prompt ask for, in their order; tags of other kinds mean nothing (XN-4)."""
    loras = _uses(tags, ("lora", "lyco"), _lora_use, quirks)
    if quirks.same_network_one_weight:
        # NOTE: by file name and by alias one file is two networks, so what counts is the name in the tag.
        last = {use.name: use for use in loras.values()}
        loras = {place: last[use.name] for place, use in loras.items()}
    both: dict[int, LoraUse | HypernetUse] = {**loras, **_uses(tags, ("hypernet",), _hypernet_use, quirks)}
    return tuple(both[place] for place in sorted(both))


def _uses(
    tags: Sequence[NetworkTag], names: tuple[str, ...], read: Callable[[NetworkTag, Quirks], _Use], quirks: Quirks
) -> dict[int, _Use]:
    """Place among the tags -> use, for the tags of these names."""
    try:
        return {place: read(tag, quirks) for place, tag in enumerate(tags) if tag.name in names}
    except RequestError:
        if quirks.bad_network_weight_drops_all:
            return {}
        raise


def _lora_use(tag: NetworkTag, quirks: Quirks) -> LoraUse:
    named = dict(tag.named)
    te = unet = 1.0
    if len(tag.args) > 1:
        te = unet = _number(tag, tag.args[1], quirks)
    if "te" in named:
        te = unet = _number(tag, named["te"], quirks)
    if len(tag.args) > 2:
        unet = _number(tag, tag.args[2], quirks)
    if "unet" in named:
        unet = _number(tag, named["unet"], quirks)
    ranks = (*tag.args[3:4], *(value for key, value in tag.named if key == "dyn"))
    dyn = [_rank(tag, text, quirks) for text in ranks]
    return LoraUse(_name(tag), unet, te, dyn[-1] if dyn else None)


def _hypernet_use(tag: NetworkTag, quirks: Quirks) -> HypernetUse:
    return HypernetUse(_name(tag), _number(tag, tag.args[1], quirks) if len(tag.args) > 1 else 1.0)


def _name(tag: NetworkTag) -> str:
    if not tag.args:
        raise RequestError("prompt", _shown(tag), f"name the network first, as in <{tag.name}:name:0.8>")
    return tag.args[0]


def _number(tag: NetworkTag, text: str, quirks: Quirks) -> float:
    value = _read(float, text)
    if value is None or not (math.isfinite(value) or quirks.bad_network_weight_drops_all):
        raise RequestError("prompt", _shown(tag), f"{text!r} is not a number; use one such as 0.8 as the weight")
    return value


def _rank(tag: NetworkTag, text: str, quirks: Quirks) -> int:
    rank = _read(int, text)
    if rank is None or not (rank > 0 or quirks.bad_network_weight_drops_all):
        raise RequestError("prompt", _shown(tag), f"dyn={text!r} is not a rank; use a whole number from 1 on")
    return rank


def _read(kind: Callable[[str], _N], text: str) -> _N | None:
    try:
        return kind(text)
    except ValueError:
        return None


def _shown(tag: NetworkTag) -> str:
    """The tag as it may have been written."""
    return f"<{':'.join((tag.name, *tag.args, *(f'{key}={value}' for key, value in tag.named)))}>"
