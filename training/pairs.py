"""Pictures before and after one change, with the words that ask for it: what an edit network learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.scenes.art import Art
from training.scenes.brush import Rng, pick
from training.scenes.captions import caption, command
from training.scenes.labels import PLAIN, Item, Labels, draw_labels
from training.scenes.light import TIMES
from training.scenes.objects import COLOURS, HUES, THINGS
from training.scenes.places import BACKDROPS
from training.scenes.scene import render
from training.scenes.styles import STYLES

WORDINGS = 4  # for each pair: half of them commands, half captions of the picture after
_SNOWY = ("forest", "mountains", "lake", "meadow", "city", "road")


@dataclass(frozen=True)
class Pair:
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    labels: tuple[Labels, Labels]
    wordings: tuple[str, ...]


def draw_pair(seed: tuple[int, ...], size: int, art: Art) -> Pair:
    """The pair of a seed: the same layout twice, with one facet changed."""
    rng = np.random.default_rng((*seed, 1))
    before, after = draw_change(rng)
    first, second = (render(seed, size, art, labels, steady=True).pixels for labels in (before, after))
    half = WORDINGS // 2
    wordings = [command(before, after, rng) for _ in range(half)] + [caption(after, rng) for _ in range(half)]
    return Pair(first, second, (before, after), tuple(wordings))


def draw_change(rng: Rng) -> tuple[Labels, Labels]:
    """Labels, and the same with one facet changed."""
    before = replace(draw_labels(rng), blurry=False)
    allowed = [change for change in _CHANGES if change.fits(before)]
    change = pick(rng, allowed, [each.weight for each in allowed])
    return before, change.make(before, rng)


@dataclass(frozen=True)
class _Change:
    weight: float
    fits: Callable[[Labels], bool]
    make: Callable[[Labels, Rng], Labels]


def _other(rng: Rng, values: tuple[str, ...], now: str | None) -> str:
    return pick(rng, [each for each in values if each != now])


def _with_paint(labels: Labels, rng: Rng) -> Labels:
    item = labels.items[0]
    colours = COLOURS if "car" in item.name else tuple(HUES)
    allowed = tuple(each for each in colours if each != labels.backdrop)
    return replace(labels, items=(Item(item.name, _other(rng, allowed, item.paint)), *labels.items[1:]))


def _with_thing(labels: Labels, rng: Rng) -> Labels:
    old = labels.items[0].name
    alike = tuple(name for name, thing in THINGS.items() if thing.home == THINGS[old].home)
    return replace(labels, items=(Item(_other(rng, alike, old)), *labels.items[1:]))


def _has_paint(labels: Labels) -> bool:
    return bool(labels.items and labels.items[0].paint) and labels.style not in ("pencil sketch", "black and white")


def _weathers(labels: Labels) -> tuple[str, ...]:
    return ("rain", "fog", "snowfall", *(("snow",) if labels.place in _SNOWY else ()))


def _free_backdrops(labels: Labels) -> tuple[str, ...]:
    """Those that the things stand out from."""
    return tuple(name for name in BACKDROPS if name not in {item.paint for item in labels.items})


_CHANGES = (
    _Change(3.0, lambda it: it.outdoors, lambda it, rng: replace(it, time=_other(rng, TIMES, it.time))),
    _Change(2.0, lambda it: True, lambda it, rng: replace(it, style=_other(rng, tuple(STYLES), it.style))),
    _Change(1.2, lambda it: it.outdoors, lambda it, rng: replace(it, weather=_other(rng, _weathers(it), it.weather))),
    _Change(4.0, _has_paint, _with_paint),
    _Change(1.0, lambda it: len(it.items) == 1, _with_thing),
    _Change(4.0, lambda it: it.place == "forest", lambda it, rng: replace(it, place="autumn forest")),
    _Change(2.0, lambda it: it.place == "autumn forest", lambda it, rng: replace(it, place="forest")),
    _Change(
        1.2,
        lambda it: it.place == PLAIN,
        lambda it, rng: replace(it, backdrop=_other(rng, _free_backdrops(it), it.backdrop)),
    ),
)
