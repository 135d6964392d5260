"""What weights take in memory and what that costs: whole, or as their file stores them and unpacked layer by layer.

    python benchmarks/weights.py                 a Flux of half a billion random numbers, in 8 bits and as GGUF
    python benchmarks/weights.py --width 512     a smaller one

Every line is a process of its own, so that its peak is its own. Seconds are of one call of the denoiser after a first
one that is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from overpaint.models.filling import Source, fill
from overpaint.models.opened import open_tensors
from overpaint.models.placing import held_layers
from overpaint.models.specs import FluxSpec
from overpaint.networks.flux import Flux
from overpaint.networks.layers import laid_out, set_packed, take_room

FORMS = ("fp8", "gguf-Q8_0")
WAYS = ("whole", "stored")
WORDS = 64


def spec_of(width: int) -> FluxSpec:
    """Flux.1's proportions at another width, 10 blocks deep."""
    sizes: dict[str, Any] = {"width": width, "inner": 4 * width, "heads": width // 128, "axes": (16, 56, 56)}
    return FluxSpec(
        in_channels=16, double_blocks=4, single_blocks=6, context_dim=1024, pooled_dim=256, guided=False, **sizes
    )


def make_file(folder: Path, form: str, width: int) -> Path:
    """Random weights, a tensor at a time."""
    generator = torch.Generator().manual_seed(1)
    network = laid_out(partial(Flux, spec_of(width)), torch.float32)
    shapes = {name: tuple(each.shape) for name, each in network.named_parameters()}

    def made(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.02

    if form == "fp8":
        kinds = {name: torch.float8_e4m3fn if len(each) == 2 else torch.bfloat16 for name, each in shapes.items()}
        path = folder / "flux.safetensors"
        save_file({name: made(each).to(kinds[name]) for name, each in shapes.items()}, path)
        return path
    import gguf

    path = folder / "flux.gguf"
    writer = gguf.GGUFWriter(path, "flux")
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, shape in shapes.items():
        values = made(shape).numpy()
        if len(shape) == 2 and shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def measured(path: Path, way: str, width: int, side: int) -> dict[str, float]:
    """In this process: memory beyond what torch and the program took before, and the seconds of a call."""
    torch.set_num_threads(1)
    before = _memory("VmRSS")
    network = laid_out(partial(Flux, spec_of(width)), torch.bfloat16)
    weights = open_tensors(path)
    source = Source(network, weights, {name: name for name in weights.shapes})
    start = time.perf_counter()
    take_room(network.modules(), "cpu", held_layers(source) if way == "stored" else ())
    fill([source], None)
    set_packed(network.eval(), True)
    loading = time.perf_counter() - start
    held = _memory("VmRSS") - before
    empty = partial(torch.zeros, dtype=torch.bfloat16)
    given = (empty(1, 16, side, side), torch.ones(1), empty(1, WORDS, 1024), empty(1, 256))
    seconds = []
    with torch.no_grad():
        for _ in range(2):
            start = time.process_time()
            network(*given)
            seconds.append(time.process_time() - start)
    peak = _memory("VmHWM") - before
    return {"load_s": loading, "weights_mb": held / 1000, "peak_mb": peak / 1000, "call_s": seconds[1]}


def _memory(name: str) -> int:
    """Kilobytes, by /proc."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--side", type=int, default=64, help="of the latents; half as many tokens a side")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "WAY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measured(Path(given.one[0]), given.one[1], given.width, given.side)))
        return
    print(f"{'form':12}{'weights':10}{'load s':>8}{'in memory MB':>14}{'peak MB':>10}{'call CPU s':>12}")
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            path = make_file(Path(folder), form, given.width)
            for way in WAYS:
                line = [sys.executable, __file__, "--width", str(given.width), "--side", str(given.side)]
                done = subprocess.run([*line, "--one", str(path), way], check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                figures = f"{found['load_s']:8.1f}{found['weights_mb']:14.0f}{found['peak_mb']:10.0f}"
                print(f"{form:12}{way:10}{figures}{found['call_s']:12.2f}", flush=True)


if __name__ == "__main__":
    main()
