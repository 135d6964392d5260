"""Engines on the recorded checkpoints, unpacked once per session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from overpaint.engine import Engine
from overpaint.settings import Settings


@pytest.fixture(scope="session")
def checkpoints(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """name -> path of a recorded checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def unpacked(name: str) -> Path:
        subprocess.run([sys.executable, str(parity / "unpack.py"), str(folder), name], check=True, capture_output=True)
        return folder / f"{name}.safetensors"

    return unpacked


@pytest.fixture(scope="session")
def engines(checkpoints: Callable[[str], Path]) -> Iterator[Callable[[str], Engine]]:
    """name -> engine in the reference's precision."""
    made: dict[str, Engine] = {}

    def engine(name: str) -> Engine:
        if name not in made:
            made[name] = Engine(checkpoints(name), device="cpu", dtype="float32", settings=Settings.reference())
        return made[name]

    yield engine
    for each in made.values():
        each.close()
