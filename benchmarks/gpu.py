"""All that is worth knowing of a GPU, in one run of at most 12 minutes, on a machine where torch is there already.

    python -m benchmarks.gpu [--minutes 12] [--json FILE] [--part NAME ...] [--packages DIR] [--device cuda] [--tiny]

Parity with the recordings of a CPU, half precision, speed beside diffusers, jobs side by side, previews, memory, every
sampler once, a LoRA, and SDXL of full size. Each part runs in a process of its own with a limit, so one that fails,
hangs or runs out of memory loses itself alone; the figures so far are written after each. diffusers and transformers
may be carried as wheels: `--packages` is a folder of them, unpacked (`pip install --no-deps --target DIR ...`).
Without them the comparison is left out, and a line says so.

`--tiny` runs all parts on a CPU, in this process and with hardly any work; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import PARTS, ROOT, tiny

LAST = "figures: "  # a part's process tells them in a line that begins so
_LEAST = 15.0  # seconds: with less left, no part begins


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = _arguments(argv)
    if args.packages is not None:
        sys.path.append(str(args.packages))
    if args.only is not None:
        print(LAST + json.dumps(PARTS[args.only][0](_said(args))), flush=True)
        return {}
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        args.folder = args.folder or Path(folder)
        until = time.monotonic() + 60 * args.minutes
        for name in args.part or PARTS:
            started = time.monotonic()
            found[name] = _part(args, name, until - started)
            found[name]["took"] = round(time.monotonic() - started, 1)
            print(f"## {name} ({found[name]['took']} s)\n{told(found[name])}\n", flush=True)
            if args.json is not None:
                args.json.write_text(json.dumps(found, indent=1))
    print(summary(found))
    return found


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="this one alone; may be repeated")
    parser.add_argument("--packages", type=Path, help="a folder of packages that this machine lacks")
    parser.add_argument("--folder", type=Path, help="where checkpoints are written (15 GB); a temporary one else")
    parser.add_argument("--json", type=Path, help="write the figures there, too, after each part")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", choices=tuple(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _said(args: argparse.Namespace) -> Namespace:
    """What the parts are told."""
    whole = Namespace(
        device=args.device,
        dtype=args.dtype,
        folder=args.folder,
        halves=["float16", "bfloat16"],
        size=512,
        large=1024,
        small=128,
        steps=20,
        few=8,
        rounds=3,
        cases=50,
        samplers=99,
        rows=[1, 2, 4, 8, 16, 32],
        jobs=[1, 2, 4, 8],
        sides=[512, 1024, 2048],
        tiny=False,
    )
    return tiny(whole) if args.tiny else whole


def _part(args: argparse.Namespace, name: str, left: float) -> dict[str, Any]:
    """Its figures, or why there are none."""
    work, limit = PARTS[name]
    if args.tiny:
        return work(_said(args))
    if left < _LEAST:
        return {"failed": "the time was up"}
    options = ["--device", args.device, "--dtype", args.dtype, "--folder", str(args.folder)]
    options += [] if args.packages is None else ["--packages", str(args.packages)]
    return outcome_of([sys.executable, "-m", "benchmarks.gpu", "--only", name, *options], min(limit, left))


def outcome_of(command: Sequence[str], limit: float) -> dict[str, Any]:
    """What a process tells in its last line, if it comes to that within so many seconds."""
    path = os.pathsep.join([str(ROOT / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    env = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit, cwd=ROOT, env=env)
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {limit:.0f} seconds"}
    lines = [each for each in done.stdout.splitlines() if each.startswith(LAST)]
    if done.returncode or not lines:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-12:]
        return {"failed": f"it ended with {done.returncode}", "said": said}
    found: dict[str, Any] = json.loads(lines[-1].removeprefix(LAST))
    return found


def told(found: dict[str, Any]) -> str:
    """Figures as lines of a table."""
    rows = [f"| {name} | {_short(value)} |" for name, value in found.items()]
    return "\n".join(["| what | figure |", "| --- | --- |", *rows])


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_short(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(_short(each) for each in value)
    return str(value)


def summary(found: dict[str, Any]) -> str:
    """A line for each part: whether it came to its end, and whether what it looked at is as it should be."""
    lines = []
    for name, each in found.items():
        judged = {True: "ok", False: "NOT OK"}.get(each.get("ok"), "measured")
        lines.append(f"{name:>10} {'failed: ' + each['failed'] if 'failed' in each else judged}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
