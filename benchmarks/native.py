"""A picture of 50 megapixels, of which a small part is painted: seconds and memory beyond the model, by kind of file.

python -m benchmarks.native [--side 7100] [--kind jpeg p3 png16 tiff16]

The picture is a photo's likeness: soft shapes with noise. What reading and writing the file takes is told apart, since
any program has to do that; between them lies the edit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import overpaint
from benchmarks.large import MASKED, peak, request
from overpaint.deep import deep_array
from overpaint.engine import Engine
from overpaint.files.metadata import encode_picture
from overpaint.pictures import open_picture
from tests import profiles

KINDS = {"jpeg": "jpg", "p3": "jpg", "png16": "png", "tiff16": "tif"}


def make(folder: Path, kind: str, side: int) -> None:
    rng = np.random.default_rng(0)
    across = np.linspace(0, 60, side)
    rows = []
    for top in range(0, side, 500):
        down = np.linspace(top / 100, min(top + 500, side) / 100, min(500, side - top))[:, None, None]
        shapes = np.sin(across[None, :, None] / 7 + np.arange(3)) + np.cos(down - np.arange(3))
        noise = rng.normal(0, 120, (len(down), side, 3)).astype(np.float32)
        rows.append((shapes * 12000 + 32768 + noise).clip(0, 65535).astype(np.uint16))
    values = np.concatenate(rows)
    picture = deep_array(values) if kind.endswith("16") else Image.fromarray((values >> 8).astype(np.uint8))
    icc = profiles.display_p3() if kind in ("p3", "png16") else None
    (folder / f"source.{KINDS[kind]}").write_bytes(encode_picture(picture, KINDS[kind], icc=icc, quality=90))
    with Image.new("L", (side, side)) as black:
        middle = (side - MASKED) // 2
        ImageDraw.Draw(black).rectangle((middle, middle, middle + MASKED, middle + MASKED), fill=255)
        black.save(folder / "mask.png")


def measure(folder: Path, kind: str) -> int:
    ending = KINDS[kind]
    middle = Image.new("L", (1024, 1024))
    middle.paste(255, (312, 312, 312 + MASKED, 312 + MASKED))
    with Engine(device="cpu", dtype="float32") as engine:
        small = request(Image.new("RGB", (1024, 1024), "gray"), mask=middle, only_masked=True)
        engine.paint(small)
        alone, painting = peak(), min(seconds(lambda: engine.paint(small)) for _ in range(3))
        start = clocks()
        source, mask = open_picture(folder / f"source.{ending}"), open_picture(folder / "mask.png")
        print(f"{kind}: opened in {told(start)}, {peak() - alone:+.0f} MiB beyond the model's {alone:.0f}")
        start = clocks()
        result = engine.paint(request(source, mask=mask, only_masked=True))
        beyond = clocks()[1] - start[1] - painting
        more = f"{beyond:.2f} of it beyond the {painting:.2f} of a picture of 1 megapixel"
        print(f"{kind}: edited in {told(start)}, {more}, {peak() - alone:+.0f} MiB")
        start = clocks()
        overpaint.save(result, folder / f"painted.{ending}")
        size = (folder / f"painted.{ending}").stat().st_size >> 20
        print(f"{kind}: saved in {told(start)}, {size} MiB, {peak() - alone:+.0f} MiB")
    return 0


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    start = time.process_time()
    work()
    return time.process_time() - start


def told(start: tuple[float, float]) -> str:
    wall, cpu = (now - then for now, then in zip(clocks(), start, strict=True))
    return f"{wall:.2f} s ({cpu:.2f} of the processor)"


def main() -> int:
    """NOTE: processes of their own make and measure, so that the memory that making took does not count."""
    parser = argparse.ArgumentParser(description="Paint a small part of a large picture of any kind.")
    parser.add_argument("--side", type=int, default=7100, help="pixels of a side")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make:
        make(asked.folder, asked.kind[0], asked.side)
        return 0
    if asked.folder is not None:
        return measure(asked.folder, asked.kind[0])
    for kind in asked.kind:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.native", "--folder", folder, "--kind", kind]
            subprocess.run([*command, "--make", "--side", str(asked.side)], check=True)
            subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
