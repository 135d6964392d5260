"""What each operation on a mask of 24 megapixels takes.

python -m benchmarks.masks
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from overpaint import masks

SIZE = (6000, 4000)
ROUNDS = 3


def main() -> None:
    """Print a line per operation: the least of some rounds, in seconds."""
    for name, work in operations():
        print(f"{name:30} {min(seconds(work) for _ in range(ROUNDS)):6.3f} s")


def operations() -> list[tuple[str, Callable[[], object]]]:
    """On an ellipse that fills the picture, so that no work is saved by its box."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    large, inner = masks.ellipse(SIZE, (100, 100, 5900, 3900)), masks.ellipse(SIZE, (1500, 1000, 4500, 3000))
    ring, soft = masks.subtract(large, inner), masks.feather(large, 12)
    line = [(100.0 * i, 2000 + 1500 * math.sin(i / 5)) for i in range(60)]
    corners = [(100.0, 100.0), (5900.0, 200.0), (3000.0, 3900.0)]
    return [
        ("ellipse", lambda: masks.ellipse(SIZE, (100, 100, 5900, 3900))),
        ("polygon", lambda: masks.polygon(SIZE, corners)),
        ("stroke of radius 60", lambda: masks.stroke(SIZE, line, 60, 0.5)),
        ("colour", lambda: masks.from_colour(picture, (120, 120, 120), 60)),
        ("wand", lambda: masks.wand(picture, (3000, 2000), 60)),
        ("difference", lambda: masks.from_difference(picture, other, 10)),
        ("union", lambda: masks.union(large, inner)),
        ("subtract", lambda: masks.subtract(large, inner)),
        ("invert", lambda: masks.invert(large)),
        ("threshold", lambda: masks.threshold(soft)),
        *((f"grow {each}", partial(masks.grow, large, each)) for each in (8, 64, 500)),
        *((f"shrink {each}", partial(masks.shrink, large, each)) for each in (8, 64, 500)),
        *((f"grow {each}, soft edge", partial(masks.grow, soft, each)) for each in (8, 64)),
        *((f"feather {each}", partial(masks.feather, large, each)) for each in (12, 64)),
        ("feather in 24", lambda: masks.feather_in(large, 24)),
        ("feather out 24", lambda: masks.feather_out(large, 24)),
        ("fill-holes", lambda: masks.fill_holes(ring)),
        ("drop-specks", lambda: masks.drop_specks(ring, 100)),
        ("cut-out", lambda: masks.cut_out(picture, (1000, 600, 5200, 3300))),
    ]


def seconds(work: Callable[[], object]) -> float:
    """The time that it takes the processor."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
