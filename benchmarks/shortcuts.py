"""What a U-Net call of Stable Diffusion 1.5 costs when it leaves something out, beside the whole call.

    python -m benchmarks.shortcuts [--dtype float32|bfloat16] [--threads 2] [--repeats 3] [--size 64]

The calls take turns; CPU seconds and their ratios are what counts. Weights are random, so this says nothing of what is
painted; `overpaint bench --quality` does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.network import inputs, overpaint_call, random_weights
from overpaint.networks.unet import DeepMap, LessWork
from overpaint.planning.shortcuts import TokenMerging


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="latent side; 64 is 512 pixels")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    call = overpaint_call(random_weights(), getattr(torch, args.dtype), args.size)
    kinds = shortcuts(call, args.size)
    work: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(args.repeats + 1):
        for name, each in kinds.items():
            started = time.process_time()
            each()
            if number:  # the first round sets things up
                work[name].append(time.process_time() - started)
    whole = statistics.median(work["whole"])
    for name, seconds in work.items():
        median = statistics.median(seconds)
        print(f"{name:32} {median:6.2f} CPU seconds, {median / whole:.2f} of the whole call", flush=True)


def shortcuts(call: partial[Tensor], size: int) -> dict[str, Callable[[], Tensor]]:
    """The whole call of two rows, and what takes its place."""
    deep = DeepMap()
    call(less=LessWork(deep=deep))
    backend_call, (x, times, context) = call.func, inputs(size)
    window = size // 2
    return {
        "whole": call,
        "without the negative (one row)": partial(backend_call, x[:1], times[:1], context[:1]),
        "token_merging_ratio=0.3": partial(call, less=LessWork(TokenMerging(0.3, 0))),
        "token_merging_ratio=0.5": partial(call, less=LessWork(TokenMerging(0.5, 0))),
        "DeepCache, a shallow call": partial(call, less=LessWork(deep=deep)),
        f"a window of {window}x{window}": partial(backend_call, x[..., :window, :window].contiguous(), times, context),
    }


if __name__ == "__main__":
    main()
