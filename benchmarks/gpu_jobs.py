"""Pictures a minute of several waiting jobs: side by side with shared calls, against one after another.

    python -m benchmarks.gpu_jobs [--device cuda] [--dtype float16] [--size 512] [--steps 20] [--jobs 1 2 4 8]
                                  [--repeats 3] [--json FILE] [--tiny]

Jobs of a full-size SD 1.5 with random weights, each with a sampler, a seed and a prompt of its own. The two ways take
turns, and the medians are compared. Before that it says what one call of the denoiser costs by its rows: the seconds of
a row, and the bytes that it takes beside the weights, for `painting/sharing.py` bounds calls by both. `--tiny` runs all
of it on a CPU with the built-in model; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from overpaint.engine import Engine, stages_of
from overpaint.events import Finished
from overpaint.painting.sharing import BYTES_PER_CELL, jobs_at_once, rows_per_call
from overpaint.request import Img2ImgRequest

ROWS = (1, 2, 4, 8, 16, 32)
SAMPLERS = ("Euler", "DPM++ 2M", "Euler a", "DDIM")  # one call a step each, so that all jobs are equally long


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = _arguments(argv)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None if args.tiny else _checkpoint(Path(folder))
        with Engine(checkpoint, device=args.device, dtype=args.dtype) as engine:
            found = measured(engine, args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    report(found)
    return found


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    if args.tiny:
        tiny = {"device": "cpu", "dtype": "float32", "size": 64, "steps": 2, "jobs": [1, 2], "rows": [1, 2]}
        vars(args).update({**tiny, "repeats": 1})
    return args


def measured(engine: Engine, args: argparse.Namespace) -> dict[str, Any]:
    """All figures, as plain values."""
    device = torch.device(engine.device)
    paint(engine, jobs(2, args.size, args.steps), shared=True)  # what is only done once is done
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "dtype": str(stages_of(engine).backend.dtypes.unet),
        "size": args.size,
        "steps": args.steps,
        "policy": {
            "rows per call": rows_per_call(device, (args.size // 8) ** 2),
            "jobs at once": jobs_at_once(device, args.size),
            "bytes per cell": BYTES_PER_CELL,
        },
        "rows": [cost_of_rows(engine, rows, args) for rows in args.rows],
        "jobs": [compared(engine, count, args) for count in args.jobs],
    }


def jobs(count: int, size: int, steps: int) -> dict[int, Img2ImgRequest]:
    source = Image.effect_mandelbrot((size, size), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    return {
        number: Img2ImgRequest(
            images=(source,),
            prompt=f"a lake, number {number}",
            negative_prompt="blurry",
            strength=1,
            steps=steps,
            sampler=SAMPLERS[number % len(SAMPLERS)],
            seed=number,
        )
        for number in range(count)
    }


def compared(engine: Engine, count: int, args: argparse.Namespace) -> dict[str, Any]:
    """So many jobs in both ways, in turn."""
    waiting = jobs(count, args.size, args.steps)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(args.repeats):
        for shared in seconds:
            seconds[shared].append(paint(engine, waiting, shared=shared))
    apart, together = (statistics.median(seconds[shared]) for shared in (False, True))
    a_minute = {"one after another": 60 * count / apart, "side by side": 60 * count / together}
    return {
        "jobs": count,
        "pictures a minute": a_minute,
        "times as fast": apart / together,
        "seconds": [apart, together],
    }


def paint(engine: Engine, waiting: dict[int, Img2ImgRequest], *, shared: bool) -> float:
    """The seconds that all of them take. Sharing is forced: whether it pays is the question."""
    started = time.perf_counter()
    rows = 2 * len(waiting) if shared else 1
    at_once = len(waiting) if shared else 1
    last = dict(engine.run_together(waiting, at_once=at_once, rows_per_call=rows))
    if not all(isinstance(each, Finished) for each in last.values()):
        raise SystemExit(f"a job did not end well: {last}")
    _wait_for(engine)
    return time.perf_counter() - started


def cost_of_rows(engine: Engine, rows: int, args: argparse.Namespace) -> dict[str, Any]:
    """One call of the denoiser with so many rows."""
    stages, side = stages_of(engine), args.size // 8
    device, spec = torch.device(engine.device), engine.spec
    x = torch.randn(rows, spec.unet.in_channels, side, side).to(device)
    context = torch.randn(rows, 77, spec.unet.context_dim).to(device)
    timesteps = torch.full((rows,), 500.0, device=device)
    is_cuda = device.type == "cuda"
    seconds: list[float] = []
    with torch.no_grad():
        stages.backend.denoise(x, timesteps, context)
        _wait_for(engine)
        before = torch.cuda.memory_allocated(device) if is_cuda else 0
        if is_cuda:
            torch.cuda.reset_peak_memory_stats(device)
        for _ in range(2 * args.repeats):
            started = time.perf_counter()
            stages.backend.denoise(x, timesteps, context)
            _wait_for(engine)
            seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) - before if is_cuda else 0
    a_cell = peak / (rows * side * side)
    return {"rows": rows, "seconds a row": statistics.median(seconds) / rows, "bytes a cell": a_cell}


def _wait_for(engine: Engine) -> None:
    if torch.device(engine.device).type == "cuda":
        torch.cuda.synchronize()


def _checkpoint(folder: Path) -> Path:
    from safetensors.torch import save_file

    from benchmarks.pipeline import random_checkpoint

    save_file(random_checkpoint(), folder / "sd15.safetensors")
    return folder / "sd15.safetensors"


def report(found: dict[str, Any]) -> None:
    print(f"{found['device']}, {found['dtype']}, {found['size']} px, {found['steps']} steps; policy: {found['policy']}")
    print("| rows of a call | milliseconds a row | bytes a cell |\n| --- | --- | --- |")
    for each in found["rows"]:
        print(f"| {each['rows']} | {1000 * each['seconds a row']:.2f} | {each['bytes a cell']:.0f} |")
    print("| jobs | a minute, one after another | side by side | times as fast |\n| --- | --- | --- | --- |")
    for each in found["jobs"]:
        apart, together = each["pictures a minute"].values()
        print(f"| {each['jobs']} | {apart:.1f} | {together:.1f} | {each['times as fast']:.2f} |")


if __name__ == "__main__":
    main()
