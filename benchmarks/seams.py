"""Seams: how visible the edge of a mask is, blended in different ways, by one score.

    python -m benchmarks.seams --pictures 200 --painted 40 --sheets /tmp/seams

Most cases are made: a picture, a mask, and a painting of the same scene whose colours are off in one of several ways,
as autoencoders and samplers leave them. The rest are painted by models: the built-in one, and with --checkpoint others;
there the step holds what is new inside, too, which no blend should take away. Each is composited as `plain`, with
`auto`, as diffusers' overlay does (VaeImageProcessor.apply_overlay: the hard mask decides), and as crop-and-stitch does
(the mask feathered outwards over 16 pixels). The score is overpaint's own `measure_seam`, the same for all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import overpaint
from overpaint import masks
from overpaint.pixels.composite import composite_exact
from overpaint.pixels.mask import blur_mask
from overpaint.pixels.seams import Seam, best, measure_seam, mended

WAYS = ("plain", "auto", "overlay", "stitch")
SIDE = 256
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """A source, what was painted over it, and where."""

    name: str
    source: Image.Image
    painted: Image.Image
    mask: Image.Image


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--painted", type=int, default=40, help="of these, how many are painted by models")
    parser.add_argument("--checkpoint", action="append", default=[], help="a model beside the built-in one")
    parser.add_argument("--sheets", type=Path, help="a folder for sheets to look at")
    args = parser.parse_args()
    made = [made_case(number) for number in range(args.pictures - args.painted)]
    found = []
    for number, case in enumerate([*made, *painted_cases(args.painted, ["", *args.checkpoint])]):
        results = blended(case)
        found.append((case.name, {way: measured(case, picture) for way, picture in results.items()}))
        if args.sheets is not None:
            args.sheets.mkdir(parents=True, exist_ok=True)
            sheet(case, results).save(args.sheets / f"{number:03d}-{case.name.replace(' ', '-')}.png")
    report(found)
    cost()


# -- cases -----------------------------------------------------------------------------------------------------------


def made_case(number: int) -> Case:
    """A painting of the same scene, off in one way."""
    rng = np.random.default_rng(number)
    source, mask = scene(rng), area(rng)
    name, off = list(_OFF.items())[number % len(_OFF)]
    values = np.asarray(source).astype(np.float64)
    painted = off(values, rng) + rng.normal(0, 2, values.shape)
    return Case(name, source, Image.fromarray(painted.clip(0, 255).astype(np.uint8)), mask)


def scene(rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """Hills of colour under finer grain, and a few hard shapes."""
    total = np.zeros((side, side, 3))
    for cells, weight in ((3, 1.0), (9, 0.35), (40, 0.12)):
        small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += weight * (np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(float) - 128)
    picture = Image.fromarray((128 + 0.8 * total).clip(20, 235).astype(np.uint8))
    for _ in range(rng.integers(0, 4)):
        x, y, wide, high = rng.integers(-20, side, 4) * (1, 1, 0.5, 0.5)
        shape = masks.ellipse if rng.random() < 0.5 else masks.rectangle
        try:
            drawn = shape(picture.size, (x, y, x + 20 + wide, y + 20 + high))
        except overpaint.RequestError:
            continue
        picture.paste(tuple(int(each) for each in rng.integers(30, 226, 3)), mask=drawn)
    return picture


def area(rng: np.random.Generator, side: int = SIDE) -> Image.Image:
    """A mask of one of several shapes, somewhere in the picture."""
    left, top = rng.uniform(0.1, 0.35, 2) * side
    right, bottom = rng.uniform(0.6, 0.9, 2) * side
    kind = rng.integers(0, 3)
    if kind == 0:
        return masks.ellipse((side, side), (left, top, right, bottom))
    if kind == 1:
        return masks.rectangle((side, side), (left, top, right, bottom))
    points = [tuple(rng.uniform(0.2, 0.8, 2) * side) for _ in range(5)]
    return masks.stroke((side, side), points, radius=float(rng.uniform(16, 36)))


def _shift(values: Array, rng: np.random.Generator) -> Array:
    shifted: Array = values + rng.uniform(6, 18, 3) * rng.choice([-1, 1], 3)
    return shifted


def _gain(values: Array, rng: np.random.Generator) -> Array:
    return (values - 128) * rng.uniform(0.75, 0.9) + 128 + rng.uniform(-10, 10)


def _warmth(values: Array, rng: np.random.Generator) -> Array:
    warmer: Array = values * (1 + rng.uniform(0.05, 0.12) * np.array([1, 0, -1]) * rng.choice([-1, 1]))
    return warmer


def _field(values: Array, rng: np.random.Generator) -> Array:
    small = Image.fromarray(rng.integers(98, 159, (3, 3, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize(values.shape[1::-1], Image.Resampling.BICUBIC)).astype(float) - 128
    changed: Array = values + smooth
    return changed


def _another(values: Array, rng: np.random.Generator) -> Array:
    """Something else inside, under the same shift of all colours."""
    other = np.asarray(scene(rng)).astype(float)
    share = np.asarray(masks.feather(masks.ellipse((SIDE, SIDE), (80, 80, 176, 176)), 12))[..., None] / 255
    return _shift(values * (1 - share) + other * share, rng)


def _exact(values: Array, rng: np.random.Generator) -> Array:
    return values


_OFF: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "shift": _shift,
    "gain": _gain,
    "warmth": _warmth,
    "field": _field,
    "another thing": _another,
    "nothing off": _exact,
}


def painted_cases(count: int, checkpoints: list[str]) -> Iterator[Case]:
    """What models paint: the whole picture that was decoded, before anything is laid over it."""
    prompts = ("a red car", "a lake at sunset", "a forest", "snow")
    each = -(-count // len(checkpoints))
    for checkpoint in checkpoints:
        with overpaint.Engine(checkpoint or None) as engine:
            for number in range(min(each, count)):
                rng = np.random.default_rng(10_000 + number)
                source, mask = scene(rng, 128), area(rng, 128)
                request = overpaint.Img2ImgRequest(
                    images=(source,),
                    mask=mask,
                    prompt=prompts[number % len(prompts)],
                    strength=(0.3, 0.5, 0.8)[number % 3],
                    steps=8,
                    seed=number,
                    overrides={"overlay_inpaint": False},
                )
                picture = engine.paint(request).images[0]
                yield Case(f"painted {Path(checkpoint).stem or 'built-in'}", source, picture.convert("RGB"), mask)
        count -= each


# -- ways to blend ---------------------------------------------------------------------------------------------------


def blended(case: Case) -> dict[str, Image.Image]:
    """The composites that are compared."""
    soft = blur_mask(case.mask, 4, 4, never_darker=True)
    plain = composite_exact(case.source, case.source, case.painted, soft)
    return {
        "plain": plain,
        "auto": _auto(case, plain, soft),
        "overlay": composite_exact(case.source, case.source, case.painted, case.mask),
        "stitch": composite_exact(case.source, case.source, case.painted, masks.feather_out(case.mask, 16)),
    }


def _auto(case: Case, plain: Image.Image, alpha: Image.Image) -> Image.Image:
    others = [each for _, each in mended(case.source, case.painted, alpha)]
    made = [composite_exact(case.source, case.source, each, alpha) for each in others]
    seams = [measured(case, each) for each in made]
    chosen = best(measured(case, plain), seams)
    return plain if chosen is None else made[chosen]


def measured(case: Case, picture: Image.Image) -> Seam:
    """By the mask as it was given, whatever was made softer."""
    found = measure_seam(case.source, picture, blur_mask(case.mask, 4, 4, never_darker=True))
    assert found is not None
    return found


# -- what is told ----------------------------------------------------------------------------------------------------


def report(found: list[tuple[str, dict[str, Seam]]]) -> None:
    """Medians by kind of case."""
    names = list(dict.fromkeys(name for name, _ in found))
    print(f"{'case':24} {'n':>4}  " + "  ".join(f"{way:>15}" for way in WAYS) + "   (step / 95th percentile, delta E)")
    for name in (*names, "all"):
        own = [seams for each, seams in found if name in (each, "all")]
        cells = []
        for way in WAYS:
            steps, worst = ([getattr(seams[way], field) for seams in own] for field in ("step", "step_p95"))
            cells.append(f"{np.median(steps):6.2f} / {np.median(worst):6.2f}")
        print(f"{name:24} {len(own):4}  " + "  ".join(f"{each:>15}" for each in cells))


def cost() -> None:
    """Of measuring and mending a 512x512 area."""
    rng = np.random.default_rng(1)
    source, mask = scene(rng, 768), masks.ellipse((768, 768), (128, 128, 640, 640))
    painted = Image.fromarray(_shift(np.asarray(source).astype(float), rng).clip(0, 255).astype(np.uint8))
    for name, work in (
        ("measure", lambda: measure_seam(source, painted, mask)),
        ("mend", lambda: mended(source, painted, mask)),
    ):
        started = time.process_time()
        work()
        print(f"{name} 512x512: {time.process_time() - started:.3f} s")


def sheet(case: Case, results: dict[str, Image.Image]) -> Image.Image:
    """Source with its mask, then each result, side by side."""
    pictures = [masks.overlay(case.source, case.mask), *results.values()]
    wide, high = case.source.size
    found = Image.new("RGB", ((wide + 4) * len(pictures), high), "white")
    for number, each in enumerate(pictures):
        found.paste(each, (number * (wide + 4), 0))
    return found


if __name__ == "__main__":
    main()
