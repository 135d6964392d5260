"""A full-size SDXL with random weights: time to load it, two steps at 512 pixels, and the peak of memory.

    python -m benchmarks.sdxl [--folder DIR] [--dtype auto|bfloat16|float32] [--size 512] [--steps 2] [--keep]

The checkpoint (6.5 GiB, float16, in the original layout) is written tensor by tensor and removed afterwards unless it
is kept. Loading and painting happen in a process of their own, whose peak is measured and which is ended as soon as
less than `--spare` GiB of the machine's memory are left.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "overpaint-benchmark")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--spare", type=float, default=1.5)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    file = args.folder / "sdxl.safetensors"
    if args.child:
        print(json.dumps(paint(file, args.dtype, args.size, args.steps)))
        return
    try:
        if not file.exists():
            args.folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(file)
        report(run_child(args.spare))
    finally:
        if not args.keep:
            file.unlink(missing_ok=True)


def run_child(spare: float) -> dict[str, Any]:
    """A fresh process with the same arguments; its last line is the result."""
    command = [sys.executable, "-m", "benchmarks.sdxl", *sys.argv[1:], "--child"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            time.sleep(0.2)
            if _kib("/proc/meminfo", "MemAvailable") < spare * GIB / 1024:
                child.kill()
                raise SystemExit(f"ended: less than {spare} GiB of memory were left; it needs more than there is")
        lines = (child.stdout.read() if child.stdout is not None else "").strip().splitlines()
    if child.returncode:
        raise SystemExit(f"it ended with {child.returncode}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def report(found: dict[str, Any]) -> None:
    for name, value in found.items():
        print(f"{name:>20} {value}")


def paint(file: Path, dtype: str, size: int, steps: int) -> dict[str, Any]:
    """Load, take some Euler steps with guidance, decode."""
    from PIL import Image

    from overpaint import Engine, Img2ImgRequest, Progress
    from overpaint.engine import stages_of

    started = time.perf_counter()
    source = Image.effect_mandelbrot((size, size), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    with Engine(file, device="cpu", dtype=dtype) as engine:
        loaded, peak = time.perf_counter() - started, _kib("/proc/self/status", "VmHWM")
        request = Img2ImgRequest(
            images=(source,),
            prompt="a lake",
            negative_prompt="blurry",
            strength=1,
            steps=steps,
            sampler="Euler",
            seed=1,
        )
        times = [time.perf_counter() for event in engine.run(request) if isinstance(event, Progress)]
        return {
            "dtype": str(stages_of(engine).backend.dtypes.unet),
            "seconds to load": round(loaded, 1),
            "peak GiB, loaded": round(peak / 2**20, 2),
            "seconds a step": round((times[-1] - times[0]) / max(len(times) - 1, 1), 1),
            "seconds in all": round(time.perf_counter() - started, 1),
            "peak GiB, painted": round(_kib("/proc/self/status", "VmHWM") / 2**20, 2),
        }


def _kib(path: str, name: str) -> int:
    """NOTE: getrusage's peak survives exec, so a child would report its parent's; VmHWM is its own."""
    return next(int(line.split()[1]) for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))


def write_checkpoint(path: Path) -> None:
    """Random weights that keep activations in range, never more than one tensor of them in memory."""
    import numpy as np

    pool = np.random.default_rng(0).standard_normal(2**24, dtype=np.float32)
    header: dict[str, Any] = {}
    shapes = dict(_shapes())
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    with unfinished.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            if len(shape) == 1:
                values = np.full(shape, 1.0 if name.endswith("weight") else 0.0)
            else:
                values = np.resize(pool, shape) * int(np.prod(shape[1:])) ** -0.5
            file.write(values.astype("<f2").tobytes())
    unfinished.replace(path)


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """SDXL's tensors by their names in the checkpoint."""
    import torch

    from overpaint.models.families import SD1_SPEC, UNET_PREFIX, VAE_PREFIX, UNetSpec
    from overpaint.networks.autoencoder import AutoencoderKL
    from overpaint.networks.text_networks import text_network
    from overpaint.networks.unet import UNet

    unet = UNetSpec(
        in_channels=4,
        model_channels=320,
        channel_mult=(1, 2, 4),
        num_res_blocks=2,
        input_depths=(0, 0, 2, 2, 10, 10),
        middle_depth=10,
        output_depths=(10, 10, 10, 2, 2, 2, 0, 0, 0),
        head_dim=64,
        context_dim=2048,
        linear_projections=True,
        adm_channels=2816,
    )
    clip = replace(SD1_SPEC.texts[0], prefix="conditioner.embedders.0.transformer.text_model.")
    bigg = replace(clip, kind="openclip", prefix="conditioner.embedders.1.model.", activation="gelu", pooled=True)
    bigg = replace(bigg, width=1280, layers=32, heads=20, inner=5120)
    with torch.device("meta"):
        parts: dict[str, torch.nn.Module] = {UNET_PREFIX: UNet(unet), VAE_PREFIX: AutoencoderKL(SD1_SPEC.vae)}
        parts |= {text.prefix: text_network(text) for text in (clip, bigg)}
    for prefix, network in parts.items():
        yield from ((prefix + name, tuple(each.shape)) for name, each in network.named_parameters())


if __name__ == "__main__":
    main()
