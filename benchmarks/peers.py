"""img2img on a full-size SD 1.5 with random weights, against everything else that paints with it on a CPU.

    python -m benchmarks.peers [--folder DIR] [--packages DIR] [--size 512] [--steps 20] [--calls 10] [--threads 2]
                               [--repeats 3] [--peer NAME ...] [--json FILE] [--tiny]

Each peer paints two pictures in a process of its own, so that its peak of memory is its own; the peers take turns, and
medians are compared. All make equally many calls of the denoiser, whatever each counts as strength. The first picture
counts from the start of the process; the second, of another source, prompt and seed, is what a running program takes.
CPU seconds measure work, and suffer less from neighbours than seconds on the clock.

Peers that are no dependency of this project live in a throw-away environment, whose packages `--packages` names:

    python -m venv DIR && DIR/bin/pip install openvino-genai openvino-tokenizers stable-diffusion-cpp-python pillow

A peer that is not installed is skipped, with a line that says so. The weights are made once into `--folder` (8 GB).
`--tiny` runs all of it with hardly any weights; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import peer_files, peer_sides
from benchmarks.peer_sides import ELSEWHERE, PEERS, Work

Results = dict[str, list[dict[str, Any]]]
_ROOT = Path(__file__).resolve().parents[1]
_GENAI = "openvino-genai bf16"
_LIMIT = 7200.0  # seconds that one process may take
_USEFUL = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
# What is told of each peer, and in what.
COLUMNS = (
    ("whole", "cpu", "first picture"),
    ("picture", "cpu", "second picture"),
    ("call", "cpu", "a call"),
    ("before", "cpu", "before the calls"),
    ("after", "cpu", "decoding"),
    ("start", "cpu", "start"),
    ("start", "seconds", "start, on the clock"),
    ("picture", "seconds", "second picture, on the clock"),
    ("peak", "GiB", "peak GiB"),
)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    args = _arguments(argv)
    names = _present(args)
    if names:
        peer_files.make_for_all(args.folder, tiny=args.tiny)
    if _GENAI in names:
        _make_graphs(args.folder, args.packages)
    work = Work(str(args.folder), args.size, args.steps, args.calls, args.threads)
    found: Results = {name: [] for name in names}
    result = {"machine": machine(), "work": asdict(work), "peers": found}
    for _ in range(args.repeats):
        for name in list(found):
            one = run_side(name, work, _python(name, args.packages))
            if one is None:
                del found[name]
                continue
            found[name].append(one)
            print(f"{name}: {one['whole']['cpu']:.1f} and {one['picture']['cpu']:.1f} CPU seconds", flush=True)
            if args.json is not None:
                args.json.write_text(json.dumps(result, indent=1))
    print(report(result))
    return result


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "overpaint-peers")
    parser.add_argument("--packages", type=Path, help="a virtual environment with the peers that are installed by hand")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--calls", type=int, default=10, help="of the denoiser; with the steps, this is the strength")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", action="append", choices=tuple(PEERS), help="one of these alone; may be repeated")
    parser.add_argument("--json", type=Path, help="write the figures there, too, after each process")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    if args.tiny:
        vars(args).update({"size": 64, "steps": 4, "calls": 2, "threads": 1, "repeats": 1})
    if not 2 <= args.calls <= args.steps:
        parser.error(f"--calls {args.calls}: give 2 to {args.steps}, the steps")
    return args


def _present(args: argparse.Namespace) -> list[str]:
    """The peers that can be asked; of each that cannot, a line says why."""
    found = []
    for name in args.peer or PEERS:
        module = ELSEWHERE.get(name, name.split(maxsplit=1)[0])
        missing = _missing(module, _python(name, args.packages))
        if missing:
            print(f"{name}: skipped, {missing}", flush=True)
            continue
        found.append(name)
    return found


def _python(name: str, packages: Path | None) -> str:
    """Who runs a peer."""
    return str(packages / "bin" / "python") if name in ELSEWHERE and packages is not None else sys.executable


def _missing(module: str, python: str) -> str:
    looked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    try:
        done = subprocess.run([python, "-c", looked], check=False, capture_output=True, cwd=_ROOT, timeout=_LIMIT)
    except OSError as error:
        return f"{python} does not run ({error.strerror})"
    return f"{module} is not installed for {python}" if done.returncode else ""


def _make_graphs(folder: Path, packages: Path | None) -> None:
    """In a process of its own: the packages of the peer come before ours there."""
    environment = packages or Path(sys.prefix)
    (site,) = sorted(environment.glob("lib/python*/site-packages"))[:1]
    code = "import sys; from pathlib import Path; from benchmarks.peer_files import make_graphs; "
    code += "make_graphs(Path(sys.argv[1]), Path(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", code, str(folder), str(site)], check=True, cwd=_ROOT, timeout=_LIMIT)


def run_side(name: str, work: Work, python: str) -> dict[str, Any] | None:
    """A fresh process; its last line is the result. None, and a line, where it failed."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": str(work.threads)}
    command = [python, "-m", peer_sides.__name__, name, json.dumps(asdict(work))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=_ROOT, timeout=_LIMIT)
    if done.returncode:
        print(f"{name}: it failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}", flush=True)
        return None
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if result["calls"] != work.calls:
        raise SystemExit(f"{name} made {result['calls']} calls instead of {work.calls}; nothing can be compared")
    return result


def machine() -> str:
    """What it was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {key.strip(): value.strip() for key, value in told.items()}
    flags = known.get("flags", "").split()
    useful = [each for each in _USEFUL if each in flags]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    name = known.get("model name", platform.machine())
    return f"{name}, {os.cpu_count()} cores ({', '.join(useful)}); load when it began {load}"


def medians(result: dict[str, Any]) -> dict[str, dict[tuple[str, str], float]]:
    """Of each peer, its figures over the rounds."""
    return {
        name: {(part, unit): statistics.median(each[part][unit] for each in rounds) for part, unit, _ in COLUMNS}
        for name, rounds in result["peers"].items()
        if rounds
    }


def report(result: dict[str, Any]) -> str:
    """A table of CPU seconds, and one of what each takes beside diffusers in bfloat16."""
    work, found = result["work"], medians(result)
    lines = [
        f"{result['machine']}; {work['size']} px, {work['steps']} steps, {work['calls']} calls of two rows, "
        f"{work['threads']} threads; CPU seconds where nothing else is said",
        "",
    ]
    header = [title for _, _, title in COLUMNS]
    lines += _table(header, {name: [f"{value:.2f}" for value in each.values()] for name, each in found.items()})
    for base in ("diffusers bf16", _GENAI):
        if base in found:
            lines += ["", f"as a share of {base}:", ""]
            rows = {name: [_share(each[key], found[base][key]) for key in each] for name, each in found.items()}
            lines += _table(header, rows)
    return "\n".join(lines)


def _share(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base else "-"


def _table(header: Sequence[str], rows: dict[str, list[str]]) -> list[str]:
    lines = [f"| peer | {' | '.join(header)} |", "| --- |" + " --- |" * len(header)]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]


if __name__ == "__main__":
    main()
