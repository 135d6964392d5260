"""Planning a job on a large picture: no network, only pixels. Beside one copy of the picture, which Pillow makes.

    python -m benchmarks.planning --megapixels 24 --repeats 5

A plan decides; what is encoded, and the mask of the latents, is made when painting begins ("made ready"), and counted
apart. Each case is planned in turn, round after round; medians are shown, and CPU seconds beside those that passed, for
other work on the machine lengthens only the latter.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from overpaint import Img2ImgRequest, PaintRequest, Settings
from overpaint.planning.plan import Plan, plan

MANNERS = {"sane": Settings(), "reference": Settings.reference()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    cases = make_cases(*size_of(args.megapixels))
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cases}
    for _ in range(args.repeats):
        for name, case in cases.items():
            found[name].append(timed(case))
    report(found)


def size_of(megapixels: float) -> tuple[int, int]:
    """A picture of three to two."""
    high = round((megapixels * 1e6 / 1.5) ** 0.5)
    return round(1.5 * high), high


def make_cases(width: int, height: int) -> dict[str, Callable[[], Plan | None]]:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    source = Image.fromarray(values)
    small = ellipse(width, height, 0.4, 0.55)
    masks = {"small": small, "inverted": ImageOps.invert(small), "large": ellipse(width, height, 0.05, 0.95)}
    cases: dict[str, Callable[[], Plan | None]] = {"one copy": lambda: source.copy() and None}
    for manner, settings in MANNERS.items():
        for kind, mask in masks.items():
            request = Img2ImgRequest(images=(source,), mask=mask, only_masked=True, width=768, height=512)
            cases[f"only masked, {kind} mask, {manner}"] = planned(request, settings)
        request = Img2ImgRequest(images=(source,), mask=small, width=768, height=512)
        cases[f"whole picture at 768x512, {manner}"] = planned(request, settings)
    return cases


def ellipse(width: int, height: int, low: float, high: float) -> Any:
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).ellipse((low * width, low * height, high * width, high * height), fill=255)
    return mask


def planned(request: PaintRequest, settings: Settings) -> Callable[[], Plan | None]:
    return lambda: plan(request, settings)


def timed(case: Callable[[], Plan | None]) -> tuple[float, float, float]:
    """Seconds that passed, those of the processor, and its seconds until the encoder may begin."""
    wall, cpu = time.perf_counter(), time.process_time()
    made = case()
    wall, planning = time.perf_counter() - wall, time.process_time() - cpu
    if made is not None:
        _ = [each.encoded for each in made.canvases], made.mask and made.mask.latent
    return wall, planning, time.process_time() - cpu - planning


def report(found: dict[str, list[tuple[float, float, float]]]) -> None:
    medians = {name: [statistics.median(each) for each in zip(*runs, strict=True)] for name, runs in found.items()}
    unit = medians["one copy"][1]
    title = f"median of {len(found['one copy'])}"
    print(f"{title:>42} {'seconds':>8} {'CPU':>6} {'copies':>7} {'made ready':>11}")
    for name, (wall, cpu, ready) in medians.items():
        print(f"{name:>42} {wall:8.2f} {cpu:6.2f} {cpu / unit:7.1f} {ready:11.2f}")


if __name__ == "__main__":
    main()
