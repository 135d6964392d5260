"""How fast a model is on a machine, and what steps that do less cost in likeness: what `overpaint bench` tells.

Cases take turns, so that whatever else the machine does hits all of them; each time is the median of the rounds. Every
round paints another picture from another seed. Torch-free: an engine is given.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from overpaint.demo import SOURCES
from overpaint.pictures import open_picture
from overpaint.pixels.likeness import psnr, ssim
from overpaint.request import Img2ImgRequest, PaintRequest, Picture


@dataclass(frozen=True)
class BenchPicture:
    """What a job painted, and how many texts and pictures it had to encode for it."""

    picture: Picture
    encoded: int


Paint = Callable[[PaintRequest], BenchPicture]

_PROMPTS = (("forest", "an autumn forest"), ("car", "a red sports car on a road"), ("lake", "a lake at sunset"))
_SEED = 3
_BAR = 24  # characters of the longest
_SMALLEST = 16


@dataclass(frozen=True)
class BenchCase:
    """What is measured under a name: jobs with these options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_again: bool = False  # the same picture and texts were painted before, from another seed


EXACT = BenchCase("exact")
AGAIN = BenchCase("the same picture again", {"encodings_memory": 1.0}, is_again=True)
SHORTCUTS = (
    BenchCase("skip_late_cond=0.25", {"skip_late_cond": 0.25}),
    BenchCase("skip_late_cond=0.5", {"skip_late_cond": 0.5}),
    BenchCase("token_merging_ratio=0.3", {"token_merging_ratio": 0.3}),
    BenchCase("token_merging_ratio=0.5", {"token_merging_ratio": 0.5}),
    BenchCase("deepcache_interval=2", {"deepcache_interval": 2}),
    BenchCase("deepcache_interval=3", {"deepcache_interval": 3}),
    BenchCase(
        "the mildest of each",
        {"skip_late_cond": 0.25, "token_merging_ratio": 0.3, "deepcache_interval": 2},
    ),
)


@dataclass(frozen=True)
class Measured:
    """A case, measured: seconds of one job, and how like the exact pictures its pictures are."""

    name: str
    seconds: float
    cpu_seconds: float
    times_faster: float = 1.0
    psnr: float | None = None  # decibels; None: not asked for, or not one pixel differs
    ssim: float | None = None
    encoded: int = 0  # texts and pictures, the most of all rounds
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchJob:
    """What is painted over and over."""

    size: tuple[int, int]
    steps: int = 20
    strength: float = 0.75

    def before(self, number: int, options: Mapping[str, Any]) -> PaintRequest:
        """A short job with the picture and the texts of a round."""
        return self.request(number, options).with_changes(steps=2, seed=_SEED - 1)

    def request(self, number: int, options: Mapping[str, Any]) -> PaintRequest:
        """That of one round."""
        name, prompt = _PROMPTS[number % len(_PROMPTS)]
        source = open_picture(SOURCES / f"{name}.png").convert("RGB").resize(self.size, Image.Resampling.LANCZOS)
        return Img2ImgRequest(
            images=(source,),
            prompt=prompt,
            negative_prompt="blurry",
            steps=self.steps,
            strength=self.strength,
            seed=_SEED + number,
            overrides=options,
        )


def measure(
    paint: Paint, job: BenchJob, cases: Sequence[BenchCase], rounds: int, step: Callable[[], None] = lambda: None
) -> tuple[Measured, ...]:
    """All cases, the first of which is exact, after a job that nobody counts: the first one sets things up."""
    paint(job.request(0, {}))
    times: dict[str, list[tuple[float, float]]] = {each.name: [] for each in cases}
    likeness: dict[str, list[tuple[float, float]]] = {each.name: [] for each in cases}
    encoded = {each.name: 0 for each in cases}
    for number in range(rounds):
        exact: Picture | None = None
        for case in cases:
            if case.is_again:
                paint(job.before(number, case.options))
            wall, cpu = time.perf_counter(), time.process_time()
            painted = paint(job.request(number, case.options))
            times[case.name].append((time.perf_counter() - wall, time.process_time() - cpu))
            encoded[case.name] = max(encoded[case.name], painted.encoded)
            picture = painted.picture
            exact = exact or picture
            if min(picture.size) >= _SMALLEST:
                likeness[case.name].append((psnr(exact, picture), ssim(exact, picture)))
            step()
    return tuple(replace(_measured(each, cases[0], times, likeness), encoded=encoded[each.name]) for each in cases)


_Pairs = Mapping[str, Sequence[tuple[float, float]]]


def _measured(case: BenchCase, exact: BenchCase, times: _Pairs, likeness: _Pairs) -> Measured:
    wall, cpu = (statistics.median(each) for each in zip(*times[case.name], strict=True))
    ratios = [whole[0] / own[0] for whole, own in zip(times[exact.name], times[case.name], strict=True)]
    return Measured(
        name=case.name,
        seconds=round(wall, 4),
        cpu_seconds=round(cpu, 4),
        times_faster=round(statistics.median(ratios), 3),
        psnr=_mean(likeness[case.name], 0),
        ssim=_mean(likeness[case.name], 1),
        options=case.options,
    )


def _mean(pairs: Sequence[tuple[float, float]], which: int) -> float | None:
    """Over the rounds; None where nothing was compared, or where pictures are the same and decibels have no end."""
    values = [each[which] for each in pairs]
    mean = sum(values) / len(values) if values else math.inf
    return round(mean, 4) if math.isfinite(mean) else None


def rows_of(found: Sequence[Measured], quality: bool) -> Iterator[tuple[str, ...]]:
    """A table for people, with bars of the seconds."""
    longest = max(each.seconds for each in found)
    for each in found:
        likeness = (_decibels(each), "-" if each.ssim is None else f"{each.ssim:.3f}") if quality else ()
        bar = "#" * max(1, round(_BAR * each.seconds / longest))
        yield (
            each.name,
            f"{each.seconds:.2f}",
            f"{each.cpu_seconds:.2f}",
            f"{each.times_faster:.2f}",
            str(each.encoded),
            *likeness,
            bar,
        )


HEADER = ("job", "seconds", "CPU s", "times faster", "encoded")
QUALITY_HEADER = ("PSNR", "SSIM")


def _decibels(found: Measured) -> str:
    return "same" if found.psnr is None else f"{found.psnr:.1f}"


# -- the chart ---------------------------------------------------------------------------------------------------------

_WIDE, _ROW, _EDGE, _NAMES, _SAID = 860, 34, 24, 230, 230
_PAPER, _INK, _FAINT, _EXACT, _LESS = "#ffffff", "#1c1c1c", "#606060", "#8a94a6", "#2f7d5b"


def chart(found: Sequence[Measured], title: str, quality: bool) -> Picture:
    """The seconds as bars, and beside each what it costs."""
    high = 3 * _EDGE + 20 + _ROW * len(found)
    page = Image.new("RGB", (_WIDE, high), _PAPER)
    draw = ImageDraw.Draw(page)
    large, small = ImageFont.load_default(16), ImageFont.load_default(12)
    draw.text((_EDGE, _EDGE - 6), title, _INK, large)
    room, longest = _WIDE - 2 * _EDGE - _NAMES - _SAID, max(each.seconds for each in found)
    for number, each in enumerate(found):
        top = 2 * _EDGE + 16 + number * _ROW
        length = max(2, round(room * each.seconds / longest))
        left = _EDGE + _NAMES
        draw.text((_EDGE, top + 5), each.name, _INK, small)
        draw.rectangle((left, top, left + length, top + _ROW - 12), _LESS if each.options else _EXACT)
        draw.text((left + length + 8, top + 5), _said(each, quality), _FAINT, small)
    return page


def _said(found: Measured, quality: bool) -> str:
    faster = f"{found.seconds:.2f} s" + (f", {found.times_faster:.2f} times as fast" if found.options else "")
    return f"{faster}, {_decibels(found)} dB" if quality and found.options and found.psnr is not None else faster
