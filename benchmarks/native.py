"""A picture of 50 megapixels, of which a small part is painted: seconds and memory beyond the model, by kind of file.

python -m benchmarks.native [--side 7100] [--kind jpeg p3 png16 tiff16]

The picture is a photo's likeness: soft shapes with noise. What reading and writing the file takes is told apart, since
any program has to do that; between them lies the edit, of which painting is the sampler's and the networks' time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import overpaint
from benchmarks.large import MASKED, peak, request
from overpaint.deep import deep_array
from overpaint.engine import Engine
from overpaint.events import Finished, Painted, Progress
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
    with Engine(device="cpu", dtype="float32") as engine:
        engine.paint(request(Image.new("RGB", (128, 128), "gray"), mask=Image.new("L", (128, 128), 255)))
        alone = peak()
        start = time.perf_counter()
        source, mask = open_picture(folder / f"source.{ending}"), open_picture(folder / "mask.png")
        opened = time.perf_counter()
        print(f"{kind}: model {alone:.0f} MiB; opened {opened - start:.2f} s, {peak() - alone:+.0f} MiB")
        first = last = opened
        for event in engine.run(request(source, mask=mask, only_masked=True)):
            if isinstance(event, Progress):
                last = time.perf_counter()
                first = last if first == opened else first
            elif isinstance(event, Painted | Finished):
                result = event
        done = time.perf_counter()
        assert isinstance(result, Finished)
        print(f"{kind}: edit {done - opened:.2f} s, of it the sampler {last - first:.2f} s, {peak() - alone:+.0f} MiB")
        overpaint.save(result.result, folder / f"painted.{ending}")
        size = (folder / f"painted.{ending}").stat().st_size >> 20
        print(f"{kind}: saved {time.perf_counter() - done:.2f} s, {size} MiB, {peak() - alone:+.0f} MiB")
    return 0


def main() -> int:
    """NOTE: a process of its own measures, so that the memory that making the pictures took does not count."""
    parser = argparse.ArgumentParser(description="Paint a small part of a large picture of any kind.")
    parser.add_argument("--side", type=int, default=7100, help="pixels of a side")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder is not None:
        return measure(asked.folder, asked.kind[0])
    code = 0
    for kind in asked.kind:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), kind, asked.side)
            command = [sys.executable, "-m", "benchmarks.native", "--folder", folder, "--kind", kind]
            code = code or subprocess.run(command, check=False).returncode
    return code


if __name__ == "__main__":
    sys.exit(main())
