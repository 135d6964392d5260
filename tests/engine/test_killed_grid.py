"""kill -9 in the middle of a 6x5 grid over two checkpoints, in the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import scene
from tests.flow_toys import save
from tests.flux_toys import toy_flux
from tests.tiny import make_tiny_checkpoint

pytestmark = pytest.mark.timeout(300)


def run(folder: Path, kill_at: int, out: str) -> subprocess.CompletedProcess[str]:
    line = ["grid", "cat.png", "a cat", "--models", "models", "--model", "one", "--seed", "3", "--steps", "1"]
    line += ["--sampler", "Euler", "--device", "cpu", "--x", "cfg_scale=1-6", "--y", "strength=0.4-0.8 [5]"]
    line += ["--z", "checkpoint=one,two", "-o", out]
    command = [sys.executable, "-m", "tests.engine.killed_grid", str(kill_at), *line]
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def two_of_stable_diffusion(folder: Path) -> None:
    folder.mkdir()
    for seed, name in enumerate(("one", "two")):
        make_tiny_checkpoint(folder / f"{name}.safetensors", seed=seed)


def two_of_flux(folder: Path) -> None:
    toy = toy_flux(folder)
    save({name: each * 1.1 for name, each in toy.transformer.items()}, folder / "two.safetensors")
    toy.path.rename(folder / "one.safetensors")


@pytest.mark.parametrize("make", [two_of_stable_diffusion, pytest.param(two_of_flux, marks=pytest.mark.long)])
def test_in_the_command(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "models")
    scene().save(tmp_path / "cat.png")
    killed = run(tmp_path, 38, "cut")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = sorted((tmp_path / "cut").glob("cell-*.png"))
    assert len(kept) == 37
    marks = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}
    assert not (tmp_path / "cut/grid.png").exists()
    again, whole = run(tmp_path, 0, "cut"), run(tmp_path, 0, "whole")
    assert (again.returncode, whole.returncode) == (0, 0), again.stderr
    assert "37 of 60 steps were painted before" in again.stderr
    for name, mark in marks.items():  # nothing that was finished was painted again
        stat = (tmp_path / "cut" / name).stat()
        assert (stat.st_ino, stat.st_mtime_ns) == mark
    files = [{path.name: path.read_bytes() for path in (tmp_path / out).glob("*.png")} for out in ("cut", "whole")]
    assert len(files[0]) == 61
    assert files[0] == files[1]
