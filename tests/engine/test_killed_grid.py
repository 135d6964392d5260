"""kill -9 in the middle of a grid over two checkpoints, in the command: a small one, and 6x5 cells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine.conftest import scene
from tests.flow_toys import save
from tests.flux_toys import toy_flux
from tests.tiny import make_tiny_checkpoint

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Cells:
    """A grid, and the step that is not kept any more."""

    x: str
    y: str
    steps: int
    killed_at: int


SMALL = Cells("cfg_scale=1-3", "strength=0.4-0.8 [2]", 12, 9)
LARGE = Cells("cfg_scale=1-6", "strength=0.4-0.8 [5]", 60, 38)


def run(folder: Path, cells: Cells, kill_at: int, out: str) -> subprocess.CompletedProcess[str]:
    line = ["grid", "cat.png", "a cat", "--models", "models", "--model", "one", "--seed", "3", "--steps", "1"]
    line += ["--sampler", "Euler", "--device", "cpu", "--x", cells.x, "--y", cells.y]
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


@pytest.mark.parametrize(
    ("make", "cells"),
    [
        (two_of_stable_diffusion, SMALL),
        pytest.param(two_of_stable_diffusion, LARGE, marks=pytest.mark.long),
        pytest.param(two_of_flux, LARGE, marks=pytest.mark.long),
    ],
    ids=["small", "large", "flux"],
)
def test_in_the_command(make: Callable[[Path], None], cells: Cells, tmp_path: Path) -> None:
    before = cells.killed_at - 1
    make(tmp_path / "models")
    scene().save(tmp_path / "cat.png")
    killed = run(tmp_path, cells, cells.killed_at, "cut")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = sorted((tmp_path / "cut").glob("cell-*.png"))
    assert len(kept) == before > cells.steps / 2  # the second checkpoint has begun
    marks = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept}
    assert not (tmp_path / "cut/grid.png").exists()
    again, whole = run(tmp_path, cells, 0, "cut"), run(tmp_path, cells, 0, "whole")
    assert (again.returncode, whole.returncode) == (0, 0), again.stderr
    assert f"{before} of {cells.steps} steps were painted before" in again.stderr
    for name, mark in marks.items():  # nothing that was finished was painted again
        stat = (tmp_path / "cut" / name).stat()
        assert (stat.st_ino, stat.st_mtime_ns) == mark
    files = [{path.name: path.read_bytes() for path in (tmp_path / out).glob("*.png")} for out in ("cut", "whole")]
    assert len(files[0]) == cells.steps + 1
    assert files[0] == files[1]
