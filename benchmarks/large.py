"""A source of 100 megapixels, of which a small part is painted: seconds, and the memory beyond that of the model.

python -m benchmarks.large
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

import overpaint
from overpaint.engine import Engine
from overpaint.pictures import open_picture
from overpaint.request import Img2ImgRequest, PaintRequest, Picture

MIB = 1 << 20
MASKED = 400  # pixels a side


def peak() -> float:
    """MiB, the most that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def make_pictures(folder: Path, side: int) -> None:
    """A source with something in every corner, and a mask in its middle."""
    source, mask = folder / "source.jpg", folder / "mask.png"
    with Image.radial_gradient("L").resize((side, side)) as grey:
        Image.merge("RGB", (grey, grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT), grey)).save(source, quality=90)
    with Image.new("L", (side, side)) as black:
        middle = (side - MASKED) // 2
        ImageDraw.Draw(black).rectangle((middle, middle, middle + MASKED, middle + MASKED), fill=255)
        black.save(mask)


def request(source: Picture, **fields: Any) -> PaintRequest:
    job: dict[str, Any] = {"prompt": "a lake", "steps": 2, "strength": 0.5, "seed": 1, "width": 128, "height": 128}
    return Img2ImgRequest(images=(source,), **job, **fields)


def measure(folder: Path) -> int:
    with Engine(device="cpu", dtype="float32") as engine:
        small = Image.new("RGB", (128, 128), "gray")
        engine.paint(request(small))
        alone = peak()
        print(f"the model alone, after 128x128 was painted: {alone:.0f} MiB")
        start = time.perf_counter()
        source, mask = open_picture(folder / "source.jpg"), open_picture(folder / "mask.png")
        opened = time.perf_counter()
        print(f"opened {source.size[0]}x{source.size[1]}: {opened - start:.1f} s, peak {peak() - alone:+.0f} MiB")
        result = engine.paint(request(source, mask=mask, only_masked=True))
        painted = time.perf_counter()
        print(f"planned and painted: {painted - opened:.1f} s, peak {peak() - alone:+.0f} MiB")
        overpaint.save(result, folder / "painted.jpg")
        print(f"saved as JPEG: {time.perf_counter() - painted:.1f} s, peak {peak() - alone:+.0f} MiB")
    return 0


def main() -> int:
    """NOTE: a process of its own measures, so that the memory that making the pictures took does not count."""
    parser = argparse.ArgumentParser(description="Paint a small part of a very large picture.")
    parser.add_argument("--side", type=int, default=10_000, help="pixels of a side")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder is not None:
        return measure(asked.folder)
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder), asked.side)
        command = [sys.executable, "-m", "benchmarks.large", "--folder", folder]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
