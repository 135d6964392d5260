"""Engines on the recorded checkpoints, made once per session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from overpaint.engine import Engine
from overpaint.settings import Settings
from tests.checkpoints import OtherNumbersError, write_checkpoint


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """name -> path of a recorded checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def made(name: str) -> Path:
        try:
            return write_checkpoint(name, folder)
        except OtherNumbersError as error:
            pytest.skip(str(error))

    return made


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
